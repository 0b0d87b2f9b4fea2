"""Transcribe the recordings of a manifest and report their scores."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from asr.errors import AsrError
from asr.evaluation.diarisation import (
    DiarisationScore,
    SpeakerScore,
    score_speakers,
    score_turns,
)
from asr.evaluation.normalise import NORMALISER
from asr.evaluation.scores import COLLAR, TimeScore, WordScore, ratio, score_times, score_words
from asr.output.rttm import turns_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from asr.evaluation.manifest import Utterance
    from asr.types import Transcript


@dataclass(frozen=True)
class Result:
    """The result of one utterance. Without a transcript, `error` says why."""

    utterance: Utterance
    transcript: Transcript | None
    wall_seconds: float
    error: str | None = None

    @cached_property
    def words(self) -> WordScore:
        """Word errors; without a transcript all words are deletions."""
        return score_words(self.utterance.text, self.transcript.text if self.transcript else "")

    @cached_property
    def times(self) -> TimeScore:
        """Time errors; without a transcript no word is matched."""
        return score_times(self.utterance.words, self.transcript.words if self.transcript else ())

    def turns(self, *, collar: float = 0.0, overlap: bool = True) -> DiarisationScore:
        """Errors of who speaks when; nothing without a reference."""
        if not self.utterance.turns:
            return DiarisationScore()
        found = turns_of(self.transcript.segments) if self.transcript else ()
        return score_turns(self.utterance.turns, found, collar=collar, overlap=overlap)

    @cached_property
    def speakers(self) -> SpeakerScore:
        """Speakers of words; nothing without a reference."""
        if not self.utterance.turns:
            return SpeakerScore()
        segments = self.transcript.segments if self.transcript else ()
        words = self.transcript.words if self.transcript else ()
        return score_speakers(self.utterance.turns, turns_of(segments), words)


DER_COLLAR = 0.25
"""Seconds, as NIST scored telephone calls."""
_PERCENT = (
    *("wer", "matched_share", "start_within", "end_within", "speaker_accuracy"),
    *("der", "miss", "false_alarm", "confusion", "der_collar", "der_alone", "der_collar_alone"),
    *("alone_wrong", "overlapped_wrong", "count_right"),
)


@dataclass(frozen=True)
class Report:
    """Results and their sums. Each category is a report of its own."""

    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """The results without a transcript."""
        return tuple(result for result in self.results if result.transcript is None)

    @property
    def categories(self) -> dict[str, Report]:
        """A report for each category. An utterance may be in several."""
        members: dict[str, list[Result]] = {}
        for result in self.results:
            for name in result.utterance.categories:
                members.setdefault(name, []).append(result)
        return {name: Report(tuple(members[name])) for name in sorted(members)}

    @property
    def words(self) -> WordScore:
        """Word errors, summed."""
        return sum((result.words for result in self.results), WordScore())

    @property
    def times(self) -> TimeScore:
        """Time errors of all files."""
        return sum((result.times for result in self.results), TimeScore())

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio transcribed per second of work. A failed file adds work but no audio."""
        audio = sum(result.transcript.duration for result in self.results if result.transcript)
        return ratio(audio, sum(result.wall_seconds for result in self.results))

    def figures(self, collar: float = COLLAR) -> dict[str, float | None]:
        """All numbers by name: counts, fractions from 0 to 1, seconds. None if undefined."""
        times = self.times
        start_within, end_within = times.within(collar)
        return {
            "files": len(self.results),
            "failed": len(self.failures),
            "wer": self.words.wer,
            **asdict(self.words),
            "timed_words": times.n_reference,
            "matched_share": times.matched_share,
            "start_median": times.start_median,
            "start_p95": times.start_p95,
            "start_within": start_within,
            "end_median": times.end_median,
            "end_within": end_within,
            "rtfx": self.rtfx,
            **self._speaker_figures(),
        }

    def _speaker_figures(self) -> dict[str, float | None]:
        """The figures of who speaks when, if a reference says it."""
        speakers = sum((result.speakers for result in self.results), SpeakerScore())
        if not speakers.files:
            return {}
        strict = self._turns(collar=0.0)
        return {
            "der": strict.der,
            "miss": ratio(strict.miss, strict.total),
            "false_alarm": ratio(strict.false_alarm, strict.total),
            "confusion": ratio(strict.confusion, strict.total),
            "der_collar": self._turns(collar=DER_COLLAR).der,
            "der_alone": self._turns(collar=0.0, overlap=False).der,
            "der_collar_alone": self._turns(collar=DER_COLLAR, overlap=False).der,
            "speaker_accuracy": speakers.accuracy,
            "alone_wrong": ratio(speakers.alone_wrong, speakers.alone),
            "overlapped_wrong": ratio(speakers.overlapped_wrong, speakers.overlapped),
            "count_right": ratio(speakers.count_right, speakers.files),
            "count_error": ratio(speakers.count_error, speakers.files),
        }

    def _turns(self, *, collar: float, overlap: bool = True) -> DiarisationScore:
        scores = (result.turns(collar=collar, overlap=overlap) for result in self.results)
        return sum(scores, DiarisationScore())

    def to_markdown(self, collar: float = COLLAR) -> str:
        """A Markdown table with a row for each category, the machine, and all failures."""
        rows = {name: part.figures(collar) for name, part in self.categories.items()}
        rows["**all**"] = figures = self.figures(collar)
        table = [["", *(key.replace("_", " ") for key in figures)], ["---"] * (len(figures) + 1)]
        table += [[name, *(_show(*item) for item in row.items())] for name, row in rows.items()]
        lines = [f"| {' | '.join(cells)} |" for cells in table]
        lines += ["", ", ".join(f"{key}: {value}" for key, value in self._machine(collar).items())]
        if self.failures:
            lines += ["", f"{len(self.failures)} failed; their words count as deletions:", ""]
            lines += [f"- {result.utterance.file.name}: {result.error}" for result in self.failures]
        return "\n".join(lines)

    def to_json(self, collar: float = COLLAR) -> str:
        """A JSON object: machine, overall, categories, and each file with its text."""
        files = [
            {
                "file": result.utterance.file.name,
                "error": result.error,
                "wall_seconds": result.wall_seconds,
                **asdict(result.words),
                "text": result.transcript.text if result.transcript else None,
            }
            for result in self.results
        ]
        body = {
            "machine": self._machine(collar),
            "overall": self.figures(collar),
            "categories": {name: part.figures(collar) for name, part in self.categories.items()},
            "files": files,
        }
        return json.dumps(body, indent=2, ensure_ascii=False)

    def _machine(self, collar: float) -> dict[str, Any]:
        made = [result.transcript for result in self.results if result.transcript]
        engines = {" + ".join(filter(None, (each.engine, each.aligner))) for each in made}
        return {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": len(os.sched_getaffinity(0)),
            "engine": "; ".join(sorted(engines)) or None,
            "normaliser": NORMALISER,
            "collar": collar,
        }


def _show(name: str, value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:.2%}" if name in _PERCENT else f"{value:.3f}".removesuffix(".000")


def evaluate(
    utterances: Iterable[Utterance],
    transcribe: Callable[[Path], Transcript],
    on_result: Callable[[Result], object] | None = None,
) -> Report:
    """Transcribe each utterance and score it.

    An `AsrError` or `OSError` fails only its utterance. Any other exception is a bug and is raised.
    """
    results = []
    for utterance in utterances:
        transcript, failure, start = None, None, time.perf_counter()
        try:
            transcript = transcribe(utterance.file)
        except (AsrError, OSError) as error:
            failure = f"{type(error).__name__}: {error}"
        results.append(Result(utterance, transcript, time.perf_counter() - start, failure))
        if on_result is not None:
            on_result(results[-1])
    return Report(tuple(results))
