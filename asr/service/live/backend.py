"""The service for one live session: transcription, the limits of its key, its transcripts."""

from __future__ import annotations

import contextlib
import logging
import uuid
from typing import TYPE_CHECKING, Any

from asr.config import Options
from asr.errors import AsrError
from asr.pcm import to_bytes
from asr.service.files import finished_in_thread
from asr.service.litserve.messages import RecogniseInterim, Transcribe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    import numpy as np

    from asr.config import DecodeOptions, SpeakerOptions, VadOptions
    from asr.service.access.limits import Meter
    from asr.service.litserve.client import WorkerClient
    from asr.service.litserve.messages import WorkerEvent
    from asr.service.live.transcripts import Transcripts
    from asr.service.live.turns import Turn
    from asr.types import Transcript

logger = logging.getLogger(__name__)


class Backend:
    """The service for one session.

    Args:
        client: sends commands to the worker.
        transcripts: of all sessions.
        session_id: of this session.
        folder: of this session.
        meter: counts the usage of the client's key; None if the server uses no keys.
        origin: owner, weight and trace of the request, as fields of `Transcribe`.
    """

    def __init__(
        self,
        *,
        client: WorkerClient,
        transcripts: Transcripts,
        session_id: str,
        folder: Path,
        meter: Meter | None,
        origin: Mapping[str, Any],
    ) -> None:
        self._client = client
        self._transcripts = transcripts
        self._session_id = session_id
        self._folder = folder
        self._meter = meter
        self._origin = origin

    def transcribe(
        self,
        turn: Turn,
        vad: VadOptions,
        decode: DecodeOptions,
        speakers: SpeakerOptions | None = None,
    ) -> AsyncGenerator[WorkerEvent]:
        """Have the worker transcribe the file of a turn. Times count from the start of the file."""
        options = Options(vad=vad, decode=decode, speakers=speakers)
        command = Transcribe(
            uuid.uuid4().hex,
            turn.path,
            self._folder,
            options,
            is_pcm=True,
            session=self._session_id,
            **self._origin,
        )
        return self._client.transcribe(command)

    async def recognise_interim(self, pcm: np.ndarray, decode: DecodeOptions) -> str | None:
        """The text of int16 samples of an unfinished turn.

        None if the engine failed or a guard objects. The samples count towards no limit of the key.
        """
        number = uuid.uuid4().hex
        path = self._folder / f"{number}.interim"
        command = RecogniseInterim(
            number,
            path,
            decode,
            self._session_id,
            self._origin.get("owner", ""),
            self._origin.get("weight", 1.0),
        )
        try:
            await finished_in_thread(path.write_bytes, to_bytes(pcm))
            return await self._client.recognise_interim(command)
        except (AsrError, OSError) as error:
            logger.debug("an interim request failed: %s", type(error).__name__)
            return None
        finally:
            with contextlib.suppress(OSError):
                await finished_in_thread(path.unlink)

    def count_bytes(self, n_bytes: int) -> None:
        """Count audio that was received.

        Raises:
            LimitReached: the key has used up its bytes or hours of the day.
        """
        if self._meter is not None:
            self._meter.check()
            self._meter.add_bytes(n_bytes)

    def keep(self, turn: Turn, transcript: Transcript) -> None:
        """Store a transcript for clients that fetch it later. Blocks on the disk."""
        self._transcripts.add(self._session_id, turn, transcript)

    def text_of(self, item_id: str) -> str | None:
        """The text of a stored transcript, or None. Blocks on the disk."""
        return self._transcripts.text_of(self._session_id, item_id)

    def forget(self, item_id: str) -> None:
        """Delete the transcript of an item, now or when it is stored. Blocks on the disk."""
        self._transcripts.delete(self._session_id, item_id)
