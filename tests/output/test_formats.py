"""Every output format, read back by independent parsers; property tests and examples."""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import replace

import pytest
import srt
from hypothesis import given
from openai.types.audio import Transcription, TranscriptionVerbose

from asr.config import SubtitleOptions
from asr.errors import InvalidOption
from asr.output import formats
from asr.output.formats import FORMATS, render
from asr.output.full_json import from_json
from asr.output.gaps import notice
from asr.output.openai import logprobs_of, to_openai_json, to_verbose_json, usage_of
from asr.output.subtitles import Cue, make_cues
from asr.types import Segment, Transcript, Word
from tests.support.golden_transcript import TRANSCRIPT
from tests.support.strategies import subtitle_options, transcripts

HIGHLIGHT = SubtitleOptions(highlight_words=True)
EMPTY = Transcript((), "en", 0.0, 0.0, 0.0, "sphinx")


def ms(delta):
    return round(delta.total_seconds() * 1000)


def parse_vtt(text):
    """Cues of a WebVTT file without settings, by the rules of its standard."""
    header, *blocks = text.split("\n\n")
    assert header.rstrip("\n") == "WEBVTT"
    cues = []
    for block in blocks:
        if block.startswith("NOTE "):
            assert "\n" not in block.strip("\n")
            assert "-->" not in block
            continue
        timing, *lines = block.rstrip("\n").split("\n")
        clock = r"(\d\d+):(\d\d):(\d\d)\.(\d{3})"
        found = re.fullmatch(f"{clock} --> {clock}", timing)
        hours, minutes, seconds, millis, *end = map(int, found.groups())
        start_ms = ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis
        end_ms = ((end[0] * 60 + end[1]) * 60 + end[2]) * 1000 + end[3]
        voice, payload = re.fullmatch(
            r"(?:<v ([^<>\n]+)>)?(.*)", "\n".join(lines), re.DOTALL
        ).groups()
        assert not re.search(r"-->|<|>", payload)
        speaker = voice and html.unescape(voice)
        cues.append(Cue(start_ms, end_ms, html.unescape(payload), speaker))
    return cues


def words_of(cues):
    return [word for cue in cues for word in cue.text.split()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("srt", ""), ("vtt", "WEBVTT\n"), ("text", "\n"), ("tsv", "start\tend\ttext\n")],
)
def test_an_empty_transcript(name, expected):
    assert render(EMPTY, name) == expected


def test_formats_say_what_they_are():
    assert {name: f.extension for name, f in FORMATS.items()} == {
        "json": "json", "verbose_json": "verbose.json", "text": "txt",
        "diarized_json": "diarized.json", "srt": "srt", "vtt": "vtt", "tsv": "tsv", "rttm": "rttm",
    }  # fmt: skip
    assert FORMATS["srt"].content_type == "application/x-subrip; charset=utf-8"


def test_a_transcript_without_words_says_why_where_the_format_has_a_place():
    silent = replace(EMPTY, warnings=("no words: silent", "a --> b\n\nc"))
    assert render(silent, "vtt") == "WEBVTT\n\nNOTE no words: silent\n\nNOTE a -> b c\n"
    assert to_openai_json(silent)["warnings"] == ["no words: silent", "a --> b\n\nc"]
    for name in ("json", "verbose_json", "diarized_json"):
        assert json.loads(render(silent, name))["warnings"] == list(silent.warnings)
    for name, text in (("srt", ""), ("text", "\n"), ("tsv", "start\tend\ttext\n")):
        assert render(silent, name) == text  # these have no comments: the server sends a header


def test_a_transcript_with_words_has_no_notes():
    doubted = replace(TRANSCRIPT, warnings=("something is doubtful",))
    assert "NOTE" not in render(doubted, "vtt")
    assert to_openai_json(doubted)["warnings"] == ["something is doubtful"]


def test_an_unknown_format_is_refused():
    with pytest.raises(InvalidOption, match="must be one of json, verbose_json"):
        render(EMPTY, "docx")


def test_subtitle_options_reach_the_writers():
    narrow = SubtitleOptions(max_line_width=10, max_line_count=1)
    for name in ("srt", "vtt"):
        assert "Good\n" in render(TRANSCRIPT, name, narrow)


def test_a_cue_that_srt_drops_is_an_error(monkeypatch):
    monkeypatch.setattr(
        formats, "make_cues", lambda *_, **__: [Cue(5, 5, "gone"), Cue(6, 7, "kept")]
    )
    with pytest.raises(RuntimeError, match="kept 1 of 2"):
        render(TRANSCRIPT, "srt")


def test_openai_json_is_what_its_client_reads():
    answer = Transcription.model_validate(to_openai_json(TRANSCRIPT))
    assert answer.text == TRANSCRIPT.text
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 3676)


