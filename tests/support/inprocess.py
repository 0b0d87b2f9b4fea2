"""The service in a thread of the test process: the real application, worker, routes and sockets.

Only LitServe and its processes are missing. A queue replaces them: it carries pickled commands to
an `asr.service.litserve.worker.Worker` in the same event loop, and pickled reports back. As with
LitServe, the worker continues after a client has disconnected, until it gets a `Cancel`. Clients
connect to a real socket, so slow bodies, streams and broken connections behave as in production.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import pickle
import shutil
import socket
import tempfile
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from asr.service.app import Application
from asr.service.files import run_directory
from asr.service.litserve.worker import Worker
from asr.service.observability.logs import configure_logging
from asr.service.run import SOCKETS
from asr.settings import Settings
from tests.support.fake_server import FakeEngine
from tests.support.serving import STOP_SECONDS, Site, variables_of

_log: ContextVar[Path | None] = ContextVar("log of the server of this task", default=None)


class LogOf(logging.FileHandler):
    """Writes the log lines of one server to its file; several servers may run in this process."""

    def __init__(self, path):
        super().__init__(path)
        self._path = path
        self.addFilter(lambda _: _log.get() == self._path)

    @contextlib.contextmanager
    def attached(self, settings):
        root, ours, uvicorns = (logging.getLogger(name) for name in ("", "asr", "uvicorn.error"))
        others, root.handlers = root.handlers, [self]  # pytest's handlers keep their format
        configure_logging(settings.log_level, settings.log_format)
        root.handlers = [*others, self]
        uvicorns.setLevel(logging.INFO)
        try:
            yield
        finally:
            root.removeHandler(self)
            self.close()
            if not any(isinstance(handler, LogOf) for handler in root.handlers):
                ours.setLevel(logging.NOTSET)
                uvicorns.setLevel(logging.NOTSET)
                uvicorns.filters.clear()


class Queue:
    """Connects the application with the worker, in place of LitServe's queue."""

    def __init__(self, worker):
        self._worker = worker
        self._works = set()
        self._context = contextvars.copy_context()  # that of no request, as in another process

    async def submit(self, command):
        reports = asyncio.Queue()
        work = asyncio.create_task(
            self._carry_out(pickle.dumps(command), reports), context=self._context.copy()
        )
        self._works.add(work)
        work.add_done_callback(self._works.discard)
        while (report := await reports.get()) is not None:
            yield pickle.loads(report)

    async def _carry_out(self, command, reports):
        try:
            async with contextlib.aclosing(self._worker.carry_out(pickle.loads(command))) as made:
                async for report in made:
                    reports.put_nowait(pickle.dumps(report))
        finally:
            reports.put_nowait(None)


@dataclass
class Thread(Site):
    """A service in a thread of this process."""

    env: dict = field(default_factory=dict)
    settings: Settings | None = None
    socket: socket.socket | None = None

    def start(self):
        self._loop = self._server = self._application = self._failure = None
        self._ending = []
        self._thread = threading.Thread(target=self._run, name=f"service at {self.url}")
        self._thread.start()

    def has_ended(self):
        return not self._thread.is_alive()

    def stop(self):
        """Shut down as at SIGTERM."""
        if self._loop is not None and not self.has_ended():
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join(STOP_SECONDS)
        assert not self._thread.is_alive(), f"the service did not end:\n{self.log}"
        if self._failure is not None:
            raise self._failure

    async def _end(self):
        """Do what `asr.service.run` does on a signal."""
        for part in (self._application.service, self._application.jobs):
            self._ending.append(asyncio.create_task(part.close()))
        await self._application.live.close()
        self._server.should_exit = True

    def _run(self):
        _log.set(self.log_path)
        try:
            with (
                run_directory(self.work_dir) as run_dir,
                run_directory(self.settings.data_path) as incoming,
            ):
                self._serve(self.settings, run_dir, incoming)
        except BaseException as error:  # noqa: BLE001  # raised in `stop`
            self._failure = error

    def _serve(self, settings, run_dir, incoming):
        worker = Worker(settings, lambda _: FakeEngine(self.env))
        application = Application(Queue(worker).submit, settings, run_dir, incoming)
        app = FastAPI()
        application.install(app)
        app.router.lifespan_context = lambda _: application.running()
        config = uvicorn.Config(
            app,
            timeout_graceful_shutdown=settings.shutdown_grace + 2,
            log_config=None,
            access_log=False,
            server_header=False,
            **SOCKETS,
        )
        self._server, self._application = uvicorn.Server(config), application
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            self._loop = runner.get_loop()
            runner.run(self._server.serve(sockets=[self.socket]))
            runner.run(worker.close())


@contextlib.contextmanager
def serving(*, until="/ready", prepare=lambda _: None, **env):
    """A service with a fake engine, once it is ready. It must end within 10 s.

    Args:
        until: the service is ready when it answers this path with 200.
        prepare: gets the data folder before the service starts.
        env: settings, and the variables that `tests.support.fake_server` reads.
    """
    home = Path(tempfile.mkdtemp(prefix="serving-"))
    work = home / "work"
    work.mkdir()
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        port = listener.getsockname()[1]
        env = variables_of(home, work) | {"ASR_ALIGNER": "none", "ASR_PORT": str(port)} | env
        settings = Settings.from_env({k: v for k, v in env.items() if k.startswith("ASR_")})
        settings.data_path.mkdir(mode=0o700, exist_ok=True)
        prepare(settings.data_path)
        places = (home / "log", work, home / "engine.log")
        server = Thread(f"http://127.0.0.1:{port}", *places, env=env)
        server.settings, server.socket = settings, listener
        with LogOf(home / "log").attached(settings):
            yield from _running(server, until)
    left = list(work.iterdir())
    shutil.rmtree(home)
    assert not left, "the run directory was left behind"


def _running(server, until):
    server.start()
    try:
        server.wait_ready(until)
        yield server
    finally:
        for client in server.clients:
            client.close()
        server.stop()
