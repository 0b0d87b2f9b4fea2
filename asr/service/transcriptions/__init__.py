"""OpenAI's transcription routes, and ``/v1/align``.

Read in this order:

    routes     the HTTP routes
    service    `Service`: takes one request from its body to its answer
    form       the fields of a request, checked
    gather     the fields by name
    decoding   what the user tells the engine, from the fields
    unused     warnings about fields that have no effect
    sources    finds the recording: in the body, or in an upload, complete or still growing
    sharing    lets a retried request join the work of the first attempt
    events     the events of a streamed answer
    bodies     the bodies of requests and answers, for OpenAPI and the JSON Schema

Nothing here knows LitServe, jobs or the database.
"""
