"""What is accepted as a corrected transcript."""

import gzip
import json
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from asr.pipeline.checkpoint import pack_segment
from asr.service.jobs import edit_check
from asr.service.jobs.edit_check import Refused, Rules, check_body, inflated
from asr.service.jobs.edited import pack, unpack
from asr.service.page.view import original_lines
from asr.types import LineSegment, Segment, Word

RULES = Rules(10.0, {"left": 0, "right": 1})
WORD = {"word": "hi", "start": 1.0, "end": 2.0}
SEGMENT = {"start": 1.0, "end": 3.0, "text": "hi", "words": [WORD]}


def checked(*segments, **fields):
    body = json.dumps({"segments": list(segments), **fields}).encode()
    found = unpack(pack(check_body(body, RULES)))
    return [json.loads(line) for line in found.lines], dict(found.speakers)


def refused(*segments, **fields):
    with pytest.raises(Refused) as error:
        checked(*segments, **fields)
    assert error.value.param is None or str(error.value).startswith(error.value.param)
    return error.value.param


def test_what_is_missing_gets_its_default():
    (found,), speakers = checked(SEGMENT)
    word = {"confidence": None, "timing": "edited", "doubtful": False}
    assert found["words"] == [WORD | word]
    assert {**found, "words": 0} == {
        "id": 0, "start": 1.0, "end": 3.0, "text": "hi", "speaker": None, "channel": None,
        "words": 0, "doubts": [],
    }  # fmt: skip
    assert speakers == {}


def test_the_channel_is_that_of_the_speaker_unless_it_is_sent():
    found, _ = checked(
        SEGMENT | {"speaker": "right"},
        SEGMENT | {"speaker": "Anna"},
        SEGMENT | {"speaker": "right", "channel": 0},
        SEGMENT | {"speaker": "right", "channel": None},
    )
    assert [segment["channel"] for segment in found] == [1, None, 0, None]


def test_a_subtitle_cue_keeps_its_line_breaks():
    cue = SEGMENT | {"text": " hi  \n\n there\n", "line": True}
    cue["words"] = [WORD, WORD | {"word": "there", "start": 2.0, "end": 3.0}]
    body = json.dumps({"segments": [cue, SEGMENT]}).encode()
    edited = unpack(pack(check_body(body, RULES)))
    assert json.loads(edited.lines[0])["line"] is True
    first, second = edited.segments()
    assert isinstance(first, LineSegment)
    assert first.text == "hi\nthere"
    assert not isinstance(second, LineSegment)
    assert "line" not in json.loads(edited.lines[1])
    assert refused(SEGMENT | {"line": 1}) == "segments[0].line"
    assert refused(SEGMENT | {"line": True, "text": 1}) == "segments[0].text"


def test_texts_are_lines_with_single_spaces_in_any_script():
    text = "  שלום\n\tكلمة \u2028 <script> 你好 e\u0301 "
    found, speakers = checked(
        SEGMENT | {"text": text, "words": []}, speakers={" A ": "Ann\u00e9 \n O'Neil"}
    )
    assert found[0]["text"] == "שלום كلمة <script> 你好 e\u0301"
    assert speakers == {"A": "Ann\u00e9 O'Neil"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"start": "1"}, "segments[0].start"),
        ({"start": True}, "segments[0].start"),
        ({"end": None}, "segments[0].end"),
        ({"end": 10.1}, "segments[0].end"),
        ({"start": -0.1}, "segments[0].start"),
        ({"start": 4}, "segments[0].start"),
        ({"end": 1e400}, "segments[0].end"),
        ({"start": float("nan")}, "segments[0].start"),
        ({"start": -(10**400)}, "segments[0].start"),
        ({"text": None}, "segments[0].text"),
        ({"text": "bye"}, "segments[0].text"),
        ({"text": "hi\0"}, "segments[0].text"),
        ({"text": "hi \x1b[31m"}, "segments[0].text"),
        ({"text": "\ud800"}, "segments[0].text"),
        ({"text": "x" * 20_001}, "segments[0].text"),
        ({"words": None}, "segments[0].words"),
        ({"words": {}}, "segments[0].words"),
        ({"words": [3]}, "segments[0].words[0]"),
        ({"speaker": 3}, "segments[0].speaker"),
        ({"speaker": "x" * 101}, "segments[0].speaker"),
        ({"channel": -1}, "segments[0].channel"),
        ({"channel": True}, "segments[0].channel"),
        ({"doubts": "why"}, "segments[0].doubts"),
        ({"doubts": [1]}, "segments[0].doubts[0]"),
        ({"doubts": ["x"] * 101}, "segments[0].doubts"),
    ],
)
def test_a_wrong_segment_is_named(change, param):
    assert refused(SEGMENT | change) == param


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"word": ""}, "word"),
        ({"word": " "}, "word"),
        ({"word": 1}, "word"),
        ({"word": "\udfff"}, "word"),
        ({"word": "x" * 1_000_000}, "word"),
        ({"start": 0.9}, "start"),
        ({"end": 3.1}, "end"),
        ({"start": 2.5}, "start"),
        ({"confidence": 1.1}, "confidence"),
        ({"confidence": "high"}, "confidence"),
        ({"timing": "guessed"}, "timing"),
        ({"timing": ["aligned"]}, "timing"),
        ({"doubtful": 1}, "doubtful"),
    ],
)
def test_a_wrong_word_is_named(change, field):
    assert refused(SEGMENT | {"words": [WORD | change]}) == f"segments[0].words[0].{field}"


