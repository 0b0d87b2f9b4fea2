"""Jobs: recordings of any length, accepted once and transcribed whatever dies meanwhile.

    POST -> creation.py -> store.py <- runner.py -> worker
            routes.py, watch.py <- stream.py, documents.py read the store; webhooks.py tells

Everything that a job is lies in the database and its recording on disk. No process holds anything
of it that another could not take up: several API processes and several servers may share both.
"""
