"""Remove what the model said to the user from a transcript, unless the aligner hears it.

"Final answer:" and "Let me know if you need anything else" may be a model's words or a speaker's.
The aligner knows: it skips words that are not in the audio, or gives them low confidences. Without
an aligner for the language, a remark is removed only if nobody can have said it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asr.engines.reasoning import split_heading, split_tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.types import Hypothesis, Word

HEARD: Final = 0.5
"""The aligner hears a word with at least this confidence."""
NOTE: Final = "words of the model to the user were removed, because they were not heard"


def has_remarks(text: str) -> bool:
    """Whether a text begins with a heading or ends with a remark to the user."""
    return split_heading(text) is not None or split_tail(text) is not None


def without_remarks(timed: Hypothesis) -> Hypothesis:
    """Remove the heading and the remark at the end.

    Args:
        timed: the answer, whose words have times.
    """
    found = timed
    tail = split_tail(found.text)
    if tail is not None:
        is_said = was_said(found.words[tail.n_words :], timed.words)
        if is_said is False or (is_said is None and tail.is_certain):
            found = part(found, tail.before, 0, tail.n_words)
            # Without an aligner the times were spread over all words.
            found = replace(found, words=()) if is_said is None else found
    heading = split_heading(found.text)
    if heading is not None:
        is_said = was_said(found.words[: heading.n_words], timed.words)
        if is_said is False:
            found = part(found, heading.rest, heading.n_words)
    return found if found is timed else replace(found, warnings=(*found.warnings, NOTE))


def was_said(words: Sequence[Word], everything: Sequence[Word]) -> bool | None:
    """Whether the aligner heard most of the words; None if it aligned no word of the answer.

    A word that the aligner skipped has an interpolated time, and was not heard.

    Args:
        words: a part of the answer.
        everything: all words of the answer.
    """
    if not any(_is_measured(word) for word in everything):
        return None
    readable = [word for word in words if any(map(str.isalnum, word.text))]
    n_heard = sum(_is_measured(word) and (word.confidence or 0) >= HEARD for word in readable)
    return 2 * n_heard >= len(readable)


def _is_measured(word: Word) -> bool:
    return word.timing == "aligned" and word.confidence is not None


def part(heard: Hypothesis, text: str, first: int, last: int | None = None) -> Hypothesis:
    """Return the hypothesis with the words [first, last). Words with times keep them."""
    sure = heard.word_confidences
    return replace(
        heard,
        text=text,
        words=heard.words[first:last],
        word_confidences=None if sure is None else sure[first:last],
    )
