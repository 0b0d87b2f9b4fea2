"""The values that pass through the pipeline.

They are frozen and slotted, with tuples for sequences. Times are seconds as float. Positions in the
recording are integer samples at 16 kHz, and the times of regions and chunks are derived from them.
``None`` means not measured; an unknown confidence is never 0.0.

Times in a `Hypothesis` count from the start of its chunk, times in a `Segment` from the start of
the recording. Only `asr.pipeline.stitch` converts one into the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from asr import pcm
from asr.spacing import join_words

if TYPE_CHECKING:
    from collections.abc import Iterable

SAMPLE_RATE = 16_000
"""Hz. All audio after `asr.audio.resample` is mono at this rate."""

Timing = Literal["aligned", "engine", "interpolated"]
"""How a word got its time: by forced alignment, from the engine, or spread over the speech."""

GapReason = Literal["engine_failed", "engine_timeout", "decoder_stopped"]
"""Why a stretch is missing: the engine failed on it or did not answer in time, or the decoder could
not read the recording from there to its end."""


@dataclass(frozen=True, slots=True)
class Audio:
    """Mono samples of one chunk in memory.

    Attributes:
        samples: float32 in [-1, 1], shape (n_samples,).
        sample_rate: Hz.
    """

    samples: np.ndarray
    sample_rate: int = SAMPLE_RATE

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            message = f"samples must be float32 of shape (n,), not {self.samples.dtype}"
            raise ValueError(f"{message} of shape {self.samples.shape}")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate

    def pcm16(self) -> bytes:
        """The samples as little-endian 16-bit PCM, clipped."""
        return pcm.to_bytes(pcm.to_int16(self.samples))


@dataclass(frozen=True, slots=True)
class SpeechRegion:
    """A stretch of the recording that the VAD took for speech: [start_sample, end_sample)."""

    start_sample: int
    end_sample: int

    def __post_init__(self) -> None:
        if not 0 <= self.start_sample <= self.end_sample:
            raise ValueError(f"region [{self.start_sample}, {self.end_sample}) is out of order")

    @property
    def start(self) -> float:
        """Seconds."""
        return self.start_sample / SAMPLE_RATE

    @property
    def end(self) -> float:
        """Seconds."""
        return self.end_sample / SAMPLE_RATE

    @property
    def n_samples(self) -> int:
        """Length in samples."""
        return self.end_sample - self.start_sample


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch that the engine gets in one call: [start_sample, end_sample) of the recording.

    Attributes:
        index: 0, 1, 2, ... in the order of the recording.
        overlap: samples shared with the previous chunk; 0 when the cut lies in silence.
        speech_samples: how many of its samples the VAD took for speech; None without a VAD.
    """

    index: int
    start_sample: int
    end_sample: int
    overlap: int = 0
    speech_samples: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start_sample < self.end_sample:
            raise ValueError(f"chunk [{self.start_sample}, {self.end_sample}) is empty or reversed")
        if not 0 <= self.overlap <= self.end_sample - self.start_sample:
            raise ValueError(f"overlap of {self.overlap} samples does not fit the chunk")
        speech = self.speech_samples
        if speech is not None and not 0 <= speech <= self.end_sample - self.start_sample:
            raise ValueError(f"{speech} samples of speech do not fit the chunk")

    @property
    def start(self) -> float:
        """Seconds from the start of the recording."""
        return self.start_sample / SAMPLE_RATE

    @property
    def end(self) -> float:
        """Seconds from the start of the recording."""
        return self.end_sample / SAMPLE_RATE

    @property
    def duration(self) -> float:
        """Seconds."""
        return (self.end_sample - self.start_sample) / SAMPLE_RATE

    @property
    def speech_seconds(self) -> float | None:
        """Seconds of speech in the chunk; None without a VAD."""
        return None if self.speech_samples is None else self.speech_samples / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its time.

    Attributes:
        text: the word as written, punctuation attached, no surrounding space.
        start: seconds.
        end: seconds, not before `start`.
        confidence: 0 to 1, or None if not measured.
        timing: how the word got its times.
        speaker: name of the speaker, or None if speakers were not distinguished.
        speaker_confidence: 0 to 1, how likely it is that this speaker says the word; None if not
            measured.
        overlapped: whether another voice may be active during the word.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None
    timing: Timing = "engine"
    speaker: str | None = None
    speaker_confidence: float | None = None
    overlapped: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise ValueError(f"word times must be finite, not {self.start} and {self.end}")
        if not 0 <= self.start <= self.end:
            raise ValueError(f"word times [{self.start}, {self.end}] are out of order")
        for confidence in (self.confidence, self.speaker_confidence):
            if confidence is not None and not 0 <= confidence <= 1:
                raise ValueError(f"confidence {confidence} is outside [0, 1]")

    @property
    def midpoint(self) -> float:
        """Seconds."""
        return (self.start + self.end) / 2


