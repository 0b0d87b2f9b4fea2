"""Find where a text may be split: ends of sentences and clauses, and line breaks.

`belong_together` finds words that must not be split: numbers, quantities, dates and names.
Only words and punctuation are considered. The word lists are English. In other languages they do no
harm, because words that are not listed get no special treatment.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_UNEVEN_COST = 10.0
"""Cost of a line of full width. `line_bounds` adds it to the costs of the line breaks."""


def _lexicon(words: str) -> frozenset[str]:
    return frozenset(words.split())


_OPENING = "\"'“‘«‹([{"  # noqa: RUF001
_CLOSING = "\"'”’»›)]}"  # noqa: RUF001
_SENTENCE_ENDS = ("?", "!", "…", "。", "？", "！", "؟", "।")  # noqa: RUF001
_CLAUSE_ENDS = (",", ";", ":", "—", "–", "،", "؛", "，", "、")  # noqa: RUF001
_ABBREVIATION = re.compile(
    r"(?:mrs?|ms|dr|prof|rev|hon|gen|col|capt|lt|sgt|st|mt|jr|sr|messrs|vs|cf|approx|dept|fig|vol"
    r"|(?:[^\W\d_]\.)*[^\W\d_])\.",  # and initials: J., U.S., e.g.
    re.IGNORECASE,
)
_TITLE = re.compile(
    r"(?:mrs?|ms|dr|prof|rev|hon|gen|col|capt|lt|sgt|st|mt|messrs|(?:[^\W\d_]\.)+)\.?",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"(?:no|nr|nos|fig|vol|chapter|page|section|room|gate|flight|line)\.?", re.IGNORECASE
)
_NUMERAL = re.compile(r"[$€£¥#+-]?\d[\d.,:/'-]*(?:st|nd|rd|th|%|[a-z]{1,2})?", re.IGNORECASE)
_SPELLED = _lexicon(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
    " hundred thousand million billion trillion point"
)
_MONTHS = _lexicon(
    "january february march april may june july august september october november december"
)
_UNITS = _lexicon(
    "% percent per cent degrees dollars euros pounds cents o'clock am pm a.m p.m hours minutes"
    " seconds days weeks months years km m cm mm kg g mg lb l ml hz khz mhz gb mb kb miles feet"
    " inches"
)
_NO_NAME = _lexicon(
    "a an the i i'm i'll i've i'd and but or so if in on at of to for with from by as it he she we"
    " they you this that these those there then when what who how why where no yes well my your"
    " his her our their"
)
_LEADING = _lexicon(
    "a an the of to in on at for with from by and or but that my your his her our their"
)


def ends_sentence(text: str) -> bool:
    """Whether a word, given with its punctuation, ends a sentence; ``Mr.`` and ``J.`` do not."""
    bare = text.rstrip(_CLOSING)
    if not bare.endswith("."):
        return bare.endswith(_SENTENCE_ENDS)
    return not _ABBREVIATION.fullmatch(bare.lstrip(_OPENING))


def ends_clause(text: str) -> bool:
    """Whether a word, given with its punctuation, ends a clause."""
    return text.rstrip(_CLOSING).endswith(_CLAUSE_ENDS)


def belong_together(left: str, right: str) -> bool:
    """Whether two neighbouring words are parts of one number, quantity, date or name."""
    bare = left.lstrip(_OPENING)
    following = right.lstrip(_OPENING)
    # This comes first because "No." looks like the end of a sentence.
    if _COUNTED.fullmatch(bare) and _is_number(following):
        return True
    if bare != bare.rstrip(_CLOSING) or ends_sentence(left) or ends_clause(left):
        return False
    word = following.rstrip(_CLOSING + ".,;:?!…").casefold()
    if _is_number(bare):
        return _is_number(following) or word in _UNITS or word in _MONTHS
    if bare.casefold() in _MONTHS:
        return _is_number(following)
    return _is_name(bare) and _is_name(following)


def leads_on(text: str) -> bool:
    """Whether a word, such as an article, should stay on one line with the next word."""
    return text.lstrip(_OPENING).casefold() in _LEADING


def _is_number(text: str) -> bool:
    bare = text.rstrip(_CLOSING + ".,;:?!…").casefold()
    return bool(_NUMERAL.fullmatch(bare)) or all(part in _SPELLED for part in bare.split("-"))


def _is_name(text: str) -> bool:
    if _TITLE.fullmatch(text):
        return text[0].isupper()
    return text[:1].isupper() and text.rstrip(_CLOSING + ".,;:?!…").casefold() not in _NO_NAME


def wrap(texts: Iterable[str], width: int) -> list[str]:
    """Fill one line after another; a text longer than `width` characters gets its own line."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 1 + len(text) <= width:
            lines[-1] += " " + text
        else:
            lines.append(text)
    return lines


def line_bounds(texts: Sequence[str], costs: Sequence[float], width: int) -> tuple[int, ...]:
    """Split a cue into as few lines as possible, of similar lengths and with cheap breaks.

    Args:
        texts: the words.
        costs: of a line break before each word.
        width: characters per line; only a single long word may exceed it.

    Returns:
        The bounds: line k holds texts[bounds[k]:bounds[k + 1]].
    """
    n_lines = len(wrap(texts, width))
    if n_lines == 1:
        return 0, len(texts)
    # Key n: the price and the bounds of the best lines for the first n words.
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, (0,))}
    edges = [0, *accumulate(len(text) + 1 for text in texts)]
    for n_after in reversed(range(n_lines)):
        longer: dict[int, tuple[float, tuple[int, ...]]] = {}
        for start, (price, bounds) in best.items():
            # The last line holds all words that are left.
            first_end = start + 1 if n_after else len(texts)
            for end, length in _line_ends(edges, start, first_end, width):
                # The sum of the lengths is fixed, so the sum of squares is least for equal lengths.
                broken = costs[end] if end < len(texts) else 0.0
                found = (price + broken + _UNEVEN_COST * (length / width) ** 2, (*bounds, end))
                longer[end] = min(longer.get(end, found), found)
        best = longer
    return best[len(texts)][1]


def _line_ends(
    edges: Sequence[int], start: int, first_end: int, width: int
) -> Iterator[tuple[int, int]]:
    """Yield every end from `first_end` on for which the words fit on one line, with its length.

    Args:
        edges: characters before each word and after the last one, each word with its space.
        start: the first word of the line.
        first_end: the smallest end to yield.
        width: characters per line; only a single word may exceed it.
    """
    for end in range(first_end, len(edges)):
        length = edges[end] - edges[start] - 1
        if length > width and end > start + 1:
            return
        yield end, length
