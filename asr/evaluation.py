"""How good a transcript is: word errors, word-time errors, speed. Knows no engine and no pipeline.

Counts are pooled, rates are derived: a WER over files is the sum of errors over the sum of words,
RTFx is audio seconds over wall seconds, never a mean of ratios. A file that fails is not left out:
its words count as deletions, its wall time counts, and it is listed.

Before scoring, both sides are turned into spoken tokens, one written word at a time:

- NFKC, casefolded; punctuation dropped except apostrophes inside words; hyphens split words;
- numbers in English words: ``1,234``, ``-3.5``, ``21st``, ``$3.50``, ``50%``. Four digits that look
  like a year are read like one; with a leading zero, with seven digits and no commas, or from a
  trillion on, digits are read one by one;
- the abbreviations of `_ABBREVIATIONS`, ``&`` as "and", initials joined (``U.S.`` is "us").

It does not expand contractions, unify spellings or compounds (colour, good bye), drop fillers, put
"and" inside numbers, or read clock times, fractions, Roman numerals, ``1980s``, ``4k`` and what
depends on the next word (``St.``, ``$2 million``). Other scripts pass unchanged, unsegmented.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import time
import unicodedata
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import jiwer

from asr.config import check
from asr.errors import AsrError, InvalidOption
from asr.types import Transcript, Word, ordered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

NORMALISER = "NFKC, casefold, no punctuation, numbers in English words"
COLLAR = 0.2
"""Seconds by which a word's time may be off and still count as right."""

_ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "dr": "doctor", "prof": "professor", "jr": "junior",
    "sr": "senior", "vs": "versus", "etc": "et cetera", "ok": "okay",
}  # fmt: skip
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
]  # fmt: skip
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
_NUMBER = re.compile(
    r"(?<![^\W_])(?P<minus>(?<!\S)[-\u2212])?(?P<dollar>\$)?"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.(?P<part>[0-9]+))?"
    r"(?P<ordinal>st|nd|rd|th)?(?P<percent>%)?(?![^\W_])"
)


def normalise(text: str) -> list[str]:
    """The spoken tokens of a text. Applied to its own output it changes nothing."""
    return [token for written in text.split() for token in _spoken(written)]


def _spoken(written: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", written).casefold())
    said = _NUMBER.sub(_say_number, re.sub(r"[\u2018\u2019\u02bc]", "'", folded))
    said = re.sub(r"(?<=\b[^\W\d_])\.(?=[^\W\d_]\b)", "", said).replace("&", " and ")
    bare = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in said)
    pieces = (piece.strip("'") for piece in bare.split())
    return " ".join(_ABBREVIATIONS.get(piece, piece) for piece in pieces).split()


def _say_number(found: re.Match[str]) -> str:
    words, part = _integer(found["whole"]), found["part"] or ""
    if found["ordinal"]:
        words[-1] = _ORDINALS.get(words[-1]) or re.sub("y$", "ie", words[-1]) + "th"
    if found["dollar"] and len(part) in (0, 2):
        words += ["dollar" if words == ["one"] else "dollars"]
        words += [*_cardinal(int(part)), "cents"] if part else []
    else:
        words += ["point", *(_ONES[int(digit)] for digit in part)] if part else []
        words += ["dollars"] if found["dollar"] else []
    around = "minus" if found["minus"] else "", "percent" if found["percent"] else ""
    return f" {around[0]} {' '.join(words)} {around[1]} "


def _integer(text: str) -> list[str]:
    """A row of digits, a year or a cardinal number."""
    digits = text.replace(",", "")
    plain = digits == text
    if len(digits) > (6 if plain else 12) or (len(digits) > 1 and digits[0] == "0"):
        return [_ONES[int(digit)] for digit in digits]
    value = int(digits)
    if plain and (1100 <= value <= 1999 or 2010 <= value <= 2099):
        century, year = divmod(value, 100)
        rest = _cardinal(year) if year else ["hundred"]
        return [*_cardinal(century), *(["oh"] if 0 < year < 10 else []), *rest]
    return _cardinal(value)


