"""How good a transcript is: word errors, word-time errors, speed. Knows no engine and no pipeline.

Counts are pooled, rates are derived: a WER over files is the sum of errors over the sum of words,
and RTFx is audio seconds over wall seconds, never a mean of ratios. A file that fails is not
left out: its words count as deletions, its wall time counts, and it is listed.

Before scoring, both sides are turned into spoken tokens, one written word at a time:

- NFKC, casefolded; punctuation dropped except apostrophes inside words; hyphens split words;
- numbers in English words: ``1,234``, ``-3.5``, ``21st``, ``$3.50``, ``50%``. Four digits that look
  like a year are read like one, a leading zero or seven digits without commas one by one;
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
import statistics
import time
import unicodedata
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jiwer

from asr.config import check
from asr.errors import AsrError, InvalidOption
from asr.types import Transcript, Word, ordered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

NORMALISER = "NFKC, casefold, no punctuation, numbers in English words, one word at a time"
COLLAR = 0.2
"""Seconds by which a word's time may be off and still count as right."""

_ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "dr": "doctor", "prof": "professor", "jr": "junior",
    "sr": "senior", "vs": "versus", "etc": "et cetera", "ok": "okay",
}  # fmt: skip
_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
_COINS = {
    "$": (("dollar", "dollars"), ("cent", "cents")),
    "£": (("pound", "pounds"), ("penny", "pence")),
    "€": (("euro", "euros"), ("cent", "cents")),
}
_NUMBER = re.compile(
    r"(?<![^\W_])(?P<minus>(?<!\S)[-−])?(?P<coin>[$£€])?"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.(?P<part>[0-9]+))?"
    r"(?P<ordinal>st|nd|rd|th)?(?P<percent>%)?(?![^\W_])"
)


def normalise(text: str) -> list[str]:
    """The spoken tokens of a text. Applying it to its own output changes nothing."""
    return list(chain.from_iterable(_spoken(written) for written in text.split()))


