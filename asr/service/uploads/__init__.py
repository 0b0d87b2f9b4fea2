"""Resumable uploads by the protocol tus 1.0 (https://tus.io).

Modules in reading order:

    files.py    the three files of one upload, and the lock on it
    parts.py    how the bytes of one PATCH are written, with or without a checksum
    usage.py    how much of its quota an owner uses, in a small file
    writer.py   writes to one locked upload
    sweep.py    removes what has expired
    store.py    `Uploads`: create, read, expire; owners and quotas
    receive.py  writes the body of a request to an upload
    headers.py  reads and checks the headers of tus
    routes.py   the methods of tus over HTTP

The modules up to `store` do not use the HTTP framework. They raise the exceptions of `asr.errors`
and `asr.service.errors`. The package does not depend on transcription: other packages read finished
or growing uploads through `Uploads`.
"""
