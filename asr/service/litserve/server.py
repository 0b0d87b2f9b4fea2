"""LitServe's server with our worker, our queue and our handling of signals.

SIGTERM or Ctrl-C ends the main process, and the main process ends all others.

LitServe ends on KeyboardInterrupt in its main process. If the exception comes while LitServe starts
a process, that process is never ended, so signals are held back meanwhile. If it comes inside a
finalizer or a callback of ``os.fork``, Python drops it, so it is raised again until the end begins.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import sys
import time
from functools import partial
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import litserve.server
from litserve.transport.factory import create_transport_from_config
from litserve.utils import WorkerSetupStatus

from asr.service.litserve.api import TranscriptionAPI
from asr.service.litserve.queue import Commands, register
from asr.service.litserve.spec import TranscriptionSpec
from asr.service.litserve.watch import WATCH_SECONDS, ProcessLost, ProcessWatch
from asr.service.observability.logs import adopt_loggers
from asr.workers.template import die_with_parent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextlib import AbstractAsyncContextManager
    from multiprocessing.process import BaseProcess
    from socket import socket

    from fastapi import FastAPI

    from asr.service.litserve.worker import EngineMaker
    from asr.settings import Settings

logger = logging.getLogger(__name__)

START_POLL_SECONDS = 0.05
LOST_GRACE_SECONDS = 3.0
"""How long the API process may take to end without the manager. It returns its jobs meanwhile."""
DRAIN_SIGNAL = signal.SIGUSR1
"""The main process tells the API process with it that the service is about to end."""
DRAIN_POLL_SECONDS = 0.5
REPEAT_SECONDS = 0.5
"""An interrupt that Python dropped is raised again after this."""


class Interrupts:
    """Turns SIGTERM and SIGINT into KeyboardInterrupt in this process, not in its forks."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._held = False
        self._arrived = False
        self._is_ending = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        if os.getpid() != self._process:
            return  # in a fork without its own handlers, such as uvicorn's while it starts or ends
        self._arrived = True
        if not self._held:
            self._interrupt()

    def _interrupt(self) -> None:
        if not self._is_ending:
            signal.setitimer(signal.ITIMER_REAL, REPEAT_SECONDS)
        raise KeyboardInterrupt

    def ending(self) -> None:
        """Stop raising: the interrupt has reached the code that ends the processes."""
        self._is_ending = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Hold signals back until the end of the block.

        Processes that start in the block never see Ctrl-C, which a terminal sends to all processes.
        """
        self._held = True
        resource_tracker.ensure_running()  # starting it later would unblock SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            self._held = False
        if self._arrived:
            self._interrupt()


class Server(litserve.LitServer):  # type: ignore[misc]  # litserve has no types
    """LitServe's server with our queue of commands. No signal interrupts the start of a process."""

    def __init__(
        self,
        api: TranscriptionAPI,
        spec: TranscriptionSpec,
        settings: Settings,
        interrupts: Interrupts,
    ) -> None:
        # The engine chooses its own device. A request may wait without a time limit.
        super().__init__(api, accelerator="cpu", timeout=False, restart_workers=True)
        self.uvicorn_graceful_timeout = settings.shutdown_grace + 2
        self.monitor_internal = WATCH_SECONDS
        self.submit = spec.submit
        self._settings = settings
        self._interrupts = interrupts
        self._apis: dict[int, BaseProcess] = {}
        self._sockets: list[socket] = []
        # Drop LitServe's own routes, but keep the pages that document all routes.
        kept = ("/docs", "/openapi.json", "/docs/oauth2-redirect", "/redoc")
        routes = self.app.router.routes
        routes[:] = [route for route in routes if getattr(route, "path", None) in kept]

    def mount(
        self,
        install: Callable[[FastAPI], None],
        running: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """Add an application to the API process.

        Args:
            install: adds its routes and middleware.
            running: its lifespan, which runs inside LitServe's own.
        """
        install(self.app)
        inner = self.app.router.lifespan_context

        @contextlib.asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
            async with inner(app):
                async with running():
                    yield
                # No more reports will come. Without this, LitServe's thread waits for them for up
                # to a second.
                self._transport.close(send_sentinel=True)

        self.app.router.lifespan_context = lifespan

    def serve(self, **uvicorn_options: Any) -> None:
        """Start all processes and return after they have ended.

        Raises:
            SystemExit: a process died that cannot be replaced; all others have been ended.
        """
        # Exclude loaded objects from garbage collection: their pages stay shared with forked
        # processes, and no collection walks them, not even the one at exit.
        gc.freeze()
        if self._settings.log_format == "json":
            uvicorn_options["log_config"] = None
        # The manager starts before there is a listening socket, so it does not inherit it. A socket
        # that a process keeps open accepts connections that nobody answers.
        register()
        with self._interrupts.held():
            self._manager: Any = multiprocessing.Manager()
        try:
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
        except (ProcessLost, EOFError, ConnectionError) as error:  # the manager's end breaks pipes
            logger.critical("the service ends: %s", str(error) or "the manager process died")
            sys.exit(1)

    def _init_manager(self, num_api_servers: int) -> Any:
        """Do what LitServe does, with our manager, our queue and our event.

        LitServe's event lives in the manager, which may end before the thread that reads it.
        """
        adopt_loggers(self._settings.log_format)  # LitServe's `run` has just added its handlers
        self.transport_config.manager = self._manager
        self.transport_config.num_consumers = num_api_servers
        self.workers_setup_status = self._manager.dict()
        for api in self.litapi_connector:
            self.litapi_request_queues[api.api_path] = Commands(self._manager.CommandQueue())
        self._transport = create_transport_from_config(self.transport_config)
        process = self._manager._process
        self._shutdown_event = ProcessWatch(
            process, self._apis, lambda: self.inference_workers, self._restart_api
        )
        return self._manager

    def verify_worker_status(self) -> None:
        """Wait until the worker is ready.

        Raises:
            ProcessLost: it died.
        """
        while WorkerSetupStatus.READY not in (states := self.workers_setup_status.values()):
            if WorkerSetupStatus.ERROR in states or not self.inference_workers[0].is_alive():
                raise ProcessLost("the recogniser process died while it started")
            time.sleep(START_POLL_SECONDS)

    def launch_inference_worker(self, *args: Any, **kwargs: Any) -> Any:
        """Start the worker process."""
        with self._interrupts.held():
            return super().launch_inference_worker(*args, **kwargs)

    def launch_single_inference_worker(self, lit_api: litserve.LitAPI, worker_id: int) -> Any:
        """Replace a dead worker. The new one gets the commands that the old one did not receive."""
        queues, path = self.litapi_request_queues, lit_api.api_path
        queues[path] = queues[path].renewed()
        lit_api.n_died += 1
        try:
            return super().launch_single_inference_worker(lit_api, worker_id)
        except OSError as error:  # no memory or no descriptors now; LitServe tries again soon
            logger.error("no recogniser process can be started: %s", error)  # noqa: TRY400
            return self.inference_workers[worker_id]

    def _start_server(
        self, port: int, n: int, log_level: str, sockets: list[socket], kind: str, **kwargs: Any
    ) -> dict[int, BaseProcess]:
        self._sockets = sockets
        start = super()._start_server
        self._start_api = partial(start, port, n, log_level, sockets, kind, **kwargs)
        with self._interrupts.held():
            self._apis |= self._start_api()
        return self._apis

    def _restart_api(self) -> BaseProcess:
        with self._interrupts.held():
            api: BaseProcess = self._start_api()[0]
            return api

    def _perform_graceful_shutdown(self, *args: Any, **kwargs: Any) -> None:
        self._interrupts.ending()
        self._drain()
        self._shutdown_event.set()  # or LitServe would replace the workers it is ending
        if not self._manager._process.is_alive():  # no request in work can be answered any more
            self.uvicorn_graceful_timeout = LOST_GRACE_SECONDS
        for listener in self._sockets:  # the API process closes its own, and clients are refused
            listener.close()
        super()._perform_graceful_shutdown(*args, **kwargs)

    def _drain(self) -> None:
        """Answer requests for a while, so that proxies can choose other servers meanwhile.

        It ends early at a second signal, and when the manager is dead: no request can be answered.
        """
        end = time.monotonic() + self._settings.drain_seconds
        with contextlib.suppress(KeyboardInterrupt):
            while (left := end - time.monotonic()) > 0 and self._manager._process.is_alive():
                for api in self._apis.values():  # again and again: one may have been restarted
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(api.pid or 0, DRAIN_SIGNAL)
                time.sleep(min(left, DRAIN_POLL_SECONDS))


def make_server(settings: Settings, make_engine: EngineMaker, interrupts: Interrupts) -> Server:
    """A server with one worker process and no routes. `Server.serve` starts it."""
    # vLLM installs `mcp` without `fastmcp`, and LitServe would fail at its start.
    litserve.server._MCP_AVAILABLE = False
    spec = TranscriptionSpec(settings.worker_timeout)
    return Server(TranscriptionAPI(settings, spec, make_engine), spec, settings, interrupts)


def bind_children() -> None:
    """Make every process that this one forks end with it, even when this one is killed.

    This works for LitServe's manager and API process, which must be forked. Forking is the default
    before Python 3.14. The worker process is spawned, so `TranscriptionAPI.setup` does this there.
    """
    multiprocessing.set_start_method("fork", force=True)
    parent = [os.getpid()]

    def remember() -> None:
        parent[0] = os.getpid()

    os.register_at_fork(before=remember, after_in_child=lambda: die_with_parent(parent[0]))


@contextlib.contextmanager
def children_ended(interrupts: Interrupts) -> Generator[None]:
    """Kill the processes that LitServe left, or multiprocessing would wait for them for ever."""
    try:
        yield
    finally:
        interrupts.ending()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        while children := multiprocessing.active_children():
            for child in children:
                child.kill()
                child.join()