@pytest.mark.parametrize(
    ("seconds", "whole"), [(0.0, 0), (0.001, 1), (4.0, 4), (6.8 - 5.8, 1), (0.1 + 0.7 + 0.2, 1)]
)
def test_usage_is_in_whole_seconds(seconds, whole):
    usage = usage_of(seconds)
    assert (usage["seconds"], type(usage["seconds"])) == (whole, int)


@pytest.mark.parametrize(
    ("granularities", "present"),
    [
        ((), {"segments"}),
        (("segment",), {"segments"}),
        (("word",), {"words"}),
        ({"word", "segment"}, {"words", "segments"}),
    ],
)
def test_verbose_json_holds_what_was_asked(granularities, present):
    answer = to_verbose_json(TRANSCRIPT, granularities)
    assert answer.keys() & {"words", "segments"} == present
    assert answer["language"] == "english"
    assert answer["task"] == "transcribe"


def test_the_doubts_of_a_segment_are_measured():
    by_engine, _, by_words, *_ = to_verbose_json(TRANSCRIPT)["segments"]
    assert by_engine["avg_logprob"] == -0.123
    assert by_engine["no_speech_prob"] == 0.01  # its best word has 0.99
    known = [word.confidence for word in TRANSCRIPT.segments[2].words if word.confidence]
    mean = sum(math.log(confidence) for confidence in known) / len(known)
    assert by_words["avg_logprob"] == pytest.approx(mean, abs=0.001)
    assert by_words["no_speech_prob"] == pytest.approx(1 - max(known), abs=0.001)
    assert by_words["tokens"] == []


def one_segment(confidences, avg_logprob=None):
    words = tuple(Word("x", i, i + 1, it) for i, it in enumerate(confidences))
    text = " ".join("x" for _ in words)
    segment = Segment(0, 0.0, float(len(words)), text, words, avg_logprob)
    return Transcript((segment,), "en", 9.0, 9.0, 0.0, "omni")


def test_placeholders_stand_where_nothing_was_measured():
    body = to_verbose_json(one_segment([None]))
    (segment,) = body["segments"]
    assert (segment["avg_logprob"], segment["no_speech_prob"]) == (-1.0, 0.5)
    assert body["warnings"] == [
        "avg_logprob and no_speech_prob were not measured in 1 segment and are set to -1 and 0.5"
    ]
    assert to_verbose_json(one_segment([None]), ("word",))["warnings"] == []


@pytest.mark.parametrize(
    ("confidences", "avg_logprob", "doubt"),
    [
        ([0.0, 0.0], None, (-11.513, 1.0)),
        ([0.1, 0.2], -1.4, (-1.4, 0.8)),
        ([None], -0.5, (-0.5, 0.393)),
        ([0.9], float("-inf"), (-0.105, 0.1)),
        ([1.0], 0.0, (0.0, 0.0)),
    ],
)
def test_doubts_at_the_limits(confidences, avg_logprob, doubt):
    (segment,) = to_verbose_json(one_segment(confidences, avg_logprob))["segments"]
    assert (segment["avg_logprob"], segment["no_speech_prob"]) == doubt


def test_logprobs_are_the_text():
    body = to_openai_json(TRANSCRIPT, logprobs=True)
    assert "".join(item["token"] for item in body["logprobs"]) == TRANSCRIPT.text
    for item in body["logprobs"]:
        assert bytes(item["bytes"]).decode() == item["token"]
    given = [item["logprob"] for item in body["logprobs"]]
    assert len(given) == len(TRANSCRIPT.words)
    assert given[0] == pytest.approx(math.log(0.99), abs=1e-4)
    assert given[2] is None  # not measured


def test_logprobs_of_text_that_its_words_lack():
    words = (Word("one", 0, 1, 0.5), Word("absent", 1, 2, 0.5), Word("two", 2, 3, 0.5))
    segment = Segment(0, 0.0, 3.0, "one and two!", words)
    tokens = [item["token"] for item in logprobs_of([segment], before="x")]
    assert tokens == [" one", " and two", "!"]


def test_numbers_that_json_lacks_are_null():
    odd = Segment(0, 0.0, 1.0, "x", (), avg_logprob=float("-inf"))
    text = render(Transcript((odd,), "en", 1.0, 1.0, 0.0, "omni"), "json")
    assert from_json(text).segments[0].avg_logprob is None


def test_an_unnamed_language_keeps_its_code():
    assert to_verbose_json(Transcript((), "xx", 0.0, 0.0, 0.0, "omni"))["language"] == "xx"


def broken(change):
    record = json.loads(render(TRANSCRIPT, "json"))
    change(record)
    return json.dumps(record)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ("[]", "schema is None"),
        ('{"schema": "whisper"}', "schema is 'whisper'"),
        (broken(lambda r: r.pop("engine")), "engine is missing"),
        (broken(lambda r: r.update(duration="9")), "duration must be float, not '9'"),
        (broken(lambda r: r.update(segments=[7])), r"segments\[0\]: id is missing"),
        (broken(lambda r: r.update(warnings=[7])), r"warnings\[0\]"),
        (
            broken(lambda r: r["segments"][1]["words"][2].update(end=0)),
            r"segments\[1\]: words\[2\]: word times .* out of order",
        ),
        (
            broken(lambda r: r["segments"][1]["words"][2].update(timing="guess")),
            r"segments\[1\]: words\[2\]: timing must be one of",
        ),
    ],
)
def test_what_is_no_transcript_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        from_json(text)