def test_segments_and_words_are_in_order():
    later = SEGMENT | {"start": 0.5}
    assert refused(SEGMENT, later) == "segments[1].start"
    early = WORD | {"start": 1.5}
    both = {"text": "hi hi", "words": [early, WORD]}
    assert refused(SEGMENT | both) == "segments[0].words[1].start"


@pytest.mark.parametrize(
    ("speakers", "param"),
    [
        ([], "speakers"),
        ({"A": ""}, "speakers.A"),
        ({"A": None}, "speakers.A"),
        ({"A": "x\0"}, "speakers.A"),
        ({"A": "x" * 101}, "speakers.A"),
        ({"x" * 101: "A"}, "speakers"),
        ({str(n): "A" for n in range(1001)}, "speakers"),
    ],
)
def test_wrong_names_are_named(speakers, param):
    assert refused(SEGMENT, speakers=speakers) == param


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"segments": {}}', b"\xff", b"[" * 100_000])
def test_other_bodies_are_refused(body):
    with pytest.raises(Refused) as error:
        check_body(body, RULES)
    assert error.value.status == 400


def test_sizes_are_limited(monkeypatch):
    monkeypatch.setattr(edit_check, "MAX_SEGMENTS", 2)
    assert refused(SEGMENT, SEGMENT, SEGMENT) == "segments"
    monkeypatch.setattr(edit_check, "MAX_WORDS", 1)
    assert refused(SEGMENT, SEGMENT) == "segments"
    monkeypatch.setattr(edit_check, "MAX_TEXT_BYTES", 20)
    with pytest.raises(Refused) as error:
        checked(SEGMENT)
    assert error.value.status == 413


def test_gzip_is_inflated_up_to_the_limit(monkeypatch):
    assert inflated(gzip.compress(b"{}")) == b"{}"
    for wrong in (b"{}", gzip.compress(b"{}")[:-4], gzip.compress(b"{}") * 2, zlib.compress(b"{}")):
        with pytest.raises(Refused) as error:
            inflated(wrong)
        assert error.value.status == 400
    monkeypatch.setattr(edit_check, "MAX_TEXT_BYTES", 1000)
    assert len(inflated(gzip.compress(bytes(1000)))) == 1000
    with pytest.raises(Refused) as error:
        inflated(gzip.compress(bytes(1001)))
    assert error.value.status == 413


TIMES = st.lists(st.floats(0, 10, allow_nan=False), min_size=2, max_size=8).map(sorted)


@st.composite
def engine_segments(draw):
    """Segments as the pipeline makes them: by start, with words inside."""
    made = []
    for times in sorted(draw(st.lists(TIMES, max_size=4)), key=lambda it: it[0]):
        words = tuple(
            Word(draw(st.sampled_from(["a", "it's", "über,", "你", "-"])), start, end, 0.5)
            for start, end in pairwise(times[1:])
        )
        text = " ".join(word.text for word in words)
        speaker = draw(st.sampled_from([None, "left"]))
        made.append(
            Segment(len(made), times[0], times[-1], text, words, channel=0, speaker=speaker)
        )
    return made


@settings(max_examples=30)
@given(engine_segments())
def test_whatever_the_engine_wrote_may_be_saved(segments):
    """Also after its times were rounded to milliseconds."""
    lines = list(original_lines([pack_segment(it) for it in segments]))
    body = f'{{"segments": [{",".join(lines)}]}}'.encode()
    assert unpack(pack(check_body(body, RULES))).lines == lines
