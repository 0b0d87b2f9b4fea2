"""The known speakers of a request: recordings that it sends, or stored voices that it names.

OpenAI's clients send ``known_speaker_names[]`` and as many ``known_speaker_references[]``, data
URLs of 2 to 10 seconds. A request without references names stored voices.

The recordings become embeddings before the request waits for its turn. Nothing else of them is
kept.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asr.config import MAX_KNOWN, KnownVoice, SpeakerOptions, check
from asr.errors import AudioError, InvalidOption, SpeakersUnavailable
from asr.service.errors import NotFound
from asr.service.http.problems import Problem
from asr.service.litserve.messages import EmbedVoice
from asr.speakers.folder import model_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from asr.config import Options
    from asr.service.litserve.client import WorkerClient
    from asr.service.speakers.store import VoiceStore
    from asr.settings import Settings

logger = logging.getLogger(__name__)

NAMES: Final = "known_speaker_names"
REFERENCES: Final = "known_speaker_references"
SHORTEST: Final = 2.0
LONGEST: Final = 10.0
"""Seconds of a reference, as OpenAI demands."""
_URL_SAFE: Final = str.maketrans("-_", "+/")
"""Some clients write the URL-safe alphabet of base64."""


class KnownSpeakers:
    """Turns names and references into voices.

    Args:
        client: the way to the worker, which embeds the references.
        store: of the stored voices.
        settings: of the service.
    """

    def __init__(self, client: WorkerClient, store: VoiceStore, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self.store = store

    @property
    def model(self) -> str:
        """What identifies the speaker model. Embeddings of another one cannot be compared."""
        return model_id(self._settings.speaker_model)

    async def resolve(
        self,
        options: Options,
        names: Sequence[str],
        references: Sequence[str],
        owner: str,
        folder: Path,
    ) -> Options:
        """The options with the voices of the named speakers.

        Args:
            options: of the request. Without speakers nothing is looked up.
            names: of the speakers.
            references: a data URL for each name, or none.
            owner: whose stored voices may be named.
            folder: for the recordings, which are removed again.

        Raises:
            Problem: 400, the fields do not fit together, or a reference cannot be used.
            InvalidOption: a name cannot be used.
            EngineUnavailable: the engine is not loaded, so the worker cannot help yet.
            WorkerDied: the worker died.
        """
        if options.speakers is None or not (names or references):
            return options
        check(len(names) <= MAX_KNOWN, NAMES, f"at most {MAX_KNOWN} are used")
        if references:
            message = f"send as many as {NAMES}: {len(names)}, not {len(references)}"
            check(len(names) == len(references), REFERENCES, message)
        try:
            known = await self._voices(names, references, owner, folder)
        except SpeakersUnavailable as error:
            # The text shall be delivered all the same. A warning will tell that the model is bad.
            logger.warning("known speakers: %s", error)
            return options
        return replace(options, speakers=replace(options.speakers, known=tuple(known)))

    async def _voices(
        self, names: Sequence[str], references: Sequence[str], owner: str, folder: Path
    ) -> list[KnownVoice]:
        if not references:
            return await asyncio.to_thread(self._stored, owner, names)
        pairs = zip(names, references, strict=True)
        return [await self._embed(name, url, folder) for name, url in pairs]

    def _stored(self, owner: str, names: Sequence[str]) -> list[KnownVoice]:
        found = []
        for name in names:
            try:
                stored = self.store.get(owner, name)
            except NotFound as error:
                message = f"{NAMES}: {name!r} is no stored voice: send {REFERENCES}, or store it"
                message += " with PUT /v1/speakers"
                raise Problem(400, message, "invalid_value", NAMES) from error
            message = f"{name!r} was stored with another speaker model: store it again"
            check(stored.model == self.model, NAMES, message)
            found.append(stored.voice)
        return found

    async def _embed(self, name: str, url: str, folder: Path) -> KnownVoice:
        SpeakerOptions(known=(KnownVoice(name, "", 0.0),))  # checks the name
        path = folder / f"{uuid.uuid4().hex}.reference"
        data = await asyncio.to_thread(_decode, name, url)
        await asyncio.to_thread(path.write_bytes, data)
        try:
            return await self.embed(path, name, folder, (SHORTEST, LONGEST))
        except AudioError as error:
            message = f"{REFERENCES}: that of {name!r} cannot be used: {error}"
            raise Problem(400, message, "invalid_value", REFERENCES) from error
        except InvalidOption as error:
            message = f"{REFERENCES}: that of {name!r} {error}"
            raise Problem(400, message, "invalid_value", REFERENCES) from error
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def embed(
        self, path: Path, name: str, folder: Path, length: tuple[float, float] | None = None
    ) -> KnownVoice:
        """The voice in a recording of one person.

        Args:
            path: the recording.
            name: of the person.
            folder: for decoded audio.
            length: the shortest and longest recording in seconds; None for the limits of stored
                voices.

        Raises:
            AsrError: the recording cannot be used, or the worker failed.
        """
        return await self._client.embed_voice(
            EmbedVoice(uuid.uuid4().hex, path, folder, name, length)
        )


def _decode(name: str, url: str) -> bytes:
    """The recording in a data URL. Its format is found from its bytes, not from the media type.

    Raises:
        Problem: 400, it is not such a URL.
    """
    head, comma, text = url.strip().partition(",")
    scheme, encoding = head[:5].lower(), head[-7:].lower()
    if not comma or (scheme, encoding) != ("data:", ";base64"):
        message = f"{REFERENCES}: that of {name!r} must be a data URL, such as "
        message += "data:audio/wav;base64,UklGR..."
        raise Problem(400, message, "invalid_value", REFERENCES)
    try:
        plain = "".join(text.split()).translate(_URL_SAFE)
        return base64.b64decode(plain, validate=True)
    except ValueError:
        message = f"{REFERENCES}: that of {name!r} is not base64"
        raise Problem(400, message, "invalid_value", REFERENCES) from None
