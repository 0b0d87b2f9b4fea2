"""Receives a request in another server's API."""

from __future__ import annotations

import asyncio
import re
import wave
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from asr.errors import InvalidOption
from asr.service.compat.fields import Fields
from asr.service.http.body import receive_body
from asr.service.http.problems import Problem
from asr.service.transcriptions.form import parse_fields
from asr.service.transcriptions.sources import Source
from asr.speakers.folder import obstacle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response

    from asr.service.transcriptions.form import TranscriptionRequest
    from asr.settings import Settings
    from asr.types import Transcript

PCM_RATE: Final = 16_000
COPY_BYTES: Final = 1 << 20
MAX_WAV_BYTES: Final = (1 << 32) - 4096
"""The header of a WAV file counts its bytes in 32 bits."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A translated request.

    Attributes:
        pairs: name and value of fields of ``POST /v1/audio/transcriptions``.
        warnings: fields without effect.
        origins: the field of the request for each field in `pairs` that has another name there.
        is_pcm: the recording is raw PCM: 16 bits, little-endian, mono, 16 kHz.
        with_words: the answer in JSON has the times of words.
        with_times: the answer in JSON has the times of segments.
    """

    pairs: Sequence[tuple[str, str]]
    warnings: tuple[str, ...]
    origins: Mapping[str, str]
    is_pcm: bool = False
    with_words: bool = False
    with_times: bool = True


@dataclass(frozen=True, slots=True)
class Dialect:
    """Another server's API.

    Attributes:
        file_parts: the names that the part with the recording may have.
        translate: translates the fields.
        render: makes the answer.
    """

    file_parts: Sequence[str]
    translate: Callable[[Fields], Asked]
    render: Callable[[Transcript, TranscriptionRequest, Asked], Response]


class Exchange:
    """One request in a dialect, and its answer.

    Args:
        dialect: the API of the request.
        settings: the settings of the service.
    """

    def __init__(self, dialect: Dialect, settings: Settings) -> None:
        self._dialect = dialect
        self._settings = settings
        self._asked: Asked | None = None

    async def receive(self, request: Request, folder: Path, stack: AsyncExitStack) -> Source:  # noqa: ARG002
        """Receive and check the body. Fields may come in the body and in the query.

        Raises:
            Problem: the request is wrong.
            InvalidOption: an option has a wrong value.
            ClientDisconnect: the client left.
        """
        file, parts = folder / "upload", self._dialect.file_parts
        limit = self._settings.max_upload_bytes
        body = await receive_body(request, file, limit, file_parts=parts)
        if not body.has_file:
            message = f"{parts[0]}: the recording is missing; send it as multipart/form-data"
            raise Problem(400, message, "invalid_value", parts[0])
        self._asked = asked = self._dialect.translate(self._fields(body.fields))
        checked = self._check(asked)
        notes = list(asked.warnings)
        if asked.is_pcm:
            file = await asyncio.to_thread(as_wav, file, notes)
        notes += [_with_origin(warning, asked.origins) for warning in checked.warnings]
        return Source(replace(checked, warnings=tuple(notes)), file)

    def _fields(self, pairs: list[tuple[str, str]]) -> Fields:
        settings = self._settings
        able = not obstacle(settings.speaker_model)
        return Fields(pairs, settings.vad, tells_speakers=able)

    def _check(self, asked: Asked) -> TranscriptionRequest:
        """Check the translated fields. An error names the field that the client sent."""
        try:
            reason = obstacle(self._settings.speaker_model)
            settings = self._settings
            return parse_fields(asked.pairs, settings.vad, settings.limits, no_speakers=reason)
        except Problem as error:
            ours = error.param or ""
            theirs = asked.origins.get(ours, ours)
            message = theirs + error.message.removeprefix(ours)
            raise replace(error, message=message, param=error.param and theirs) from error
        except InvalidOption as error:
            raise InvalidOption(asked.origins.get(error.name, error.name), str(error)) from error

    def render(self, transcript: Transcript, request: TranscriptionRequest) -> Response:
        """Make the answer."""
        if self._asked is None:
            raise RuntimeError("the request was not received")
        return self._dialect.render(transcript, request, self._asked)


def _with_origin(warning: str, origins: Mapping[str, str]) -> str:
    """A warning that begins with the name of a field, with the name that the client sent."""
    name = re.split(r"\W", warning, maxsplit=1)[0]
    return origins.get(name, name) + warning.removeprefix(name)


def as_wav(pcm: Path, notes: list[str]) -> Path:
    """Turn raw PCM into a WAV file beside it, and remove the original.

    Args:
        pcm: the recording.
        notes: gets a warning if the recording is not plain PCM.

    Raises:
        Problem: 413, the recording is too long for a WAV file: 37 hours.
    """
    n_bytes = pcm.stat().st_size
    if n_bytes > MAX_WAV_BYTES:
        raise Problem(413, "audio_file: longer than a WAV file can be", "too_large", "audio_file")
    with pcm.open("rb") as source:
        head = source.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            notes.append(
                "encode=false promises raw PCM, but this is a WAV file and was read as one"
            )
            return pcm
        if n_bytes % 2:
            notes.append("the raw PCM ends with half a sample, which was left out")
        source.seek(0)
        target = pcm.with_suffix(".wav")
        with target.open("wb") as file, wave.open(file, "wb") as made:
            made.setparams((1, 2, PCM_RATE, n_bytes // 2, "NONE", ""))
            for _ in range(0, n_bytes - n_bytes % 2, COPY_BYTES):
                left = n_bytes - n_bytes % 2 - source.tell()
                made.writeframesraw(source.read(min(COPY_BYTES, left)))
    pcm.unlink()
    return target
