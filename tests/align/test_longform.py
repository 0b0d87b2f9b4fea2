"""Long-form alignment on simulated readings, whose true word times are known; no audio."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from asr.align.anchors import find_anchors, match
from asr.align.longform import FASTEST, Plan, make_plan, place
from asr.types import SAMPLE_RATE, SpeechRegion, Word

VOCABULARY = (
    "the of and to a in that it was he for on with his they at be this from had by not window"
    " harbor letter river morning doctor question garden winter captain evening market paper"
    " village mother stranger silver quiet engine corner station mountain history yellow answer"
    " bottle bridge butter camera castle circle copper cousin danger desert dinner feather finger"
    " flower forest friend ginger hammer island jacket kettle ladder lemon"
)
WORDS = tuple(VOCABULARY.split())


@dataclass
class Reading:
    """A text, and a recording in which it is read aloud.

    Attributes:
        tokens: of the text.
        times: (start, end) of each token; None if it was not said.
        heard: words that a recogniser heard.
        regions: of speech.
    """

    tokens: list[str]
    times: list[tuple[float, float] | None]
    heard: list[Word]
    regions: list[SpeechRegion]


class Reader:
    """Simulates a reader and a recogniser that listens.

    Args:
        random_: source of everything random.
        wer: share of words that are recognised wrong, not at all, or as two other words.
    """

    def __init__(self, random_, wer):
        self.clock = 1.0
        self.heard = []
        self.regions = [[1.0, 1.0]]
        self._random = random_
        self._wer = wer

    def say(self, text):
        start = self.clock
        self.clock += 0.05 + 0.06 * len(text) * self._random.uniform(0.7, 1.4)
        self.regions[-1][1] = self.clock
        self._hear(text, start, self.clock)
        return start, self.clock

    def pause(self):
        self.clock += self._random.uniform(0.3, 1.2)
        self.regions.append([self.clock, self.clock])

    def _hear(self, text, start, end):
        luck = self._random.random()
        if luck > self._wer:
            self.heard.append(Word(text, start, end, 0.8))
        elif luck > self._wer / 3:  # two of three errors are substitutions
            self.heard.append(Word(self._random.choice(WORDS), start, end, 0.3))
        elif luck > self._wer / 6:
            middle = (start + end) / 2
            for times in ((start, middle), (middle, end)):
                self.heard.append(Word(self._random.choice(WORDS), *times))


def read_aloud(seed, n_words=600, wer=0.3, unsaid=(), unwritten=()):
    """Simulate a reading with pauses after sentences.

    Args:
        seed: of everything random.
        n_words: of the text.
        wer: of the recogniser.
        unsaid: ranges [first, last) of tokens that the reader omits.
        unwritten: (token, n): the reader says n words that the text lacks before this token.
    """
    random_ = random.Random(seed)
    reader = Reader(random_, wer)
    tokens, times = [], []
    for index in range(n_words):
        for _ in range(dict(unwritten).get(index, 0)):
            reader.say(random_.choice(WORDS))
        bare = random_.choice(WORDS)
        is_last = random_.random() < 0.1 or index == n_words - 1
        tokens.append(bare.capitalize() + "." if is_last else bare)
        is_said = not any(first <= index < last for first, last in unsaid)
        times.append(reader.say(bare) if is_said else None)
        if is_said and is_last:
            reader.pause()
    spans = [(round(a * SAMPLE_RATE), round(b * SAMPLE_RATE)) for a, b in reader.regions if b > a]
    return Reading(tokens, times, reader.heard, [SpeechRegion(*span) for span in spans])


def plan_of(reading):
    return make_plan(reading.tokens, reading.heard, reading.regions)


def misplaced(reading, plan):
    """List the said tokens whose midpoint lies outside the piece that holds them."""
    wrong = []
    home = {token: piece for piece in plan.pieces for token in range(piece.first, piece.last)}
    for token, time in enumerate(reading.times):
        if time is not None:
            piece = home.get(token)
            middle = sum(time) / 2
            if piece is None or not piece.start <= middle <= piece.end:
                wrong.append(token)
    return wrong


def assert_sound(reading, plan):
    assert all(piece.start < piece.end and piece.first < piece.last for piece in plan.pieces)
    for before, after in pairwise(plan.pieces):
        assert before.end <= after.start + 1e-9
        assert before.last <= after.first
    assert all(0 <= p.first < p.last <= len(reading.tokens) for p in plan.pieces)


# --- anchors --------------------------------------------------------------------------------------


def words(text):
    return [Word(part, float(i), i + 0.9) for i, part in enumerate(text.split())]


def test_anchors_of_a_text_with_marks_and_hyphens():
    text = "“Good morning,” she said: twenty-two O'Clock is MY hour"
    anchors = find_anchors(
        text.split(), words("good mourning she said twenty two oclock is my hour")
    )
    assert [(a.token, a.first, a.last) for a in anchors] == [
        (0, 0, 0), (2, 2, 2), (3, 3, 3), (4, 4, 5), (5, 6, 6), (6, 7, 7), (7, 8, 8), (8, 9, 9),
    ]  # fmt: skip


def test_a_word_that_matches_alone_is_no_anchor():
    text = "we talked about the weather and other things of no weight"
    assert find_anchors(text.split(), words("one two three weather four five six seven")) == []


def test_a_chorus_goes_to_its_place():
    """The same line occurs four times, between verses; the second verse was not recognised."""
    chorus = "sing it again and sing it over the water"
    verses = ["first the lamp was lit", "then nobody came by", "late the bell was heard"]
    text = f" {chorus} ".join(["", *verses, ""]).split()
    heard = f" {chorus} ".join(["", verses[0], "mumble mumble", verses[2], ""]).split()
    pairs = match(text, heard)
    where = [j for i, j in pairs if text[i] == "water"]
    assert where == [j for j, word in enumerate(heard) if word == "water"]


items = st.lists(st.sampled_from("abcdef"), max_size=40)


@given(items, items)
def test_pairs_are_equal_and_rise(left, right):
    pairs = match(left, right)
    assert all(left[i] == right[j] for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))


@given(items)
def test_a_text_matches_itself_whole(text):
    assert match(text, text) == [(i, i) for i in range(len(text))]


def test_a_text_that_divides_very_often():
    """Each run of words becomes unique only after the previous one was found."""
    text = []
    for n in range(3000):
        text += [f"{part}{n}" for part in "abcd"] + [f"{part}{n - 1}" for part in "abcd"]
    pairs = match(text, text)
    assert all(text[i] == text[j] for i, j in pairs)
    assert len(pairs) > 100


# --- plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wer", "share"), [(0.0, 0.0), (0.2, 0.001), (0.4, 0.01), (0.6, 0.05)])
def test_few_words_lie_outside_their_piece(wer, share):
    """Ten readings of four minutes each."""
    n_wrong = n_words = 0
    for seed in range(10):
        reading = read_aloud(seed, wer=wer)
        plan = plan_of(reading)
        assert_sound(reading, plan)
        n_wrong += len(misplaced(reading, plan))
        n_words += len(reading.tokens)
    assert n_wrong <= share * n_words


def test_pieces_are_short_where_the_recogniser_is_good():
    plan = plan_of(read_aloud(1, n_words=2000, wer=0.2))
    lengths = sorted(piece.end - piece.start for piece in plan.pieces)
    assert len(plan.pieces) > 40
    assert lengths[-1] < 40
    assert lengths[len(lengths) // 2] < 22


@pytest.mark.parametrize(("wer", "n_wrong"), [(0.0, 0), (0.3, 8)])
def test_text_that_nobody_says_is_in_no_piece(wer, n_wrong):
    """Said words that were not recognised and lie next to unsaid ones may be lost with them."""
    n_misplaced = 0
    for seed in range(8):
        reading = read_aloud(seed, wer=wer, unsaid=[(0, 25), (200, 260), (580, 600)])
        plan = plan_of(reading)
        in_pieces = {token for p in plan.pieces for token in range(p.first, p.last)}
        unsaid = {token for token in range(600) if reading.times[token] is None}
        assert len(unsaid - in_pieces) >= 0.95 * 105
        assert len([w for w in plan.warnings if "were not said" in w]) == 3
        n_misplaced += len(misplaced(reading, plan))
    assert n_misplaced <= 8 * n_wrong


def test_speech_that_is_not_in_the_text_is_in_no_piece():
    for seed in range(8):
        reading = read_aloud(seed, wer=0.1, unwritten=[(0, 30), (300, 40)])
        plan = plan_of(reading)
        inside = [p for p in plan.pieces if p.first < 300 < p.last]
        warned = [w for w in plan.warnings if "is not in the text" in w]
        assert len(warned) >= 1
        assert not inside or len(warned) == 1
        assert len(misplaced(reading, plan)) <= 3


def test_a_clean_reading_has_no_warnings():
    for seed in range(10):
        assert plan_of(read_aloud(seed, wer=0.3)).warnings == ()


def test_a_text_that_was_not_recognised_is_spread_over_the_speech():
    reading = read_aloud(5)
    plan = make_plan(reading.tokens, [Word("hm", 2.0, 2.1)], reading.regions)
    assert_sound(reading, plan)
    assert plan.warnings == ("no passage of the text was recognised",)
    assert len(plan.pieces) > 3
    assert [p.first for p in plan.pieces][1:] == [p.last for p in plan.pieces][:-1]
    assert (plan.pieces[0].first, plan.pieces[-1].last) == (0, 600)
    assert len(misplaced(reading, plan)) < 60


# --- words in their places ------------------------------------------------------------------------


def naive(plan, tokens):
    """Time the words of each piece evenly, as an aligner without a model does."""
    for piece in plan.pieces:
        step = (piece.end - piece.start) / (piece.last - piece.first)
        yield [
            Word(tokens[token], i * step, (i + 1) * step, None, "interpolated")
            for i, token in enumerate(range(piece.first, piece.last))
        ]


@given(
    st.integers(0, 10**6),
    st.integers(1, 80),
    st.floats(0, 1),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), max_size=2),
)
@settings(max_examples=100)
def test_every_word_gets_a_time_in_order(seed, n_words, wer, unsaid):
    reading = read_aloud(seed, n_words, wer, unsaid)
    if not reading.regions:
        return
    plan = plan_of(reading)
    assert_sound(reading, plan)
    placed = place(reading.tokens, plan, naive(plan, reading.tokens))
    assert [word.text for word in placed] == reading.tokens
    assert all(a.start <= b.start + 1e-9 for a, b in pairwise(placed))
    in_pieces = {token for p in plan.pieces for token in range(p.first, p.last)}
    for token, word in enumerate(placed):
        assert (word.confidence == 0) == (token not in in_pieces)


def test_known_words_keep_their_times_and_the_others_lie_between():
    reading = read_aloud(3, n_words=200, wer=0.2)
    plan = plan_of(reading)
    placed = place(reading.tokens, plan, naive(plan, reading.tokens))
    errors = sorted(
        abs(word.start - time[0]) for word, time in zip(placed, reading.times, strict=True)
    )
    assert errors[len(errors) // 2] == 0
    assert errors[int(0.95 * len(errors))] < 0.5
    assert {word.timing for word in placed} == {"engine", "interpolated"}


def test_times_of_the_aligner_come_before_those_of_the_recogniser():
    reading = read_aloud(3, n_words=50, wer=0)
    plan = plan_of(reading)
    aligned = [
        [Word(reading.tokens[t], 0.1 * i, 0.1 * i + 0.05, 0.9, "aligned")
         for i, t in enumerate(range(p.first, p.last))]
        for p in plan.pieces
    ]  # fmt: skip
    placed = place(reading.tokens, plan, aligned)
    assert {word.timing for word in placed} == {"aligned"}
    assert placed[0].start == pytest.approx(plan.pieces[0].start)


def test_the_fastest_speech_is_not_called_unsaid():
    """All words are spoken at just below the limit."""
    tokens = ["abcde"] * 100
    step = 5 / (FASTEST - 1)
    heard = [Word("abcde", 1 + i * step, 1 + (i + 1) * step) for i in range(100) if i % 20 < 5]
    region = SpeechRegion(SAMPLE_RATE, round((1 + 100 * step) * SAMPLE_RATE))
    assert isinstance(make_plan(tokens, heard, [region]), Plan)
