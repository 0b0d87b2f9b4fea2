"""Tells speakers apart, in child processes.

The model is loaded by a template process when the first recording needs it, and each job runs in a
fork of it, as for the embedded engine.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asr.errors import AsrError, SpeakersUnavailable
from asr.speakers.folder import find_model, model_id, obstacle
from asr.speakers.packing import to_bytes, unpack
from asr.types import Voices
from asr.workers.call import call
from asr.workers.pool import ProcessLimits, ProcessPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asr.config import SpeakerOptions
    from asr.speakers.windows import Span
    from asr.types import Audio, Word

logger = logging.getLogger(__name__)

_WORKER: Final = "asr.speakers.worker"
EMBED_LIMITS: Final = ProcessLimits(cpu_seconds=120, memory_bytes=4 << 30)
"""For one chunk, whose embeddings take about 1 s of CPU time."""
LABEL_LIMITS: Final = ProcessLimits(cpu_seconds=300, memory_bytes=4 << 30)
"""For a whole recording. Ten hours take about 10 s of CPU time."""
MOST_REFINED: Final = 4800
"""Windows, an hour of speech. Fine windows of longer recordings would take too long at the end."""
RECENT_CHUNKS: Final = 8
"""Chunks in which provisional labels look for windows."""


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """Who says a word.

    Attributes:
        speaker: a letter, or the name of a known voice.
        confidence: 0 to 1.
        overlapped: whether another voice may be active during the word.
    """

    speaker: str
    confidence: float
    overlapped: bool


class VoiceLog:
    """The windows of one channel so far.

    Attributes:
        windows: start and end in seconds of the recording.
        embeddings: an array for each chunk.
    """

    def __init__(self) -> None:
        self.windows: list[Span] = []
        self.embeddings: list[np.ndarray] = []

    def add(self, start: float, voices: Voices) -> None:
        """Add the windows of a chunk that starts at `start` seconds.

        Raises:
            ValueError: the embeddings are damaged. Nothing was added.
        """
        if voices.windows:
            self.embeddings.append(unpack(voices.embeddings, len(voices.windows)))
            self.windows += [(start + begin, start + end) for begin, end in voices.windows]

    def recent(self) -> tuple[np.ndarray, np.ndarray]:
        """The windows of the last chunks and their embeddings."""
        embeddings = np.concatenate(self.embeddings[-RECENT_CHUNKS:])
        return np.array(self.windows[-len(embeddings) :]), embeddings


@dataclass(frozen=True, slots=True)
class Provisional:
    """The voices of one channel while it is being read.

    Attributes:
        centres: of the voices, unit vectors.
        numbers: of the voices. A voice keeps its number.
        of_windows: the number of each window's voice.
    """

    centres: np.ndarray
    numbers: tuple[int, ...]
    of_windows: tuple[int, ...]


class Diariser:
    """Tells the speakers of many recordings apart. It belongs to one event loop.

    Args:
        workers: number of processes.
        model: the setting ``speaker_model``.
    """

    def __init__(self, workers: int, model: str = "") -> None:
        self._workers = workers
        self._model = model
        self._pool: ProcessPool | None = None
        self._opening = asyncio.Lock()

    @property
    def obstacle(self) -> str:
        """Why speakers cannot be told apart, with the fix; empty if they can."""
        return obstacle(self._model)

    def other_model(self) -> str:
        """What identifies a chosen model; empty for the installed one, or if it cannot be read.

        Embeddings of two models cannot be compared, so an attempt of a job that has another model
        than the one before cannot use what that one kept.
        """
        try:
            return model_id(self._model) if self._model else ""
        except (SpeakersUnavailable, OSError):
            return ""

    async def close(self) -> None:
        """End the template process and its children."""
        if self._pool is not None:
            await self._pool.close()

    async def open(self) -> None:
        """Check the model's file and load it, unless that is done.

        Raises:
            SpeakersUnavailable: the model is missing or damaged, or the extra is not installed.
        """
        async with self._opening:
            if self._pool is not None and not self._pool.closed:
                return
            path = await asyncio.to_thread(find_model, self._model)
            pool = ProcessPool([(f"{_WORKER}:load_template", str(path))], self._workers)
            await pool.open()
            self._pool = pool

    async def embed(self, audio: Audio, words: Sequence[Word], *, fine: bool = False) -> Voices:
        """The windows over the words of a chunk and their embeddings; `fine` ones are shorter.

        Raises:
            AsrError: it failed.
        """
        if not words:
            return Voices((), "")
        request = {"words": [(word.start, word.end) for word in words], "fine": fine}
        answer = await self._call("embed_job", request, audio.pcm16(), EMBED_LIMITS)
        windows = tuple((start, end) for start, end in answer["windows"])
        return Voices(windows, answer["embeddings"])

    async def embed_voice(self, speech: Audio, stretches: Sequence[Span] = ()) -> tuple[str, int]:
        """The embedding of a known voice as text, and the number of voices in the recording.

        Args:
            speech: of one person, without pauses.
            stretches: start and end in seconds of the parts between which pauses were.

        Raises:
            AsrError: it failed.
        """
        request = {"stretches": list(stretches)}
        answer = await self._call("voice_job", request, speech.pcm16(), EMBED_LIMITS)
        return str(answer["embedding"]), int(answer["n_voices"])

    async def label(
        self,
        log: VoiceLog,
        words: Sequence[Word],
        options: SpeakerOptions,
        refine: Callable[[], Awaitable[VoiceLog | None]] | None = None,
    ) -> tuple[list[SpokenWord], tuple[str, ...]]:
        """Who says each word, and warnings.

        Args:
            log: the windows of the channel.
            words: of the channel, in order.
            options: how many speakers there are, and which are known.
            refine: gives fine windows of the channel. It is called if a voice may be several.

        Raises:
            AsrError: it failed.
        """
        answer = await self._label(log, words, options, fine=False)
        is_worth_it = answer["is_loose"] and len(log.windows) <= MOST_REFINED
        if is_worth_it and refine is not None and (finer := await refine()) is not None:
            try:
                answer = await self._label(finer, words, options, fine=True)
            except AsrError as error:  # the first answer is good enough
                logger.warning("fine windows: %s", error)
        parts = zip(answer["voices"], answer["confidences"], answer["overlapped"], strict=True)
        spoken = [
            SpokenWord(answer["names"][voice], sure, overlapped)
            for voice, sure, overlapped in parts
        ]
        return spoken, tuple(answer["warnings"])

    async def _label(
        self, log: VoiceLog, words: Sequence[Word], options: SpeakerOptions, *, fine: bool
    ) -> dict[str, Any]:
        request = {
            **_request(log, options),
            "words": [(word.start, word.end) for word in words],
            "known": [asdict(voice) for voice in options.known],
            "fine": fine,
        }
        return await self._call("label_job", request, to_bytes(log.embeddings), LABEL_LIMITS)

    async def snapshot(
        self, log: VoiceLog, options: SpeakerOptions, earlier: Sequence[int]
    ) -> Provisional:
        """The voices so far.

        Raises:
            AsrError: it failed.
        """
        request = {**_request(log, options), "earlier": list(earlier)}
        answer = await self._call("snapshot_job", request, to_bytes(log.embeddings), LABEL_LIMITS)
        numbers = tuple(answer["numbers"])
        centres = unpack(answer["centres"], len(numbers)).astype(np.float32)
        return Provisional(centres, numbers, tuple(answer["of_windows"]))

    async def _call(
        self, job: str, request: dict[str, Any], payload: bytes, limits: ProcessLimits
    ) -> dict[str, Any]:
        await self.open()
        if self._pool is None:
            raise SpeakersUnavailable("the speaker model is not loaded")
        return await call(self._pool, f"{_WORKER}:{job}", request, payload, limits)


def _request(log: VoiceLog, options: SpeakerOptions) -> dict[str, Any]:
    return {"windows": log.windows, "fewest": options.fewest, "most": options.most}
