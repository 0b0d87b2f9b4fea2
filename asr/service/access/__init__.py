"""Who may use the service, and how much.

Read in this order:

    keys            API keys with names, scopes and limits
    client_secrets  ephemeral keys that open live sessions, for browsers
    limits          counts the usage of each key and refuses what exceeds its limits
    shared          limits that hold for all servers of one database
    admission       limits the requests of all keys together: those in progress and those that wait

Nothing here knows HTTP statuses, routes or the worker.
"""
