"""Options of each stage, which travel with a request. All frozen, all checked when made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from asr.errors import InvalidOption

VadKind = Literal["webrtc", "silero", "off"]
Channels = Literal["mix", "split"]


def check(condition: bool, name: str, message: str) -> None:
    """Raise `InvalidOption` for `name` unless `condition` holds."""
    if not condition:
        raise InvalidOption(name, message)


def described(default: Any, doc: str, *, secret: bool = False) -> Any:
    """A field with its text for the help of flags and for tables."""
    return field(default=default, repr=not secret, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class VadOptions:
    """How speech is told from the rest.

    Attributes:
        kind: "webrtc" costs 0.4 s per hour of audio; "silero" (extra) withstands music and noise;
            "off" takes the whole recording for speech.
        aggressiveness: webrtc only, 0 lets most through, 3 least.
        threshold: silero only, the probability above which a frame is speech.
        min_speech: seconds of voiced frames below which a region is dropped.
        min_silence: seconds without a voiced frame that end a region.
        padding: seconds added on both sides of a region.
    """

    kind: VadKind = "webrtc"
    aggressiveness: int = 2
    threshold: float = 0.5
    min_speech: float = 0.15
    min_silence: float = 0.45
    padding: float = 0.2

    def __post_init__(self) -> None:
        check(self.kind in ("webrtc", "silero", "off"), "vad", "must be webrtc, silero or off")
        check(self.aggressiveness in (0, 1, 2, 3), "vad_aggressiveness", "must be 0, 1, 2 or 3")
        check(0 < self.threshold < 1, "vad_threshold", "must lie between 0 and 1")
        check(0 <= self.min_speech <= 10, "vad_min_speech", "must be 0 to 10 seconds")
        check(0.03 <= self.min_silence <= 30, "vad_min_silence", "must be 0.03 to 30 seconds")
        check(0 <= self.padding <= 5, "vad_padding", "must be 0 to 5 seconds")


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """How speech regions are packed into chunks.

    Attributes:
        max_seconds: no chunk is longer; vLLM cuts Omni's audio hard at 30 s.
        max_gap: a longer pause starts a new chunk, since silence only costs and misleads.
        overlap: seconds that two chunks share where speech had to be cut.
        search: seconds before the limit in which the quietest place is looked for.
    """

    max_seconds: float = 30.0
    max_gap: float = 2.0
    overlap: float = 1.0
    search: float = 6.0

    def __post_init__(self) -> None:
        check(2 <= self.max_seconds <= 600, "chunk_max_seconds", "must be 2 to 600 seconds")
        check(self.max_gap >= 0, "chunk_max_gap", "must not be negative")
        check(self.overlap > 0, "chunk_overlap", "must be positive")
        fits = self.overlap < self.search and self.overlap + self.search <= self.max_seconds
        check(fits, "chunk_search", "overlap < search and overlap + search <= max_seconds")


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What the user tells the recogniser.

    Attributes:
        language: ISO-639-1 code, or None to leave it to the engine.
        prompt: context in the words of the user.
        keywords: names and terms that may occur.
        temperature: 0 to 1, or None for the engine's own.
    """

    language: str | None = None
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    temperature: float | None = None

    def __post_init__(self) -> None:
        in_range = self.temperature is None or 0 <= self.temperature <= 1
        check(in_range, "temperature", "must lie between 0 and 1")
        for keyword in self.keywords:
            clean = keyword.strip() and not any(sign in keyword for sign in "<>\r\n")
            check(bool(clean), "keywords", "each must be one line of text without < and >")


@dataclass(frozen=True, slots=True)
class SubtitleOptions:
    """How cues are shaped for reading; `asr.output.subtitles` says which rule yields to which.

    Fields of a request and, as ``--max-line-width``, flags of the command line.
    """

    max_line_width: int = described(42, "characters in a line")
    max_line_count: int = described(2, "lines in a cue")
    max_cue_duration: float = described(7.0, "seconds that a cue stays, at the most")
    min_cue_duration: float = described(0.833, "seconds that a cue stays, if the next one lets it")
    max_cps: float = described(20.0, "characters to read in a second, if the next cue lets it")
    min_gap: float = described(0.083, "seconds between cues: 2 frames of 24 a second")
    highlight_words: bool = described(False, "vtt: a time before each word, to light it up")

    def __post_init__(self) -> None:
        check(10 <= self.max_line_width <= 500, "max_line_width", "must be 10 to 500")
        check(1 <= self.max_line_count <= 10, "max_line_count", "must be 1 to 10")
        check(0.5 <= self.max_cue_duration <= 60, "max_cue_duration", "must be 0.5 to 60 seconds")
        check(0 <= self.min_cue_duration <= 10, "min_cue_duration", "must be 0 to 10 seconds")
        check(1 <= self.max_cps <= 1000, "max_cps", "must be 1 to 1000 characters a second")
        check(0 <= self.min_gap <= 1, "min_gap", "must be 0 to 1 second")


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """What decoding one recording may cost.

    Attributes:
        max_seconds: of decoded audio, counted while decoding; headers are not trusted.
        max_bytes: of the file.
        max_cpu_seconds: RLIMIT_CPU of the decoding process.
        max_memory_bytes: RLIMIT_AS of the decoding process.
    """

    max_seconds: float = 12 * 3600.0
    max_bytes: int = 8 << 30
    max_cpu_seconds: int = 1800
    max_memory_bytes: int = 4 << 30


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that one request may choose.

    Attributes:
        channels: "mix" hears all channels as one; "split" transcribes each by itself, as for a
            call with one speaker in each, and orders what was said by time.
    """

    vad: VadOptions = VadOptions()
    chunk: ChunkOptions = ChunkOptions()
    decode: DecodeOptions = DecodeOptions()
    limits: AudioLimits = AudioLimits()
    channels: Channels = "mix"

    def __post_init__(self) -> None:
        check(self.channels in ("mix", "split"), "channels", "must be mix or split")
