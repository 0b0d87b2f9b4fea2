"""Subtitle cues and lines: examples, and property tests of the rules."""

from __future__ import annotations

import itertools
import math
import random
import textwrap
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from asr.config import SubtitleOptions
from asr.output import subtitles
from asr.output.subtitles import Cue, make_cues
from asr.text.phrasing import belong_together, ends_clause, ends_sentence
from asr.types import LineSegment, Segment, Word
from tests.support.strategies import conversations, segment_lists, subtitle_options

DEFAULT = SubtitleOptions()


def segment(text, seconds_per_word=0.4, start=0.0, index=0, channel=None):
    """A segment whose words follow each other without a pause."""
    words = tuple(
        Word(part, start + i * seconds_per_word, start + (i + 1) * seconds_per_word)
        for i, part in enumerate(text.split())
    )
    who = None if channel is None else f"channel {channel}"
    return Segment(index, words[0].start, words[-1].end, text, words, channel=channel, speaker=who)


def texts(*segments, options=DEFAULT):
    return [cue.text for cue in make_cues(segments, options)]


def test_times_are_rounded_once():
    words = (Word("a", 1.0004, 1.9996), Word("b", 1.9996, 2.0004))
    assert make_cues([Segment(0, 1.0, 2.1, "a b", words)], DEFAULT) == [Cue(1000, 2000, "a b")]
    assert make_cues([Segment(0, 1.0, 2.1, "a b", words)], DEFAULT)[0].starts_ms == (1000, 2000)


def test_short_text_is_one_line_and_long_text_two_balanced_ones():
    assert texts(segment("a line of exactly forty-two characters, ok")) == [
        "a line of exactly forty-two characters, ok"
    ]
    assert texts(segment("many words that are all quite as long as those here")) == [
        "many words that are all\nquite as long as those here"
    ]


def test_a_long_word_stands_alone_on_its_line():
    long = "x" * 60
    assert texts(segment(f"see {long} now and then", 2.0)) == [f"see\n{long}", "now and then"]


def test_cues_break_at_sentences_then_clauses_then_pauses():
    filler = "so much more was said about it that nobody knew"
    assert texts(segment(f"It all began, they say, quite late. Then {filler}")) == [
        "It all began, they say, quite late.",
        "Then so much more was said\nabout it that nobody knew",
    ]
    assert texts(segment(f"It all began, they say, quite late and then {filler}"))[0].endswith(
        "they say,"
    )
    words = segment("once more they saw it all").words
    later = [Word(w.text, w.start + 0.4, w.end + 0.4) for w in words[2:]]
    paused = Segment(0, 0, 3, "", (*words[:2], *later))
    assert texts(paused, options=SubtitleOptions(max_cue_duration=2.0)) == [
        "once more",
        "they saw it all",
    ]


def test_no_cue_outlasts_its_limit_where_words_allow():
    slow = segment("a b c d e f g h", seconds_per_word=1.5)
    cues = make_cues([slow], SubtitleOptions(max_cue_duration=4.0, min_gap=0))
    assert [cue.end_ms - cue.start_ms for cue in cues] == [3000] * 4
    assert make_cues([segment("a b", 9.0)], DEFAULT) == [Cue(0, 7000, "a"), Cue(9000, 16000, "b")]


def test_sentences_share_a_cue_only_where_one_would_be_gone_too_soon():
    yes, no = segment("Yes."), segment("No.", start=0.4, index=1)
    assert texts(yes, no) == ["Yes. No."]
    assert texts(yes, segment("No.", start=1.0, index=1)) == ["Yes.", "No."]
    assert texts(segment("Yes.", channel=0), segment("No.", 0.4, 0.4, 1, channel=1)) == [
        "Yes.",
        "No.",
    ]


def test_a_cue_stays_on_into_silence_and_no_further():
    brief = segment("Yes.", 0.2)
    assert make_cues([brief], DEFAULT) == [Cue(0, 833, "Yes.")]
    fast = segment("characters " * 4, 0.3)
    assert make_cues([fast], DEFAULT)[0].end_ms == 43 * 1000 / 20
    soon = replace(segment("No.", start=0.6), speaker="B")
    assert make_cues([brief, soon], DEFAULT)[0] == Cue(0, 517, "Yes.")
    elsewhere = segment("No.", start=0.6, channel=1)
    assert make_cues([brief, elsewhere], DEFAULT)[0] == Cue(0, 833, "Yes.")


