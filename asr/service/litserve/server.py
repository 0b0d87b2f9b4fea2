"""SIGTERM and Ctrl-C: one of them ends the main process, and the main process ends all others.

LitServe takes KeyboardInterrupt in its main process for the wish to end, and forgets processes when
that comes while it starts them. Python drops an exception that a signal handler raises within a
callback of ``os.fork``, and the wish would be lost. So signals are held while processes start.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import litserve

from asr.service.litserve.queue import Commands, register
from asr.service.observability.logs import adopt_loggers
from asr.workers.template import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Generator


class Interrupts:
    """Turns signals into KeyboardInterrupt, in this process and in none that it forks."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._held = False
        self._arrived = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        if os.getpid() != self._process:
            return  # forked, and uvicorn's handlers are not there yet, or no longer
        if not self._held:
            raise KeyboardInterrupt
        self._arrived = True

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Let a signal that comes in this block take effect behind it.

        Processes started here never see Ctrl-C, which a terminal sends to all of them.
        """
        self._held = True
        resource_tracker.ensure_running()  # its start would unblock the signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            self._held = False
        if self._arrived:
            raise KeyboardInterrupt


class Server(litserve.LitServer):  # type: ignore[misc]  # litserve has no types
    """LitServe's server, not interrupted while it starts a process, with our queue of commands."""

    interrupts: Interrupts | None = None
    log_format = "text"

    def _held(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.interrupts is None else self.interrupts.held()

    def _init_manager(self, *args: Any, **kwargs: Any) -> Any:
        adopt_loggers(self.log_format)  # `run` has just set up LitServe's own
        register()
        with self._held():
            manager = super()._init_manager(*args, **kwargs)
        for path in self.litapi_request_queues:
            self.litapi_request_queues[path] = Commands(manager.CommandQueue())
        # LitServe's lives in the manager, which may end before the thread that looks at it does.
        self._shutdown_event = threading.Event()
        return manager

    def launch_inference_worker(self, *args: Any, **kwargs: Any) -> Any:
        """Start a process with the engine."""
        with self._held():
            return super().launch_inference_worker(*args, **kwargs)

    def launch_single_inference_worker(self, lit_api: litserve.LitAPI, worker_id: int) -> Any:
        """Start it again after its death, and hand it what the dead one had not received."""
        queues, path = self.litapi_request_queues, lit_api.api_path
        queues[path] = queues[path].renewed()
        return super().launch_single_inference_worker(lit_api, worker_id)

    def _start_server(self, *args: Any, **kwargs: Any) -> Any:
        with self._held():
            return super()._start_server(*args, **kwargs)

    def _perform_graceful_shutdown(self, *args: Any, **kwargs: Any) -> None:
        self._shutdown_event.set()  # or it would start the workers again that are now ended
        super()._perform_graceful_shutdown(*args, **kwargs)


def bind_children() -> None:
    """Make every process that this one forks end with it, even when it is killed.

    LitServe's manager and API process are forked by default up to Python 3.13, and must be, to be
    reached here. The worker is not, and sees to it itself.
    """
    multiprocessing.set_start_method("fork", force=True)
    os.register_at_fork(after_in_child=die_with_parent)


@contextlib.contextmanager
def children_ended() -> Generator[None]:
    """Kill what LitServe left: multiprocessing would wait for it for ever when we exit."""
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        while children := multiprocessing.active_children():
            for child in children:
                child.kill()
                child.join()
