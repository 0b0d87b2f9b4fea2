"""Remove what the model said to the user from a transcript, unless the aligner hears it.

"Final answer:" and "Let me know if you need anything else" may be a model's words or a speaker's.
The aligner knows: it skips words that are not in the audio, or gives them low confidences. Without
an aligner for the language, a remark is removed only if nobody can have said it.

1. A remark in a known wording (`asr.engines.reasoning`) is removed if it was not heard, although
   the rest was. In a noisy chunk the aligner may hear nothing. If people say such things, too
   ("Thank you for listening"), the audio must have no time for it, as in 2.
2. Any other sentence at an edge that may be the model's (`asr.engines.edges`) is removed if, in
   addition, the audio has no time for it. So a distant voice, which the aligner may not hear,
   loses nothing.
3. An answer that says everything twice loses the copy that was not heard, if there is no time
   for it.
4. A heading or role that the engine removed already (`Scrubbed`) comes back if it was heard.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import compress, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from asr.engines.edges import (
    first_sentences,
    last_sentences,
    may_be_the_models,
    may_have_remarks,
)
from asr.engines.guards import (
    CUT,
    REASONING,
    THOUGHTS_ALONE,
    WITNESS,
    Finding,
    findings,
    has_run,
)
from asr.engines.reasoning import split_heading, split_reasoning, split_tail, unquoted
from asr.pipeline.said import are_heard, is_heard, is_measured, part, was_said, with_words, words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asr.engines.base import Scrubbed
    from asr.engines.reasoning import Split
    from asr.types import Chunk, Hypothesis, Word

Findings = tuple[Finding, ...]
CLEAR: Final = 0.7
"""The aligner hears a word clearly with this confidence. Most words that were said reach it."""
MIN_COPY: Final = 4
"""People do say a few words twice."""
MIN_WORDS: Final = 3
"""Fewer words at an edge are removed only as a heading, in brackets, or on a line of their own. A
short word at the edge of a chunk may be unclear although somebody said it."""
EDGE_SECONDS: Final = 0.3
"""A chunk has about this much silence before its first and after its last word."""
WORDS_PER_SECOND: Final = 7.0
"""Nobody speaks faster."""
LONGEST_WORD: Final = 1.0
"""Seconds. The aligner stretches a word over speech that it does not recognise, such as speech in
noise."""
NOTE: Final = "words of the model to the user were removed, because they were not heard"


def has_remarks(text: str) -> bool:
    """Whether a text may begin or end with a remark to the user. A loop is replaced in any case."""
    if has_run(text.split()):
        return False
    is_known = split_heading(text) is not None or split_tail(text) is not None
    return is_known or may_have_remarks(text) or _is_doubled(text)


def without_remarks(timed: Hypothesis, seconds: float) -> Hypothesis:
    """Remove the heading, the remarks to the user at the start and the end, and a second copy.

    Args:
        timed: the answer, whose words have times.
        seconds: duration of the chunk.
    """
    found = _without_copy(timed, seconds)
    found = _without_known(found, seconds)
    found = _without_last_sentences(found, timed, seconds)
    if split_reasoning(found.text) is None:  # `without_thoughts` removes thoughts
        found = _without_first_sentences(found, timed)
    return found if found is timed else replace(found, warnings=(*found.warnings, NOTE))


def restored(heard: Scrubbed, timed: Hypothesis) -> Hypothesis:
    """Return the answer with those of the removed words that were said.

    Args:
        heard: the answer.
        timed: the uncut answer, whose words have times.
    """
    if not any(map(is_measured, timed.words)):
        return heard.plain
    is_kept: list[bool] = []
    pairs = zip(heard.is_kept, timed.words, strict=True)
    for was_kept, some in groupby(pairs, key=itemgetter(0)):
        words = [word for _, word in some]
        is_kept += [was_kept or bool(was_said(words, timed.words))] * len(words)
    kept = list(compress(range(len(is_kept)), is_kept))
    if is_kept != list(heard.is_kept):
        return with_words(timed, _text_of(timed.text, is_kept), kept)
    if len(kept) == len(heard.text.split()):
        return with_words(timed, heard.text, kept)
    return heard.plain


def _text_of(text: str, is_kept: Sequence[bool]) -> str:
    """Return the text of some words, with the white space before each."""
    words = re.findall(r"\s*\S+", text)
    return "".join(compress(words, is_kept)).strip()


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _without_known(timed: Hypothesis, seconds: float) -> Hypothesis:
    """Remove a heading and a remark at the end in known wordings."""
    found = timed
    tail = split_tail(found.text)
    if tail is not None:
        before, words = found.words[: tail.n_words], found.words[tail.n_words :]
        is_said = was_said(words, timed.words)
        is_unsaid = is_said is False and are_heard(before, timed)
        if is_unsaid and not tail.is_ours:
            is_unsaid = not _has_time(_room_after(before, seconds), len(words))
        if is_unsaid or (is_said is None and tail.is_certain):
            found = part(found, tail.before, 0, tail.n_words)
            # Without an aligner the times were spread over all words.
            found = replace(found, words=()) if is_said is None else found
    heading = split_heading(found.text)
    if heading is not None:
        is_said = was_said(found.words[: heading.n_words], timed.words)
        if is_said is False and are_heard(found.words[heading.n_words :], timed):
            found = part(found, heading.rest, heading.n_words)
    return found


def _is_doubled(text: str) -> bool:
    """Whether the second half of the words repeats the first."""
    words = [_letters(word).casefold() for word in text.split()]
    half = len(words) // 2
    return half >= MIN_COPY and words[:half] == words[half:]


def _without_copy(timed: Hypothesis, seconds: float) -> Hypothesis:
    """Return the half that was heard, if the text is there twice and was heard once."""
    if not _is_doubled(timed.text):
        return timed
    half = len(timed.words) // 2
    first, second = timed.words[:half], timed.words[half:]
    middle = [word.start() for word in re.finditer(r"\S+", timed.text)][half]
    if was_said(second, timed.words) is False and are_heard(first, timed):
        room = _room_after(first, seconds)
        kept = part(timed, timed.text[:middle].strip(), 0, half)
    elif was_said(first, timed.words) is False and are_heard(second, timed):
        room = _room_before(second)
        kept = part(timed, timed.text[middle:], half)
    else:
        return timed
    return timed if _has_time(room, half) else kept


def _room_before(words: Sequence[Word]) -> float:
    """Seconds before the words in which others may have been said. At least one was heard."""
    return _room([(word.start, word.end) for word in words if is_heard(word)])


def _room_after(words: Sequence[Word], seconds: float) -> float:
    """Likewise after the words, up to the end of the chunk."""
    heard = [word for word in reversed(words) if is_heard(word)]
    return _room([(seconds - word.end, seconds - word.start) for word in heard])


def _room(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds between an edge and the nearest words.

    The nearest word may be misplaced: then the others were said behind it. So a long pause between
    it and the next word counts, too.

    Args:
        spans: distances from the edge at which each heard word begins and ends, the nearest first.
    """
    nearest, *others = [(max(start, end - LONGEST_WORD), end) for start, end in spans[:2]]
    pause = sum(start - nearest[1] for start, _ in others)
    return nearest[0] + max(0.0, pause - EDGE_SECONDS)