def test_json_may_write_whole_seconds_as_integers():
    assert from_json(broken(lambda r: r.update(duration=3676))).duration == 3676.0


def cues_of(transcript, options, **rest):
    where = {"gaps": transcript.gaps, "duration": transcript.duration}
    return make_cues(transcript.segments, options, **where, **rest)


@given(transcripts(), subtitle_options)
def test_srt_is_parsed_as_written(transcript, options):
    cues = cues_of(transcript, options, labels=True)
    text = render(transcript, "srt", options)
    # srt.parse takes a line of digits before "1.2.3" for the head of a cue; players do not.
    if not re.search(r"\n\d+\.?\d*\n\d+\.\d+\.\d+(?! --> )", text):
        parsed = [(ms(s.start), ms(s.end), s.content) for s in srt.parse(text)]
        assert parsed == [(cue.start_ms, cue.end_ms, cue.text) for cue in cues]


@given(transcripts(), subtitle_options)
def test_vtt_is_parsed_as_written(transcript, options):
    cues = cues_of(transcript, options)
    assert parse_vtt(render(transcript, "vtt", options)) == cues


@given(transcripts(), subtitle_options)
def test_word_times_in_vtt_rise_inside_their_cue(transcript, options):
    lit = replace(options, highlight_words=True)
    header, style, *blocks = render(transcript, "vtt", lit).split("\n\n")
    assert style.startswith("STYLE\n::cue(:future)")
    plain = "\n\n".join([header, *(re.sub(r"<\d\d[\d:.]+>", "", block) for block in blocks)])
    assert plain.rstrip("\n") == render(transcript, "vtt", options).rstrip("\n")
    blocks = [block for block in blocks if not block.startswith("NOTE ")]
    for cue, block in zip(cues_of(transcript, lit), blocks, strict=True):
        tags = [parse_clock(tag) for tag in re.findall(r"<(\d\d[\d:.]+)>", block)]
        assert sorted({cue.start_ms, cue.end_ms, *tags}) == [cue.start_ms, *tags, cue.end_ms]
        assert set(cue.starts_ms).issuperset(tags)


def parse_clock(text):
    hours, minutes, seconds = text.split(":")
    return round((int(hours) * 60 + int(minutes)) * 60_000 + float(seconds) * 1000)


def test_highlighted_words():
    said = Segment(0, 0.5, 1.5, "a b", (Word("a", 0.5, 1.0), Word("<b", 1.0, 1.5)), speaker="A & B")
    text = render(Transcript((said,), "en", 2, 1, 1, "omni"), "vtt", HIGHLIGHT)
    assert text.endswith("<v A &amp; B>a <00:00:01.000>&lt;b\n")


@given(transcripts())
def test_tsv_has_three_columns_and_a_row_for_each_spoken_segment(transcript):
    _, *all_rows, last = render(transcript, "tsv").split("\n")
    assert last == ""
    texts = [notice(gap) for gap in transcript.gaps]
    assert [row.split("\t")[2] for row in all_rows if "[missing " in row] == texts
    rows = [row for row in all_rows if "[missing " not in row]
    spoken = [segment for segment in transcript.segments if segment.text.strip()]
    assert len(rows) == len(spoken)
    for row, segment in zip(rows, spoken, strict=True):
        start, end, text = row.split("\t")
        assert (int(start), int(end)) == (round(segment.start * 1000), round(segment.end * 1000))
        assert text.split() == segment.text.split()


@given(transcripts())
def test_json_round_trip(transcript):
    text = render(transcript, "json")
    assert from_json(text) == transcript
    text.encode()


@given(transcripts())
def test_verbose_json_is_what_openais_client_reads(transcript):
    answer = to_verbose_json(transcript, ("word", "segment"))
    read = TranscriptionVerbose.model_validate(json.loads(json.dumps(answer)), strict=True)
    assert read.text == transcript.text
    assert [s.id for s in read.segments] == [s.id for s in transcript.segments]
    assert [w.word for w in read.words] == [w.text for w in transcript.words]
    assert json.loads(render(transcript, "verbose_json")) == to_verbose_json(transcript)


def test_times_are_rounded_once_to_milliseconds():
    word = Word("x", 1.0004999, 1.9996)
    written = json.loads(
        render(
            Transcript((Segment(0, 1.0, 2.0, "x", (word,)),), "en", 2.0, 1.0, 0.0, "omni"), "json"
        )
    )
    assert written["segments"][0]["words"][0]["start"] == 1.0
    assert written["segments"][0]["words"][0]["end"] == 2.0
