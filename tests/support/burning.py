"""Jobs that never end, in place of the real ones.

How much CPU time real work needs depends on the machine, so no test of a limit relies on it.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace


def burn(pool, monkeypatch):
    """Let the children of a pool burn CPU time until a limit of 1 s ends them.

    Returns the limits that the jobs asked for.
    """
    real, asked = pool.job, []

    @contextlib.asynccontextmanager
    async def job(function, request, payload, limits):
        asked.append(limits)
        limits = replace(limits, cpu_seconds=1)
        async with real("tests.support.child_jobs:burn", request, payload, limits) as running:
            yield running

    monkeypatch.setattr(pool, "job", job)
    return asked
