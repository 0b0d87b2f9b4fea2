"""Options of each stage of a request. They are frozen, and checked when they are made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from asr.errors import InvalidOption

VadKind = Literal["webrtc", "silero", "off"]
Channels = Literal["mix", "split"]
MAX_TRACK = 99
OnError = Literal["fail", "gap"]
MAX_SPEAKERS = 20
"""The largest number of speakers that a request may ask for."""
MAX_KNOWN = 20
"""Known voices of one request."""
MAX_NAME = 100
"""Characters of the name of a speaker."""


def check(condition: bool, name: str, message: str) -> None:
    """Raise `InvalidOption` for `name` unless `condition` holds."""
    if not condition:
        raise InvalidOption(name, message)


def described(default: Any, doc: str, *, secret: bool = False) -> Any:
    """A dataclass field with a description, for ``--help`` and for tables.

    Args:
        default: of the field.
        doc: the description.
        secret: leave the value out of ``repr``.
    """
    return field(default=default, repr=not secret, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class VadOptions:
    """How speech is separated from other audio.

    Attributes:
        kind: "webrtc" costs about 1 s per hour of audio; "silero" (an extra) copes with music and
            noise; "off" treats the whole recording as speech.
        aggressiveness: webrtc only; 0 keeps most audio, 3 least.
        threshold: silero only; a frame is speech above this probability.
        min_speech: a region with fewer seconds of voiced frames is dropped.
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
        max_seconds: longest chunk; vLLM drops Omni's audio beyond 30 s.
        preferred_seconds: a chunk is longer than this only if its speech has no pause. None means
            the engine's `preferred_seconds`, and `max_seconds` if the engine has none.
        max_gap: a longer pause starts a new chunk, because silence costs time and causes errors.
        min_seconds: a chunk with less speech is joined to its neighbour, even across a longer pause
            and above `preferred_seconds`. Alone it has too little context. For short chunks the
            limit is lower: a tenth of `max_seconds`, or half of `search`.
        overlap: seconds that two chunks share where speech is cut.
        search: seconds before the limit in which to look for the quietest place.
    """

    max_seconds: float = 30.0
    preferred_seconds: float | None = None
    max_gap: float = 2.0
    overlap: float = 1.0
    search: float = 6.0
    min_seconds: float = 2.0

    def __post_init__(self) -> None:
        check(2 <= self.max_seconds <= 600, "chunk_max_seconds", "must be 2 to 600 seconds")
        check(self.max_gap >= 0, "chunk_max_gap", "must not be negative")
        check(self.min_seconds >= 0, "chunk_min_seconds", "must not be negative")
        check(self.overlap > 0, "chunk_overlap", "must be positive")
        fits = self.overlap < self.search and self.overlap + self.search <= self.max_seconds
        check(fits, "chunk_search", "overlap < search and overlap + search <= max_seconds")
        is_positive = self.preferred_seconds is None or self.preferred_seconds > 0
        check(is_positive, "chunk_preferred_seconds", "must be positive")


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What the user tells the engine.

    Attributes:
        language: ISO-639-1 code, or None for the engine's choice.
        prompt: free text that gives context.
        keywords: names and terms that may occur.
        temperature: 0 to 1, or None for the engine's default.
        languages: codes of the languages that may be spoken, if `language` is None.
        model: the model that the client named; empty if it named none.
    """

    language: str | None = None
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    temperature: float | None = None
    languages: tuple[str, ...] = ()
    model: str = ""

    def __post_init__(self) -> None:
        in_range = self.temperature is None or 0 <= self.temperature <= 1
        check(in_range, "temperature", "must lie between 0 and 1")
        for keyword in self.keywords:
            check(is_keyword(keyword), "keywords", KEYWORD_RULE)


KEYWORD_RULE = "each must be one line of text without < and >"


def is_keyword(text: str) -> bool:
    """Whether an engine may get the text as a keyword."""
    return bool(text.strip()) and not any(sign in text for sign in "<>\r\n\0")


MAX_INSTRUCTION = 1000
INSTRUCTION_RULE = (
    f"must be one line of at most {MAX_INSTRUCTION} characters, without control tokens (<, >, "
    "/think, [INST]) and without braces, except {language}"
)
_NOT_IN_INSTRUCTIONS = re.compile(r"[<>{}]|/(?:no_?)?think|\[/?[A-Z][A-Z0-9_]*\]", re.IGNORECASE)


def is_instruction(text: str) -> bool:
    """Whether a text may take the place of the instruction to a language model."""
    rest = text.replace("{language}", "")
    is_short = bool(rest.strip()) and len(text) <= MAX_INSTRUCTION
    return is_short and text.isprintable() and not _NOT_IN_INSTRUCTIONS.search(rest)


