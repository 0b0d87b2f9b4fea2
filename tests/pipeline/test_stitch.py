"""Stitching the words of chunks into segments: examples and property tests, without audio."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given

from asr.pipeline.stitch import Stitcher, stitch
from asr.types import SAMPLE_RATE, Chunk, Hypothesis, Word
from tests.support.strategies import assert_said, guessed_speech, heard_chunks, overlapping_speech


def chunk_at(start, end, index=0, overlap=0.0):
    return Chunk(index, *(round(t * SAMPLE_RATE) for t in (start, end, overlap)))


def said(*timed, index=0, **rest):
    words = tuple(Word(*item) for item in timed)
    return Hypothesis(index, " ".join(word.text for word in words), words, **rest)


def texts(segments):
    return [segment.text for segment in segments]


def overlapping(left, right):
    """Stitch two chunks of 10 s that share 9 to 10 s; `right` has times of the recording."""
    pairs = [
        (chunk_at(0, 10), said(*left)),
        (
            chunk_at(9, 19, 1, 1.0),
            said(*[(text, start - 9, end - 9) for text, start, end in right], index=1),
        ),
    ]
    return " ".join(texts(stitch(*zip(*pairs, strict=True)))).split()


def test_times_count_from_the_start_of_the_chunk():
    chunk = Chunk(7, 16_001, 64_000)
    (segment,) = stitch([chunk], [said(("hello", 0.5, 1.0), ("there", 1.0, 9.0), index=7)])
    assert segment.start == 16_001 / 16_000 + 0.5
    assert segment.end == 4.0  # a word must lie inside its chunk
    assert [word.text for word in segment.words] == ["hello", "there"]


def test_words_that_overlap_or_run_backwards_are_put_in_order():
    (segment,) = stitch(
        [chunk_at(0, 5)], [said(("a", 0.0, 1.2), ("b", 1.0, 2.0), ("c", 0.5, 0.8), ("d", 1.5, 2.0))]
    )
    assert [(w.text, w.start, w.end) for w in segment.words] == [
        ("a", 0.0, 1.0),
        ("b", 1.0, 1.0),
        ("c", 1.0, 1.0),
        ("d", 1.5, 2.0),
    ]


def test_pauses_and_sentences_end_segments():
    heard = said(
        ("Mr.", 0, 0.2), ("Poe", 0.3, 0.5), ("left.", 0.5, 0.9), ("“Why?”", 1.0, 1.3),
        ("U.S.", 1.4, 1.5), ("3.5", 1.5, 1.9), ("or", 2.0, 2.1), ("so", 2.9, 3.0),
    )  # fmt: skip
    segments = stitch([chunk_at(0, 5)], [heard])
    assert texts(segments) == ["Mr. Poe left.", "“Why?”", "U.S. 3.5 or", "so"]
    assert [segment.id for segment in segments] == [0, 1, 2, 3]


def test_a_long_segment_is_cut_at_its_longest_pause():
    timed = [(f"w{i}", i * 1.0 + 0.3 * (i == 9), i + 0.9) for i in range(20)]
    segments = stitch([chunk_at(0, 30)], [said(*timed)])
    assert [len(segment.words) for segment in segments] == [9, 11]


def test_a_segment_does_not_cross_a_cut_in_silence():
    pairs = [
        (chunk_at(0, 2), said(("to", 1.5, 2.0))),
        (chunk_at(2, 4, 1), said(("be", 0.0, 0.4), index=1)),
    ]
    assert texts(stitch(*zip(*pairs, strict=True))) == ["to", "be"]


def test_segments_stream():
    stitcher = Stitcher()
    heard = said(("One.", 1, 2), ("Two.", 3, 4), ("three", 6, 7))
    assert texts(stitcher.push(chunk_at(0, 10), heard)) == ["One.", "Two."]
    assert texts(stitcher.push(chunk_at(11, 13, 1), said(("four", 0, 1), index=1))) == ["three"]
    assert texts(stitcher.finish()) == ["four"]
    assert stitcher.finish() == []


def test_overlap_is_merged_at_the_matched_word_nearest_its_middle():
    left = [("we", 8.6, 8.8), ("do", 9.1, 9.3), ("Not,", 9.4, 9.6), ("kn", 9.9, 10.0)]
    right = [("due", 9.1, 9.2), ("not", 9.45, 9.65), ("know", 9.7, 10.1), ("it", 10.2, 10.4)]
    assert overlapping(left, right) == ["we", "do", "Not,", "know", "it"]


@pytest.mark.parametrize(
    ("ours", "theirs"), [("8.", "Eight"), ("ten", "10"), ("Twenty-five", "25"), ("0", "zero")]
)
def test_a_number_in_figures_matches_the_same_number_in_words(ours, theirs):
    """The second chunk begins inside "zero" and hears another word there."""
    left = [("nine", 8.4, 8.8), ("zero", 8.8, 9.3), (ours, 9.4, 9.7)]
    right = [("row", 9.0, 9.3), (theirs, 9.4, 9.7), ("six", 10.0, 10.4)]
    assert overlapping(left, right) == ["nine", "zero", ours, "six"]


def test_repeated_words_are_told_apart_by_all_their_times():
    left = [("no", 8.9, 9.1), ("no", 9.2, 9.4), ("no", 9.5, 9.7)]
    right = [("no", 9.3, 9.45), ("no", 9.6, 9.75), ("no", 9.9, 10.2)]
    assert overlapping(left, right) == ["no"] * 4


@pytest.mark.parametrize("shift", [-0.08, 0.0, 0.08])
def test_one_copy_of_an_unmatched_word_on_the_seam(shift):
    left = [("we", 8.5, 8.9), ("recognise", 9.3 + shift, 9.7 + shift)]
    right = [("recognize", 9.3 - shift, 9.7 - shift), ("it", 10.2, 10.4)]
    merged = overlapping(left, right)
    assert len(merged) == 3
    assert (merged[0], merged[2]) == ("we", "it")


def test_what_only_one_side_heard_stays():
    assert overlapping([("late", 9.8, 10.0)], [("after", 10.5, 11)]) == ["late", "after"]
    assert overlapping([("before", 8, 8.5)], [("early", 9.0, 9.2)]) == ["before", "early"]
    assert overlapping([("late", 9.8, 9.9)], [("early", 9.1, 9.2)]) == ["early", "late"]
    assert overlapping([("alone", 9.8, 9.9)], []) == ["alone"]


def test_segments_cross_an_overlap_and_keep_the_logprob_of_their_first_word():
    pairs = [
        (chunk_at(0, 10), said(("one", 9.0, 9.4), avg_logprob=-0.5, warnings=("first",))),
        (
            chunk_at(9, 19, 1, 1.0),
            said(("one", 0, 0.4), ("two", 0.5, 0.9), index=1, avg_logprob=-0.1, warnings=("b",)),
        ),
    ]
    (segment,) = stitch(*zip(*pairs, strict=True))
    assert (segment.text, segment.avg_logprob) == ("one two", -0.5)
    assert segment.warnings == ("first", "b")


def test_warnings_are_on_the_first_segment_of_their_chunk_and_never_lost():
    pairs = [
        (chunk_at(0, 5), said(("One.", 0, 1), ("Two.", 1, 2), warnings=("low",))),
        (chunk_at(5, 9, 1), Hypothesis(1, "", warnings=("loop dropped",))),
        (chunk_at(9, 12, 2), said(("Three.", 0, 1), index=2)),
    ]
    segments = stitch(*zip(*pairs, strict=True))
    assert [(s.text, s.start, s.end, s.warnings) for s in segments] == [
        ("One.", 0.0, 1.0, ("low",)),
        ("Two.", 1.0, 2.0, ()),
        ("", 5.0, 9.0, ("loop dropped",)),
        ("Three.", 9.0, 10.0, ()),
    ]


@pytest.mark.parametrize(
    ("second", "heard", "message"),
    [
        (chunk_at(5, 9, 1), Hypothesis(2, ""), "hypothesis of chunk 2"),
        (chunk_at(5, 9, 1), Hypothesis(1, "hello"), "no words"),
        (chunk_at(5, 9, 0), Hypothesis(0, ""), "came after"),
        (chunk_at(4, 9, 1), Hypothesis(1, ""), "shares 16000 samples"),
        (chunk_at(6, 9, 1, 0.5), Hypothesis(1, ""), "its overlap is 8000"),
        (chunk_at(2, 9, 1, 3.0), Hypothesis(1, ""), "16000 are allowed"),
    ],
)
def test_what_cannot_be_stitched_is_refused(second, heard, message):
    stitcher = Stitcher()
    stitcher.push(chunk_at(0, 5), Hypothesis(0, ""))
    with pytest.raises(ValueError, match=message):
        stitcher.push(second, heard)


@given(heard_chunks())
def test_without_overlap_no_word_is_lost_added_or_moved(pairs):
    segments = stitch(*zip(*pairs, strict=True))
    words = [word for segment in segments for word in segment.words]
    assert [w.text for w in words] == [w.text for _, heard in pairs for w in heard.words]
    assert all(0 <= w.start <= w.end <= pairs[-1][0].end for w in words)
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))
    assert [s.id for s in segments] == list(range(len(segments)))
    assert all(s.end - s.start <= 15 or len(s.words) == 1 for s in segments if s.words)
    warned = [w for _, heard in pairs for w in heard.warnings]
    assert [w for segment in segments for w in segment.warnings] == warned


def released_at_any_time(pairs):
    """Return the segments; check that they start in order, whenever they are released."""
    at_once = stitch(*zip(*pairs, strict=True))
    for max_overlap in (2.0, 30.0):
        stitcher = Stitcher(max_overlap)
        released = [segment for pair in pairs for segment in stitcher.push(*pair)]
        assert (*released, *stitcher.finish()) == at_once
    starts = [segment.start for segment in at_once]
    assert starts == sorted(starts)
    return at_once


@given(heard_chunks(max_overlap=2.0))
def test_segments_do_not_depend_on_when_they_are_released(pairs):
    at_once = released_at_any_time(pairs)
    heard = {w.text for _, hypothesis in pairs for w in hypothesis.words}
    assert heard >= {w.text for segment in at_once for w in segment.words}
    warned = [w for _, hypothesis in pairs for w in hypothesis.warnings]
    assert [w for segment in at_once for w in segment.warnings] == warned


@given(overlapping_speech())
def test_overlaps_merge_to_exactly_what_was_said(speech):
    segments = stitch(*zip(*speech.pairs, strict=True))
    assert_said(speech.truth, [word for segment in segments for word in segment.words])


# --- words whose times are guesses ---------------------------------------------------------------


def guessed(pairs):
    return [
        (chunk, replace(heard, words=tuple(replace(w, timing="interpolated") for w in heard.words)))
        for chunk, heard in pairs
    ]


def spread(left, right):
    """Stitch what two chunks heard in 10 s each, 9 to 10 s by both; three words take 1 s."""

    def timed(text, start, index):
        words = text.split()
        start = start - len(words) / 3 if start else start
        times = [(w, start + i / 3, start + (i + 1) / 3) for i, w in enumerate(words)]
        return said(*times, index=index)

    pairs = [(chunk_at(0, 10), timed(left, 10, 0)), (chunk_at(9, 19, 1, 1.0), timed(right, 0, 1))]
    segments = stitch(*zip(*guessed(pairs), strict=True))
    words = [word for segment in segments for word in segment.words]
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))
    assert all(word.start < word.end for word in words)
    return " ".join(texts(segments))


@pytest.mark.parametrize(
    ("left", "right", "merged"),
    [
        ("it is truth, that a", "That, a single man", "it is truth, that a single man"),
        # a cut leaves half a word on either side
        ("had come to neigh", "tme to neighbours today", "had come to neighbours today"),
        # one word in the middle is another
        ("in the big red house", "the pig red house there", "in the big red house there"),
        # nothing in common: keep all words, even if some appear twice
        ("we recognise", "recognize it", "we recognise recognize it"),
        # a chance match: joining there would lose words on both sides
        ("of the king and", "men said of the us", "of the king and men said of the us"),
        # a repeated word: times show how many were heard twice
        ("no no no no no no no no no", "no no no no no no no no no", " ".join(["no"] * 15)),
        ("alone", "", "alone"),
    ],
)  # fmt: skip
def test_guessed_times_leave_the_merge_to_the_words(left, right, merged):
    assert spread(left, right) == merged


def test_times_that_are_sure_outweigh_one_that_is_a_guess():
    left = [Word("we", 9.1, 9.3), Word("kno", 9.8, 10.0, None, "interpolated")]
    right = [Word("we", 0.1, 0.3), Word("know", 0.8, 1.1), Word("it", 1.2, 1.4)]
    pairs = [
        (chunk_at(0, 10), Hypothesis(0, "we kno", tuple(left))),
        (chunk_at(9, 19, 1, 1.0), Hypothesis(1, "we know it", tuple(right))),
    ]
    assert " ".join(texts(stitch(*zip(*pairs, strict=True)))) == "we know it"


def in_time(words, end):
    return all(a.end <= b.start for a, b in itertools.pairwise(words)) and all(
        0 <= word.start <= word.end <= end for word in words
    )


@given(guessed_speech())
def test_no_word_is_lost_or_doubled_where_times_are_guesses(speech):
    end = speech.pairs[-1][0].end
    told = [segment for segments in settled(speech.pairs) for segment in segments]
    for segments in (stitch(*zip(*speech.pairs, strict=True)), told):
        words = [word for segment in segments for word in segment.words]
        assert [word.text for word in words] == [word.text for word in speech.truth]
        assert in_time(words, end)


@given(guessed_speech(is_same=False))
def test_where_chunks_heard_nothing_alike_each_keeps_its_words(speech):
    end = speech.pairs[-1][0].end
    heard = [word.text for _, hypothesis in speech.pairs for word in hypothesis.words]
    told = [segment for segments in settled(speech.pairs) for segment in segments]
    for segments in (stitch(*zip(*speech.pairs, strict=True)), told):
        words = [word for segment in segments for word in segment.words]
        assert [word.text for word in words] == heard
        assert in_time(words, end)


@given(heard_chunks(max_overlap=2.0).map(guessed) | guessed_speech().map(lambda it: it.pairs))
def test_segments_of_guessed_words_do_not_depend_on_when_they_are_released(pairs):
    words = [word for segment in released_at_any_time(pairs) for word in segment.words]
    assert in_time(words, max(chunk.end for chunk, _ in pairs))


# --- words that do not wait for the next chunk ---------------------------------------------------


def settled(pairs):
    """The segments that each chunk gives when none waits for the next one."""
    stitcher = Stitcher(max(chunk.overlap for chunk, _ in pairs) / SAMPLE_RATE)
    told = []
    for n, (chunk, hypothesis) in enumerate(pairs):
        told.append(stitcher.push(chunk, hypothesis))
        if n + 1 < len(pairs):
            following = pairs[n + 1][0]
            told[-1] += stitcher.settle(following.start + following.overlap / 2 / SAMPLE_RATE)
    told[-1] += stitcher.finish()
    return told


def settled_words(left, right):
    """As `overlapping`, with the words that each chunk gives."""
    pairs = [
        (chunk_at(0, 10), said(*left)),
        (chunk_at(9, 19, 1, 1.0), said(*[(t, s - 9, e - 9) for t, s, e in right], index=1)),
    ]
    return [" ".join(texts(segments)) for segments in settled(pairs)]


def test_settled_words_are_said_once_and_before_the_middle():
    left = [
        ("we", 8.6, 8.8),
        ("do", 9.1, 9.3),
        ("not", 9.3, 9.5),
        ("know", 9.6, 9.9),
        ("i", 9.9, 10),
    ]
    right = [("ot", 9.0, 9.1), ("not", 9.4, 9.5), ("know", 9.6, 9.9), ("it", 9.95, 10.1)]
    assert settled_words(left, right) == ["we do not", "know it"]


def test_another_reading_of_a_settled_word_is_not_said():
    left = [("we", 8.5, 8.9), ("are", 9.0, 9.1), ("there", 9.2, 9.5)]
    right = [("are", 9.0, 9.1), ("their", 9.25, 9.55), ("own", 9.6, 9.9)]
    assert settled_words(left, right) == ["we are there", "own"]
    assert settled_words(left, right[1:]) == ["we are there", "own"]


def test_what_only_the_first_of_two_chunks_heard_behind_the_middle_is_said_with_the_second():
    assert settled_words([("we", 8.5, 8.9), ("late", 9.7, 9.9)], []) == ["we", "late"]
    assert settled_words([("late", 9.7, 9.9)], [("on", 10.2, 10.4)]) == ["", "late on"]


def test_warnings_of_a_settled_chunk_without_words_are_not_lost():
    pairs = [
        (chunk_at(0, 10), Hypothesis(0, "", warnings=("loop dropped",))),
        (chunk_at(9, 19, 1, 1.0), said(("on", 1.2, 1.4), index=1)),
    ]
    (warned,), (segment,) = settled(pairs)
    assert (warned.text, warned.warnings) == ("", ("loop dropped",))
    assert (segment.text, segment.warnings) == ("on", ())


@given(overlapping_speech())
def test_settled_words_are_exactly_what_was_said(speech):
    segments = [segment for told in settled(speech.pairs) for segment in told]
    assert_said(speech.truth, [word for segment in segments for word in segment.words])


@given(heard_chunks(max_overlap=2.0))
def test_settled_segments_keep_their_order_and_every_warning(pairs):
    segments = [segment for told in settled(pairs) for segment in told]
    words = [word for segment in segments for word in segment.words]
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))
    assert [s.id for s in segments] == list(range(len(segments)))
    warned = [w for _, hypothesis in pairs for w in hypothesis.warnings]
    assert [w for segment in segments for w in segment.warnings] == warned