@dataclass(frozen=True, slots=True)
class Voices:
    """The voices in one chunk, by which speakers are told apart at the end.

    Attributes:
        windows: start and end in seconds from the start of the chunk.
        embeddings: of the windows, as `asr.speakers.packing` writes them. They are personal data
            and absent from ``repr``, so that no log has them.
    """

    windows: tuple[tuple[float, float], ...]
    embeddings: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What an engine recognised in one chunk. Word times count from the start of the chunk.

    Attributes:
        word_confidences: confidence of each token of ``text.split()``, 0 to 1, from an engine
            without times. An aligner uses it for words that it cannot judge itself.
        is_cut: the engine stopped at its token limit, not at the end of the speech.
        unwritten: (start, end) in seconds of speech that is in no word, found by the aligner.
        is_calibrated: whether `word_confidences` are calibrated. Then each word gets the lower one
            of the engine's confidence and the aligner's.
        voices: None if speakers are not told apart.
    """

    chunk_index: int
    text: str
    words: tuple[Word, ...] = ()
    avg_logprob: float | None = None
    warnings: tuple[str, ...] = ()
    word_confidences: tuple[float, ...] | None = None
    is_cut: bool = False
    unwritten: tuple[tuple[float, float], ...] = ()
    is_calibrated: bool = False
    voices: Voices | None = None

    def __post_init__(self) -> None:
        if self.word_confidences is not None:
            n_words = len(self.text.split())
            if len(self.word_confidences) != n_words:
                raise ValueError(f"{len(self.word_confidences)} confidences for {n_words} words")


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the transcript, about a sentence long, with absolute times.

    Attributes:
        channel: number of the channel, or None if the channels were mixed.
        speaker: name of the speaker, or None if speakers were not distinguished.
        speaker_confidence: 0 to 1, the mean over the words; None if not measured.
        is_provisional: the speakers may still change: the recording has not been heard to its end.
    """

    id: int
    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    avg_logprob: float | None = None
    warnings: tuple[str, ...] = ()
    channel: int | None = None
    speaker: str | None = None
    speaker_confidence: float | None = None
    is_provisional: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"segment times [{self.start}, {self.end}] are out of order")
        ordered(self.words, self.start, self.end)


@dataclass(frozen=True, slots=True)
class LineSegment(Segment):
    r"""A line of a text that the user sent. It becomes one cue; ``\n`` separates its lines."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of the recording that could not be transcribed, [start, end) in seconds.

    Attributes:
        channel: number of the channel, or None if the channels were mixed or all have the gap.
        speaker: name of the speaker, or None if speakers were not distinguished.
    """

    start: float
    end: float
    reason: GapReason
    channel: int | None = None
    speaker: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end < math.inf:
            raise ValueError(f"gap times [{self.start}, {self.end}] are out of order")


@dataclass(frozen=True, slots=True)
class Transcript:
    """The transcript of a whole recording.

    Attributes:
        language: ISO-639-1 code.
        duration: seconds of audio: those decoded and, if the decoder stopped, those missing.
        speech_seconds: seconds sent to the engine, summed over separate channels.
        dropped_seconds: seconds without speech, which no engine got, summed likewise.
        engine: name of the engine with its model.
        aligner: name of the aligner that timed the words, or None if the engine did.
        gaps: the stretches that could not be transcribed, ordered by start. Those of one channel do
            not overlap.
    """

    segments: tuple[Segment, ...]
    language: str
    duration: float
    speech_seconds: float
    dropped_seconds: float
    engine: str
    aligner: str | None = None
    warnings: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()

    @property
    def text(self) -> str:
        """The text of all segments in one line."""
        return join_words(" ".join(it.text.split("\n")) for it in self.segments if it.text)

    @property
    def words(self) -> tuple[Word, ...]:
        """All words in order."""
        return tuple(word for segment in self.segments for word in segment.words)


def ordered(words: Iterable[Word], start: float, end: float) -> None:
    """Check that words are in order and lie inside [start, end].

    Raises:
        ValueError: a word starts before the previous one or lies outside.
    """
    last = start
    for word in words:
        if word.start < last or word.end > end:
            raise ValueError(f"word at [{word.start}, {word.end}] is out of order or out of range")
        last = word.start
