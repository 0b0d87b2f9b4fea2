"""What travels between the driver and the workers: jobs, tasks and answers, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from asr.config import (
    AudioLimits,
    ChunkOptions,
    DecodeOptions,
    KnownVoice,
    Options,
    SpeakerOptions,
    SubtitleOptions,
    VadOptions,
)
from asr.settings import Settings

Kind = Literal["hash", "file", "piece", "stitch"]
Status = Literal["hashed", "done", "planned", "piece", "failed", "suspect"]


@dataclass(frozen=True, slots=True)
class Job:
    """What all tasks of a run have in common.

    Attributes:
        settings: of the engine and the aligner.
        options: of every recording.
        formats: names from `asr.output.formats.FORMATS`, in addition to ``json``.
        subtitles: rules for cues.
        out: folder or URL of the results.
        fingerprint: see `asr.batch.identity`.
        split_seconds: a longer recording is split; pieces are about half as long.
        token: content of a file in the output folder. A node that does not find it has another
            folder there.
        engine: ``module:function`` that makes the engine instead of `load_engine`, for tests and
            benchmarks.
    """

    settings: Settings
    options: Options
    formats: tuple[str, ...]
    subtitles: SubtitleOptions
    out: str
    fingerprint: str
    split_seconds: float
    token: str = ""
    engine: str = ""

    def pack(self) -> str:
        """As JSON. It contains the keys of the settings, so it must not be logged."""
        return json.dumps(asdict(self))

    @classmethod
    def unpack(cls, text: str) -> Job:
        """The job of a JSON text."""
        facts = json.loads(text)
        return cls(
            **facts
            | {
                "settings": Settings(**facts["settings"]),
                "options": _options(facts["options"]),
                "formats": tuple(facts["formats"]),
                "subtitles": SubtitleOptions(**facts["subtitles"]),
            }
        )


def _options(facts: dict[str, object]) -> Options:
    kinds = {"vad": VadOptions, "chunk": ChunkOptions, "limits": AudioLimits}
    parts: dict[str, object] = {name: kind(**facts[name]) for name, kind in kinds.items()}  # type: ignore[arg-type]
    decode = dict(facts["decode"])  # type: ignore[call-overload]
    lists = {name: tuple(decode[name]) for name in ("keywords", "languages")}
    parts["decode"] = DecodeOptions(**{**decode, **lists})
    if speakers := facts["speakers"]:
        parts["speakers"] = _speakers(speakers)  # type: ignore[arg-type]
    return Options(**{**facts, **parts})  # type: ignore[arg-type]


def _speakers(facts: dict[str, Any]) -> SpeakerOptions:
    known = tuple(KnownVoice(**voice) for voice in facts["known"])
    return SpeakerOptions(**{**facts, "known": known})


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to do.

    Attributes:
        kind: hash a recording, transcribe it, recognise one piece of it, or stitch its pieces.
        path: of the recording.
        content: SHA-256 of the recording, or None if it is not known yet.
        number: of the piece.
        alone: run in a process of its own, because it may have killed others.
    """

    kind: Kind
    path: str
    content: str | None = None
    number: int = 0
    alone: bool = False

    def pack(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def unpack(cls, text: str) -> Task:
        """The task of a JSON text."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Answer:
    """How a task ended.

    Attributes:
        task: which.
        status: "planned" means that the recording was split and its pieces come next; "suspect"
            that the task was not begun, because processes died while they worked on it.
        id: name of the result.
        content: SHA-256 of the recording.
        seconds: of audio.
        wall: seconds of work in this task.
        pieces: how many the recording was split into.
        is_new: the work was done in this task, not found done.
        error: text for people.
        fault: "recording", "path" or "service".
    """

    task: Task
    status: Status
    id: str = ""
    content: str = ""
    seconds: float = 0.0
    wall: float = 0.0
    pieces: int = 0
    is_new: bool = True
    error: str = ""
    fault: str = ""

    def pack(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def unpack(cls, text: str) -> Answer:
        """The answer of a JSON text."""
        facts = json.loads(text)
        return cls(**facts | {"task": Task(**facts["task"])})
