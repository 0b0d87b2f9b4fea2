"""Jobs with one answer, repeated when somebody kills the child or the template process."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any, Final

from asr.errors import WorkerDied
from asr.workers.pool import ProcessLimits

if TYPE_CHECKING:
    from asr.workers.pool import ProcessPool

logger = logging.getLogger(__name__)

KILLS: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
"""Signals by which somebody ends a process, or the kernel when memory runs out."""
TRIES: Final = 3
PAUSE_SECONDS: Final = 0.2
"""Pause before the second try. It doubles before each further one."""
_NO_LIMITS: Final = ProcessLimits()


async def call(
    pool: ProcessPool,
    function: str,
    request: dict[str, Any],
    payload: bytes,
    limits: ProcessLimits = _NO_LIMITS,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Run ``module:function`` in a child and return its answer.

    The job must have no effect but its answer. If the child is killed from outside, the job runs
    again, at most `TRIES` times in all.

    Args:
        pool: the children.
        function: the job.
        request: its request.
        payload: sent with the request.
        limits: of each child.
        seconds: until a child must have answered, or None.

    Raises:
        TimeoutError: a child did not answer in time.
        WorkerDied: the child died by itself, or it was killed in each try.
    """
    for tried in range(1, TRIES + 1):
        try:
            async with pool.job(function, request, payload, limits) as job:
                async with asyncio.timeout(seconds):
                    return await job.result()
        except WorkerDied as error:
            if error.signal not in KILLS or tried == TRIES or pool.closed:
                raise
            logger.warning("%s, try %d: %s", function, tried, error)
            await asyncio.sleep(PAUSE_SECONDS * 2 ** (tried - 1))
    raise AssertionError("the last try returns or raises")
