"""One recording of a run, and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from asr.batch.tasks import Task
from asr.batch.urls import is_url

if TYPE_CHECKING:
    from asr.batch.sources import Source

State = Literal["new", "split", "done", "failed"]


@dataclass(slots=True)
class Item:
    """One recording, under all paths that have its content.

    Attributes:
        sources: its paths.
        content: SHA-256, or None if it is not known yet.
        seconds: of audio, perhaps estimated.
        pieces: numbers of the pieces that are not recognised yet.
        n_pieces: how many there are.
        alone: numbers of pieces, or 0 for the recording, whose tasks must run alone.
        n_troubles: how often a task failed by the service's fault.
        n_losses: how often files of its pieces were lost.
        is_away: the last time its server or disk did not answer.
    """

    sources: list[Source]
    content: str | None = None
    id: str = ""
    state: State = "new"
    seconds: float = 0.0
    pieces: set[int] = field(default_factory=set)
    n_pieces: int = 0
    alone: set[int] = field(default_factory=set)
    n_troubles: int = 0
    n_losses: int = 0
    is_away: bool = False
    error: str = ""
    fault: str = ""

    @property
    def path(self) -> str:
        """The path to read."""
        return self.sources[0].path

    @property
    def place(self) -> str:
        """The server that has it, or nothing if it is a file."""
        return "/".join(self.path.split("/", 3)[:3]) if is_url(self.path) else ""

    @property
    def is_open(self) -> bool:
        """Whether there is something to do."""
        return self.state in ("new", "split")

    def tasks(self) -> list[Task]:
        """What can be done now."""
        if self.state == "new":
            return [Task("file", self.path, self.content, alone=0 in self.alone)]
        if self.state == "split" and not self.pieces:
            return [Task("stitch", self.path, self.content, alone=0 in self.alone)]
        if self.state == "split":
            return [
                Task("piece", self.path, self.content, number, number in self.alone)
                for number in sorted(self.pieces)
            ]
        return []