def test_the_gap_yields_where_cues_start_close_together():
    now, then = segment("Yes.", 0.1), replace(segment("No.", start=0.1), speaker="B")
    assert make_cues([now, then], DEFAULT)[0] == Cue(0, 50, "Yes.")


@pytest.mark.parametrize(
    "text",
    [
        "we were told to be there at noon on the 24 November 2026 or else",
        "it was nothing that we or they had seen in New York City before",
        "they asked for what would have been some 25 million dollars",
        "and then he went to the door and asked for Mr. J. R. Poe again",
        "please turn to the end of the book and look at Fig. 7 there",
    ],
)
def test_numbers_and_names_are_not_split(text):
    for width in range(24, 50):
        cues = texts(segment(text), options=SubtitleOptions(width, 1))
        lasts = [cue.split()[-1] for cue in cues[:-1]]
        firsts = [cue.split()[0] for cue in cues[1:]]
        assert not any(map(belong_together, lasts, firsts)), cues


def test_lines_end_where_the_text_lets_them():
    assert texts(segment("When they came home, nobody was there to see")) == [
        "When they came home,\nnobody was there to see"
    ]
    assert texts(segment("and all of this happened in the summer of 1999")) == [
        "and all of this happened\nin the summer of 1999"
    ]


def test_labels_count_as_text_and_yield_to_the_width():
    said = segment("a line of exactly forty-two characters, ok", channel=0)
    assert make_cues([said], SubtitleOptions(max_line_count=1), labels=True)[0].text.startswith(
        "channel 0: a line"
    )
    narrow = SubtitleOptions(max_line_width=12, max_line_count=1)
    cues = make_cues([segment("extraordinarily so", channel=0)], narrow, labels=True)
    assert [cue.text for cue in cues] == ["extraordinarily", "so"]
    wide = SubtitleOptions(max_line_width=13, max_line_count=1)
    cues = make_cues([segment("extraordinarily so", channel=0)], wide, labels=True)
    assert [cue.text for cue in cues] == ["extraordinarily", "channel 0: so"]


def test_an_interrupting_speaker_is_shown_beside_the_other():
    first = segment("so this is what I have been saying all the time and", 0.6, channel=0)
    other = segment("Right.", 0.3, 2.0, 1, channel=1)
    cues = make_cues([first, other], DEFAULT)
    assert [(cue.text.split()[0], cue.speaker) for cue in cues][1] == ("Right.", "channel 1")
    assert [cue.start_ms for cue in cues] == sorted(cue.start_ms for cue in cues)
    alone = make_cues([first], DEFAULT)
    assert [cue for cue in cues if cue.speaker == "channel 0"] == alone
    assert alone[0].end_ms > 2000  # it does not vanish when the other begins


def test_two_who_speak_at_once_stay_readable():
    """Before, such cues were shown for a few milliseconds."""
    first = segment("we never said that it was so", 0.4, 0.0, channel=0)
    other = segment("no you said exactly that to me", 0.4, 0.015, 1, channel=1)
    cues = make_cues([first, other], DEFAULT)
    assert [(cue.start_ms, cue.end_ms) for cue in cues] == [(0, 2800), (15, 2815)]


def test_an_interrupting_speaker_of_the_same_channel_replaces_the_cue():
    first = replace(segment("so this is what I have been saying all the time", 0.6), speaker="A")
    other = replace(segment("Right.", 0.3, 2.0, 1), speaker="B")
    cues = make_cues([first, other], DEFAULT)
    assert [(cue.text.split()[0], cue.speaker) for cue in cues][1] == ("Right.", "B")
    assert all(cue.end_ms <= later.start_ms for cue, later in itertools.pairwise(cues))


def test_text_without_words_is_spread_over_its_segment():
    silent = Segment(0, 1.0, 11.0, "one two three four five", ())
    assert make_cues([silent], SubtitleOptions(max_cue_duration=6.0)) == [
        Cue(1000, 6917, "one two three"),
        Cue(7000, 11000, "four five"),
    ]
    assert make_cues([Segment(0, 1.0, 2.0, "", ())], DEFAULT) == []