def _has_time(room: float, n_words: int) -> bool:
    """Whether somebody may have said the words in so many seconds at an edge of the chunk."""
    return room >= EDGE_SECONDS + n_words / WORDS_PER_SECOND


def _without_first_sentences(found: Hypothesis, timed: Hypothesis) -> Hypothesis:
    """Remove the first sentences that are the model's: as many as were not heard."""
    end = n_words = 0
    for start, stop in _unheard(found, timed, first_sentences(found.text)):
        if may_be_the_models(found.text[start:stop]):
            end, n_words = stop, len(found.text[:stop].split())
    rest = found.words[n_words:]
    if not _is_worth_it(found.text[:end], n_words) or not are_heard(rest, timed):
        return found
    is_possible = _has_time(_room_before(rest), n_words)
    return found if is_possible else part(found, unquoted(found.text[end:]), n_words)


def _without_last_sentences(found: Hypothesis, timed: Hypothesis, seconds: float) -> Hypothesis:
    """Remove the last sentences that are the model's: as many as were not heard."""
    start, n_before = len(found.text), len(found.words)
    for begin, stop in _unheard(found, timed, last_sentences(found.text)):
        if may_be_the_models(found.text[begin:stop]):
            start, n_before = begin, len(found.text[:begin].split())
    rest, said = found.words[:n_before], found.text[start:]
    n_words = len(found.words) - n_before
    is_apart = found.text[:start].endswith("\n")
    if not _is_worth_it(said, n_words, is_apart=is_apart) or not are_heard(rest, timed):
        return found
    is_possible = _has_time(_room_after(rest, seconds), n_words)
    return found if is_possible else part(found, unquoted(found.text[:start]), 0, n_before)


