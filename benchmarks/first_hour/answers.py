"""Answers to clips, stored as JSON lines, so that an interrupted run continues."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from asr.evaluation import Result
from asr.types import Segment, Transcript, Word

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.first_hour.references import Clip


@dataclass(frozen=True, slots=True)
class Call:
    """One chat completion.

    Attributes:
        seconds: from the request to the whole answer.
        content: the text of the message before anything is removed from it.
        reasoning: the text of the message's field for reasoning.
        finish: the finish_reason.
        text_part: the text that was sent.
        is_audio_first: whether the audio part came before it.
    """

    seconds: float
    content: str
    reasoning: str
    finish: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    text_part: str
    is_audio_first: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What one arm made of one clip.

    Attributes:
        clip: id of the clip.
        duration: seconds of decoded audio.
        wall: seconds until the transcript was there, while other clips were in progress.
        chunks: seconds of each chunk.
        warnings: of the transcript and all its segments.
        error: why there is no transcript.
    """

    clip: str
    text: str = ""
    words: tuple[Word, ...] = ()
    duration: float = 0.0
    wall: float = 0.0
    warnings: tuple[str, ...] = ()
    chunks: tuple[float, ...] = ()
    calls: tuple[Call, ...] = ()
    error: str | None = None

    @property
    def raw(self) -> str:
        """All that the model wrote, before anything was removed."""
        return "\n".join(call.content for call in self.calls)

    def result(self, clip: Clip) -> Result:
        """The same for `asr.evaluation`."""
        made = None if self.error else self._transcript()
        return Result(clip.utterance, made, self.wall, self.error)

    def _transcript(self) -> Transcript:
        words = tuple(sorted(self.words, key=lambda word: word.start))  # as a segment demands
        end = max([self.duration, *(word.end for word in words)])
        segment = Segment(0, 0.0, end, self.text, words, warnings=self.warnings)
        return Transcript((segment,), "en", self.duration, self.duration, 0.0, "omni")


def read_answer(line: str) -> Answer:
    """Read one stored line."""
    record: dict[str, Any] = json.loads(line)
    record["words"] = tuple(Word(**it) for it in record["words"])
    record["calls"] = tuple(Call(**it) for it in record["calls"])
    record["warnings"] = tuple(record["warnings"])
    record["chunks"] = tuple(record["chunks"])
    return Answer(**record)


class Store:
    """The answers of one arm in a file. A failed clip is tried again by the next run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.answers: dict[str, Answer] = {}
        if path.exists():
            for line in path.read_text("utf-8").split("\n"):  # JSON may hold other line breaks
                try:
                    answer = read_answer(line)
                except (ValueError, TypeError, KeyError):
                    continue  # the run was killed while it wrote this line
                self.answers[answer.clip] = answer

    def has(self, clip: Clip) -> bool:
        """Whether there is an answer without error."""
        answer = self.answers.get(clip.id)
        return answer is not None and answer.error is None

    def put(self, answer: Answer) -> None:
        """Store an answer. A half line of a killed run before it becomes a line of its own."""
        self.answers[answer.clip] = answer
        line = json.dumps(asdict(answer), ensure_ascii=False)
        self._path.touch(mode=0o600)
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"\n{line}\n")
