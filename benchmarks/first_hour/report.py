"""The report in Markdown and JSON."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from benchmarks.first_hour.section import Section, in_cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def to_markdown(facts: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """The verdicts in one table, then every section."""
    verdicts = [verdict for section in sections for verdict in section.verdicts]
    counts = Counter(verdict.level for verdict in verdicts)
    lines = ["# The first hour", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    lines += [", ".join(f"**{n} {level}**" for level, n in sorted(counts.items())), ""]
    lines += ["| item | verdict | found | next |", "| --- | --- | --- | --- |"]
    for it in verdicts:
        level = it.level if it.level == "pass" else f"**{it.level}**"
        cells = (it.item, level, it.found, it.next)
        lines.append(f"| {' | '.join(map(in_cell, cells))} |")
    return "\n".join([*lines, "", "\n\n".join(it.to_markdown() for it in sections), ""])


def write(folder: Path, facts: Mapping[str, Any], sections: Sequence[Section]) -> Path:
    """Write report.md and report.json, and return the path of the first."""
    body = {"facts": dict(facts), "sections": [it.to_json() for it in sections]}
    put(folder / "report.json", json.dumps(body, indent=2, ensure_ascii=False) + "\n")
    put(folder / "report.md", to_markdown(facts, sections))
    return folder / "report.md"


def stored(folder: Path) -> dict[str, Section]:
    """The sections of an earlier report, by name: a run of some steps keeps the others."""
    path = folder / "report.json"
    if not path.exists():
        return {}
    sections = json.loads(path.read_text("utf-8"))["sections"]
    return {it["name"]: Section.from_json(it) for it in sections}


def put(path: Path, text: str) -> None:
    """Write a file at once, so that a run that is killed leaves no half."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
