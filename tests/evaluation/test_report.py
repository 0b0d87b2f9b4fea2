"""Evaluations and their Markdown and JSON reports; made-up transcripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr.errors import EngineFailed
from asr.evaluation import (
    Report,
    Result,
    TimeScore,
    Utterance,
    WordScore,
    evaluate,
)
from asr.types import Segment, Transcript, Word


def timed(text: str, start: float = 0.0, shift: float = 0.0) -> tuple[Word, ...]:
    """One word per half second, each 0.4 s long."""
    times = [start + shift + 0.5 * index for index in range(len(text.split()))]
    return tuple(Word(t, s, s + 0.4) for t, s in zip(text.split(), times, strict=True))


def transcript(text: str, words: tuple[Word, ...] = (), duration: float = 60.0) -> Transcript:
    segment = Segment(0, 0.0, duration, text, words)
    return Transcript((segment,), "en", duration, duration, 0.0, "fake", "sphinx")


def test_evaluate():
    known = {
        "good.wav": transcript("a b c", timed("a b c", 1, 0.1)),
        "poor.wav": transcript("x b", duration=30.0),
    }

    def recognise(path: Path) -> Transcript:
        if path.name == "broken.wav":
            raise EngineFailed("it broke", chunk_index=0)
        if path.name == "missing.wav":
            raise FileNotFoundError(path)
        return known[path.name]

    utterances = [
        Utterance(Path("good.wav"), "A b c.", timed("A b c.", 1), ("read",)),
        Utterance(Path("poor.wav"), "a b", timed("a b", 1), ("read", "noisy")),
        Utterance(Path("broken.wav"), "five more words here too", timed("five more"), ("noisy",)),
        Utterance(Path("missing.wav"), ""),
    ]
    seen: list[Result] = []
    report = evaluate(utterances, recognise, on_result=seen.append)

    assert tuple(seen) == report.results
    assert report.words == WordScore(hits=4, substitutions=1, deletions=5)
    assert report.words.wer == 0.6
    assert report.times == TimeScore(7, (0.1,) * 3, (0.1,) * 3)
    assert {name: part.words for name, part in report.categories.items()} == {
        "noisy": WordScore(hits=1, substitutions=1, deletions=5),
        "read": WordScore(hits=4, substitutions=1),
    }
    assert [result.utterance.file.name for result in report.failures] == [
        "broken.wav",
        "missing.wav",
    ]
    assert report.failures[0].error == "EngineFailed: it broke"


def test_a_bug_is_not_a_failed_utterance():
    def recognise(path: Path) -> Transcript:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate([Utterance(Path("x.wav"), "a")], recognise)


def made_report() -> Report:
    return Report(
        (
            Result(
                Utterance(Path("a.wav"), "a b c d", timed("a b c d", 1), ("read",)),
                transcript("a b c", timed("a b c", 1, 0.3), duration=90.0),
                wall_seconds=1.0,
            ),
            Result(Utterance(Path("b.wav"), "e"), transcript("e", duration=10.0), 9.0),
            Result(Utterance(Path("c.wav"), "f"), None, 10.0, "EngineFailed: no"),
        )
    )


def test_rtfx_is_a_ratio_of_sums():
    assert made_report().rtfx == 100 / 20
    assert Report(()).rtfx is None


def test_markdown():
    head, _, read, everything, _, machine, *failures = made_report().to_markdown(0.25).split("\n")
    cells = [cell.strip() for cell in head.strip("|").split("|")]
    for row, expected in (
        (
            read,
            {"": "read", "files": "1", "wer": "25.00%", "rtfx": "90", "matched share": "75.00%"},
        ),
        (everything, {"": "**all**", "failed": "1", "hits": "4", "deletions": "2", "rtfx": "5"}),
        (everything, {"start median": "0.300", "start within": "0.00%", "timed words": "4"}),
    ):
        shown = dict(zip(cells, (c.strip() for c in row.strip("|").split("|")), strict=True))
        assert expected.items() <= shown.items()
    assert "engine: fake + sphinx" in machine
    assert "collar: 0.25" in machine
    assert "normaliser: " in machine
    assert failures[-1] == "- c.wav: EngineFailed: no"


def test_json():
    body = json.loads(made_report().to_json())
    assert set(body["machine"]) == {
        "python", "platform", "cpus", "engine", "normaliser", "collar",
    }  # fmt: skip
    assert body["overall"]["wer"] == 2 / 6
    assert body["overall"]["failed"] == 1
    assert body["categories"]["read"]["matched_share"] == 0.75
    assert [file["error"] for file in body["files"]] == [None, None, "EngineFailed: no"]
    assert body["files"][2]["deletions"] == 1


def test_a_report_of_nothing():
    report = Report(())
    assert "n/a" in report.to_markdown()
    assert json.loads(report.to_json())["overall"]["wer"] is None
