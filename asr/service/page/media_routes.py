"""The routes of recordings: peaks, audio, clips, spectrograms, and the tokens for players."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request  # noqa: TC002  # FastAPI looks it up by its name
from starlette.responses import JSONResponse, Response

from asr.config import check
from asr.service.http.middleware import owner_of
from asr.service.jobs.description import errors
from asr.service.jobs.routes import JobId  # noqa: TC001  # as above
from asr.service.names import attachment
from asr.service.page.media import MAX_POINTS, Media
from asr.service.page.ranged import answer, of_bytes
from asr.service.threads import FairThreads

if TYPE_CHECKING:
    import numpy as np

    from asr.service.access.media_tokens import MediaTokens
    from asr.service.jobs.rows import Job
    from asr.service.jobs.service import Jobs

MIN_SECONDS: Final = 0.001
MAX_CLIP_SECONDS: Final = 600.0
MAX_PICTURE_SECONDS: Final = 120.0
MAX_WIDTH: Final = 2000
MAX_HEIGHT: Final = 512
Format = Literal["wav", "mp3", "flac", "ogg"]
KINDS: Final[dict[str, str]] = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
}
"""The formats of clips, and their types."""
PRIVATE: Final = {
    "cache-control": "private, no-cache",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
}
"""A recording comes from a client: no browser may take it for a page."""
Seconds = Annotated[
    float, Query(ge=0, le=1e6, allow_inf_nan=False, description="Seconds from the start.")
]
Token = Annotated[
    str | None,
    Query(max_length=256, description="A media token, in place of a key."),
]
_threads = FairThreads("peaks", 2, 1)


def add_media_routes(router: APIRouter, jobs: Jobs, media: Media, tokens: MediaTokens) -> None:
    """Add all routes of recordings."""
    _add_peaks(router, jobs, media)
    _add_audio(router, jobs, media)
    _add_spectrogram(router, jobs, media)
    _add_token(router, jobs, tokens)


def _add_peaks(router: APIRouter, jobs: Jobs, media: Media) -> None:
    @router.get(
        "/{job_id}/peaks",
        summary="The waveform of a kept recording, for wavesurfer.js",
        response_class=Response,
        responses={**_content({"application/json": _PEAKS}), **errors(400, 404)},
    )
    async def get_peaks(
        request: Request,
        job_id: JobId,
        points_per_second: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Response:
        """The lowest and the highest sample of each point, in the format of audiowaveform.

        An answer has at most 360,000 points, so those of long recordings are further apart. The
        first request starts to prepare the recording: if that takes long, the answer is 503 with
        the code recording_being_prepared, and Retry-After.
        """
        job = await jobs.find(owner_of(request), job_id)
        per_pixel, values = await media.peaks(job, points_per_second)
        is_gzip = "gzip" in request.headers.get("accept-encoding", "")
        body = await _threads.run(job.owner, _peaks_text, per_pixel, values, is_gzip=is_gzip)
        headers = {"cache-control": "private, max-age=3600", "vary": "Accept-Encoding"}
        if is_gzip:
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers, media_type="application/json")


def _peaks_text(per_pixel: int, values: np.ndarray, *, is_gzip: bool) -> bytes:
    numbers = ",".join(map(str, values.tolist()))
    head = '{"version":2,"channels":1,"sample_rate":16000,"bits":8,'
    text = f'{head}"samples_per_pixel":{per_pixel},"length":{len(values) // 2},"data":[{numbers}]}}'
    return gzip.compress(text.encode(), 3, mtime=0) if is_gzip else text.encode()


def _add_audio(router: APIRouter, jobs: Jobs, media: Media) -> None:
    @router.get(
        "/{job_id}/audio",
        summary="The kept recording, or a clip of it",
        response_class=Response,
        responses={**_content(dict.fromkeys([*KINDS.values(), "audio/mp4"], _BYTES)), **_PARTS},
    )
    async def get_audio(
        request: Request,
        job_id: JobId,
        *,
        start: Seconds | None = None,
        end: Seconds | None = None,
        format: Format | None = None,  # noqa: A002  # the name in the query
        token: Token = None,  # noqa: ARG001  # the key check reads it
    ) -> Response:
        """Without `start` and `end`, the recording for a player: as it was sent, or as FLAC.

        It is FLAC at 16 kHz if not every browser plays the recording, or finds its times exactly.
        With them, a clip of at most 600 seconds to download. Both support Range.
        """
        job = await jobs.find(owner_of(request), job_id)
        if start is None and end is None and format is None:
            content = await media.whole(job)
            return answer(request, content, {**PRIVATE, "content-disposition": "inline"})
        first, last = _span(start, end, MAX_CLIP_SECONDS)
        kind = format or "wav"
        data = await media.clip(job, first, last, kind)
        name = attachment(_name_of(job, first, last), kind)
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers = {**PRIVATE, "content-disposition": name}
        return answer(request, of_bytes(data, tag, KINDS[kind]), headers)


def _span(start: float | None, end: float | None, most: float) -> tuple[float, float]:
    first = start or 0.0
    check(end is not None, "end", "send the end in seconds")
    last = end or 0.0
    long = round(last - first, 6)
    check(long >= MIN_SECONDS, "end", f"must be {MIN_SECONDS:g} s or more after the start")
    check(last - first <= most, "end", f"at most {most:g} seconds after the start")
    return first, last


def _name_of(job: Job, start: float, end: float) -> str:
    """The name of a clip with an extension, which is replaced."""
    stem = (job.name or job.id).rpartition(".")[0] or job.name or job.id
    return f"{stem} {_clock(start)}-{_clock(end)}.clip"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s"


def _add_spectrogram(router: APIRouter, jobs: Jobs, media: Media) -> None:
    @router.get(
        "/{job_id}/spectrogram.png",
        summary="A mel spectrogram of a span of the kept recording",
        response_class=Response,
        responses={**_content({"image/png": _BYTES}), **_PARTS},
    )
    async def get_spectrogram(
        request: Request,
        job_id: JobId,
        *,
        start: Seconds,
        end: Seconds,
        width: Annotated[int, Query(ge=16, le=MAX_WIDTH)] = 1000,
        height: Annotated[int, Query(ge=16, le=MAX_HEIGHT)] = 128,
        token: Token = None,  # noqa: ARG001  # the key check reads it
    ) -> Response:
        """A picture without axes of at most 120 seconds: 0 Hz at the bottom, 8 kHz at the top."""
        job = await jobs.find(owner_of(request), job_id)
        first, last = _span(start, end, MAX_PICTURE_SECONDS)
        data = await media.picture(job, first, last, (width, height))
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers = {**PRIVATE, "cache-control": "private, max-age=3600"}
        return answer(request, of_bytes(data, tag, "image/png"), headers)


def _add_token(router: APIRouter, jobs: Jobs, tokens: MediaTokens) -> None:
    @router.post(
        "/{job_id}/media_token",
        summary="A token for an audio or img element, which cannot send a key",
        response_class=Response,
        responses={**_content({"application/json": _TOKEN}), **errors(404)},
    )
    async def create_media_token(request: Request, job_id: JobId) -> Response:
        """Append it as `?token=` to the addresses of audio and spectrogram.png.

        It is bound to this job and to your key, and is valid for an hour.
        """
        job = await jobs.find(owner_of(request), job_id)
        token, expires_at = await asyncio.to_thread(tokens.make, job.owner, job.id)
        headers = {"cache-control": "no-store"}
        return JSONResponse({"token": token, "expires_at": expires_at}, headers=headers)


# --- OpenAPI ------------------------------------------------------------------------------------

_BYTES: Final = {"type": "string", "format": "binary"}
_INTEGER: Final = {"type": "integer"}
_PEAKS: Final = {
    "type": "object",
    "required": ["version", "channels", "sample_rate", "samples_per_pixel", "bits", "length"],
    "properties": {
        "version": _INTEGER,
        "channels": _INTEGER,
        "sample_rate": _INTEGER,
        "samples_per_pixel": _INTEGER,
        "bits": _INTEGER,
        "length": {"type": "integer", "maximum": MAX_POINTS, "description": "Points."},
        "data": {"type": "array", "items": _INTEGER},
    },
}
_TOKEN: Final = {
    "type": "object",
    "required": ["token", "expires_at"],
    "properties": {
        "token": {"type": "string"},
        "expires_at": {"type": "integer", "description": "Seconds since 1970."},
    },
}


def _content(kinds: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": schema} for kind, schema in kinds.items()}
    return {200: {"description": "The answer", "content": content}}


_PARTS: Final[dict[int | str, dict[str, Any]]] = {
    206: {"description": "A part", "content": {"audio/*": {"schema": _BYTES}}},
    304: {"description": "not modified since the ETag"},
    **errors(400, 404, 416),
}
