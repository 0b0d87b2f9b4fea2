"""Connects the API process with the worker process, by LitServe.

Read in this order:

    messages   commands to the worker and reports from it; only paths, options and results
    client     `WorkerClient`: the worker as routes and jobs see it
    worker     `Worker`: carries out commands with one engine
    api        runs the `Worker` inside LitServe's worker process
    spec       sends commands from the API process and receives the reports
    queue      the queue of commands, which loses none when a worker dies
    watch      starts dead processes again, or ends the service with an error
    server     LitServe's server with these parts, and its signals

Only `api`, `spec` and `server` import LitServe. Nothing here knows HTTP, jobs or the database.
"""
