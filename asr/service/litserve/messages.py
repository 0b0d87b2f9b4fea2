"""The messages that cross LitServe's queue: commands to the worker, reports back from it.

Only paths, options and results cross, never audio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asr.pipeline.run import Event

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from asr.audio.growing import GrowingFile
    from asr.config import Options


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Transcribe `source`, which may still be growing, or align the text in a file to it.

    Attributes:
        work_dir: where decoded audio may lie.
        text: the file with the text to align.
        kept: a file with the records of finished chunks; new ones are then reported too.
        is_pcm: the source is 16 kHz mono PCM16 without a header, and is not decoded.
        owner: name of the key that it is done for.
        weight: of that key, when keys share the engine.
        request_id: for the log.
        trace: the span that it is a part of.
    """

    id: str
    source: Path | GrowingFile
    work_dir: Path
    options: Options
    text: Path | None = None
    is_pcm: bool = False
    owner: str = ""
    weight: float = 1.0
    request_id: str = ""
    trace: Mapping[str, str] = field(default_factory=dict)
    kept: Path | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the work of the `Transcribe` command with this id."""

    id: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask how the engine is; makes it load."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Ask for the numbers of the worker."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The worker lives and has nothing new to say."""


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """A chunk was recognised; the segments that come of it follow.

    Attributes:
        channel: in which it lies.
        index: of the chunk.
        seconds: of it that no chunk before it has.
        record: as `asr.pipeline.checkpoint` writes it.
    """

    channel: int
    index: int
    seconds: float
    record: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The command ended with an error."""

    error: Exception


@dataclass(frozen=True, slots=True)
class EngineState:
    """How the engine is: loaded, or why not."""

    name: str
    model: str
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """The numbers of the worker, as Prometheus reads them."""

    text: str


Command = Transcribe | Cancel | Ask | Measure
Happening = Event | ChunkDone | Heartbeat
Report = Happening | Failed | EngineState | Measured
