"""LitServe's server with our worker, queue and signals.

SIGTERM or Ctrl-C ends the main process, and the main process ends all others.

LitServe takes KeyboardInterrupt in its main process for the wish to end, and forgets processes when
that comes while it starts them. Python drops an exception that a signal handler raises within a
callback of ``os.fork``, and the wish would be lost. So signals are held while processes start.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import litserve.server

from asr.service.litserve.queue import Commands, register
from asr.service.litserve.spec import TranscriptionSpec
from asr.service.litserve.worker import TranscriptionAPI
from asr.service.observability.logs import adopt_loggers
from asr.workers.template import die_with_parent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextlib import AbstractAsyncContextManager

    from fastapi import FastAPI

    from asr.service.litserve.worker import EngineMaker
    from asr.settings import Settings

WATCH_SECONDS = 0.5
"""Between two looks at whether the worker lives."""


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

    def __init__(
        self,
        api: TranscriptionAPI,
        spec: TranscriptionSpec,
        settings: Settings,
        interrupts: Interrupts,
    ) -> None:
        # The engine chooses its own device; requests wait as long as they must.
        super().__init__(api, accelerator="cpu", timeout=False, restart_workers=True)
        self.uvicorn_graceful_timeout = settings.shutdown_grace + 2
        self.monitor_internal = WATCH_SECONDS
        self.submit = spec.submit
        self._settings = settings
        self._interrupts = interrupts
        # LitServe's own routes stay out; its documentation of the routes is kept.
        kept = ("/docs", "/openapi.json", "/docs/oauth2-redirect", "/redoc")
        routes = self.app.router.routes
        routes[:] = [route for route in routes if getattr(route, "path", None) in kept]

    def wrap_lifespan(self, ours: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Run a context inside LitServe's own, in the API process."""
        inner = self.app.router.lifespan_context

        @contextlib.asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
            async with inner(app):
                async with ours():
                    yield
                # LitServe's thread waits up to a second for reports, and no more will come.
                self._transport.close(send_sentinel=True)

        self.app.router.lifespan_context = lifespan

    def serve(self, **uvicorn_options: Any) -> None:
        """Start all processes, and return when they have ended."""
        # Loaded objects are never collected: their pages stay shared with forked processes, and no
        # collection walks them, not even the one at the end.
        gc.freeze()
        if self._settings.log_format == "json":
            uvicorn_options["log_config"] = None
        self.run(
            host=self._settings.host,
            port=self._settings.port,
            log_level=self._settings.log_level,
            num_api_servers=1,
            generate_client_file=False,
            access_log=False,
            server_header=False,
            **uvicorn_options,
        )

    def _init_manager(self, *args: Any, **kwargs: Any) -> Any:
        adopt_loggers(self._settings.log_format)  # `run` has just set up LitServe's own
        register()
        with self._interrupts.held():
            manager = super()._init_manager(*args, **kwargs)
        for path in self.litapi_request_queues:
            self.litapi_request_queues[path] = Commands(manager.CommandQueue())
        # LitServe's lives in the manager, which may end before the thread that looks at it does.
        self._shutdown_event = threading.Event()
        return manager

    def launch_inference_worker(self, *args: Any, **kwargs: Any) -> Any:
        """Start a process with the engine."""
        with self._interrupts.held():
            return super().launch_inference_worker(*args, **kwargs)

    def launch_single_inference_worker(self, lit_api: litserve.LitAPI, worker_id: int) -> Any:
        """Start it again after its death, and hand it what the dead one had not received."""
        queues, path = self.litapi_request_queues, lit_api.api_path
        queues[path] = queues[path].renewed()
        return super().launch_single_inference_worker(lit_api, worker_id)

    def _start_server(self, *args: Any, **kwargs: Any) -> Any:
        with self._interrupts.held():
            return super()._start_server(*args, **kwargs)

    def _perform_graceful_shutdown(self, *args: Any, **kwargs: Any) -> None:
        self._shutdown_event.set()  # or it would start the workers again that are now ended
        super()._perform_graceful_shutdown(*args, **kwargs)


def make_server(settings: Settings, make_engine: EngineMaker, interrupts: Interrupts) -> Server:
    """LitServe's server with one worker and without routes; not yet running."""
    # A package `mcp` without `fastmcp`, which vLLM brings, would end LitServe at its start.
    litserve.server._MCP_AVAILABLE = False
    spec = TranscriptionSpec(settings.worker_timeout)
    return Server(TranscriptionAPI(settings, spec, make_engine), spec, settings, interrupts)


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