def test_thousands_of_words_at_one_instant_are_shown_a_millisecond_each():
    words = (Word("crowded", 5.0, 5.0),) * 5000
    segments = [
        Segment(0, 5.0, 5.0, "", words),
        Segment(1, 5.0, 9.0, "after", (Word("after", 5.0, 9.0),), speaker="B"),
    ]
    cues = make_cues(segments, DEFAULT)
    assert [cue.start_ms for cue in cues] == list(range(5000, 5000 + len(cues)))
    assert cues[-1] == Cue(5000 + len(cues) - 1, 9000, "after", "B")


def test_a_cue_yields_to_the_next_one():
    held = Segment(0, 0.0, 9.0, "held", (Word("held", 0.0, 9.0),))
    cues = make_cues([held, segment("other channel", start=2.0, index=1)], DEFAULT)
    assert cues == [Cue(0, 1917, "held"), Cue(2000, 2833, "other channel")]


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


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("24", "November"), ("November", "2026,"), ("$5", "billion"), ("twenty-five", "per"),
        ("three", "million"), ("No.", "5"), ("New", "York"), ("Mr.", "Poe."), ("J.", "R."),
        ("10", "kg."), ("555", "1234"),
    ],
)  # fmt: skip
def test_words_that_belong_together(left, right):
    assert belong_together(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("The", "Committee"), ("York.", "Boston"), ("York,", "Boston"), ("and", "I"),
        ("1999.", "2000"), ("in", "1999"), ("No.", "Never"), ("", ""), ("(", ")"), ("well", "then"),
    ],
)  # fmt: skip
def test_words_that_may_be_split(left, right):
    assert not belong_together(left, right)


def lines_are_legal(cue, options):
    lines = cue.text.split("\n")
    short = all(len(line) <= options.max_line_width or " " not in line for line in lines)
    return short and all(lines) and len(lines) <= options.max_line_count


def assert_rules(segments, options, labels=False):
    """Check the rules of `asr.output.subtitles` for each channel, and how channels are merged."""
    cues = make_cues(segments, options, labels=labels)
    channels = {segment.channel: [] for segment in segments}
    for segment in segments:
        channels[segment.channel].append(segment)
    apart = [assert_rules_of_one(own, options, labels) for own in channels.values()]
    assert cues == sorted(itertools.chain(*apart), key=lambda cue: (cue.start_ms, cue.end_ms))
    return cues


