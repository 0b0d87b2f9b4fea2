"""Gaps in every format."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise

import pytest
from hypothesis import given

from asr.config import SubtitleOptions
from asr.output.formats import render
from asr.output.full_json import from_json
from asr.output.gaps import notice
from asr.output.openai import to_diarized_json, to_openai_json, to_verbose_json
from asr.output.subtitles import Cue, make_cues
from asr.types import Gap, Segment, Transcript, Word
from tests.support.strategies import subtitle_options, transcripts

DEFAULT = SubtitleOptions()


def said(text, start, index=0):
    words = tuple(Word(part, start + i, start + i + 0.9) for i, part in enumerate(text.split()))
    return Segment(index, words[0].start, words[-1].end, text, words)


TALK = Transcript(
    (said("before it.", 700), said("after it.", 960, 1)),
    "en", 1000.0, 304.0, 696.0, "fake", gaps=(Gap(720.0, 960.0, "engine_failed"),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        (720, 960, "[missing 12:00-16:00]"),
        (720.0004, 960.0004, "[missing 12:00-16:00]"),
        (0.4, 0.6, "[missing 0:00-0:01]"),
        (59.9, 3600, "[missing 0:59-1:00:00]"),
        (3661, 36000.2, "[missing 1:01:01-10:00:01]"),
    ],
)
def test_a_notice_names_whole_seconds_around_the_gap(start, end, text):
    assert notice(Gap(start, end, "engine_failed")) == text


@pytest.mark.parametrize("name", ["text", "tsv", "srt", "vtt"])
def test_the_notice_lies_between_the_words_around_the_gap(name):
    text = render(TALK, name)
    assert text.index("before it.") < text.index("[missing 12:00-16:00]") < text.index("after it.")


def test_text_alone_is_only_words():
    """The text is what was said. Programs find the gaps in their own field."""
    assert TALK.text == "before it. after it."
    gap = {"start": 720, "end": 960, "reason": "engine_failed", "channel": None, "speaker": None}
    for body in (to_openai_json(TALK), to_verbose_json(TALK), to_diarized_json(TALK)):
        assert (body["text"], body["gaps"]) == (TALK.text, [gap])
    assert "gaps" not in to_openai_json(Transcript((), "en", 1.0, 0.0, 1.0, "fake"))


def test_json_of_an_earlier_version_has_no_gaps():
    body = json.loads(render(TALK, "json"))
    assert from_json(json.dumps(body)) == TALK
    del body["gaps"]
    assert from_json(json.dumps(body)).gaps == ()
    body["gaps"] = [{"start": 1, "end": 2, "reason": "lunch", "channel": None, "speaker": None}]
    with pytest.raises(ValueError, match=r"gaps\[0\]: reason must be one of"):
        from_json(json.dumps(body))


def test_a_notice_is_a_cue_that_keeps_the_rules():
    cues = make_cues(TALK.segments, DEFAULT, gaps=TALK.gaps, duration=TALK.duration)
    assert cues[1] == Cue(720_000, 727_000, "[missing 12:00-16:00]")  # the longest time of a cue
    narrow = SubtitleOptions(max_line_width=12)
    cues = make_cues((), narrow, gaps=TALK.gaps, duration=1000)
    assert [cue.text for cue in cues] == ["[missing\n12:00-16:00]"]
    narrow = SubtitleOptions(max_line_width=12, max_line_count=1)
    cues = make_cues((), narrow, gaps=TALK.gaps, duration=1000)
    assert [cue.text for cue in cues] == ["[missing 12:00-16:00]"]


def test_a_short_gap_at_the_end_is_shown_inside_the_audio():
    gap = Gap(9.9, 10.0, "engine_failed", None, "channel 1")
    cues = make_cues((said("so it ends", 7.0),), DEFAULT, labels=True, gaps=[gap], duration=10.0)
    assert cues[-1] == Cue(9_900, 10_000, "channel 1: [missing 0:09-0:10]", "channel 1")
    assert cues[-2].end_ms < 9_900


def test_no_cue_spans_a_gap():
    near = (said("one two", 1.0), said("three", 3.0, 1))
    whole = make_cues(near, DEFAULT, duration=4.0)
    assert [cue.text for cue in whole] == ["one two three"]
    cues = make_cues(near, DEFAULT, gaps=[Gap(2.9, 3.0, "engine_failed")], duration=4.0)
    assert [cue.text for cue in cues] == ["one two", "[missing 0:02-0:03]", "three"]


def test_highlighted_words_keep_the_notice():
    text = render(TALK, "vtt", SubtitleOptions(highlight_words=True))
    assert "\n[missing 12:00-16:00]\n" in text


@given(transcripts(), subtitle_options)
def test_cues_with_gaps_never_overlap_and_end_with_the_audio(transcript, options):
    segments, gaps, duration = transcript.segments, transcript.gaps, transcript.duration
    for channel in {item.channel for item in (*segments, *gaps)}:
        own = [segment for segment in segments if segment.channel == channel]
        missing = [gap for gap in gaps if gap.channel == channel]
        cues = make_cues(own, options, gaps=missing, duration=duration)
        assert all(before.end_ms <= after.start_ms for before, after in pairwise(cues))
    cues = make_cues(segments, options, gaps=gaps, duration=duration)
    assert all(cue.end_ms - cue.start_ms >= 1 for cue in cues)
    n_ms = round(transcript.duration * 1000)
    assert all(cue.end_ms <= max(n_ms, len(cues)) for cue in cues)
    shown = [" ".join(cue.text.split()) for cue in cues if cue.text.startswith("[missing")]
    assert shown == [notice(gap) for gap in transcript.gaps]


@given(transcripts())
def test_every_text_format_names_every_gap(transcript):
    for name in ("text", "tsv", "srt", "vtt"):
        text = " ".join(render(transcript, name).split())
        found = re.findall(r"\[missing [\d:]+-[\d:]+\]", text)
        assert found == [notice(gap) for gap in transcript.gaps]


@given(transcripts())
def test_a_notice_contains_its_gap_and_less_than_a_second_more(transcript):
    for gap in transcript.gaps:
        first, last = (
            sum(60**i * int(part) for i, part in enumerate(reversed(clock.split(":"))))
            for clock in notice(gap).removeprefix("[missing ").rstrip("]").split("-")
        )
        assert (first, last) == (math.floor(gap.start), math.ceil(gap.end))
