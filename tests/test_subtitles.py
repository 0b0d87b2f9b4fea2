from __future__ import annotations

import itertools

import pytest
from hypothesis import given

from asr.config import SubtitleOptions
from asr.subtitles import Cue, ends_clause, ends_sentence, make_cues
from asr.types import Segment, Word
from tests.strategies import segment_lists, subtitle_options

DEFAULT = SubtitleOptions()


def segment(text, seconds_per_word=0.4, start=0.0, index=0):
    """A segment whose words follow each other without a pause."""
    words = tuple(
        Word(part, start + i * seconds_per_word, start + (i + 1) * seconds_per_word)
        for i, part in enumerate(text.split())
    )
    return Segment(index, words[0].start, words[-1].end, text, words)


def texts(*segments, options=DEFAULT):
    return [cue.text for cue in make_cues(segments, options)]


def test_times_are_rounded_once():
    words = (Word("a", 1.0004, 1.9996), Word("b", 1.9996, 2.0004))
    assert make_cues([Segment(0, 1.0, 2.1, "a b", words)], DEFAULT) == [Cue(1000, 2000, "a b")]


def test_short_text_is_one_line_and_long_text_two_balanced_ones():
    assert texts(segment("a line of exactly forty-two characters, ok")) == [
        "a line of exactly forty-two characters, ok"
    ]
    assert texts(segment("one two three four five six seven eight nine ten")) == [
        "one two three four five\nsix seven eight nine ten"
    ]


def test_a_long_word_stands_alone_on_its_line():
    long = "x" * 60
    assert texts(segment(f"see {long} now and then")) == [f"see\n{long}", "now and then"]


def test_cues_break_at_sentences_then_clauses_then_pauses():
    filler = "so much more was said about it that nobody knew"
    assert texts(segment(f"It all began, they say, quite late. Then {filler}")) == [
        "It all began, they say, quite late.",
        "Then so much more was said\nabout it that nobody knew",
    ]
    assert texts(segment(f"It all began, they say, quite late and then {filler}"))[0].endswith(
        "they say,"
    )
    words = segment("one two three four five six").words
    later = [Word(w.text, w.start + 0.4, w.end + 0.4) for w in words[2:]]
    paused = Segment(0, 0, 3, "", (*words[:2], *later))
    assert texts(paused, options=SubtitleOptions(max_cue_duration=2.0)) == [
        "one two",
        "three four five six",
    ]


def test_no_cue_outlasts_its_limit_where_words_allow():
    slow = segment("a b c d e f g h", seconds_per_word=1.5)
    cues = make_cues([slow], SubtitleOptions(max_cue_duration=4.0))
    assert [cue.end_ms - cue.start_ms for cue in cues] == [3000] * 4
    assert texts(segment("a b", 9.0)) == ["a", "b"]


def test_segments_are_never_merged():
    assert texts(segment("Yes."), segment("No.", start=0.4, index=1)) == ["Yes.", "No."]


def test_text_without_words_is_spread_over_its_segment():
    silent = Segment(0, 1.0, 11.0, "one two three four five", ())
    assert make_cues([silent], SubtitleOptions(max_cue_duration=6.0)) == [
        Cue(1000, 7000, "one two three"),
        Cue(7000, 11000, "four five"),
    ]
    assert make_cues([Segment(0, 1.0, 2.0, "", ())], DEFAULT) == []


def test_thousands_of_words_at_one_instant_are_shown_a_millisecond_each():
    words = (Word("crowded", 5.0, 5.0),) * 5000
    segments = [
        Segment(0, 5.0, 5.0, "", words),
        Segment(1, 5.0, 9.0, "after", (Word("after", 5.0, 9.0),)),
    ]
    cues = make_cues(segments, DEFAULT)
    assert [cue.start_ms for cue in cues] == list(range(5000, 5000 + len(cues)))
    assert cues[-1] == Cue(5000 + len(cues) - 1, 9000, "after")


def test_a_cue_yields_to_the_next_one():
    held = Segment(0, 0.0, 9.0, "held", (Word("held", 0.0, 9.0),))
    cues = make_cues([held, segment("other channel", start=2.0, index=1)], DEFAULT)
    assert cues == [Cue(0, 2000, "held"), Cue(2000, 2800, "other channel")]


@pytest.mark.parametrize(
    "text", ["end.", "end?”", "“End!”)", "2014.", "...", "wait…", "。", "नमस्ते।", "؟", "no."]
)
def test_sentence_ends(text):
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["Mr.", "“Dr.", "U.S.", "e.g.", "J.", "3.5", "end", "a,", ""])
def test_no_sentence_ends(text):
    assert not ends_sentence(text)


def test_clause_ends():
    assert all(map(ends_clause, ["so,", "thus:”", "then;", "—", "و،"]))
    assert not any(map(ends_clause, ["so", "end.", "", "1,5"]))


def lines_are_legal(cue, options):
    lines = cue.text.split("\n")
    short = all(len(line) <= options.max_line_width or " " not in line for line in lines)
    return short and all(lines) and len(lines) <= options.max_line_count


@given(segment_lists(), subtitle_options)
def test_laws_of_cues(segments, options):
    cues = make_cues(segments, options)
    shown = [word for cue in cues for word in cue.text.split()]
    sources = [
        part
        for segment in segments
        for text in ([w.text for w in segment.words] if segment.words else [segment.text])
        for part in text.split()
    ]
    assert shown == sources
    assert all(cue.start_ms < cue.end_ms for cue in cues)
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(cues))
    assert all(lines_are_legal(cue, options) for cue in cues)
    limit = options.max_cue_duration * 1000
    assert all(cue.end_ms - cue.start_ms <= limit for cue in cues if len(cue.text.split()) > 1)
    starts = {round(word.start * 1000) for segment in segments for word in segment.words}
    spoken = all(segment.words for segment in segments)
    assert not spoken or all(
        any(cue.start_ms - late in starts for late in range(len(cues))) for cue in cues
    )
