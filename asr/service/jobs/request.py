"""The options of a job, as the database stores them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from asr.config import (
    ChunkOptions,
    DecodeOptions,
    KnownVoice,
    Options,
    SpeakerOptions,
    SubtitleOptions,
    VadOptions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asr.config import AudioLimits, Channels, OnError
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
    track: int | None = None
    on_error: OnError = "gap"
    keep_recording: bool = False
    speakers: SpeakerOptions | None = None

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
            options.track,
            checked.on_error or "gap",
            checked.keep_recording,
            options.speakers,
        )

    def with_limits(self, limits: AudioLimits) -> Options:
        """The options for the pipeline."""
        return Options(
            vad=self.vad,
            chunk=self.chunk,
            decode=self.decode,
            limits=limits,
            channels=self.channels,
            track=self.track,
            on_error=self.on_error,
            speakers=self.speakers,
        )

    def fingerprint(
        self,
        owner: str,
        sha256: str,
        engine: str,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """A digest. It is equal if and only if owner, recording, options, engine and labels are.

        Jobs without a name and metadata have the digests that earlier versions computed.
        """
        options = asdict(self)
        del options["warnings"]
        # Without them, the digests are those of versions that did not have these options.
        if self.track is None:
            del options["track"]
        if self.on_error == "gap":
            del options["on_error"]
        if not self.keep_recording:
            del options["keep_recording"]
        if self.speakers is None:
            del options["speakers"]
        if not self.subtitles.speaker_labels:
            del options["subtitles"]["speaker_labels"]
        labels = [name, dict(metadata or {})] if name or metadata else []
        return _digest([owner, sha256, engine, options, *labels])

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
            body.get("track"),
            body.get("on_error", "gap"),
            body.get("keep_recording", False),
            _speakers(body.get("speakers")),
        )


def digest_of_sent(sha256: str, sent: Sequence[tuple[str, str]]) -> str:
    """A digest of the recording and the fields as sent. The order of different names is ignored."""
    return _digest([sha256, sorted(sent, key=itemgetter(0))])


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _speakers(body: dict[str, Any] | None) -> SpeakerOptions | None:
    if body is None:
        return None
    known = tuple(_make(KnownVoice, voice) for voice in body.get("known", ()))
    return _make(SpeakerOptions, {**body, "known": known})


def _make(kind: type[T], values: dict[str, Any]) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # all are dataclasses
    return kind(**{name: value for name, value in values.items() if name in known})
