"""A section of the report: verdicts, tables and remarks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.first_hour.bootstrap import Interval

Level = Literal["pass", "look here", "not measurable"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one question.

    Attributes:
        item: what was asked.
        found: what was found, with its numbers.
        next: what to do; empty if it passed.
    """

    item: str
    level: Level
    found: str
    next: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first row has the titles."""

    title: str
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        head, *rows = self.rows
        lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
        cells = (map(in_cell, row) for row in lines)
        return "\n".join([f"**{self.title}**", "", *(f"| {' | '.join(row)} |" for row in cells)])


@dataclass(frozen=True, slots=True)
class Section:
    """What one measurement found."""

    name: str
    title: str
    verdicts: tuple[Verdict, ...]
    tables: tuple[Table, ...] = ()
    remarks: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """The section without its verdicts, which stand together at the top of the report."""
        return "\n\n".join([f"## {self.title}", *map(str, self.tables), *self.remarks])

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Section:
        """The section of a JSON object."""
        return cls(
            body["name"],
            body["title"],
            tuple(Verdict(**it) for it in body["verdicts"]),
            tuple(Table(**it) for it in body["tables"]),
            tuple(body["remarks"]),
        )

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


def in_cell(text: str) -> str:
    """The text as a cell of a table in Markdown."""
    return " ".join(text.replace("|", "\\|").splitlines())


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as a percentage."""
    return "n/a" if value is None else f"{100 * value:.{digits}f}%"


def interval(found: Interval | None) -> str:
    """A fraction and its confidence interval."""
    if found is None:
        return "n/a"
    return f"{100 * found.value:.2f}% ({100 * found.low:.2f} to {100 * found.high:.2f})"


def number(value: float | None, digits: int = 2) -> str:
    """A number, or n/a."""
    return "n/a" if value is None else f"{value:,.{digits}f}"
