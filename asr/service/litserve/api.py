"""The `Worker` as LitServe runs it: one process with one event loop."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

import litserve

from asr.service.litserve.worker import Worker
from asr.service.observability.logs import adopt_loggers, configure_logging
from asr.service.observability.telemetry import set_up as set_up_telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from litserve.specs.base import LitSpec

    from asr.service.litserve.messages import Command, Report
    from asr.service.litserve.worker import EngineMaker
    from asr.settings import Settings

_PR_SET_PDEATHSIG = 1


class TranscriptionAPI(litserve.LitAPI):  # type: ignore[misc]  # litserve has no types
    """Passes commands from LitServe's queue to a `Worker`.

    Args:
        settings: the settings of the service.
        spec: the other end of the queue, in the API process.
        make_engine: called in the worker process.
    """

    def __init__(self, settings: Settings, spec: LitSpec, make_engine: EngineMaker) -> None:
        super().__init__(spec=spec, enable_async=True)
        self._main_process = os.getpid()
        self._settings = settings
        self._make_engine = make_engine
        self.n_died = 0
        """How many workers died before the next one starts."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe's signature
        """Prepare the process. The engine loads later, in the event loop."""
        configure_logging(self._settings.log_level, self._settings.log_format)
        adopt_loggers(self._settings.log_format)
        set_up_telemetry()
        self._worker = Worker(self._settings, self._make_engine, self.n_died)
        _end_with_main_process(self._main_process)

    async def decode_request(self, request: Command) -> Command:
        """Return the command unchanged: it is no HTTP request."""
        return request

    async def encode_response(self, output: AsyncIterator[Report]) -> AsyncGenerator[Report]:
        """Yield the reports unchanged: the API process encodes them."""
        async for report in output:
            yield report

    async def predict(self, command: Command) -> AsyncGenerator[Report]:
        """Carry out one command."""
        async with contextlib.aclosing(self._worker.carry_out(command)) as reports:
            async for report in reports:
                yield report


def _end_with_main_process(main_process: int) -> None:
    """Ignore Ctrl-C, and end when the main process ends.

    Ctrl-C reaches every process of the group. The main process ends this one after the requests in
    flight are answered. If the main process is killed, the kernel sends SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != main_process:  # it ended before prctl took effect
        sys.exit("the main process is gone")