def assert_rules_of_one(segments, options, labels):
    """Check rules 1 to 6 for the segments of one channel."""
    cues = make_cues(segments, options, labels=labels)
    limit, least, gap = (
        round(seconds * 1000)
        for seconds in (options.max_cue_duration, options.min_cue_duration, options.min_gap)
    )
    words = sum(len(cue.starts_ms) for cue in cues)
    assert words == sum(
        len(part.split()) for s in segments for part in ([w.text for w in s.words] or [s.text])
    )
    late = 0
    for cue, following in itertools.zip_longest(cues, cues[1:]):
        shown = cue.end_ms - cue.start_ms
        assert 1 <= shown <= limit
        assert lines_are_legal(cue, options)
        late = late + 1 if cue.start_ms > cue.starts_ms[0] else 0
        assert cue.starts_ms[0] <= cue.start_ms <= cue.starts_ms[0] + late
        read = math.ceil(len(cue.text) * 1000 / options.max_cps)
        room = math.inf
        if following is not None:
            assert cue.end_ms <= following.start_ms
            between = following.start_ms - cue.start_ms
            is_late = following.start_ms > following.starts_ms[0]
            assert following.start_ms - cue.end_ms >= (0 if is_late else min(gap, between // 2))
            room = following.starts_ms[0] - cue.start_ms
            room -= min(gap, room // 2)
        assert shown >= min(least, limit, max(room, 1))
        assert shown >= min(read, limit, max(room, 1))
    return cues


@given(segment_lists(), subtitle_options, st.booleans())
def test_rules_of_any_text_at_any_time(segments, options, labels):
    cues = assert_rules(segments, options, labels)
    for channel in {segment.channel for segment in segments}:
        own = [segment for segment in segments if segment.channel == channel]
        said = [part for segment in own for part in texts_of(segment)]
        shown = [word for cue in make_cues(own, options) for word in cue.text.split()]
        assert shown == said
    n_said = sum(len(texts_of(segment)) for segment in segments)
    assert sum(len(cue.starts_ms) for cue in cues) == n_said


@given(conversations(), subtitle_options, st.booleans())
def test_rules_of_two_who_speak_at_once(segments, options, labels):
    cues = assert_rules(segments, options, labels)
    for who in {segment.speaker for segment in segments}:
        said = [part for s in segments if s.speaker == who for part in texts_of(s)]
        shown = [word for cue in cues if cue.speaker == who for word in cue.text.split()]
        assert labels or shown == said


def texts_of(segment):
    return [
        part for text in [w.text for w in segment.words] or [segment.text] for part in text.split()
    ]


@pytest.mark.slow
@settings(max_examples=10_000, suppress_health_check=list(HealthCheck), deadline=None)
@given(segment_lists() | conversations(), subtitle_options, st.booleans())
def test_rules_over_thousands_of_transcripts(segments, options, labels):
    assert_rules(segments, options, labels)


@given(conversations(max_size=1), subtitle_options)
@settings(max_examples=60)
def test_no_other_cut_is_cheaper(segments, options):
    """Compares all 2 ** (n - 1) ways to cut a short paragraph, by the same costs."""
    words = [word for part in segments for word in subtitles._words(part)][:9]
    if not words:
        return
    paragraph = subtitles._Paragraph(words, None, subtitles._Limits(options))
    fitting = {
        (start, end): paragraph._cost(start, end, *rest)
        for start in range(len(words))
        for end, *rest in paragraph._fitting(start)
    }
    prices = []
    for n_cuts in range(len(words)):
        for cuts in itertools.combinations(range(1, len(words)), n_cuts):
            spans = list(itertools.pairwise((0, *cuts, len(words))))
            if all(span in fitting for span in spans):
                prices.append(sum(fitting[span] for span in spans))
    bounds = [0, *itertools.accumulate(len(cue.starts_ms) for cue in paragraph.cues())]
    chosen = sum(fitting[span] for span in itertools.pairwise(bounds))
    assert chosen == pytest.approx(min(prices))


def test_numbers_and_names_are_split_only_where_nothing_else_fits():
    """In 30 generated speeches, cutting by width alone splits hundreds; ours splits almost none."""
    random_ = random.Random(4)
    n_parted = n_naive = 0
    for _ in range(30):
        said = made_speech(random_)
        spoken = [line for cue in make_cues([said], DEFAULT) for line in cue.text.split("\n")]
        naive = textwrap.wrap(said.text, DEFAULT.max_line_width)
        n_parted += parted(spoken)
        n_naive += parted(naive)
    assert n_naive > 200
    assert n_parted <= n_naive / 100


def parted(lines):
    ends = [(a.split()[-1], b.split()[0]) for a, b in itertools.pairwise(lines)]
    return sum(belong_together(*pair) for pair in ends)


def made_speech(random_):
    """Forty numbers and names of several words, each among one to four plain words."""
    plain = ["so", "they", "went", "and", "saw", "how", "it", "was", "before", "anyone", "knew"]
    bound = ["24 November 2026", "New York City", "5 million dollars", "Mr. Poe", "No. 7"]
    parts = [
        part
        for _ in range(40)
        for part in [*random_.choices(plain, k=random_.randint(1, 4)), random_.choice(bound)]
    ]
    return segment(" ".join(parts) + ".", 0.35)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("See you soon.", 42, "Anna Li: See you soon."),
        ("See you\nsoon.", 42, "Anna Li: See you\nsoon."),
        ("See you all soon.", 18, "Anna Li:\nSee you all soon."),
        ("See you all soon.\nNow go.", 18, "Anna Li: See you all soon.\nNow go."),
        ("Anna Li: See you.", 42, "Anna Li: See you."),
    ],
)
def test_a_line_of_the_user_has_the_label_of_its_speaker(text, width, expected):
    spoken = LineSegment(0, 1.0, 4.0, text, (), speaker="Anna  Li")
    options = SubtitleOptions(max_line_width=width)
    assert [cue.text for cue in make_cues([spoken], options, labels=True)] == [expected]
    assert [cue.text for cue in make_cues([spoken], options)] == [text]
    nobody = replace(spoken, speaker=" ")
    assert [cue.text for cue in make_cues([nobody], options, labels=True)] == [text]
