"""The application: puts the parts of the service together and adds their routes.

It does not know LitServe or processes. `asr.service.run` mounts it on LitServe's server, and tests
mount it on a plain FastAPI app with a worker in the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from asr.errors import AsrError, StoreUnavailable
from asr.service.access.client_secrets import FILE, ClientSecrets
from asr.service.access.keys import Keyring
from asr.service.access.media_tokens import MediaTokens
from asr.service.access.shared import SharedMeters
from asr.service.clock import SharedClock
from asr.service.compat.routes import make_compat_router
from asr.service.http.draining import ClosingConnections, Drain
from asr.service.http.head import HeadAsGet
from asr.service.http.middleware import KeyCheck, QueryCheck, RelativeRedirects, RequestLog
from asr.service.http.problems import Problem, problem_of
from asr.service.http.proxy import Proxies
from asr.service.http.warning_header import WARNINGS_HEADER
from asr.service.jobs.routes import make_job_router
from asr.service.jobs.service import Jobs
from asr.service.litserve.client import WorkerClient
from asr.service.live.routes import make_live_router
from asr.service.live.service import Live
from asr.service.observability.metrics import ApiMetrics
from asr.service.observability.monitoring import make_metrics_router
from asr.service.observability.readiness import Readiness
from asr.service.openapi import install_document
from asr.service.page.media import BEING_PREPARED
from asr.service.page.router import Page
from asr.service.speakers.known import KnownSpeakers
from asr.service.speakers.routes import make_speaker_router
from asr.service.speakers.store import FOLDER, VoiceStore
from asr.service.transcriptions.routes import make_router
from asr.service.transcriptions.service import Service
from asr.service.uploads.routes import EXPOSED_HEADERS, make_upload_router, sweep_for_ever
from asr.service.uploads.store import Uploads

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from fastapi import FastAPI
    from starlette.requests import Request

    from asr.service.litserve.client import Submit
    from asr.settings import Settings

logger = logging.getLogger(__name__)


class Application:
    """The parts of the service in one API process.

    Args:
        submit: sends a command to the worker and yields its reports.
        settings: the settings of the service.
        run_dir: the folder for the files of requests.
        incoming: the folder for the bodies of jobs, on the file system of the data directory.
    """

    def __init__(self, submit: Submit, settings: Settings, run_dir: Path, incoming: Path) -> None:
        self._settings = settings
        self.keyring = Keyring(settings)
        self.clock = SharedClock()
        secret = settings.data_path / FILE
        self.client_secrets = ClientSecrets(self.keyring, secret, self.clock.now)
        self.meters = SharedMeters(self.clock)
        self.metrics = ApiMetrics()
        self.client = WorkerClient(submit, [self.meters.add_audio, self.metrics.add_audio])
        self.uploads = Uploads(
            settings.data_path / "uploads",
            settings.max_upload_bytes,
            settings.upload_quota_bytes,
            settings.upload_ttl,
        )
        voices = VoiceStore(settings.data_path / FOLDER)
        self.known = KnownSpeakers(self.client, voices, settings)
        self.service = Service(self.client, settings, run_dir, self.uploads, self.known)
        self._run_dir = run_dir
        self.live = Live(self.client, settings, run_dir, self.client_secrets)
        self.jobs = Jobs(
            client=self.client,
            settings=settings,
            run_dir=run_dir,
            incoming=incoming,
            uploads=self.uploads,
            known=self.known,
            weight_of=self.keyring.weight_of,
            audio_wait=self._audio_wait,
        )
        if settings.database_url:  # other servers may use it
            self.meters.store = self.jobs.key_usage
        self.media_tokens = MediaTokens(self.keyring, secret, self.clock.now)
        self.page = Page(
            jobs=self.jobs,
            client=self.client,
            settings=settings,
            run_dir=run_dir,
            incoming=incoming,
            tokens=self.media_tokens,
            needs_key=bool(self.keyring),
        )
        self._readiness = Readiness([run_dir, incoming], self.jobs.check)
        self._drain = Drain()

    def drain(self) -> None:
        """Prepare for the end: be not ready, claim no more jobs, and still answer requests."""
        if not self._drain.is_on:
            logger.info("draining: /ready says 503, requests are still answered")
        self._drain.is_on = self._readiness.is_ending = self.jobs.runner.is_paused = True

    def _audio_wait(self, owner: str) -> int:
        """Seconds until a key may have audio transcribed again; 0 means now."""
        key = self.keyring.named(owner)
        return 0 if key is None else self.meters.of(key).audio_wait()

    def install(self, app: FastAPI) -> None:
        """Add the routes, the error handlers and the middleware."""
        app.title = "asr-service"
        app.include_router(make_router(self.service, self._readiness.obstacles))
        app.include_router(make_compat_router(self.service, self._settings))
        app.include_router(make_speaker_router(self.known, self._settings, self._run_dir))
        app.include_router(make_upload_router(self.uploads))
        app.include_router(make_live_router(self.live))
        app.include_router(make_job_router(self.jobs))
        self.page.install(app)
        counts = {
            self.metrics.requests: self.service.counts,
            self.metrics.live: self.live.counts,
            self.metrics.jobs: self.jobs.store.counts,
            self.metrics.uploads: self.uploads.counts,
        }
        app.include_router(make_metrics_router(self.client.measure, self.metrics, counts))
        for kind in (
            HTTPException,
            RequestValidationError,
            Problem,
            AsrError,
            OSError,
            MemoryError,
        ):
            app.add_exception_handler(kind, _explain)
        app.add_exception_handler(ClientDisconnect, _client_left)
        install_document(app)
        app.add_middleware(RelativeRedirects)
        app.add_middleware(QueryCheck)
        app.add_middleware(
            KeyCheck,
            keys=self.keyring,
            meters=self.meters,
            secrets=self.client_secrets,
            tokens=self.media_tokens,
        )
        if self._settings.origins:
            _allow_browsers(app, self._settings.origins)
        app.add_middleware(ClosingConnections, drain=self._drain)
        app.add_middleware(HeadAsGet)
        app.add_middleware(RequestLog, metrics=self.metrics)
        app.add_middleware(Proxies, prefix=self._settings.prefix)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the background work: load the engine, run jobs, remove expired uploads."""
        background = [
            asyncio.create_task(self.client.cancel_all()),
            asyncio.create_task(_await_engine(self.service, self.live)),
            asyncio.create_task(sweep_for_ever(self.uploads)),
        ]
        async with self._limits_shared(), self.jobs.working(), self.page.working():
            yield
        for task in background:
            task.cancel()

    @contextlib.asynccontextmanager
    async def _limits_shared(self) -> AsyncGenerator[None]:
        """Exchange counts for the limits of keys with the other servers, until the end."""
        if self.meters.store is not None:
            with contextlib.suppress(StoreUnavailable):
                await self.jobs.store.open()
            await self.meters.exchange()  # before a job of a key with used up hours is claimed
        task = asyncio.create_task(self.meters.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})


_EXPOSED: Final = (
    "Accept-Ranges",
    "Asr-Engine",
    "Content-Range",
    "ETag",
    "X-Job-State",
    "X-Transcript-Complete",
)
"""Headers of transcripts and recordings that a web page of another origin may read."""


def _allow_browsers(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Add CORS outside the key check, because browsers send preflight requests without a key."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["*"],
        expose_headers=[*EXPOSED_HEADERS, *_EXPOSED, WARNINGS_HEADER],
        max_age=86_400,
    )


async def _explain(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    if problem.status >= 500 and problem.code != BEING_PREPARED:
        request_id = getattr(request.state, "request_id", "?")
        message = str(error) if isinstance(error, AsrError) else problem.message
        logger.error("request %s failed: %s", request_id, message)
    return problem.response()


async def _client_left(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)


async def _await_engine(service: Service, live: Live) -> None:
    """Log when the engine is ready, and tell the live sessions what it can do."""
    while not (state := await service.engine_state()).ready:
        logger.info("waiting for the engine: %s", state.reason)
        await asyncio.sleep(1)
    live.engine_loaded(state.capabilities)
    logger.info("ready: engine %s", state.name)
