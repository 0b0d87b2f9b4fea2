"""The messages that cross LitServe's queue: commands to the worker, reports back from it.

Only paths, options and results cross, never audio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from asr.pipeline.run import Event

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from asr.audio.growing import GrowingFile
    from asr.config import DecodeOptions, KnownVoice, Options
    from asr.engines.base import Capabilities
    from asr.types import Word

HEARTBEAT_SECONDS: Final = 1.0
"""A busy worker with nothing to report sends a `Heartbeat` this often."""


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Transcribe `source`, which may still be growing. With `text`, align that text instead.

    Attributes:
        id: names the work in a later `Cancel`.
        work_dir: a folder for decoded audio.
        text: a file with the text to align.
        keep_lines: whether each line of the text becomes one segment; None for the default.
        is_pcm: the source is 16 kHz mono PCM16 without a header, and is not decoded.
        owner: the name of the key that asked for the work.
        weight: the share of the engine that this key has.
        request_id: for the log.
        trace: the parent span of the work, as W3C headers.
        kept: a file with the records of chunks that were recognised before. When it is given, the
            worker reports a `ChunkDone` for each new chunk.
        session: the live session of which this is a turn; its speakers keep their letters.
    """

    id: str
    source: Path | GrowingFile
    work_dir: Path
    options: Options
    text: Path | None = None
    keep_lines: bool | None = None
    is_pcm: bool = False
    owner: str = ""
    weight: float = 1.0
    request_id: str = ""
    trace: Mapping[str, str] = field(default_factory=dict)
    kept: Path | None = None
    session: str = ""


@dataclass(frozen=True, slots=True)
class RecogniseInterim:
    """Recognise unfinished speech, with the engine alone. Reports an `InterimText`.

    Attributes:
        id: names the work in a later `Cancel`.
        source: a file of 16 kHz mono PCM16 without a header, at most as long as a chunk.
        decode: options of the engine.
        job: the live session; its interim requests are one job of the share.
        owner: the name of the key that asked for the work.
        weight: the share of the engine that this key has.
    """

    id: str
    source: Path
    decode: DecodeOptions
    job: str = ""
    owner: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class AlignWords:
    """Find the times of known words in a short stretch, with the aligner alone.

    Reports `AlignedWords`.

    Attributes:
        id: names the work in a later `Cancel`.
        source: a file of 16 kHz mono PCM16 without a header.
        texts: the words.
    """

    id: str
    source: Path
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EmbedVoice:
    """Make a known voice from a recording of one person. Reports a `VoiceFound`.

    Attributes:
        id: names the work in a later `Cancel`.
        source: the recording.
        work_dir: a folder for decoded audio.
        name: of the person.
        length: the shortest and longest recording in seconds; None for the limits of stored voices.
    """

    id: str
    source: Path
    work_dir: Path
    name: str
    length: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class VoiceFound:
    """The answer to `EmbedVoice`."""

    voice: KnownVoice


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the work of the command with this id.

    None ends the work of all earlier ones.
    """

    id: str | None


@dataclass(frozen=True, slots=True)
class GetEngineState:
    """Load the engine if it is not loaded, and report an `EngineState`."""


@dataclass(frozen=True, slots=True)
class Control:
    """Recognise noise, to see whether the engine works. The answer is an `EngineState`."""


@dataclass(frozen=True, slots=True)
class GetMetrics:
    """Report the worker's `Metrics`."""


@dataclass(frozen=True, slots=True)
class Started:
    """The worker has started to carry out a `Transcribe` command.

    Attributes:
        worker: the number of the worker: how many workers died before it.
    """

    worker: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The worker is alive and has nothing to report."""


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """A chunk was recognised. Its segments follow.

    Attributes:
        channel: the channel that holds the chunk, from 0.
        index: the number of the chunk in its channel, from 0.
        seconds: its length without the overlap with the chunk before it.
        record: one line as `asr.pipeline.checkpoint` writes it.
    """

    channel: int
    index: int
    seconds: float
    record: str


@dataclass(frozen=True, slots=True)
class ChunkFailed:
    """A chunk of a job could not be recognised. The command goes on and ends with an error.

    Attributes:
        done: the report that gives the chunk up. Its record, among those that are `kept` for a
            later attempt, leaves a gap.
    """

    done: ChunkDone


@dataclass(frozen=True, slots=True)
class InterimText:
    """The answer to `RecogniseInterim`; None if a guard objects to it."""

    text: str | None


@dataclass(frozen=True, slots=True)
class AlignedWords:
    """The answer to `AlignWords`. The times count from the start of the stretch."""

    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The command ended with an error."""

    error: Exception


@dataclass(frozen=True, slots=True)
class EngineState:
    """Whether the engine is loaded.

    Attributes:
        name: the name of the engine.
        model: the name of its model. Until the model is loaded, the name of the engine.
        ready: the engine is loaded.
        reason: why the engine is not loaded.
        capabilities: what the engine can do; None if it is not loaded.
    """

    name: str
    model: str
    ready: bool
    reason: str = ""
    capabilities: Capabilities | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """The worker's metrics in Prometheus' text format."""

    text: str


Command = (
    Transcribe
    | RecogniseInterim
    | AlignWords
    | EmbedVoice
    | Cancel
    | Control
    | GetEngineState
    | GetMetrics
)
WorkerEvent = Event | ChunkDone | ChunkFailed | Heartbeat
"""Reports of a transcription that has not failed."""
Report = (
    WorkerEvent | Started | InterimText | AlignedWords | VoiceFound | Failed | EngineState | Metrics
)
