"""One chunk from samples to timed words: the engine hears it, an aligner times it, guards doubt it.

A doubtful answer is asked for again, at a higher temperature, which breaks most loops; then for
each half of the chunk, cut where it is quietest. The best answer is kept, and the transcript says
what happened. No attempt is told what an earlier one heard.

The engine's slots are held only while it works on the chunk; alignment has its own processes.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from asr.align.interpolate import interpolate
from asr.config import ChunkOptions
from asr.counters import COUNTS
from asr.engines.guards import UNHEARD, WITNESS, Finding, findings
from asr.errors import EngineError
from asr.pipeline.chunking import quietest
from asr.pipeline.scheduler import NOBODY, FairSlots, Share
from asr.types import SAMPLE_RATE, Audio, Chunk, Hypothesis, Word

if TYPE_CHECKING:
    from collections.abc import Awaitable, Hashable

    from asr.align.base import Aligner
    from asr.config import DecodeOptions
    from asr.engines.base import Engine

logger = logging.getLogger(__name__)

RETRY_TEMPERATURE: Final = 0.7
MIN_SPLIT_SECONDS: Final = 3.0
"""A shorter chunk is not cut in two: half a sentence is harder to hear than the whole."""
LONGEST_SECONDS: Final = ChunkOptions().max_seconds
READERS: Final = 4
"""Threads that read samples: enough for a slow disk, and few beside one that sends them on."""

Witness = Callable[[Audio, Hypothesis, float], tuple[str, ...]]
"""Says what speaks against a timed hypothesis in its audio, each in words for people; the number is
the chunk's start in seconds."""
Read = Callable[[int, int], Audio]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One answer, and what speaks against it; `how` it came about, for people.

    Its words have times unless a guard has already found something in the text.
    """

    hypothesis: Hypothesis
    findings: tuple[Finding, ...]
    how: str = ""

    @property
    def doubt(self) -> tuple[int, int, float]:
        """Less is better: what was found, how often, then how unsure the engine was.

        The witness may find much in one answer, which together must not outweigh an empty one. An
        engine that does not say how sure it was is the least sure.
        """
        weights = {finding.guard: finding.weight for finding in self.findings}
        logprob = self.hypothesis.avg_logprob
        unsure = math.inf if logprob is None else -logprob
        return sum(weights.values()), len(self.findings), unsure


class Recogniser:
    """An engine, what times its words, and what doubts them.

    Args:
        engine: recognises.
        aligner: times the words of an engine that gives no times; without one they are spread
            over the speech.
        witness: compares the timed words with the audio; what it says counts like what a guard
            finds.
    """

    def __init__(
        self, engine: Engine, aligner: Aligner | None = None, witness: Witness | None = None
    ) -> None:
        self._engine = engine
        self._aligner = aligner
        self._witness = witness
        self._slots = FairSlots(engine.slots)
        self._readers = ThreadPoolExecutor(READERS, "asr-read")

    @property
    def n_waiting(self) -> int:
        """Chunks that wait for a slot of the engine."""
        return self._slots.n_waiting

    async def recognise(
        self,
        chunk: Chunk,
        read: Read,
        options: DecodeOptions,
        job: Hashable = None,
        share: Share = NOBODY,
    ) -> Hypothesis:
        """Recognise one chunk.

        Args:
            chunk: which samples.
            read: gives them; called when a slot is free, so that waiting chunks cost no memory.
            options: what the user tells the recogniser.
            job: whose chunk it is; the jobs of a share take turns at the engine.
            share: whose job it is; shares take turns, too.

        Raises:
            EngineError: it failed.
        """
        work = _Work(self, chunk, read, options, job, share)
        COUNTS["chunks"] += 1
        attempts = [await work.whole()]
        for step in (work.warmer, work.halves):
            if attempts[-1].findings:
                attempts += await work.tried(step)
        best = _settle(attempts)
        if not _is_untimed(best):
            return best
        return await self.timed(best, await work.audio(), options.language)

    async def hear(
        self, chunk: Chunk, read: Read, options: DecodeOptions, job: Hashable, share: Share
    ) -> tuple[Audio, Hypothesis]:
        """The samples, and what the engine makes of them."""
        cost = min(chunk.duration / LONGEST_SECONDS, 1.0)
        async with self._slots.slot(job, share, cost):
            audio = await self.read(chunk, read)
            return audio, await self._engine.transcribe(chunk, audio, options)

    async def read(self, chunk: Chunk, read: Read) -> Audio:
        """The samples of a chunk."""
        loop = asyncio.get_running_loop()
        span = chunk.start_sample, chunk.end_sample
        return await loop.run_in_executor(self._readers, read, *span)

    async def judge(
        self, chunk: Chunk, audio: Audio, heard: Hypothesis, language: str | None
    ) -> _Attempt:
        """Time the words, and look for what speaks against them."""
        found = findings(heard, chunk) if self._engine.guarded else ()
        if not found:  # else it is likely to be replaced, and alignment is dear
            heard = await self.timed(heard, audio, language)
            if self._witness is not None and self._engine.guarded:
                says = self._witness(audio, heard, chunk.start)
                weight = UNHEARD if _is_mostly_unheard(heard) else WITNESS
                found = tuple(Finding("witness", it, weight) for it in says)
        COUNTS.update({f"guard_{finding.guard}" for finding in found})
        return _Attempt(heard, found)

    async def timed(self, heard: Hypothesis, audio: Audio, language: str | None) -> Hypothesis:
        """The hypothesis with a time for every word; an aligner of another language is no help."""
        if not _is_untimed(heard):
            return heard
        if self._aligner is None or not _speaks(self._aligner, language):
            return interpolate(audio, heard)
        return await self._aligner.align(audio, heard)


class _Work:
    """The attempts at one chunk."""

    def __init__(
        self,
        recogniser: Recogniser,
        chunk: Chunk,
        read: Read,
        options: DecodeOptions,
        job: Hashable,
        share: Share,
    ) -> None:
        self._recogniser = recogniser
        self._chunk = chunk
        self._read = read
        self._options = options
        self._job = self if job is None else job  # chunks of nobody are not one job
        self._share = share

    async def audio(self) -> Audio:
        """The samples, read again: none are kept while a chunk waits."""
        return await self._recogniser.read(self._chunk, self._read)

    async def whole(self) -> _Attempt:
        """The chunk as it is."""
        audio, heard = await self._hear(self._chunk, self._options)
        return await self._recogniser.judge(self._chunk, audio, heard, self._options.language)

    async def tried(self, step: Callable[[], Awaitable[_Attempt | None]]) -> list[_Attempt]:
        """The attempt of one step; none if it failed, since there is an answer already."""
        try:
            attempt = await step()
        except EngineError as error:
            COUNTS["attempts_failed"] += 1
            logger.warning("chunk %d, further attempt: %s", self._chunk.index, error)
            return []
        return [] if attempt is None else [attempt]

    async def warmer(self) -> _Attempt:
        """The chunk at a higher temperature."""
        COUNTS["attempts_retry"] += 1
        temperature = max(RETRY_TEMPERATURE, min(1.0, (self._options.temperature or 0.0) + 0.2))
        options = replace(self._options, temperature=temperature)
        audio, heard = await self._hear(self._chunk, options)
        attempt = await self._recogniser.judge(self._chunk, audio, heard, self._options.language)
        return replace(attempt, how="a second attempt at a higher temperature")

    async def halves(self) -> _Attempt | None:
        """Each half of the chunk, if it is long enough."""
        if self._chunk.duration < MIN_SPLIT_SECONDS:
            return None
        COUNTS["attempts_split"] += 1
        left, right = await asyncio.to_thread(_halves, self._chunk, self._read)
        _, first = await self._hear(left, self._options)
        _, second = await self._hear(right, self._options)
        offset = (right.start_sample - self._chunk.start_sample) / SAMPLE_RATE
        joined = _join(first, second, offset)
        attempt = await self._recogniser.judge(
            self._chunk, await self.audio(), joined, self._options.language
        )
        return replace(attempt, how="an attempt at each half of the chunk")

    async def _hear(self, chunk: Chunk, options: DecodeOptions) -> tuple[Audio, Hypothesis]:
        return await self._recogniser.hear(chunk, self._read, options, self._job, self._share)


def _speaks(aligner: Aligner, language: str | None) -> bool:
    """Whether the aligner can align a language; no language means English."""
    asked = (language or "en").lower().split("-")[0]
    return aligner.language is None or asked in (aligner.language, "english")


def _is_mostly_unheard(heard: Hypothesis) -> bool:
    sure = [word.confidence for word in heard.words if word.confidence is not None]
    return 2 * sum(confidence < 0.5 for confidence in sure) > len(heard.words)


def _is_untimed(hypothesis: Hypothesis) -> bool:
    return not hypothesis.words and bool(hypothesis.text.strip())


def _halves(chunk: Chunk, read: Read) -> tuple[Chunk, Chunk]:
    """The chunk cut at the quietest place of its middle third, which has no overlap then."""
    third = (chunk.end_sample - chunk.start_sample) // 3
    earliest = chunk.start_sample + third
    cut = earliest + quietest(read(earliest, chunk.end_sample - third))
    # How the speech is spread over the halves is not known, so none of it is claimed.
    left = replace(chunk, end_sample=cut, overlap=0, speech_samples=None)
    return left, replace(chunk, start_sample=cut, overlap=0, speech_samples=None)


def _join(left: Hypothesis, right: Hypothesis, offset: float) -> Hypothesis:
    """One hypothesis of two halves, of which the second begins `offset` seconds later."""
    both = (left, right)
    spoken = [half for half in both if half.text.strip()]
    logprobs = [half.avg_logprob for half in spoken if half.avg_logprob is not None]
    sure = [half.word_confidences for half in spoken if half.word_confidences is not None]
    return Hypothesis(
        left.chunk_index,
        " ".join(half.text for half in spoken),
        words=_joined_words(left, right, offset),
        avg_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
        warnings=tuple(dict.fromkeys(left.warnings + right.warnings)),
        word_confidences=tuple(chain.from_iterable(sure)) if len(sure) == len(spoken) else None,
        is_cut=left.is_cut or right.is_cut,
    )


def _joined_words(left: Hypothesis, right: Hypothesis, offset: float) -> tuple[Word, ...]:
    """The words of both halves, unless one of them has text and no times yet."""
    if _is_untimed(left) or _is_untimed(right):
        return ()
    later = (replace(it, start=it.start + offset, end=it.end + offset) for it in right.words)
    return left.words + tuple(later)


def _settle(attempts: list[_Attempt]) -> Hypothesis:
    """The best of the attempts, the earliest of equals, with what there is to say about it."""
    best = min(attempts, key=lambda attempt: attempt.doubt)
    first = attempts[0]
    notes = []
    if best is not first:
        notes.append(f"{best.how} replaced an answer in doubt: {_listed(first)}")
    if best.findings:
        COUNTS["chunks_doubtful"] += 1
        notes.append(f"the text is in doubt ({len(attempts)} tried): {_listed(best)}")
    return replace(best.hypothesis, warnings=best.hypothesis.warnings + tuple(notes))


def _listed(attempt: _Attempt) -> str:
    return ", ".join(finding.says for finding in attempt.findings)
