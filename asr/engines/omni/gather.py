"""A scheduler for vLLM under which chunks begin together.

A step of vLLM's engine in which a chunk begins (encoder, prefill) costs far more than one that only
writes words on, and little more for several chunks than for one. vLLM lets a chunk begin as soon as
it has come; on an H200 under load the costly steps, one in ten, took more than half of the time.
Here chunks wait a few steps for one another (benchmarks/gpu/README.md says what that brings):

    vllm serve MODEL --scheduler-cls asr.engines.omni.gather.GatheringScheduler

This file needs nothing of this package, so that it can be copied beside a vLLM that lacks it. It
changes when a chunk begins and nothing else; no answer depends on it.
"""

from __future__ import annotations

from typing import Any, Final

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

SHARE: Final = 0.4
"""Chunks begin when as many can as this share of those that are being written."""
PATIENCE: Final = 32
"""Steps that the longest waiting chunk waits at most: about a third of an answer."""


class GatheringScheduler(AsyncScheduler):  # type: ignore[misc] # vLLM is not always here
    """vLLM's own scheduler, which on most steps sees no room for another request.

    A chunk that comes while nothing is being written begins at once, so one alone loses no time.
    """

    share: float = SHARE
    patience: int = PATIENCE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # newer versions tell how many may run from how many they have room for
        name = "max_num_active_reqs"
        self._limit = name if hasattr(self, name) else "max_num_running_reqs"
        self._n_held = 0

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One step; with no new chunk in it while too few can begin."""
        n_running, n_waiting = self.get_request_counts()
        limit = getattr(self, self._limit)
        n_new = min(n_waiting, limit - n_running)
        if not n_new or n_new >= self.share * n_running or self._n_held >= self.patience:
            self._n_held = 0
            return super().schedule(*args, **kwargs)
        self._n_held += 1
        setattr(self, self._limit, n_running)
        try:
            return super().schedule(*args, **kwargs)
        finally:
            setattr(self, self._limit, limit)
