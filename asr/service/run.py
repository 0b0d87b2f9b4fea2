"""Runs the service: makes its folders, checks the database, handles signals, starts the server.

The worker process does not import this module or the application, which halves its start time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asr.errors import InvalidOption, StoreTooNew, StoreUnavailable
from asr.service.app import Application
from asr.service.files import make_private, run_directory
from asr.service.http.capacity import backlog, raise_limit
from asr.service.http.connections import Connection
from asr.service.http.sockets import LiveConnection
from asr.service.jobs.database import Database
from asr.service.jobs.tables import refuse_newer
from asr.service.jobs.troubles import described
from asr.service.litserve.server import (
    DRAIN_SIGNAL,
    Interrupts,
    bind_children,
    children_ended,
    make_server,
)
from asr.service.observability.logs import configure_logging
from asr.service.observability.telemetry import set_up as set_up_telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asr.service.litserve.worker import EngineMaker
    from asr.settings import Settings

logger = logging.getLogger(__name__)

SOCKETS: Final[dict[str, Any]] = {
    "http": Connection,
    "ws": LiveConnection,
    "proxy_headers": False,  # `asr.service.http.proxy` handles them
    "ws_max_size": 21 << 20,  # OpenAI's 15 MiB of audio in base64, and a little JSON
    "ws_per_message_deflate": False,  # base64 of speech hardly shrinks
    # Pongs have no deadline: a session that waits for the engine does not read them.
    "ws_ping_timeout": None,
}
"""uvicorn's options for connections."""


def run(settings: Settings, make_engine: EngineMaker) -> None:
    """Run the service until a signal ends it; see `asr.service.serve`."""
    configure_logging(settings.log_level, settings.log_format)
    interrupts = Interrupts()
    os.umask(0o077)  # nobody else on this machine may read recordings or transcripts
    bind_children()
    signal.signal(DRAIN_SIGNAL, signal.SIG_IGN)  # until the API process handles it
    raise_limit()
    try:
        logger.info("engine %s, http://%s:%d", settings.engine_name, settings.host, settings.port)
        with contextlib.ExitStack() as stack:
            with interrupts.held():
                run_dir = stack.enter_context(run_directory(Path(settings.work_dir)))
                incoming = stack.enter_context(run_directory(_data_directory(settings)))
                stack.enter_context(children_ended(interrupts))
                _check_database(settings)
                server = make_server(settings, make_engine, interrupts)
                application = Application(server.submit, settings, run_dir, incoming)
                server.mount(application.install, lambda: _lifespan(application))
            server.serve(**SOCKETS, backlog=backlog())
    except KeyboardInterrupt:  # during the start, or a second one during shutdown
        logger.info("interrupted")


@contextlib.asynccontextmanager
async def _lifespan(application: Application) -> AsyncGenerator[None]:
    loop = asyncio.get_running_loop()
    _on_signal(loop, application)
    loop.add_signal_handler(DRAIN_SIGNAL, application.drain)
    telemetry = set_up_telemetry()
    async with application.running():
        yield
    if telemetry is not None:
        await asyncio.to_thread(telemetry.close)


def _on_signal(loop: asyncio.AbstractEventLoop, application: Application) -> None:
    """On SIGTERM and SIGINT, close the parts of the service.

    uvicorn's handler closes open WebSockets. So it runs after the live sessions have ended, or when
    the grace period is over.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def end(signum: int, following: object) -> None:
        await application.live.close()
        if callable(following):
            following(signum, None)

    def begin(signum: int, following: object) -> None:
        tasks.add(asyncio.create_task(application.service.close()))
        tasks.add(asyncio.create_task(application.jobs.close()))
        tasks.add(asyncio.create_task(end(signum, following)))

    for number in (signal.SIGTERM, signal.SIGINT):
        uvicorn_handler = signal.getsignal(number)

        def handle(signum: int, _: object, *, following: object = uvicorn_handler) -> None:
            loop.call_soon_threadsafe(begin, signum, following)

        signal.signal(number, handle)


def _data_directory(settings: Settings) -> Path:
    try:
        settings.data_path.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_private(settings.data_path)
    except OSError as error:
        raise InvalidOption("data_dir", f"{settings.data_path}: {error.strerror}") from error
    return settings.data_path


def _check_database(settings: Settings) -> None:
    """Refuse to start with a database that is too new.

    A database that cannot be used for another reason stops only the jobs, and it may come back.
    """
    try:
        Database(settings.database).read_once(refuse_newer)
    except StoreTooNew as error:
        raise InvalidOption("database_url", str(error)) from error
    except StoreUnavailable as error:
        logger.warning("jobs are not available: %s", described(error))
