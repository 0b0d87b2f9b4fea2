"""Times for the changed words of a line."""

import asyncio

import pytest
from hypothesis import given, settings, strategies as st

from asr.service.page.realign import MAX_RUN_SECONDS, Line, realign
from asr.types import Word


def line(text, seconds=0.5, start=1.0):
    """A line whose words follow each other without pauses."""
    words = [
        {"word": word, "start": start + n * seconds, "end": start + (n + 1) * seconds}
        for n, word in enumerate(text.split())
    ]
    rest = {"confidence": 0.3, "timing": "aligned", "doubtful": True}
    return Line([word | rest for word in words], start, start + len(words) * seconds)


def aligned(old, text, align=None):
    """The new words, and the spans that the aligner was asked about."""
    asked = []

    async def ask(start, end, texts):
        asked.append((start, end, list(texts)))
        return None if align is None else align(start, end, texts)

    return asyncio.run(realign(old, text, ask)), asked


def evenly(start, end, texts):
    step = (end - start) / len(texts)
    return [
        Word(text, start + n * step, start + (n + 1) * step, 0.8, "aligned")
        for n, text in enumerate(texts)
    ]


def test_words_that_did_not_change_are_as_they_were():
    old = line("we saw the whale there")
    words, asked = aligned(old, "we saw a big whale there", evenly)
    assert [words[n] for n in (0, 1, 4, 5)] == [old.words[n] for n in (0, 1, 3, 4)]
    assert asked == [(2.0, 2.5, ["a", "big"])]
    assert words[2] == {
        "word": "a", "start": 2.0, "end": 2.25, "confidence": 0.8, "timing": "aligned",
        "doubtful": False,
    }  # fmt: skip


def test_case_and_punctuation_do_not_change_a_time():
    old = line("hello anna how are you")
    words, asked = aligned(old, "Hello, Anna! How are you?")
    assert asked == []
    assert words[0] == old.words[0] | {"word": "Hello,"}
    assert words[4] == old.words[4] | {"word": "you?"}


def test_runs_at_the_edges_reach_to_the_edges_of_the_line():
    _, asked = aligned(line("one two three"), "zero two four five")
    assert asked == [(1.0, 1.5, ["zero"]), (2.0, 2.5, ["four", "five"])]


def test_without_an_aligner_the_words_are_spread():
    words, _ = aligned(line("a whale"), "the big whale")
    assert [word["timing"] for word in words] == ["interpolated", "interpolated", "aligned"]
    assert words[0]["start"] == 1.0
    assert words[0]["end"] == words[1]["start"]
    assert words[1]["end"] == 1.5


def test_a_word_between_two_that_touch_has_no_room():
    words, asked = aligned(line("one two"), "one and two", evenly)
    assert asked == []
    assert (words[1]["start"], words[1]["end"], words[1]["timing"]) == (1.5, 1.5, "interpolated")


def test_a_long_run_is_not_aligned():
    old = Line([], 0.0, MAX_RUN_SECONDS + 1)
    _, asked = aligned(old, "some words", evenly)
    assert asked == []


@pytest.mark.parametrize("wrong", [[], [Word("x", 0.0, 99.0)], [Word("x", 0, 1)] * 3])
def test_a_wrong_answer_of_the_aligner_does_not_break_the_order(wrong):
    words, _ = aligned(line("one two three"), "one new words three", lambda *_: wrong)
    check_order(words, line("one two three"))


def test_a_removed_word_and_an_empty_text():
    old = line("one two three")
    words, asked = aligned(old, "one three")
    assert words == [old.words[0], old.words[2]]
    assert asked == []
    assert aligned(old, "")[0] == []


def test_words_of_unspaced_scripts_stay_characters():
    old = line("今 日 は")
    words, _ = aligned(old, "今日も", evenly)
    assert [word["word"] for word in words] == ["今", "日", "も"]
    assert words[:2] == list(old.words[:2])


def check_order(words, old):
    last = old.start
    for word in words:
        assert last <= word["start"] <= word["end"] <= old.end
        last = word["start"]


WORDS = ["a", "b", "c", "d", "A,", "b.", "你", "-", "uh"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
NUMBERS = st.floats(-5, 50, allow_nan=False)


@settings(max_examples=30)
@given(TEXTS, TEXTS, st.data())
def test_words_are_in_order_and_unchanged_words_keep_their_times(before, after, data):
    old = line(before, data.draw(st.sampled_from([0.0, 0.01, 0.333, 2.0])))

    def align(start, end, texts):
        if data.draw(st.booleans()):
            return None
        times = [sorted((abs(data.draw(NUMBERS)), abs(data.draw(NUMBERS)))) for _ in texts]
        return [Word(text, *span) for text, span in zip(texts, times, strict=True)]

    words, _ = aligned(old, after, align)
    assert [word["word"] for word in words] == after.split()
    check_order(words, old)
    if after == before:
        assert words == list(old.words)
    kept = [word for word in words if word["doubtful"]]
    times = [(word["start"], word["end"]) for word in old.words]
    assert all((word["start"], word["end"]) in times for word in kept)
