"""HTTP below the routes.

Read in this order:

    problems      `Problem` and the one table from errors to HTTP statuses
    body          receives request bodies and writes them to disk
    multipart     the parser of multipart forms
    fields        the parsers of urlencoded and JSON forms
    disconnect    stops work when its client leaves
    sse           server-sent events
    middleware    request ids, the log line of each request, API keys
    draining      answers requests for a while before the server ends
    connections   uvicorn's HTTP connections, with limits for each phase
    sockets       uvicorn's WebSockets, with limits for each phase
    slices        shares the event loop between connections that have much to parse
    budget        the memory for large messages of all WebSockets

Nothing here knows routes, transcripts or the worker.
"""
