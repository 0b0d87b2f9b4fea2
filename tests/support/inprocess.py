"""The service in a thread of the test process: the real application, worker, routes and sockets.

What is missing against `tests.support.serving` is LitServe with its processes. In its place a queue
carries pickled commands to an `asr.service.litserve.worker.Worker` in the same event loop and pickled
reports back. A client that leaves does not end the work there, as with LitServe; only a `Cancel`
does. Clients reach it over a real socket, so that slow bodies, streams and broken connections are
what they are in production.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
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
from asr.service.observability.logs import TEXT, JsonFormatter, TextFormatter
from asr.service.run import SOCKETS
from asr.settings import Settings
from tests.support.fake_server import FakeEngine
from tests.support.serving import STOP_SECONDS, Site, variables_of

_log: ContextVar[Path | None] = ContextVar("log of the server that this task belongs to", default=None)


class LogOf(logging.FileHandler):
    """Takes the lines of one server; several may run in this process."""

    def __init__(self, path, form):
        super().__init__(path)
        self._path = path
        self.setFormatter(JsonFormatter() if form == "json" else TextFormatter(TEXT))
        self.addFilter(lambda _: _log.get() == self._path)

    @contextlib.contextmanager
    def attached(self):
        loggers = [logging.getLogger(name) for name in ("asr", "uvicorn.error")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.addHandler(self)
            logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.removeHandler(self)
                logger.setLevel(level)
            self.close()


class Queue:
    """Between the application and the worker, as LitServe's is."""

    def __init__(self, worker):
        self._worker = worker
        self._works = set()

    async def submit(self, command):
        reports = asyncio.Queue()
        work = asyncio.create_task(self._carry_out(pickle.dumps(command), reports))
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
    socket: socket.socket | None = None

    def start(self):
        self._loop = self._server = self._application = self._failure = None
        self._thread = threading.Thread(target=self._run, name=f"service at {self.url}")
        self._thread.start()

    def has_ended(self):
        return not self._thread.is_alive()

    def stop(self):
        """End as at SIGTERM."""
        if self._loop is not None and not self.has_ended():
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join(STOP_SECONDS)
        assert not self._thread.is_alive(), f"the service did not end:\n{self.log}"
        if self._failure is not None:
            raise self._failure

    async def _end(self):
        await asyncio.gather(
            self._application.service.close(),
            self._application.jobs.close(),
            self._application.live.close(),
        )
        self._server.should_exit = True

    def _run(self):
        _log.set(self.log_path)
        settings = Settings.from_env(
            {name: value for name, value in self.env.items() if name.startswith("ASR_")}
        )
        try:
            with (
                LogOf(self.log_path, settings.log_format).attached(),
                run_directory(self.work_dir) as run_dir,
                run_directory(settings.data_path) as incoming,
            ):
                self._serve(settings, run_dir, incoming)
        except BaseException as error:
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
def serving(*, until="/ready", **env):
    """A service that answers `until` with 200, around a fake engine; it must end within 10 s.

    Args:
        until: the path.
        env: settings and what `tests.support.fake_server` reads, as variables.
    """
    home = Path(tempfile.mkdtemp(prefix="serving-"))
    work = home / "work"
    work.mkdir()
    (home / "data").mkdir(mode=0o700)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    port = listener.getsockname()[1]
    chosen = variables_of(home, work) | {"ASR_ALIGNER": "none", "ASR_PORT": str(port)} | env
    server = Thread(
        f"http://127.0.0.1:{port}",
        home / "log",
        work,
        home / "engine.log",
        env=chosen,
        socket=listener,
    )
    Path(chosen["ASR_DATA_DIR"]).mkdir(exist_ok=True)
    server.start()
    try:
        server.wait_ready(until)
        yield server
    finally:
        for client in server.clients:
            client.close()
        try:
            server.stop()
        finally:
            listener.close()
            left = list(work.iterdir())
            shutil.rmtree(home)
    assert not left, "the run directory was left behind"
