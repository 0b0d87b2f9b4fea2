"""Child processes with limits on CPU time and memory, forked from a process that loaded the models.

- `pool`: the parent's side, on asyncio. It starts jobs, exchanges messages and kills children.
- `template`: the process that loads once and forks a child for each job, and the child's side.

The package knows nothing of audio or speech. A job is named ``module:function``.
"""
