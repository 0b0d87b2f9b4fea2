"""The application: LitServe's server with our routes, errors, keys and end.

The worker process does without this module, and starts in half of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import litserve.server
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from asr.engines.base import Engine
from asr.errors import AsrError, InvalidOption, StoreTooNew, StoreUnavailable
from asr.service.access.keys import Keyring
from asr.service.access.limits import Meters
from asr.service.http.connections import Connection, LiveConnection
from asr.service.http.middleware import KeyCheck, RequestLog
from asr.service.http.problems import Problem, problem_of
from asr.service.jobs.database import Database
from asr.service.jobs.migrations import refuse_newer
from asr.service.jobs.routes import make_job_router
from asr.service.jobs.service import Jobs
from asr.service.litserve.server import Interrupts, Server, bind_children, children_ended
from asr.service.litserve.spec import TranscriptionSpec
from asr.service.litserve.worker import TranscriptionAPI
from asr.service.live.routes import Live, make_live_router
from asr.service.observability.logs import configure_logging
from asr.service.observability.metrics import ApiMetrics
from asr.service.observability.monitoring import make_metrics_router
from asr.service.observability.telemetry import set_up as set_up_telemetry
from asr.service.transcriptions.routes import Service, make_router
from asr.service.uploads.routes import EXPOSED_HEADERS, make_upload_router, sweep_for_ever
from asr.service.uploads.store import Uploads
from asr.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from fastapi import FastAPI
    from starlette.requests import Request

logger = logging.getLogger(__name__)

RUN_PREFIX = "asr-serve-"
WS_MAX_BYTES = 21 << 20
"""OpenAI's 15 MiB of audio in base64, and a little JSON."""
WATCH_SECONDS = 0.5
"""Between two looks at whether the worker lives."""

EngineMaker = Callable[[Settings], Engine]


def create_server(
    settings: Settings, run_dir: Path, incoming: Path, make_engine: EngineMaker
) -> Server:
    """A LitServe server with our routes, errors and keys; not yet running."""
    # A package `mcp` without `fastmcp`, which vLLM brings, would end LitServe at its start.
    litserve.server._MCP_AVAILABLE = False
    spec = TranscriptionSpec(settings.worker_timeout)
    server = Server(
        TranscriptionAPI(settings, spec, make_engine),
        accelerator="cpu",  # the engine chooses its own device
        timeout=False,
        restart_workers=True,
    )
    server.uvicorn_graceful_timeout = settings.shutdown_grace + 2
    server.monitor_internal = WATCH_SECONDS
    uploads = Uploads(
        settings.data_path / "uploads",
        settings.max_upload_bytes,
        settings.upload_quota_bytes,
        settings.upload_ttl,
    )
    keyring = Keyring(settings)
    parts = _Parts(
        Service(spec, settings, run_dir, uploads),
        uploads,
        Live(spec, settings, run_dir),
        Jobs(spec, settings, run_dir, incoming, uploads, keyring.weight_of),
    )
    _adopt(server, spec, parts, keyring, settings.origins)
    return server


@dataclass(frozen=True, slots=True)
class _Parts:
    """What has routes of its own, and an end of its own."""

    service: Service
    uploads: Uploads
    live: Live
    jobs: Jobs


def _adopt(
    server: Server,
    spec: TranscriptionSpec,
    parts: _Parts,
    keyring: Keyring,
    origins: tuple[str, ...],
) -> None:
    """Put our routes in the place of LitServe's own, and our errors around them."""
    app = server.app
    ours = ("/docs", "/openapi.json", "/docs/oauth2-redirect", "/redoc")
    app.router.routes[:] = [r for r in app.router.routes if getattr(r, "path", None) in ours]
    app.title = "asr-service"
    metrics = ApiMetrics()
    meters = Meters()
    metrics.requests.read = parts.service.counts
    metrics.watch_live(lambda: parts.live.n_sessions)
    parts.jobs.runner.audio_wait = partial(_audio_wait, keyring, meters)
    spec.on_transcript += [meters.add_audio, metrics.add_audio]
    app.include_router(make_router(parts.service))
    app.include_router(make_upload_router(parts.uploads))
    app.include_router(make_live_router(parts.live))
    app.include_router(make_job_router(parts.jobs))
    counts = {metrics.jobs: parts.jobs.store.counts, metrics.uploads: parts.uploads.counts}
    app.include_router(make_metrics_router(spec, metrics, counts))
    for kind in (HTTPException, RequestValidationError, Problem, AsrError, OSError):
        app.add_exception_handler(kind, _explain)
    app.add_exception_handler(ClientDisconnect, _nobody_listens)
    app.add_middleware(KeyCheck, keys=keyring, meters=meters)
    if origins:
        _allow_browsers(app, origins)
    app.add_middleware(RequestLog, metrics=metrics)
    _wrap_lifespan(server, parts)


