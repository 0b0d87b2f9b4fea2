"""Agreement, matching and reconciliation of partial results: pure functions, mostly properties."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from asr.service.live.agreement import Agreement
from asr.service.live.items import Item
from asr.service.live.partial_text import PartialText
from asr.service.live.reconcile import reconcile
from asr.service.live.turns import Turn
from asr.service.live.word_match import BLOCK, match_prefix
from asr.text.bare import bare
from asr.types import Segment, Word
from tests.support.strategies import segment_lists, word_texts

VOCABULARY = ["no", "No,", "yes", "yes.", "the", "a", "twenty", "20", "and", "Ann,", "..."]
texts = st.lists(st.sampled_from(VOCABULARY), max_size=12)
hypotheses = st.lists(texts.map(" ".join), max_size=8)


def deltas_of(hypotheses, n=2):
    """The deltas of successive hypotheses, and the partial text that they make."""
    agreement, partial, deltas = Agreement(n), PartialText("item"), []
    for number, hypothesis in enumerate(hypotheses):
        agreed = agreement.add(hypothesis, number)
        if agreed.words:
            agreement.seen += agreed.words
            deltas.append(partial.extend(agreed))
    return deltas, partial


# --- agreement ------------------------------------------------------------------------------------


def test_words_on_which_two_hypotheses_agree_are_sent():
    said = ["I went", "I went home.", "I went home and slept.", "I went home and slept."]
    assert deltas_of(said)[0] == ["I went", " home", " and slept"]


def test_three_hypotheses_may_have_to_agree():
    said = ["we do", "we do not", "we do not know", "we do not know"]
    assert deltas_of(said, 3)[0] == ["we do", " not"]


def test_closing_punctuation_comes_with_the_next_word():
    said = ["Yes.", "Yes. I", "Yes. I do.", "Yes. I do, or", "Yes. I do, or so", "Yes. I do, or so"]
    deltas, _ = deltas_of(said)
    assert deltas == ["Yes", ". I", " do", ", or", " so"]


def test_a_word_that_was_sent_stays_when_later_hypotheses_revise_it():
    said = ["we saw a fort", "we saw a fort", "we saw a port of", "we saw a port of call"]
    assert "".join(deltas_of(said)[0]) == "we saw a fort of"


def test_a_hypothesis_that_becomes_shorter_adds_nothing():
    assert deltas_of(["a b c", "a b c", "a", "", "a b", "a b"])[0] == ["a b c"]


def test_a_word_that_is_heard_differently_each_time_does_not_hold_up_the_others():
    said = ["unless to", "and less to be", "I less to be rather"]
    assert deltas_of(said)[0] == ["and less to", " be"]
    said = ["a b c d", "a x y z d", "a q d e", "a r d e"]  # too many words, and then few enough
    assert deltas_of(said)[0] == ["a", " r d e"]


@given(hypotheses, st.sampled_from([2, 3]))
def test_deltas_are_whole_words_and_add_up(hypotheses, n):
    deltas, partial = deltas_of(hypotheses, n)
    assert "".join(deltas) == partial.text == " ".join(partial.words)
    assert all(deltas)


@given(texts, hypotheses)
def test_when_all_hypotheses_begin_with_the_same_words_each_is_sent_once(words, more):
    said = [" ".join([*words, *rest.split()]) for rest in more] + [" ".join(words)] * 2
    deltas, _ = deltas_of(said)
    assert [bare(w) for w in "".join(deltas).split()[: len(words)]] == [bare(w) for w in words]


def test_the_time_until_which_no_word_is_missing():
    agreement = Agreement()
    agreement.add("a b c", 100_000)
    assert agreement.sent_until() == 0
    agreement.seen += agreement.add("a b c d", 108_000).words
    assert agreement.sent_until() == 84_000
    agreement.add("a b c d e f g h", 116_000)
    agreement.add("a b x", 124_000)
    assert agreement.sent_until() == 84_000  # of the oldest hypothesis, five words are not sent


# --- matching -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "words", "n_used"),
    [
        ("a b c", "a b c d", 3),
        ("a b c", "A, b. c! d", 3),
        ("a b c", "a b x d", 3),  # c was heard as x
        ("a b", "a x b c", 3),
        ("a x b", "a b c", 2),
        ("no", "no no no", 1),
        ("no no no", "no no yes", 3),
        ("twenty five apples", "25 apples and", 2),
        ("we saw a", "we saw the dog and a cat", 3),
        ("walked on", "the walk on and on", 3),
        ("a b c", "", 0),
        ("", "a b", 0),
    ],
)
def test_the_best_prefix(sent, words, n_used):
    match = match_prefix(sent.split(), words.split())
    assert match.n_used == n_used


@given(texts, texts)
def test_counterparts_increase_and_lie_in_the_prefix(sent, words):
    match = match_prefix(sent, words)
    found = [j for j in match.counterparts if j is not None]
    assert found == sorted(set(found))
    assert all(j < match.n_used for j in found)
    assert len(match.counterparts) == len(sent)
    assert match.n_used <= len(words)


@given(st.integers(0, 250), st.sets(st.integers(0, 249), max_size=40), texts)
@settings(max_examples=10)
def test_long_texts_are_matched_in_blocks(n_words, misheard, more):
    words = [f"w{n}" for n in range(n_words)]
    sent = [f"x{n}" if n in misheard else word for n, word in enumerate(words)]
    match = match_prefix(sent, words + [f"more-{n}-{word}" for n, word in enumerate(more)])
    if len(misheard) < BLOCK // 4:
        right = [n for n in range(n_words) if n not in misheard]
        assert [match.counterparts[n] for n in right] == right
        assert match.n_used == n_words


# --- reconciliation -------------------------------------------------------------------------------


def segments_of(*texts):
    """Segments with a word each half second."""
    made, at = [], 0
    for number, text in enumerate(texts):
        words = [
            Word(word, (at + n) / 2, (at + n) / 2 + 0.4, 0.9) for n, word in enumerate(text.split())
        ]
        at += len(words)
        made.append(Segment(number, words[0].start, words[-1].end, text, tuple(words)))
    return made


def words_of(segments):
    return [word for segment in segments for word in segment.words]


def test_sent_words_take_the_times_of_their_counterparts():
    final = segments_of("We saw the port.", "It was calm.")
    reconciled = reconcile(["We", "saw", "a", "fort", "It"], final, 0.0, 9.0)
    assert [segment.text for segment in reconciled] == ["We saw a fort", "It was calm."]
    assert [word.start for word in words_of(reconciled)] == [n / 2 for n in range(7)]
    assert {word.confidence for word in words_of(reconciled)} == {0.9}


def test_a_sent_word_without_counterpart_gets_a_time_between_its_neighbours():
    (segment,) = reconcile(["we", "just", "saw"], segments_of("we saw it"), 0.0, 9.0)
    assert segment.text == "we just saw it"
    just = segment.words[1]
    assert (just.start, just.end, just.timing) == (0.4, 0.5, "interpolated")


def test_the_last_sent_word_gets_its_punctuation():
    (segment,) = reconcile(["we", "saw"], segments_of("We saw. And"), 0.0, 9.0)
    assert segment.text == "we saw. And"


def test_what_was_sent_stays_even_if_the_final_hypothesis_is_empty():
    (segment,) = reconcile(["hello", "there"], [], 1.0, 3.0)
    assert (segment.text, segment.start, segment.end) == ("hello there", 1.0, 3.0)


def test_without_partial_results_nothing_changes():
    final = segments_of("a b", "c")
    assert reconcile([], final, 0.0, 9.0) == tuple(final)


@given(st.lists(st.sampled_from(VOCABULARY) | word_texts, max_size=20), segment_lists())
def test_the_final_text_begins_with_what_was_sent_and_keeps_the_rest(sent, segments):
    sent = [word for text in sent for word in text.split()]
    # as the stitcher makes them: a segment without words has no text, but a warning
    segments = [it if it.words else replace(it, text="") for it in segments]
    segments = [it for it in segments if it.words or it.warnings]
    segments = [replace(it, id=number) for number, it in enumerate(segments)]
    before = [word.text for word in words_of(segments)]
    reconciled = reconcile(sent, segments, 0.0, 100.0)
    after = words_of(reconciled)
    used = match_prefix(sent, before).n_used if before else 0
    assert [word.text for word in after[: len(sent)]][:-1] == sent[:-1]
    assert [word.text for word in after[len(sent) :]] == before[used:]
    assert " ".join(word.text for word in after).startswith(" ".join(sent))
    starts = [word.start for word in after]
    assert starts == sorted(starts)
    assert [segment.id for segment in reconciled] == list(range(len(reconciled)))
    warned = [text for segment in segments for text in segment.warnings]
    assert [text for segment in reconciled for text in segment.warnings] == warned


@given(hypotheses, st.lists(texts.filter(bool).map(" ".join), max_size=4))
def test_all_deltas_make_the_transcript(hypotheses, final):
    """From the hypotheses to the last delta: the deltas are a prefix at any time, and in the end
    they are the transcript."""
    deltas, partial = deltas_of(hypotheses)
    segments = reconcile(partial.words, segments_of(*final), 0.0, 30.0)
    item = Item(Turn("item", 0, 480_000, None), None, partial)
    deltas += [item.unsent(segment) for segment in segments]
    transcript = " ".join(segment.text for segment in segments if segment.text)
    assert "".join(deltas) == transcript
