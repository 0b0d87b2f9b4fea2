"""The page, the interactive documentation, and the routes that the page needs."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002  # FastAPI looks it up by its name
from starlette.responses import JSONResponse, RedirectResponse, Response

from asr.service.http.proxy import public_path
from asr.service.page import media_routes
from asr.service.page.media import Media
from asr.service.page.media_routes import add_media_routes
from asr.service.page.saving import Saving
from asr.service.page.static import INDEX, SWAGGER, WEB, StaticFiles, no_such_file
from asr.service.page.transcript_routes import Aligner, add_transcript_routes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from fastapi import FastAPI

    from asr.service.access.media_tokens import MediaTokens
    from asr.service.jobs.service import Jobs
    from asr.service.litserve.client import WorkerClient
    from asr.settings import Settings

_REPLACED = ("/docs", "/docs/oauth2-redirect", "/redoc")
"""FastAPI's pages, which load their scripts from another host."""


class Page:
    """The parts of the package in one API process.

    Args:
        jobs: all jobs.
        client: sends commands to the worker.
        settings: of the service.
        run_dir: a folder for files of one request.
        incoming: a folder on the file system of the recordings.
        tokens: for players.
        needs_key: whether requests need an API key.
    """

    def __init__(
        self,
        *,
        jobs: Jobs,
        client: WorkerClient,
        settings: Settings,
        run_dir: Path,
        incoming: Path,
        tokens: MediaTokens,
        needs_key: bool,
    ) -> None:
        self._jobs = jobs
        self._settings = settings
        self._tokens = tokens
        self._needs_key = needs_key
        self._media = Media(jobs, settings, run_dir, incoming)
        self._saving = Saving(jobs, self._media.pool, run_dir)
        self._aligner = Aligner(client, self._media, run_dir)

    def install(self, app: FastAPI) -> None:
        """Add all routes."""
        app.include_router(self._job_routes())
        app.include_router(self._page_routes())
        routes = app.router.routes
        routes[:] = [it for it in routes if getattr(it, "path", None) not in _REPLACED]
        app.include_router(_documentation())

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """End all children after this block."""
        try:
            yield
        finally:
            await self._media.close()

    def _job_routes(self) -> APIRouter:
        router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
        add_media_routes(router, self._jobs, self._media, self._tokens)
        add_transcript_routes(router, self._jobs, self._saving, self._aligner)
        return router

    def _page_routes(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)
        files = StaticFiles(WEB)

        @router.get("/")
        async def page(request: Request) -> Response:
            if not self._settings.page:
                raise no_such_file()
            return await files.answer(request, INDEX)

        @router.get("/page/config.json")
        async def config(request: Request) -> Response:
            if not self._settings.page:
                raise no_such_file()
            return JSONResponse(self._config(request), headers={"cache-control": "no-store"})

        @router.get("/page/{name:path}")
        async def page_file(request: Request, name: str) -> Response:
            if not self._settings.page or name == INDEX:
                raise no_such_file()
            return await files.answer(request, name)

        return router

    def _config(self, request: Request) -> dict[str, Any]:
        """What the page must know before it has a key."""
        settings = self._settings
        return {
            "needs_key": self._needs_key,
            "root": public_path(request, ""),
            "uploads": public_path(request, "/v1/uploads"),
            "max_upload_bytes": settings.max_upload_bytes,
            "max_audio_seconds": settings.max_audio_seconds,
            "job_ttl": settings.job_ttl,
            "upload_ttl": settings.upload_ttl,
            "max_clip_seconds": media_routes.MAX_CLIP_SECONDS,
            "clip_formats": list(media_routes.KINDS) if find_spec("pydub") else [],
            "max_spectrogram_seconds": media_routes.MAX_PICTURE_SECONDS
            if find_spec("librosa") and find_spec("matplotlib")
            else 0,
            "max_live_seconds": settings.live_max_seconds,
        }


def _documentation() -> APIRouter:
    """Swagger UI with its own files."""
    router = APIRouter(include_in_schema=False)
    files = StaticFiles(SWAGGER)

    @router.get("/docs")
    async def documentation(request: Request) -> Response:
        return await files.answer(request, INDEX)

    @router.get("/docs/{name}")
    async def documentation_file(request: Request, name: str) -> Response:
        return await files.answer(request, name)

    @router.get("/redoc")
    async def other_documentation(request: Request) -> Response:
        return RedirectResponse(public_path(request, "/docs"))

    return router
