"""The options of a job, as the database stores them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from asr.config import ChunkOptions, DecodeOptions, Options, SubtitleOptions, VadOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.config import AudioLimits, Channels
    from asr.service.transcriptions.form import TranscriptionRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The options of a job. The limits are not among them: each server sets its own."""

    vad: VadOptions
    chunk: ChunkOptions
    decode: DecodeOptions
    subtitles: SubtitleOptions
    channels: Channels = "mix"
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, checked: TranscriptionRequest) -> JobRequest:
        """Take the options of a checked form."""
        options = checked.options
        return cls(
            options.vad,
            options.chunk,
            options.decode,
            checked.subtitles,
            options.channels,
            checked.warnings,
        )

    def with_limits(self, limits: AudioLimits) -> Options:
        """The options for the pipeline."""
        return Options(self.vad, self.chunk, self.decode, limits, self.channels)

    def fingerprint(self, owner: str, sha256: str, engine: str) -> str:
        """A digest. It is equal if and only if owner, recording, options and engine are equal."""
        options = asdict(self)
        del options["warnings"]
        return _digest([owner, sha256, engine, options])

    def pack(self) -> str:
        """Encode as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def unpack(cls, text: str) -> JobRequest:
        """Decode JSON, possibly of another version of the service.

        Every version writes the four groups. An option that is missing in its group gets its
        default; an unknown option is ignored.
        """
        body = json.loads(text)
        for name in ("keywords", "languages"):
            body["decode"][name] = tuple(body["decode"].get(name, ()))
        return cls(
            _make(VadOptions, body["vad"]),
            _make(ChunkOptions, body["chunk"]),
            _make(DecodeOptions, body["decode"]),
            _make(SubtitleOptions, body["subtitles"]),
            body.get("channels", "mix"),
            tuple(body.get("warnings", ())),
        )


def digest_of_sent(sha256: str, sent: Sequence[tuple[str, str]]) -> str:
    """A digest of the recording and the fields as sent. The order of different names is ignored."""
    return _digest([sha256, sorted(sent, key=itemgetter(0))])


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _make(kind: type[T], values: dict[str, Any]) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # all are dataclasses
    return kind(**{name: value for name, value in values.items() if name in known})
