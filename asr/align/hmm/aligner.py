"""The aligner for machines without a GPU: pocketsphinx's model, in child processes. US English.

Each chunk is aligned in a child process, forked from a template process that has loaded the models.
So an alignment has a limit of CPU time, can be killed and leaves no state behind. The alignment
itself is in `asr.align.hmm.forced`.
"""

from __future__ import annotations

import importlib.metadata
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asr.align.hmm.forced import ForcedAligner
from asr.align.interpolate import interpolate
from asr.errors import EngineUnavailable, WorkerDied
from asr.pcm import from_bytes, to_float32
from asr.types import SAMPLE_RATE, Audio, Hypothesis, Word
from asr.workers.call import KILLS, call
from asr.workers.pool import ProcessLimits, ProcessPool

if TYPE_CHECKING:
    from asr.workers.template import Channel

logger = logging.getLogger(__name__)

CPU_SECONDS_BASE: Final = 30
"""CPU time allowed for every chunk."""
CPU_SECONDS_PER_SECOND: Final = 2
"""CPU time allowed per second of audio, besides the base. About 0.01 s is needed."""


class SphinxAligner:
    """Aligns chunks in child processes, at most `workers` at the same time."""

    language = "en"

    def __init__(self, workers: int) -> None:
        version = importlib.metadata.version("pocketsphinx")
        self.name = f"forced alignment on pocketsphinx {version} en-us"
        self._pool = ProcessPool(["asr.align.hmm.aligner:load_template"], workers)

    async def open(self) -> None:
        """Start the template process, which loads the models.

        Raises:
            EngineUnavailable: they could not be loaded.
        """
        try:
            await self._pool.open()
        except WorkerDied as error:
            raise EngineUnavailable(f"the aligner did not load: {error}") from error

    async def align(self, audio: Audio, hypothesis: Hypothesis) -> Hypothesis:
        """Time every word. If the child process fails on them, spread them over the loud audio.

        Raises:
            WorkerDied: the child process was killed from outside, or the system lacks something.
        """
        texts = hypothesis.text.split()
        if not texts:
            return replace(hypothesis, words=())
        seconds = CPU_SECONDS_BASE + CPU_SECONDS_PER_SECOND * audio.duration
        limits = ProcessLimits(cpu_seconds=round(seconds))
        function, request = "asr.align.hmm.aligner:align_job", {"texts": texts}
        try:
            answer = await call(self._pool, function, request, audio.pcm16(), limits)
        except WorkerDied as error:
            if error.errno is not None or error.signal in KILLS:
                raise  # the server is in trouble, and a later attempt can align the words
            logger.warning("alignment of chunk %d failed: %s", hypothesis.chunk_index, error)
            note = "the words could not be aligned; their times are estimates"
            spread = interpolate(audio, hypothesis)
            return replace(spread, warnings=(*hypothesis.warnings, note))
        confidences = hypothesis.word_confidences or [None] * len(texts)
        words = tuple(map(_word, texts, answer["words"], confidences))
        spans = tuple((start, end) for start, end in answer["unwritten"])
        return replace(hypothesis, words=words, unwritten=spans)

    async def close(self) -> None:
        """End the template process and its children."""
        await self._pool.close()


def _word(text: str, item: dict[str, Any], engine_confidence: float | None) -> Word:
    measured = item["confidence"]
    confidence = engine_confidence if measured is None else measured
    return Word(text, item["start"], item["end"], confidence, item["timing"])


# --- in the child process -------------------------------------------------------------------------

_template: ForcedAligner | None = None


def load_template() -> None:
    """Load the models once, in the template process."""
    global _template  # every forked child inherits it
    _template = ForcedAligner()
    # What the first alignment imports, compiles and caches, the children need not do again.
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    _template.align(Audio(noise), ["a"])


def align_job(channel: Channel) -> None:
    """Receive one chunk of PCM16 and its text, and send the times of the words."""
    request, pcm = channel.receive()
    if _template is None:
        raise RuntimeError("the template process did not load the aligner")
    audio = Audio(to_float32(from_bytes(pcm)))
    found = _template.align(audio, request["texts"])
    words = [
        {
            "start": word.start,
            "end": word.end,
            "confidence": word.confidence,
            "timing": word.timing,
        }
        for word in found.words
    ]
    channel.send({"words": words, "unwritten": found.unwritten})
