"""Archives: transcribe many recordings on one machine or on a Ray cluster.

In reading order: `run` is the driver and decides what is still to do, `signals` ends it in order,
`sources` lists the recordings and `lists` reads their lists, `identity` names a recording by its
content and its settings, `store` writes files so that they are complete or absent, `results` knows
which names exist in the output folder, `item` is one recording and `campaign` the state of all,
`tasks` defines what travels to the workers, `worker` does one task, `fetch` brings a recording to a
worker, `pieces` splits long recordings, `stall` ends processes that hang, `faults` decides what is
tried again, `alone` runs a task that may kill its process, `manifest`, `records` and `progress`
report. `cluster` is the only module that imports Ray.

Each task may run more than once, because Ray repeats the tasks of a dead actor. Each result exists
only once, because its name is made from the content of the recording and the settings.
"""
