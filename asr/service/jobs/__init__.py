"""Jobs: recordings of any length that are accepted once and transcribed in the background.

A job is a row in the database and a recording on disk. Everything that must outlive a process is in
these two places. So a job survives the death of any process, and several API processes on several
servers may share the database and the folder of recordings.

Modules in reading order:

    troubles.py    what is wrong with a database, in words that help
    tables.py      the tables, their version, their creation
    rows.py        rows as values: `Job`, `NewJob`, `Callback`
    database.py    SQLite or Postgres: connections, transactions, one error if unavailable
    store.py       `JobStore`: jobs as their owners see them
    callbacks.py   `CallbackQueue`: the callbacks that are due
    leases.py      `Leases`: jobs as the runners see them
    key_usage.py   what all servers count for the limits of keys
    recordings.py  the folder of recordings
    request.py     `JobRequest`: the options of a job
    attempt.py     one attempt at one job: writes results to the database as they arrive
    runner.py      `JobRunner`: claims jobs and has the worker transcribe them
    watch.py       one poll of the database answers all clients that follow jobs
    addresses.py   which addresses callbacks may go to
    webhooks.py    `Webhooks`: signed callbacks when a job ends
    creation.py    turns a POST into a job
    service.py     `Jobs`: the parts above in one API process
    schemas.py     the response bodies
    documents.py   the transcript as a file
    stream.py      the events of a job as server-sent events
    routes.py      the HTTP routes

The modules up to `webhooks` know nothing of HTTP routes. The package does not know how audio is
transcribed: it sends commands to the worker.
"""
