"""Logs, metrics and traces, in both processes.

Read in this order:

    logs         log lines as text or JSON, with the id of the request
    metrics      the Prometheus metrics of the API process and of the worker
    monitoring   the route ``/metrics``
    telemetry    OpenTelemetry traces

Nothing here knows other routes, LitServe or the database.
"""
