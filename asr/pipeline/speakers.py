"""Who speaks in one recording: collects the voices of its chunks and labels its words.

While the recording is read, segments get provisional speakers: the voices are found again from
time to time, and a segment takes the nearest ones. At the end all words are labelled at once, and
segments are split where the speaker changes.

If telling speakers apart fails, the transcript is delivered without speakers and with a warning.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left, bisect_right
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.errors import AsrError, EngineUnavailable, without_places
from asr.pipeline.channels import speaker_of
from asr.spacing import join_words
from asr.speakers.diariser import MOST_REFINED, VoiceLog
from asr.speakers.letters import letter_of
from asr.speakers.scores import best_path, word_scores
from asr.types import LineSegment, Segment, Voices

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from asr.config import SpeakerOptions
    from asr.speakers.diariser import Diariser, Provisional, SpokenWord
    from asr.types import Audio, Chunk, Hypothesis, Word

    ReadChunk = Callable[[int, Chunk], Awaitable[Audio]]

logger = logging.getLogger(__name__)

FRESH_WINDOWS: Final = 40
"""The voices are found again after this many new windows, 30 s of speech ..."""
FRESH_SHARE: Final = 0.2
"""... that are also this part of all windows, so that long recordings do not cost more."""
LIVE_SHARE: Final = 0.05
"""In a live session, after new windows that are more than this part of the known ones."""
TURN_SECONDS: Final = 100_000.0
"""Longer than any turn of a live session."""
REFINED_AT_ONCE: Final = 4
"""Chunks whose samples are in memory for fine windows."""
MAX_FAILURES: Final = 3
"""Chunks that may fail before the first success. Then no further chunk is tried."""
PROVISIONAL_CHANGE: Final = 3.0
"""What a change of the speaker costs in provisional labels, as in `Thresholds.change`."""


class SpeakerMemory:
    """The voices of a live session, whose turns are recordings of their own.

    A speaker keeps the letter from turn to turn. The letters stay provisional, because they were
    sent before the session was over.

    Attributes:
        log: the windows of all turns; each turn has a time of its own.
        found: the voices in them.
        lock: held while voices are being found.
    """

    def __init__(self) -> None:
        self.log = VoiceLog()
        self.found: Provisional | None = None
        self.lock = asyncio.Lock()
        self._n_turns = 0

    def begin_turn(self) -> float:
        """The time at which the next turn starts, far behind the earlier ones."""
        self._n_turns += 1
        return self._n_turns * TURN_SECONDS


class SpeakerTracker:
    """The speakers of one recording.

    Args:
        diariser: embeds and labels.
        options: how many speakers there are, and which are known.
        labels: the name of each channel if the channels are kept apart, else empty.
        memory: of the live session, if the recording is a turn of one.
        read: gives the samples of a chunk of a channel again, for fine windows.

    Attributes:
        warnings: why speakers are missing or doubtful, as text for people.
    """

    def __init__(
        self,
        diariser: Diariser,
        options: SpeakerOptions,
        labels: Sequence[str] = (),
        memory: SpeakerMemory | None = None,
        read: ReadChunk | None = None,
    ) -> None:
        self.warnings: list[str] = []
        self._read = read
        self._heard: dict[int, list[tuple[Chunk, Sequence[Word]]]] = {}  # of each channel
        self._diariser = diariser
        self._options = options
        self._labels = labels
        self._memory = memory
        self._offset = memory.begin_turn() if memory else 0.0
        self._logs: dict[int, VoiceLog] = {0: memory.log} if memory else {}
        self._found: dict[int, Provisional] = {}
        self._told: list[Segment] = []  # of a turn of a live session
        self._last_told: dict[int, str] = {}  # the last provisional speaker of each channel
        self._n_failures = 0
        self._last_error = ""
        self._failure = ""  # why no speakers are told apart at all

    async def hear(self, audio: Audio, hypothesis: Hypothesis) -> Hypothesis:
        """Add the voices to the hypothesis of a chunk, unless it has them."""
        if hypothesis.voices is not None or self._is_given_up:
            return hypothesis
        try:
            voices = await self._diariser.embed(audio, hypothesis.words)
        except Exception as error:  # noqa: BLE001  # no trouble with voices may cost the text
            self._fail(error)
            return hypothesis
        return replace(hypothesis, voices=voices)

    def add(
        self, channel: int, chunk: Chunk, voices: Voices | None, words: Sequence[Word] = ()
    ) -> None:
        """Take the voices and the words of the next chunk of a channel."""
        log = self._logs.setdefault(channel, VoiceLog())
        if self._read is not None:
            kept = self._heard.setdefault(channel, [])
            kept.append((chunk, words))
            if len(log.windows) > MOST_REFINED:
                kept.clear()  # they are not needed then
        if voices is None:
            return
        try:
            log.add(self._offset + chunk.start, voices)
        except ValueError as error:  # a damaged record of an earlier attempt
            self._fail(error)

    async def refresh(self, channel: int) -> None:
        """Find the voices so far, if there is enough new speech."""
        if self._memory is not None:
            await self._refresh_memory(self._memory)
            return
        log, found = self._logs[channel], self._found.get(channel)
        n_known = len(found.of_windows) if found else 0
        n_fresh = len(log.windows) - n_known
        due = max(FRESH_WINDOWS, FRESH_SHARE * n_known) if found else 1
        if n_fresh < due or self._is_given_up:
            return
        earlier = found.of_windows if found else ()
        try:
            self._found[channel] = await self._diariser.snapshot(log, self._options, earlier)
        except Exception as error:  # noqa: BLE001  # as in `hear`
            logger.warning("speakers so far: %s", _reason(error))

    async def _refresh_memory(self, memory: SpeakerMemory) -> None:
        """Find the voices of a live session: a new speaker shall soon have a letter."""
        async with memory.lock:
            n_known = len(memory.found.of_windows) if memory.found else 0
            if len(memory.log.windows) - n_known > LIVE_SHARE * n_known and not self._is_given_up:
                earlier = memory.found.of_windows if memory.found else ()
                try:
                    memory.found = await self._diariser.snapshot(memory.log, self._options, earlier)
                except Exception as error:  # noqa: BLE001  # as in `hear`
                    logger.warning("speakers so far: %s", _reason(error))
            if memory.found:
                self._found[0] = memory.found

    def tell(self, segment: Segment) -> list[Segment]:
        """The segment as it is reported early, with provisional speakers.

        In a live session it is split where the speaker changes, because it is not reported again.
        """
        told = self._provisional(segment)
        if self._memory is None:
            return [told]
        first = len(self._told)
        pieces = [
            replace(piece, id=first + number)
            for number, piece in enumerate(_split(told, told.words))
        ]
        self._told += pieces
        return pieces

    def _provisional(self, segment: Segment) -> Segment:
        """The segment with provisional speakers, unless telling them apart has failed so far."""
        channel = segment.channel or 0
        found, log = self._found.get(channel), self._logs.get(channel)
        last = self._last_told.get(channel)
        if segment.words and found is not None and log is not None:
            numbers = _nearest(segment.words, self._offset, log, found)
            names = [self._named(letter_of(found.numbers[number]), channel) for number in numbers]
        elif self._last_error or not (segment.words or last):
            return segment
        else:  # no word was long enough for a window yet, or there are no words
            last = last or self._named(letter_of(0), channel)
            names = [last] * len(segment.words)
        spoken = zip(segment.words, names, strict=True)
        words = tuple(replace(word, speaker=name) for word, name in spoken)
        speaker = _main_speaker(words) or last
        if speaker is not None:
            self._last_told[channel] = names[-1] if names else speaker
        return replace(segment, words=words, speaker=speaker, is_provisional=True)

    def _named(self, letter: str, channel: int) -> str:
        return f"{self._label(channel)} {letter}" if self._labels else letter

    def _label(self, channel: int) -> str:
        return self._labels[channel] if channel < len(self._labels) else speaker_of(channel)

    async def finish(self, segments: Sequence[Segment]) -> tuple[Segment, ...]:
        """The segments with their final speakers, split where the speaker changes, renumbered."""
        if self._last_error and not any(log.windows for log in self._logs.values()):
            self._failure = self._failure or self._last_error
        if self._memory is not None and not self._failure:
            return tuple(self._told)
        labelled = await self._label_channels(segments)
        if labelled is None:
            self.warnings = [f"the speakers could not be told apart: {self._failure}"]
            return tuple(segments)
        if self._last_error:
            note = "the speakers of some chunks are taken from those around them"
            self.warnings.append(f"{note}: {self._last_error}")
        if self._labels:
            labelled = _with_overlaps(labelled)
        pieces = _replaced(segments, labelled)
        return tuple(replace(piece, id=number) for number, piece in enumerate(_complete(pieces)))

    async def _label_channels(self, segments: Sequence[Segment]) -> dict[int, list[Word]] | None:
        """The words of each channel with their speakers; None if it failed."""
        if self._failure:
            return None
        channels = sorted({segment.channel or 0 for segment in segments})
        try:
            return {channel: await self._label_words(channel, segments) for channel in channels}
        except Exception as error:  # noqa: BLE001  # as in `hear`
            logger.warning("speakers: %s", _reason(error))
            self._failure = without_places(_reason(error))
            return None

    async def _label_words(self, channel: int, segments: Sequence[Segment]) -> list[Word]:
        mine = (segment for segment in segments if (segment.channel or 0) == channel)
        words = [word for segment in mine for word in segment.words]
        log = self._logs.get(channel, VoiceLog())
        if not words:
            return []
        refine = partial(self._fine_log, channel, self._read) if self._read else None
        spoken, warnings = await self._diariser.label(log, words, self._options, refine)
        self.warnings += warnings
        names = self._channel_names(channel, spoken)
        return [
            replace(
                word,
                speaker=names[who.speaker],
                speaker_confidence=who.confidence,
                overlapped=who.overlapped,
            )
            for word, who in zip(words, spoken, strict=True)
        ]

    async def _fine_log(self, channel: int, read: ReadChunk) -> VoiceLog | None:
        """The fine windows of a channel; None if that fails."""
        log = VoiceLog()
        chunks = self._heard.get(channel, [])
        try:
            for first in range(0, len(chunks), REFINED_AT_ONCE):
                batch = chunks[first : first + REFINED_AT_ONCE]
                found = [self._fine_voices(channel, chunk, words, read) for chunk, words in batch]
                for (chunk, _), voices in zip(batch, await asyncio.gather(*found), strict=True):
                    log.add(chunk.start, voices)
        except Exception as error:  # noqa: BLE001  # as in `hear`
            logger.warning("fine windows: %s", _reason(error))
            return None
        return log if log.windows else None

    async def _fine_voices(
        self, channel: int, chunk: Chunk, words: Sequence[Word], read: ReadChunk
    ) -> Voices:
        if not words:
            return Voices((), "")  # its samples need not be read
        return await self._diariser.embed(await read(channel, chunk), words, fine=True)

    def _channel_names(self, channel: int, spoken: Iterable[SpokenWord]) -> dict[str, str]:
        """The final name of each speaker. A channel with one unknown speaker is its speaker."""
        names = {who.speaker: who.speaker for who in spoken}
        if not self._labels:
            return names
        known = {voice.name for voice in self._options.known}
        if len(names) == 1:
            return {name: name if name in known else self._label(channel) for name in names}
        return {name: name if name in known else self._named(name, channel) for name in names}

    @property
    def _is_given_up(self) -> bool:
        return bool(self._failure)

    def _fail(self, error: Exception) -> None:
        """Take note of a chunk that failed. Without a model, nothing else is tried."""
        logger.warning("speakers: %s", _reason(error))
        self._last_error = without_places(_reason(error))
        self._n_failures += 1
        has_any = any(log.windows for log in self._logs.values())
        is_hopeless = not has_any and self._n_failures >= MAX_FAILURES
        if isinstance(error, EngineUnavailable) or is_hopeless:
            self._failure = self._last_error


def _reason(error: Exception) -> str:
    """What went wrong, for people. Unexpected errors are named only, because they are ours."""
    is_ours = isinstance(error, AsrError | OSError | ValueError)
    return (str(error) if is_ours else "") or type(error).__name__


def _nearest(words: Sequence[Word], offset: float, log: VoiceLog, found: Provisional) -> list[int]:
    """The index of the voice of each word. The times in the log are `offset` seconds later."""
    windows, recent = log.recent()
    first, last = offset + words[0].start, offset + words[-1].end
    near = np.flatnonzero((windows[:, 1] > first) & (windows[:, 0] < last))
    if not len(near):
        return [found.numbers.index(found.of_windows[-1])] * len(words)
    cosines = recent[near].astype(np.float32) @ found.centres.T
    spans = [(offset + word.start, offset + word.end) for word in words]
    order = np.argsort(windows[near, 0], kind="stable")
    sums, _ = word_scores(spans, windows[near][order], cosines[order])
    return [int(voice) for voice in best_path(sums, PROVISIONAL_CHANGE)]


def _main_speaker(words: Iterable[Word]) -> str | None:
    """The speaker of most of the time."""
    seconds: dict[str | None, float] = {}
    for word in words:
        seconds[word.speaker] = seconds.get(word.speaker, 0.0) + word.end - word.start
    return max(seconds, key=lambda name: seconds[name], default=None)


def _with_overlaps(channels: dict[int, list[Word]]) -> dict[int, list[Word]]:
    """Mark the words during which a word of another channel is spoken. This is exact."""
    marked = {}
    for channel, words in channels.items():
        others = [it for other, found in channels.items() if other != channel for it in found]
        starts = sorted(word.start for word in others)
        ends = sorted(word.end for word in others)
        marked[channel] = [
            # Others that begin before the word's end, less those that end before its start.
            replace(word, overlapped=bisect_left(starts, word.end) > bisect_right(ends, word.start))
            for word in words
        ]
    return marked


def _replaced(segments: Iterable[Segment], labelled: dict[int, list[Word]]) -> list[Segment]:
    """The segments with labelled words, split where the speaker changes."""
    words = {channel: iter(found) for channel, found in labelled.items()}
    pieces: list[Segment] = []
    for segment in segments:
        own = tuple(next(words[segment.channel or 0]) for _ in segment.words)
        pieces += _split(segment, own)
    return sorted(pieces, key=lambda piece: piece.start)


def _split(segment: Segment, words: tuple[Word, ...]) -> list[Segment]:
    """Parts of a segment, each of one speaker. A line of the user's text stays whole."""
    runs = [tuple(run) for _, run in groupby(words, key=lambda word: word.speaker)]
    if len(runs) < 2 or isinstance(segment, LineSegment):
        return [_spoken(replace(segment, words=words))]
    pieces = []
    for number, run in enumerate(runs):
        piece = replace(
            segment,
            start=segment.start if not number else run[0].start,
            end=segment.end if number == len(runs) - 1 else max(word.end for word in run),
            text=join_words(word.text for word in run),
            words=run,
            warnings=() if number else segment.warnings,
        )
        pieces.append(_spoken(piece))
    return pieces


def _spoken(segment: Segment) -> Segment:
    """The segment with the speaker of most of its words and the mean of their confidences."""
    sure = [word.speaker_confidence for word in segment.words]
    known = [value for value in sure if value is not None]
    return replace(
        segment,
        speaker=_main_speaker(segment.words) or segment.speaker,
        speaker_confidence=sum(known) / len(known) if known else None,
    )


def _complete(segments: Sequence[Segment]) -> list[Segment]:
    """Give a segment without words the speaker of the one before it in its channel, else the next.

    If no words of the channel have a speaker, the segment keeps the name of the channel.
    """
    last: dict[int | None, Segment] = {}
    for segment in reversed(segments):
        if segment.words and segment.speaker is not None:
            last[segment.channel] = segment
    done = []
    for segment in segments:
        if segment.words:
            last[segment.channel] = segment
        elif near := last.get(segment.channel):
            segment = replace(
                segment, speaker=near.speaker, speaker_confidence=near.speaker_confidence
            )
        done.append(segment)
    return done