def _audio_wait(keyring: Keyring, meters: Meters, owner: str) -> int:
    """Of an owner; one who has sent nothing since the start is counted from here on."""
    key = keyring.named(owner)
    return 0 if key is None else meters.of(key).audio_wait()


def _allow_browsers(app: FastAPI, origins: tuple[str, ...]) -> None:
    """CORS, outside of the key: a browser asks without it whether it may ask."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "PATCH", "DELETE"],
        allow_headers=["*"],
        expose_headers=EXPOSED_HEADERS,
        max_age=86_400,
    )


async def _explain(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    if problem.status >= 500:
        request_id = getattr(request.state, "request_id", "?")
        logger.error("request %s failed: %s", request_id, problem.message)
    return problem.response()


async def _nobody_listens(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)


def _wrap_lifespan(server: Server, parts: _Parts) -> None:
    """Make the engine load at the start, and refuse requests when the end is signalled."""
    inner = server.app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with inner(app):
            background = [
                asyncio.create_task(_log_ready(parts.service)),
                asyncio.create_task(sweep_for_ever(parts.uploads)),
            ]
            _on_signal(asyncio.get_running_loop(), parts)
            telemetry = set_up_telemetry()
            async with parts.jobs.working():
                yield
            for task in background:
                task.cancel()
            if telemetry is not None:
                await asyncio.to_thread(telemetry.close)
            # LitServe's thread waits up to a second for reports, of which none will come any more.
            server._transport.close(send_sentinel=True)

    server.app.router.lifespan_context = lifespan


async def _log_ready(service: Service) -> None:
    while not (state := await service.engine_state()).ready:
        logger.info("waiting for the engine: %s", state.reason)
        await asyncio.sleep(1)
    logger.info("ready: engine %s", state.name)


def _on_signal(loop: asyncio.AbstractEventLoop, parts: _Parts) -> None:
    """Tell the service of SIGTERM and SIGINT before uvicorn, which cuts open sockets at once."""
    tasks: set[asyncio.Task[None]] = set()

    async def end(signum: int, following: object) -> None:
        await parts.live.close()
        if callable(following):
            following(signum, None)

    def begin(signum: int, following: object) -> None:
        tasks.add(asyncio.create_task(parts.service.close()))
        tasks.add(asyncio.create_task(parts.jobs.close()))
        tasks.add(asyncio.create_task(end(signum, following)))

    for number in (signal.SIGTERM, signal.SIGINT):
        uvicorns = signal.getsignal(number)

        def handle(signum: int, _: object, *, following: object = uvicorns) -> None:
            loop.call_soon_threadsafe(begin, signum, following)

        signal.signal(number, handle)


def run(settings: Settings, make_engine: EngineMaker) -> None:
    """What `asr.service.serve` promises."""
    configure_logging(settings.log_level, settings.log_format)
    logger.info("engine %s, http://%s:%d", settings.engine_name, settings.host, settings.port)
    interrupts = Interrupts()
    bind_children()
    try:
        with (
            run_directory(Path(settings.work_dir)) as run_dir,
            run_directory(_data_directory(settings)) as incoming,
            children_ended(),
        ):
            _check_database(settings)
            server = create_server(settings, run_dir, incoming, make_engine)
            server.interrupts = interrupts
            server.log_format = settings.log_format
            # What is loaded is never collected: its pages stay shared with the processes that are
            # forked, and no collection walks it, the one at the end neither.
            gc.freeze()
            server.run(
                host=settings.host,
                port=settings.port,
                log_level=settings.log_level,
                num_api_servers=1,
                generate_client_file=False,
                access_log=False,
                **({"log_config": None} if settings.log_format == "json" else {}),
                server_header=False,
                http=Connection,
                ws=LiveConnection,
                ws_max_size=WS_MAX_BYTES,
                ws_per_message_deflate=False,  # base64 of speech hardly shrinks
                # A session that waits for the engine is not read, its pongs neither.
                ws_ping_timeout=None,
            )
    except KeyboardInterrupt:  # while starting, or once more while ending
        logger.info("interrupted")


def _data_directory(settings: Settings) -> Path:
    try:
        settings.data_path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidOption("data_dir", f"{settings.data_path}: {error.strerror}") from error
    return settings.data_path


def _check_database(settings: Settings) -> None:
    """End now rather than refuse every job. A database that is away may still come."""
    try:
        Database(settings.database).look(refuse_newer)
    except StoreTooNew as error:
        raise InvalidOption("database_url", str(error)) from error
    except StoreUnavailable as error:
        logger.warning("%s", error)


@contextlib.contextmanager
def run_directory(parent: Path) -> Generator[Path]:
    """A folder for the files of requests, removed at the end.

    A server that was killed leaves its folder; the next one that starts removes it. The lock tells
    a dead server's folder from that of one that runs beside us.
    """
    for left in parent.glob(f"{RUN_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=parent))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