def _cardinal(value: int) -> list[str]:
    for size, name in _SCALES:
        if value >= size:
            rest = value % size
            return [*_cardinal(value // size), name, *(_cardinal(rest) if rest else [])]
    if value < 20:
        return [_ONES[value]]
    return [_TENS[value // 10], *([_ONES[value % 10]] if value % 10 else [])]


@dataclass(frozen=True)
class _Pooled:
    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class WordScore(_Pooled):
    """Counts of the WER alignment; they add up over files."""

    hits: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0

    @property
    def n_reference(self) -> int:
        """Spoken tokens of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def wer(self) -> float | None:
        """Errors per reference word, above 1 when much is inserted.

        None for an empty reference, which has no rate (jiwer gives the count of insertions there);
        its insertions still weigh in the files it is pooled with.
        """
        return _ratio(self.substitutions + self.insertions + self.deletions, self.n_reference)


@dataclass(frozen=True)
class TimeScore(_Pooled):
    """Time errors of the matched words; they add up over files. Read with `matched_share`.

    Attributes:
        n_reference: words of the reference that have a time.
        start_errors: seconds by which each matched word starts late, negative when early.
        end_errors: the same for its end.
    """

    n_reference: int = 0
    start_errors: tuple[float, ...] = ()
    end_errors: tuple[float, ...] = ()

    @property
    def matched(self) -> int:
        """Reference words whose times could be compared."""
        return len(self.start_errors)

    @property
    def matched_share(self) -> float | None:
        """Matched words of the timed reference words."""
        return _ratio(self.matched, self.n_reference)

    @property
    def start_median(self) -> float | None:
        """Median absolute error of the starts in seconds."""
        return _quantile(self.start_errors, 0.5)

    @property
    def start_p95(self) -> float | None:
        """95th percentile of the absolute errors of the starts in seconds."""
        return _quantile(self.start_errors, 0.95)

    @property
    def end_median(self) -> float | None:
        """Median absolute error of the ends in seconds."""
        return _quantile(self.end_errors, 0.5)

    def within(self, collar: float = COLLAR) -> tuple[float | None, float | None]:
        """Shares of the matched words that start, and that end, at most `collar` seconds off."""
        good = [
            sum(abs(e) <= collar for e in each) for each in (self.start_errors, self.end_errors)
        ]
        return _ratio(good[0], self.matched), _ratio(good[1], self.matched)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _quantile(errors: Sequence[float], share: float) -> float | None:
    """The nearest rank: a value that was measured, none between two."""
    ranked = sorted(map(abs, errors))
    return ranked[math.ceil(share * len(ranked)) - 1] if ranked else None


def score_words(reference: str, hypothesis: str) -> WordScore:
    """Compare two texts after normalising both."""
    found = _align(normalise(reference), normalise(hypothesis))
    return WordScore(found.hits, found.substitutions, found.insertions, found.deletions)


def score_times(reference: Iterable[Word], hypothesis: Iterable[Word]) -> TimeScore:
    """Compare the times of the words that the WER alignment takes for the same.

    A written word may be several tokens. It matches when all of them do and both its edges are
    edges of hypothesis words too: "25" compares with "twenty five", but the "twenty" of a
    reference not with half of "twenty-five", which lowers the matched share.
    """
    (ref_tokens, ref_words), (hyp_tokens, hyp_words) = _spread(reference), _spread(hypothesis)
    hits = {
        chunk.ref_start_idx + offset: chunk.hyp_start_idx + offset
        for chunk in _align(ref_tokens, hyp_tokens).alignments[0]
        if chunk.type == "equal"
        for offset in range(chunk.ref_end_idx - chunk.ref_start_idx)
    }
    starts = {first: word.start for first, _, word in hyp_words}
    ends = {last: word.end for _, last, word in hyp_words}
    errors = [
        (round(starts[hits[first]] - word.start, 6), round(ends[hits[last]] - word.end, 6))
        for first, last, word in ref_words
        if all(token in hits for token in range(first, last + 1))
        if hits[first] in starts and hits[last] in ends
    ]
    return TimeScore(len(ref_words), tuple(s for s, _ in errors), tuple(e for _, e in errors))


def _align(reference: Sequence[str], hypothesis: Sequence[str]) -> jiwer.WordOutput:
    return jiwer.process_words(" ".join(reference), " ".join(hypothesis))


def _spread(words: Iterable[Word]) -> tuple[list[str], list[tuple[int, int, Word]]]:
    """The tokens of all words, and (first token, last token, word) of each that has any."""
    tokens: list[str] = []
    spans = []
    for word in words:
        before = len(tokens)
        tokens += normalise(word.text)
        if len(tokens) > before:
            spans.append((before, len(tokens) - 1, word))
    return tokens, spans


@dataclass(frozen=True, slots=True)
class Utterance:
    """A line of a manifest: a recording and what is said in it.

    Attributes:
        words: the reference with times; empty when nobody timed it. Given times are trusted.
        categories: the groups it is reported in besides the overall one.
        duration: seconds, as the manifest says. RTFx counts what was decoded instead.
    """

    file: Path
    text: str
    words: tuple[Word, ...] = ()
    categories: tuple[str, ...] = ()
    duration: float | None = None


def read_manifest(path: Path) -> list[Utterance]:
    """Read JSON lines with ``file`` (relative to the manifest) and ``text``.

    Optional are ``words``, each with ``text`` or ``word``, ``start`` and ``end``; ``category``, one
    or several parted by commas; ``duration``. Other fields and blank lines are ignored.

    Raises:
        InvalidOption: the manifest cannot be read, or a line is wrong; names the line and field.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption("manifest", f"cannot read {path}: {error}") from error
    numbered = ((f"{path}, line {number}", line) for number, line in enumerate(lines, 1))
    return [_read_utterance(line, path.parent, where) for where, line in numbered if line.strip()]


def _read_utterance(line: str, folder: Path, where: str) -> Utterance:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InvalidOption("manifest", f"{where}: not JSON: {error}") from error
    check(isinstance(record, dict), "manifest", f"{where}: must be an object")
    category = _field(record, "category", (str, type(None)), where) or ""
    words = _field(record, "words", (list, type(None)), where) or []
    return Utterance(
        file=folder / _field(record, "file", (str,), where),
        text=_field(record, "text", (str,), where),
        words=_read_words(words, where),
        categories=tuple(part.strip() for part in category.split(",") if part.strip()),
        duration=_field(record, "duration", (int, float, type(None)), where),
    )


def _read_words(items: list[Any], where: str) -> tuple[Word, ...]:
    words: list[Word] = []
    for index, item in enumerate(items):
        place = f"{where}, words[{index}]"
        check(isinstance(item, dict), "words", f"{place}: must be an object")
        text = _field(item, "word" if "word" in item else "text", (str,), place)
        start, end = (_field(item, key, (int, float), place) for key in ("start", "end"))
        try:
            words.append(Word(text, start, end))
            ordered(words[-2:], 0.0, math.inf)
        except ValueError as error:
            raise InvalidOption("words", f"{place}: {error}") from error
    return tuple(words)


def _field(record: Mapping[str, Any], name: str, kinds: tuple[type, ...], where: str) -> Any:
    value = record.get(name)
    wanted = " or ".join(kind.__name__ for kind in kinds)
    right = type(value) in kinds  # not isinstance: a JSON true is no number
    check(right, name, f"{where}: field {name!r} must be {wanted}, not {value!r}")
    return value


@dataclass(frozen=True)
class Result:
    """What came of one utterance; `error` says why when there is no transcript."""

    utterance: Utterance
    transcript: Transcript | None
    wall_seconds: float
    error: str | None = None

    @cached_property
    def words(self) -> WordScore:
        """The word errors; without a transcript all words are deletions."""
        return score_words(self.utterance.text, self.transcript.text if self.transcript else "")

    @cached_property
    def times(self) -> TimeScore:
        """The time errors; without a transcript no word is matched."""
        return score_times(self.utterance.words, self.transcript.words if self.transcript else ())


_PERCENT = ("wer", "matched_share", "start_within", "end_within")


@dataclass(frozen=True)
class Report:
    """Results and what they add up to. A category is a report of its own results."""

    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """The results without a transcript."""
        return tuple(result for result in self.results if result.transcript is None)

    @property
    def categories(self) -> dict[str, Report]:
        """A report per category; an utterance of two categories is in both."""
        members: dict[str, list[Result]] = {}
        for result in self.results:
            for name in result.utterance.categories:
                members.setdefault(name, []).append(result)
        return {name: Report(tuple(members[name])) for name in sorted(members)}

    @property
    def words(self) -> WordScore:
        """All word errors."""
        return sum((result.words for result in self.results), WordScore())

    @property
    def times(self) -> TimeScore:
        """All time errors."""
        return sum((result.times for result in self.results), TimeScore())

    @property
    def rtfx(self) -> float | None:
        """Audio seconds transcribed per second of work; a failure adds work and no audio."""
        audio = sum(result.transcript.duration for result in self.results if result.transcript)
        return _ratio(audio, sum(result.wall_seconds for result in self.results))

    def figures(self, collar: float = COLLAR) -> dict[str, float | None]:
        """All numbers by name: counts, shares from 0 to 1, seconds; None where nothing counts."""
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
        }

    def to_markdown(self, collar: float = COLLAR) -> str:
        """A table with a row per category, the machine, and every failure."""
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
        """One object: machine, overall, categories, and every file with its text."""
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
    on_result: Callable[[Result], None] | None = None,
) -> Report:
    """Transcribe each utterance and score it.

    An `AsrError` or `OSError` fails its utterance and no other; anything else is a bug and rises.
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