def _unheard(
    found: Hypothesis, timed: Hypothesis, sentences: Iterable[tuple[int, int]]
) -> Iterable[tuple[int, int]]:
    """Yield the sentences up to the first one that was heard."""
    for start, stop in sentences:
        if was_said(words_of(found, start, stop), timed.words) is not False:
            return
        yield start, stop


def _is_worth_it(said: str, n_words: int, *, is_apart: bool = False) -> bool:
    """Whether the words are enough for a decision."""
    bare = said.strip(" *\"'")
    is_marked = bare.endswith((":", "\uff1a", "\n", "]", ")", ">")) or bare[:1] in ("[", "(", "<")
    return bool(n_words) and (n_words >= MIN_WORDS or is_marked or is_apart)


def without_thoughts(
    chunk: Chunk, heard: Hypothesis, timed: Hypothesis, thoughts: Split, found: Findings
) -> tuple[Hypothesis, Findings]:
    """Remove what reads like thoughts of the model, unless the aligner hears it.

    Without an aligner for the language, thoughts are removed only if the rest is on a line of
    its own. Without a rest the finding stays, and the answer does not become text.

    Args:
        chunk: the chunk.
        heard: the answer.
        timed: the same, with times.
        thoughts: where the thoughts in the answer end.
        found: the findings on the answer.
    """
    others = tuple(it for it in found if it.guard != "reasoning")
    is_said = was_said(timed.words[: thoughts.n_words], timed.words)
    if is_said:
        return timed, others
    is_rest_said = was_said(timed.words[thoughts.n_words :], timed.words)
    if thoughts.is_foreign and not is_rest_said:
        is_said = is_rest_said = None  # the aligner may not know the language
    if is_rest_said is False or (is_rest_said is None and heard.is_cut):
        return heard, (*others, Finding("reasoning", THOUGHTS_ALONE, REASONING))
    if not thoughts.rest or (is_said is None and not thoughts.is_apart):
        return heard, found
    rest = without_remarks(part(heard, thoughts.rest, thoughts.n_words), chunk.duration)
    removed = Finding("reasoning", "its first words were thoughts, which are removed", CUT)
    return rest, (removed, *findings(rest, chunk))


def milder(found: Findings, timed: Hypothesis) -> Findings:
    """Return the findings; a reply that the aligner heard clearly weighs little.

    Otherwise an empty second attempt would replace real speech that only reads like a reply.
    """
    if not any(it.guard == "commentary" for it in found) or not _is_clearly_said(timed):
        return found
    return tuple(replace(it, weight=WITNESS) if it.guard == "commentary" else it for it in found)


def _is_clearly_said(timed: Hypothesis) -> bool:
    """Whether the aligner heard every sentence, and most words clearly."""
    n_clear = sum(is_heard(word) and (word.confidence or 0) >= CLEAR for word in timed.words)
    sentences = (*first_sentences(timed.text), *last_sentences(timed.text))
    each = (was_said(words_of(timed, *span), timed.words) for span in sentences)
    return 2 * n_clear > len(timed.words) and all(each)