@dataclass(frozen=True, slots=True)
class SubtitleOptions:
    """How cues are made readable; `asr.output.subtitles` says which rule has priority.

    The fields are form fields of a request, and flags of the command line (``--max-line-width``).
    """

    max_line_width: int = described(42, "most characters in a line")
    max_line_count: int = described(2, "most lines in a cue")
    max_cue_duration: float = described(7.0, "longest time that a cue is shown, in seconds")
    min_cue_duration: float = described(
        0.833, "shortest time, in seconds, if the next cue allows it"
    )
    max_cps: float = described(
        20.0, "most characters to read per second, if the next cue allows it"
    )
    min_gap: float = described(0.083, "seconds between cues: 2 frames at 24 per second")
    highlight_words: bool = described(
        False, "vtt: give each word its time, so that it can be highlighted"
    )
    speaker_labels: bool = described(
        False, "srt: begin the cues of each speaker with the name; channels always do"
    )

    def __post_init__(self) -> None:
        check(10 <= self.max_line_width <= 500, "max_line_width", "must be 10 to 500")
        check(1 <= self.max_line_count <= 10, "max_line_count", "must be 1 to 10")
        check(0.5 <= self.max_cue_duration <= 60, "max_cue_duration", "must be 0.5 to 60 seconds")
        check(0 <= self.min_cue_duration <= 10, "min_cue_duration", "must be 0 to 10 seconds")
        check(1 <= self.max_cps <= 1000, "max_cps", "must be 1 to 1000 characters a second")
        check(0 <= self.min_gap <= 1, "min_gap", "must be 0 to 1 second")


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """Limits for decoding one recording.

    Attributes:
        max_seconds: seconds of audio, counted while decoding, because headers may lie.
        max_bytes: size of the file.
        max_cpu_seconds: RLIMIT_CPU of the decoding process.
        max_memory_bytes: RLIMIT_AS of the decoding process.
        max_decoded_bytes: of disk for the decoded audio of all channels, without silence.
    """

    max_seconds: float = 12 * 3600.0
    max_bytes: int = 8 << 30
    max_cpu_seconds: int = 1800
    max_memory_bytes: int = 4 << 30
    max_decoded_bytes: int = 4 << 30


@dataclass(frozen=True, slots=True)
class KnownVoice:
    """A voice with a name.

    Attributes:
        name: of the speaker.
        embedding: as `asr.speakers.packing` writes it.
        seconds: of speech from which it was made.
    """

    name: str
    embedding: str = field(repr=False)
    seconds: float

    def __post_init__(self) -> None:
        check(is_speaker_name(self.name), "known_speaker_names", SPEAKER_NAME_RULE)


SPEAKER_NAME_RULE = (
    f"a name must have 1 to {MAX_NAME} printable characters in one line, and no space at its ends"
)
_JOINERS = "\u200c\u200d"
"""They are invisible, but names in Persian and in Indian scripts need them."""


def is_speaker_name(text: str) -> bool:
    """Whether a speaker may have this name."""
    visible = text.translate(dict.fromkeys(map(ord, _JOINERS)))
    is_short = len(visible) > 0 and len(text) <= MAX_NAME
    return is_short and text == text.strip() and visible.isprintable()


@dataclass(frozen=True, slots=True)
class SpeakerOptions:
    """How speakers are told apart.

    Attributes:
        fewest: speakers to find, if there are as many.
        most: speakers; None lets the service decide.
        known: voices with names.
    """

    fewest: int = 1
    most: int | None = None
    known: tuple[KnownVoice, ...] = ()

    def __post_init__(self) -> None:
        most = MAX_SPEAKERS if self.most is None else self.most
        check(1 <= self.fewest <= most <= MAX_SPEAKERS, "speakers", SPEAKERS_RULE)
        check(len(self.known) <= MAX_KNOWN, "known_speaker_names", f"at most {MAX_KNOWN} are used")
        names = {voice.name for voice in self.known}
        check(len(names) == len(self.known), "known_speaker_names", "must differ from each other")


SPEAKERS_RULE = f"must be off, auto, a number from 1 to {MAX_SPEAKERS}, or a range such as 2-5"


def read_speakers(text: str) -> SpeakerOptions | None:
    """Read ``off``, ``auto``, ``3`` or ``2-5``; None for ``off``. Case and spaces do not matter.

    Raises:
        InvalidOption: the text is none of these.
    """
    text = text.strip().lower()
    if text == "off":
        return None
    if text == "auto":
        return SpeakerOptions()
    low, dash, high = text.partition("-")
    parts = [part.strip() for part in ((low, high) if dash else (low,))]
    are_numbers = all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts)
    check(are_numbers, "speakers", SPEAKERS_RULE)
    return SpeakerOptions(int(parts[0]), int(parts[-1]))


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that one request may choose.

    Attributes:
        channels: "mix" mixes all channels into one; "split" transcribes each separately, for
            example a call with one speaker in each, and orders the segments by time. If there are
            several audio tracks, each of them is one channel.
        track: the only audio track to transcribe, counted from 0. None takes the track that
            players choose, or another one if it is silent.
        on_error: if a stretch cannot be transcribed, "fail" ends with an error, and "gap" goes on
            and lists the stretch in the transcript.
        speakers: how to tell speakers apart by their voices; None does not.
    """

    vad: VadOptions = VadOptions()
    chunk: ChunkOptions = ChunkOptions()
    decode: DecodeOptions = DecodeOptions()
    limits: AudioLimits = AudioLimits()
    channels: Channels = "mix"
    track: int | None = None
    on_error: OnError = "fail"
    speakers: SpeakerOptions | None = None

    def __post_init__(self) -> None:
        is_number = self.track is None or 0 <= self.track <= MAX_TRACK
        check(is_number, "track", f"must be 0 to {MAX_TRACK}; the first audio track is 0")
        check(self.channels in ("mix", "split"), "channels", "must be mix or split")
        check(self.on_error in ("fail", "gap"), "on_error", "must be fail or gap")
