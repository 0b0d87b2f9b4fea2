"""The names in the output folder, and what they mean.

transcripts/ab/ab12....json, .srt, ...  the transcript of one recording
manifest.jsonl, manifest.parquet        one row for each path of the last run
.batch/done/ab/ab12....json             written last: all outputs of this id are complete
.batch/failed/ab/ab12....json           why this recording cannot be transcribed
.batch/work/ab12.../                    the plan and the pieces of a long recording
.batch/attempts/                        tasks that were begun and have not ended
.batch/index.jsonl                      the hash of each path, by its size and its times
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from asr.batch.identity import short_hash
from asr.output.formats import FORMATS, render
from asr.output.full_json import from_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asr.batch.store import Store
    from asr.config import SubtitleOptions
    from asr.types import Transcript

INTERNAL: Final = ".batch"
ATTEMPTS: Final = f"{INTERNAL}/attempts"
TOKEN: Final = f"{INTERNAL}/token"
OUTPUTS: Final = "transcripts"


@dataclass(frozen=True, slots=True)
class Done:
    """What is known about a finished transcript.

    Attributes:
        content: SHA-256 of the recording.
        seconds: of audio.
        wall: seconds that workers spent on it.
        engine: as the transcript names it.
        warnings: of the transcript.
        formats: each format with a hash of the rules for cues that it was written with.
    """

    content: str
    seconds: float
    wall: float
    engine: str
    warnings: tuple[str, ...]
    formats: dict[str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """The names that exist, as sets of ids and of outputs."""

    done: frozenset[str]
    failed: frozenset[str]
    outputs: frozenset[str]


def output_name(row: str, format_name: str) -> str:
    """The name of one output."""
    return f"{OUTPUTS}/{row[:2]}/{row}.{FORMATS[format_name].extension}"


def work_folder(row: str) -> str:
    """The folder of the plan and the pieces of a long recording."""
    return f"{INTERNAL}/work/{row}"


class Results:
    """Reads and writes the results in a store.

    Args:
        store: the output folder.
        formats: to write in addition to ``json``.
        subtitles: rules for cues.
    """

    def __init__(self, store: Store, formats: Iterable[str], subtitles: SubtitleOptions) -> None:
        self.store = store
        self._subtitles = subtitles
        rules = short_hash(asdict(subtitles))
        self.formats = dict.fromkeys(("json", *formats), rules)

    def known(self) -> Known:
        """List what exists."""
        done, failed = (self.store.names(f"{INTERNAL}/{name}") for name in ("done", "failed"))
        outputs = frozenset(f"{OUTPUTS}/{name}" for name in self.store.names(OUTPUTS))
        return Known(_ids(done), _ids(failed), outputs)

    def done(self, row: str) -> Done | None:
        """The facts about a finished transcript, or None if it is not finished."""
        data = self.store.read(_done_name(row))
        try:
            facts = json.loads(data or b"")
            return Done(**facts | {"warnings": tuple(facts["warnings"])})
        except (ValueError, TypeError, KeyError):  # damaged, or of another version
            return None

    def outputs(self, row: str) -> dict[str, str]:
        """The name of each format."""
        return {name: output_name(row, name) for name in self.formats}

    def is_complete(self, row: str, done: Done, outputs: Iterable[str]) -> bool:
        """Whether all formats are among the outputs, with today's rules for cues."""
        has_all = set(self.outputs(row).values()) <= set(outputs)
        return has_all and self.formats.items() <= done.formats.items()

    def completed(self, row: str) -> Done | None:
        """The facts about a finished transcript, after writing the formats that it lacks.

        None if there is no transcript yet, or if its ``json`` was deleted or damaged.
        """
        done = self.done(row)
        data = None if done is None else self.store.read(output_name(row, "json"))
        if done is None or data is None:
            return None
        try:
            transcript = from_json(data.decode())
        except ValueError:
            return None
        stored = self.store.read
        names = self.outputs(row)
        lacking = [
            name
            for name, rules in self.formats.items()
            if name != "json" and (done.formats.get(name) != rules or stored(names[name]) is None)
        ]
        if not lacking:
            return done
        self._render(transcript, row, lacking)
        done = replace(done, formats={**done.formats, **self.formats})
        self._write_done(row, done)
        return done

    def finish(self, transcript: Transcript, row: str, content: str, wall: float) -> Done:
        """Write all outputs, and then that they are complete."""
        self._render(transcript, row, self.formats)
        done = Done(
            content,
            transcript.duration,
            wall,
            transcript.engine,
            transcript.warnings,
            self.formats,
        )
        self._write_done(row, done)
        self.store.remove([_failed_name(row)])
        self.store.remove_folder(work_folder(row))
        return done

    def fail(self, row: str, error: str) -> None:
        """Store why a recording cannot be transcribed."""
        self.store.write(_failed_name(row), json.dumps({"error": error}).encode())

    def failure(self, row: str) -> str | None:
        """Why a recording cannot be transcribed, or None."""
        data = self.store.read(_failed_name(row))
        try:
            return None if data is None else str(json.loads(data)["error"])
        except (ValueError, TypeError, KeyError):
            return "an earlier run failed; its reason was lost"

    def forget_failure(self, row: str) -> None:
        """Let a failed recording be tried again, from the beginning."""
        self.store.remove([_failed_name(row)])
        self.store.remove_folder(work_folder(row))

    def begin(self, key: str) -> str:
        """Mark a task as begun; return the name of the mark."""
        name = f"{ATTEMPTS}/{key}-{uuid.uuid4().hex}"
        self.store.write(name, b"")
        return name

    def begun(self, key: str) -> list[str]:
        """The marks of a task that was begun and did not end, because its process died."""
        names = self.store.names(ATTEMPTS)
        return [f"{ATTEMPTS}/{name}" for name in names if name.startswith(f"{key}-")]

    def forget_attempts(self) -> None:
        """Remove all marks, because the user ended the tasks, not the recordings."""
        self.store.remove([f"{ATTEMPTS}/{name}" for name in self.store.names(ATTEMPTS)])

    def _render(self, transcript: Transcript, row: str, formats: Iterable[str]) -> None:
        for name in formats:
            text = render(transcript, name, self._subtitles)
            self.store.write(output_name(row, name), text.encode())

    def _write_done(self, row: str, done: Done) -> None:
        self.store.write(_done_name(row), json.dumps(asdict(done)).encode())


def _done_name(row: str) -> str:
    return f"{INTERNAL}/done/{row[:2]}/{row}.json"


def _failed_name(row: str) -> str:
    return f"{INTERNAL}/failed/{row[:2]}/{row}.json"


def _ids(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.rpartition("/")[2].removesuffix(".json") for name in names)
