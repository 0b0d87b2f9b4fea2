"""Known voices: stored ones, their routes, and the references of a request.

- `store`: the voices of each key, as files.
- `known`: the voices that a request names.
- `routes`: ``/v1/speakers``.
"""
