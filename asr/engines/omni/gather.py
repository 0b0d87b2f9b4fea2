"""A scheduler for vLLM that starts chunks together.

When a chunk starts, vLLM's engine runs the encoder and the prefill. A step with a start costs far
more than a decoding step, but starting several chunks in it costs little more than starting one.
vLLM starts each chunk as soon as it arrives. On an H200 under load, one step in ten had a start,
and these steps took more than half of the time. With this scheduler chunks wait a few steps for
each other (benchmarks/gpu/README.md has the gain):

    vllm serve MODEL --scheduler-cls asr.engines.omni.gather.GatheringScheduler

This file imports nothing of this package, so it can be copied to a vLLM server without the package.
It changes only when a chunk starts, never an answer.
"""

from __future__ import annotations

from typing import Any, Final

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

SHARE: Final = 0.4
"""Chunks start when the number that can start reaches this share of the running chunks."""
PATIENCE: Final = 32
"""The largest number of steps in a row in which chunks wait although there is room for them. It is
about a third of the steps of an answer."""


class GatheringScheduler(AsyncScheduler):  # type: ignore[misc] # vLLM is not always here
    """vLLM's scheduler, with a lower limit on running requests while chunks wait for each other.

    A chunk that arrives while nothing runs starts at once, so a single chunk loses no time.
    """

    share: float = SHARE
    patience: int = PATIENCE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # In newer versions max_num_running_reqs is the number of slots of the model runner, and
        # max_num_active_reqs limits how many requests may run. Older versions use one for both.
        name = "max_num_active_reqs"
        self._limit = name if hasattr(self, name) else "max_num_running_reqs"
        self._n_held = 0

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Plan one step, without new chunks while too few can start."""
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
