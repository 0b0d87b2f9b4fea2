"""HTTP below the routes.

Read in this order:

    problems      `Problem` and the one table from errors to HTTP statuses
    body          receives request bodies and writes them to disk
    multipart     the parser of multipart forms
    fields        the parsers of urlencoded and JSON forms
    disconnect    stops work when its client leaves
    sse           server-sent events
    middleware    request ids, the log line of each request, API keys
    connections   uvicorn's connections with limits for slow clients

Nothing here knows routes, transcripts or the worker.
"""