def _spoken(written: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", written).casefold())
    said = _NUMBER.sub(_say_number, re.sub("[‘’ʼ]", "'", folded)).replace("&", " and ")  # noqa: RUF001
    joined = re.sub(r"(?<=\b[^\W\d_])\.(?=[^\W\d_]\b)", "", said)
    letters = "".join(c if unicodedata.category(c)[0] in "LMN" or c == "'" else " " for c in joined)
    pieces = (piece.strip("'") for piece in letters.split())
    return " ".join(_ABBREVIATIONS.get(piece, piece) for piece in pieces).split()


def _say_number(found: re.Match[str]) -> str:
    words, part, coin = _integer(found["whole"]), found["part"] or "", found["coin"]
    if coin and len(part) in (0, 2):
        words = _money(int(found["whole"].replace(",", "")), int(part or 0), coin)
    elif part:
        words += ["point", *(_ONES[int(digit)] for digit in part)]
        words += [_COINS[coin][0][1]] if coin else []
    if found["ordinal"]:
        words[-1] = _ORDINALS.get(words[-1]) or re.sub("y$", "ie", words[-1]) + "th"
    minus, percent = found["minus"] and "minus", found["percent"] and "percent"
    return f" {' '.join(filter(None, (minus, *words, percent)))} "


def _integer(text: str) -> list[str]:
    """A year, a row of digits or a cardinal number."""
    value = int(text.replace(",", ""))
    if (text[0] == "0" and len(text) > 1) or ("," not in text and len(text) > 6):
        return [_ONES[int(digit)] for digit in text if digit != ","]
    if "," not in text and (1100 <= value <= 1999 or 2010 <= value <= 2099):
        century, year = divmod(value, 100)
        rest = _cardinal(year) if year else ["hundred"]
        return [*_cardinal(century), *(["oh"] if 0 < year < 10 else []), *rest]
    return _cardinal(value)


def _cardinal(value: int) -> list[str]:
    for size, name in _SCALES:
        if value >= size:
            return [
                *_cardinal(value // size),
                name,
                *(_cardinal(value % size) if value % size else []),
            ]
    if value < 20:
        return [_ONES[value]]
    return [_TENS[value // 10], *([_ONES[value % 10]] if value % 10 else [])]


def _money(whole: int, hundredths: int, coin: str) -> list[str]:
    counted = zip((whole, hundredths), _COINS[coin], strict=True)
    amounts = [[*_cardinal(n), one if n == 1 else many] for n, (one, many) in counted if n]
    return " and ".join(map(" ".join, amounts or [["zero", _COINS[coin][0][1]]])).split()


@dataclass(frozen=True, slots=True)
class WordScore:
    """Counts of the WER alignment; they add up over files."""

    hits: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0

    def __add__(self, other: WordScore) -> WordScore:
        return WordScore(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
        )

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
        errors = self.substitutions + self.insertions + self.deletions
        return errors / self.n_reference if self.n_reference else None


@dataclass(frozen=True, slots=True)
class TimeScore:
    """Time errors of the matched words; they add up over files. Read them beside `matched_share`.

    Attributes:
        n_reference: words of the reference that have a time.
        start_errors: seconds by which each matched word starts late (early: negative).
        end_errors: the same for its end.
    """

    n_reference: int = 0
    start_errors: tuple[float, ...] = ()
    end_errors: tuple[float, ...] = ()

    def __add__(self, other: TimeScore) -> TimeScore:
        return TimeScore(
            self.n_reference + other.n_reference,
            self.start_errors + other.start_errors,
            self.end_errors + other.end_errors,
        )

    @property
    def matched(self) -> int:
        """Reference words whose times could be compared."""
        return len(self.start_errors)

    @property
    def matched_share(self) -> float | None:
        """Of the timed reference words."""
        return self.matched / self.n_reference if self.n_reference else None

    @property
    def start_median(self) -> float | None:
        """Median of the absolute start errors in seconds."""
        return _quantile(self.start_errors, 0.5)

    @property
    def start_p95(self) -> float | None:
        """95th percentile (nearest rank) of the absolute start errors in seconds."""
        return _quantile(self.start_errors, 0.95)

    @property
    def end_median(self) -> float | None:
        """Median of the absolute end errors in seconds."""
        return _quantile(self.end_errors, 0.5)

    @property
    def start_bias(self) -> float | None:
        """Median of the signed start errors: what a constant delay would show."""
        return statistics.median(self.start_errors) if self.start_errors else None

    def start_within(self, collar: float = COLLAR) -> float | None:
        """Share of matched words that start within `collar` seconds of the reference."""
        return _share_within(self.start_errors, collar)

    def end_within(self, collar: float = COLLAR) -> float | None:
        """Share of matched words that end within `collar` seconds of the reference."""
        return _share_within(self.end_errors, collar)


def _quantile(errors: Sequence[float], share: float) -> float | None:
    ranked = sorted(map(abs, errors))
    return ranked[math.ceil(share * len(ranked)) - 1] if ranked else None


def _share_within(errors: Sequence[float], collar: float) -> float | None:
    return sum(abs(error) <= collar for error in errors) / len(errors) if errors else None


def _align(reference: Iterable[str], hypothesis: Iterable[str]) -> jiwer.WordOutput:
    return jiwer.process_words(" ".join(reference), " ".join(hypothesis))


def score_words(reference: str, hypothesis: str) -> WordScore:
    """Compare two texts after normalising both."""
    found = _align(normalise(reference), normalise(hypothesis))
    return WordScore(found.hits, found.substitutions, found.insertions, found.deletions)


def score_times(reference: Sequence[Word], hypothesis: Sequence[Word]) -> TimeScore:
    """Compare the times of the words that the WER alignment takes for the same.

    A written word may be several tokens. It matches when all of them do and both its edges are
    edges of hypothesis words as well, so "25" compares with "twenty five"; the "twenty" of a
    reference cannot with the first half of "twenty-five", and lowers the matched share.
    """
    (ref_tokens, ours), (hyp_tokens, theirs) = _spread(reference), _spread(hypothesis)
    hits = {
        chunk.ref_start_idx + offset: chunk.hyp_start_idx + offset
        for chunk in _align(ref_tokens, hyp_tokens).alignments[0]
        if chunk.type == "equal"
        for offset in range(chunk.ref_end_idx - chunk.ref_start_idx)
    }
    starts = {first: word.start for first, _, word in theirs}
    ends = {last: word.end for _, last, word in theirs}
    errors = [
        (round(starts[hits[first]] - word.start, 6), round(ends[hits[last]] - word.end, 6))
        for first, last, word in ours
        if hits.keys() >= set(range(first, last + 1))
        if hits[first] in starts and hits[last] in ends
    ]
    return TimeScore(
        len(ours), tuple(start for start, _ in errors), tuple(end for _, end in errors)
    )


def _spread(words: Iterable[Word]) -> tuple[list[str], list[tuple[int, int, Word]]]:
    """The tokens of all words, and the first and last token of each word that has any."""
    tokens: list[str] = []
    spans = []
    for word in words:
        spoken = normalise(word.text)
        if spoken:
            spans.append((len(tokens), len(tokens) + len(spoken) - 1, word))
            tokens += spoken
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

    Optional: ``words`` with ``text`` (or ``word``), ``start`` and ``end`` each; ``category``, one or
    several parted by commas; ``duration``. Other fields are ignored, and so are blank lines.

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
    file = _read_field(record, "file", (str,), where)
    check(file != "", "file", f"{where}: field 'file' is empty")
    category = _read_field(record, "category", (str, type(None)), where) or ""
    return Utterance(
        file=folder / file,
        text=_read_field(record, "text", (str,), where),
        words=_read_words(_read_field(record, "words", (list, type(None)), where) or [], where),
        categories=tuple(filter(None, (part.strip() for part in category.split(",")))),
        duration=_read_field(record, "duration", (int, float, type(None)), where),
    )


def _read_words(items: list[Any], where: str) -> tuple[Word, ...]:
    words: list[Word] = []
    for index, item in enumerate(items):
        place = f"{where}, words[{index}]"
        check(isinstance(item, dict), "words", f"{place}: must be an object")
        text = _read_field(item, "text" if "text" in item else "word", (str,), place)
        start, end = (_read_field(item, key, (int, float), place) for key in ("start", "end"))
        try:
            words.append(Word(text, start, end))
            ordered(words[-2:], 0.0, math.inf)
        except ValueError as error:
            raise InvalidOption("words", f"{place}: {error}") from error
    return tuple(words)


def _read_field(record: Mapping[str, Any], name: str, kinds: tuple[type, ...], where: str) -> Any:
    value = record.get(name)
    wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
    # Not isinstance: a JSON true is no number.
    right = type(value) in kinds
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


_COLUMNS = (
    ("files", "files", "d"), ("failed", "failed", "d"), ("WER", "wer", ".2%"), ("H", "hits", "d"),
    ("S", "substitutions", "d"), ("D", "deletions", "d"), ("I", "insertions", "d"),
    ("timed words", "timed_words", "d"), ("matched", "matched_share", ".1%"),
    ("start median s", "start_median", ".3f"), ("start p95 s", "start_p95", ".3f"),
    ("start in collar", "start_within", ".1%"), ("end median s", "end_median", ".3f"),
    ("end in collar", "end_within", ".1%"), ("RTFx", "rtfx", ".1f"),
)  # fmt: skip


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
        """One report per category; an utterance of two categories is in both."""
        names = sorted({name for result in self.results for name in result.utterance.categories})
        return {
            name: Report(tuple(r for r in self.results if name in r.utterance.categories))
            for name in names
        }

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
        """Seconds of audio transcribed per second of work; a failure adds work and no audio."""
        audio = sum(result.transcript.duration for result in self.results if result.transcript)
        wall = sum(result.wall_seconds for result in self.results)
        return audio / wall if wall else None

    def figures(self, collar: float = COLLAR) -> dict[str, float | None]:
        """All numbers by name: counts, shares from 0 to 1, seconds; None where nothing counts."""
        words, times = self.words, self.times
        return {
            "files": len(self.results),
            "failed": len(self.failures),
            "wer": words.wer,
            **asdict(words),
            "timed_words": times.n_reference,
            "matched_share": times.matched_share,
            "start_median": times.start_median,
            "start_p95": times.start_p95,
            "start_bias": times.start_bias,
            "start_within": times.start_within(collar),
            "end_median": times.end_median,
            "end_within": times.end_within(collar),
            "rtfx": self.rtfx,
        }

    def to_markdown(self, collar: float = COLLAR) -> str:
        """A table with a row per category, the machine, and every failure."""
        rows = [["", *(heading for heading, _, _ in _COLUMNS)], ["---"] * (len(_COLUMNS) + 1)]
        for name, report in {**self.categories, "**all**": self}.items():
            figures = report.figures(collar)
            rows.append([name, *(_show(figures[key], form) for _, key, form in _COLUMNS)])
        table = [f"| {' | '.join(row)} |" for row in rows]
        machine = ", ".join(f"{key}: {value}" for key, value in self._machine(collar).items())
        failed = [f"- {r.utterance.file.name}: {r.error}" for r in self.failures]
        listed = ["", f"{len(failed)} failed, their words count as deletions:", "", *failed]
        return "\n".join([*table, "", machine, *(listed if failed else [])])

    def to_json(self, collar: float = COLLAR) -> str:
        """Everything in one object: machine, overall, by category, and each file."""
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
            "jiwer": version("jiwer"),
            "engine": "; ".join(sorted(engines)) or None,
            "normaliser": NORMALISER,
            "collar": collar,
        }


def _show(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


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
        transcript, failure = None, None
        start = time.perf_counter()
        try:
            transcript = transcribe(utterance.file)
        except (AsrError, OSError) as error:
            failure = f"{type(error).__name__}: {error}"
        results.append(Result(utterance, transcript, time.perf_counter() - start, failure))
        if on_result is not None:
            on_result(results[-1])
    return Report(tuple(results))
