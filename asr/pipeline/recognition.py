"""One chunk from samples to timed words: engine, aligner, and checks for doubtful text.

If a check finds something, the engine recognises the chunk again in another way. If that is
doubtful too, the chunk is cut at a quiet place near its middle, and each half is recognised. The
best attempt is kept, and a warning in the transcript says what happened. Attempts are independent:
none is prompted with an earlier answer.

A slot of the engine is held only while the engine works; alignment has its own processes.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from asr.align.interpolate import interpolate
from asr.config import ChunkOptions, DecodeOptions
from asr.counters import COUNTS
from asr.engines.base import Scrubbed
from asr.engines.guards import (
    REASONING,
    UNHEARD,
    WITNESS,
    Finding,
    findings,
)
from asr.engines.reasoning import split_reasoning
from asr.errors import EngineError, EngineFailed
from asr.pipeline.chunking import quietest
from asr.pipeline.loudness import audible
from asr.pipeline.remarks import has_remarks, milder, restored, without_remarks, without_thoughts
from asr.pipeline.scheduler import NOBODY, FairSlots, Share
from asr.types import SAMPLE_RATE, Audio, Chunk, Hypothesis, Word

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Hashable

    from asr.align.base import Aligner
    from asr.engines.base import Engine

logger = logging.getLogger(__name__)

MIN_SPLIT_SECONDS: Final = 3.0
"""A shorter chunk is not halved: half a sentence is harder to recognise than a whole one."""
LONGEST_SECONDS: Final = ChunkOptions().max_seconds
READERS: Final = 4
"""Threads that read samples from disk."""

Witness = Callable[[Audio, Hypothesis, float], tuple[str, ...]]
"""Compares a timed hypothesis with its audio and returns its objections as text for people. The
number is the start of the chunk in seconds."""
Read = Callable[[int, int], Audio]
Ask = Callable[[Chunk, Audio, DecodeOptions], Awaitable[Hypothesis]]
"""`Engine.transcribe` or `Engine.retry`."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One answer of the engine and the objections to it.

    Its words have times, unless a guard found something in the text.

    Attributes:
        hypothesis: the answer.
        findings: the objections.
        how: how the answer was obtained, as text for people.
    """

    hypothesis: Hypothesis
    findings: tuple[Finding, ...]
    how: str = ""

    @property
    def doubt(self) -> tuple[int, int, float]:
        """Smaller is better: weight of the findings, their number, then the engine's uncertainty.

        Each guard counts once, so that many findings of the witness do not outweigh an empty
        answer. An engine that gives no log probability counts as the least certain.
        """
        weights = {finding.guard: finding.weight for finding in self.findings}
        logprob = self.hypothesis.avg_logprob
        unsure = math.inf if logprob is None else -logprob
        return sum(weights.values()), len(self.findings), unsure


class Recogniser:
    """Recognises chunks with an engine, an aligner and a witness.

    Args:
        engine: recognises the words.
        aligner: times the words of an engine that gives no times; without an aligner the words
            are spread over the speech.
        witness: compares the timed words with the audio; its objections count like those of the
            guards.
    """

    def __init__(
        self, engine: Engine, aligner: Aligner | None = None, witness: Witness | None = None
    ) -> None:
        self.engine = engine
        self._aligner = aligner
        self._witness = witness
        self._slots = FairSlots(engine.slots)
        self._n_interim_waiting = 0
        self._readers = ThreadPoolExecutor(READERS, "asr-read")

    @property
    def n_waiting(self) -> int:
        """How many chunks wait for a slot of the engine. Interim requests do not count."""
        return self._slots.n_waiting - self._n_interim_waiting

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
            chunk: the chunk.
            read: returns samples; called when a slot is free, so waiting chunks need no memory.
            options: what the user tells the engine.
            job: the recording of the chunk; the jobs of a share take turns at the engine.
            share: the owner of the job; shares take turns, too.

        Raises:
            EngineError: the engine failed.
        """
        work = _Work(self, chunk, read, options, job, share)
        COUNTS["chunks"] += 1
        attempts = [await work.whole()]
        for step in (work.again, work.halves):
            if attempts[-1].findings:
                attempts += await work.tried(step)
        best = _settle(attempts, chunk)
        if _is_untimed(best):
            best = await self.timed(best, await work.audio(), options.language)
        return _with_lower_confidences(best) if best.is_calibrated else best

    def slot(
        self, chunk: Chunk, job: Hashable, share: Share
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """A slot of the engine for one chunk."""
        return self._slots.slot(job, share, min(chunk.duration / LONGEST_SECONDS, 1.0))

    async def recognise_interim(
        self,
        chunk: Chunk,
        read: Read,
        options: DecodeOptions,
        job: Hashable,
        share: Share,
        engine: Engine | None = None,
    ) -> str | None:
        """The engine's answer to unfinished speech, or None if a guard objects.

        There is only one attempt, without word times, and it is not part of `COUNTS`. It takes its
        turn at the engine's slots like a chunk.

        Args:
            chunk: the speech so far.
            read: returns its samples; called when a slot is free.
            options: what the user tells the engine.
            job: the live session.
            share: the owner of the work.
            engine: a wrapper that measures the engine; by default the engine itself.

        Raises:
            EngineError: the engine failed.
        """
        engine = engine or self.engine
        is_waiting = not self._slots.n_free
        self._n_interim_waiting += is_waiting
        try:
            async with self.slot(chunk, job, share):
                self._n_interim_waiting -= is_waiting
                is_waiting = False
                heard = await engine.transcribe(chunk, await self.read(chunk, read), options)
        finally:
            self._n_interim_waiting -= is_waiting
        return None if self.doubts(heard, chunk) else heard.text

    async def read(self, chunk: Chunk, read: Read) -> Audio:
        """The samples of a chunk, amplified if they are quiet."""
        loop = asyncio.get_running_loop()
        span = chunk.start_sample, chunk.end_sample
        return await loop.run_in_executor(self._readers, lambda: audible(read(*span)))

    def doubts(self, heard: Hypothesis, chunk: Chunk) -> tuple[Finding, ...]:
        """What the guards find. Only a model that is asked with a text can think about it."""
        found = findings(heard, chunk) if self.engine.guarded else ()
        return tuple(it for it in found if self._is_asked or it.guard != "reasoning")

    @property
    def _is_asked(self) -> bool:
        """Whether the engine asks a model with a text."""
        return self.engine.guarded and bool(getattr(self.engine, "question_id", ""))

    def is_remarked(self, heard: Hypothesis) -> bool:
        """Whether an answer may hold text of the model at its start or end."""
        return self._is_asked and has_remarks(heard.text)

    async def judge(
        self, chunk: Chunk, audio: Audio, heard: Hypothesis, language: str | None
    ) -> _Attempt:
        """Check the text, time the words, and let the witness check them."""
        heard = await self.cleaned(heard, audio, language)
        found = milder(self.doubts(heard, chunk), heard)
        thoughts = split_reasoning(heard.text)
        if thoughts is not None and any(finding.guard == "reasoning" for finding in found):
            timed = await self.timed(heard, audio, language)
            heard, found = without_thoughts(chunk, heard, timed, thoughts, found)
        if not found:  # otherwise it will probably be replaced, and alignment is slow
            heard = await self.timed(heard, audio, language)
            if self._witness is not None and self.engine.guarded:
                says = self._witness(audio, heard, chunk.start)
                weight = UNHEARD if _is_mostly_unheard(heard) else WITNESS
                found = tuple(Finding("witness", it, weight) for it in says)
        COUNTS.update({f"guard_{finding.guard}" for finding in found})
        return _Attempt(heard, found)

    async def cleaned(self, heard: Hypothesis, audio: Audio, language: str | None) -> Hypothesis:
        """Remove what the model said to the user, unless the aligner hears it."""
        if isinstance(heard, Scrubbed):
            timed = await self.timed(heard.uncut, audio, language)
            heard = replace(restored(heard, timed), is_cut=heard.is_cut)
        if not self.is_remarked(heard):
            return heard
        timed = await self.timed(heard, audio, language)
        return replace(without_remarks(timed, audio.duration), is_cut=heard.is_cut)

    async def timed(self, heard: Hypothesis, audio: Audio, language: str | None) -> Hypothesis:
        """Time every word; interpolate if no aligner knows the language."""
        if not _is_untimed(heard):
            return heard
        language = language or self.engine.language
        if self._aligner is None or not speaks(self._aligner, language):
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
        self.engine = recogniser.engine
        self._chunk = chunk
        self._read = read
        self._options = options
        self._job = self if job is None else job  # chunks without a job are separate jobs
        self._share = share

    async def audio(self) -> Audio:
        """Read the samples again: none are kept while a chunk waits."""
        return await self._recogniser.read(self._chunk, self._read)

    async def whole(self) -> _Attempt:
        """The first attempt: the whole chunk with the user's options."""
        audio, heard = await self._hear(self._chunk, self.engine.transcribe)
        return await self._recogniser.judge(self._chunk, audio, heard, self._options.language)

    async def tried(self, step: Callable[[], Awaitable[_Attempt | None]]) -> list[_Attempt]:
        """A list with the attempt of one step.

        The list is empty if the step failed or was not possible. That is no error, because an
        earlier answer exists.
        """
        try:
            attempt = await step()
        except EngineError as error:
            COUNTS["attempts_failed"] += 1
            logger.warning("chunk %d, further attempt: %s", self._chunk.index, error)
            return []
        return [] if attempt is None else [attempt]

    async def again(self) -> _Attempt:
        """The whole chunk in another way, which the engine chooses."""
        COUNTS["attempts_retry"] += 1
        audio, heard = await self._hear(self._chunk, self.engine.retry)
        attempt = await self._recogniser.judge(self._chunk, audio, heard, self._options.language)
        return replace(attempt, how=self.engine.retry_note)

    async def halves(self) -> _Attempt | None:
        """Each half of the chunk, or None if the chunk is too short."""
        if self._chunk.duration < MIN_SPLIT_SECONDS:
            return None
        COUNTS["attempts_split"] += 1
        left, right = await asyncio.to_thread(_halves, self._chunk, self._read)
        first, second = await self._half(left), await self._half(right)
        offset = (right.start_sample - self._chunk.start_sample) / SAMPLE_RATE
        both = ((first, left), (second, right))
        found = chain.from_iterable(self._recogniser.doubts(*half) for half in both)
        if any(it.guard == "reasoning" for it in found):
            return None  # in the middle of a text they would not be noticed
        whole = _concatenated(first, second, offset)
        attempt = await self._recogniser.judge(
            self._chunk, await self.audio(), whole, self._options.language
        )
        return replace(attempt, how="an attempt at each half of the chunk")

    async def _half(self, half: Chunk) -> Hypothesis:
        """The answer to one half, without remarks: in the middle they would not be noticed."""
        audio, heard = await self._hear(half, self.engine.transcribe)
        return await self._recogniser.cleaned(heard, audio, self._options.language)

    async def _hear(self, chunk: Chunk, ask: Ask) -> tuple[Audio, Hypothesis]:
        async with self._recogniser.slot(chunk, self._job, self._share):
            audio = await self._recogniser.read(chunk, self._read)
            return audio, await ask(chunk, audio, self._options)


def speaks(aligner: Aligner, language: str) -> bool:
    """Whether the aligner knows a language.

    If `aligner.language` is None, the aligner knows every language.
    """
    asked = language.lower().split("-")[0]
    return aligner.language is None or asked in (aligner.language, "english")


def _is_mostly_unheard(heard: Hypothesis) -> bool:
    sure = [word.confidence for word in heard.words if word.confidence is not None]
    return 2 * sum(confidence < 0.5 for confidence in sure) > len(heard.words)


def _with_lower_confidences(heard: Hypothesis) -> Hypothesis:
    """Give each word the lower one of the engine's confidence and the aligner's.

    The engine's says how likely the word is, the aligner's how well it fits the audio. This must be
    done after the witness, which needs the aligner's confidences.
    """
    own = heard.word_confidences
    if own is None or len(own) != len(heard.words):
        return heard
    words = (
        replace(word, confidence=sure if word.confidence is None else min(word.confidence, sure))
        for word, sure in zip(heard.words, own, strict=True)
    )
    return replace(heard, words=tuple(words))


def _is_untimed(hypothesis: Hypothesis) -> bool:
    return not hypothesis.words and bool(hypothesis.text.strip())


def _halves(chunk: Chunk, read: Read) -> tuple[Chunk, Chunk]:
    """The chunk cut at the quietest place of its middle third, without overlap."""
    third = (chunk.end_sample - chunk.start_sample) // 3
    earliest = chunk.start_sample + third
    cut = earliest + quietest(read(earliest, chunk.end_sample - third))
    # How much speech each half has is not known.
    left = replace(chunk, end_sample=cut, overlap=0, speech_samples=None)
    return left, replace(chunk, start_sample=cut, overlap=0, speech_samples=None)


def _concatenated(left: Hypothesis, right: Hypothesis, offset: float) -> Hypothesis:
    """Concatenate the hypotheses of two halves; the second starts `offset` seconds later."""
    both = (left, right)
    spoken = [half for half in both if half.text.strip()]
    logprobs = [half.avg_logprob for half in spoken if half.avg_logprob is not None]
    sure = [half.word_confidences for half in spoken if half.word_confidences is not None]
    return Hypothesis(
        left.chunk_index,
        " ".join(half.text for half in spoken),
        words=_concatenated_words(left, right, offset),
        avg_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
        warnings=tuple(dict.fromkeys(left.warnings + right.warnings)),
        word_confidences=tuple(chain.from_iterable(sure)) if len(sure) == len(spoken) else None,
        is_cut=left.is_cut or right.is_cut,
        is_calibrated=left.is_calibrated and right.is_calibrated,
    )


def _concatenated_words(left: Hypothesis, right: Hypothesis, offset: float) -> tuple[Word, ...]:
    """The words of both halves, or none if one half has text without times."""
    if _is_untimed(left) or _is_untimed(right):
        return ()
    later = (replace(it, start=it.start + offset, end=it.end + offset) for it in right.words)
    return left.words + tuple(later)


def _settle(attempts: list[_Attempt], chunk: Chunk) -> Hypothesis:
    """The best attempt, the earliest on a tie, with warnings about what happened.

    Raises:
        EngineFailed: every attempt is thoughts of the model and nothing else.
    """
    best = min(attempts, key=lambda attempt: attempt.doubt)
    if any(finding.weight == REASONING for finding in best.findings):
        COUNTS["chunks_doubtful"] += 1
        message = (
            f"the model thought aloud about the chunk at {chunk.start:.1f} s and wrote no text"
        )
        raise EngineFailed(message, chunk.index)
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
