"""Texts to align: plain text, subtitles and lyrics; lines, speakers, sounds and scripts."""
# ruff: noqa: RUF001  # the texts are in several scripts

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asr.errors import InvalidOption
from asr.spacing import join_words, tokens_in
from asr.text.script import read_script
from asr.types import Word

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i> there,
{\\an8}<font color="red">old</font> friend.

2
00:00:03,000 --> 00:00:04,000 X1:40 X2:600
[door slams]

3
0:00:05.000 --> 0:00:06.000
JOHN: It is <b>5 < 6</b> &amp; so.
"""
VTT = """WEBVTT - a title
Kind: captions

STYLE
::cue { color: red }

NOTE a comment
of two lines

intro
00:01.000 --> 00:02.000 align:start position:0%
<v Bob>Hi <00:01.500><c.loud>there</c></v>

01:00:03.000 --> 01:00:04.000
good &lt;bye&gt;
"""
LRC = """[ar: Somebody]
[offset:+200]
[00:01.00][00:05.00]Chorus line
[00:03.00]Verse <00:03.20>one
[00:07.00]
[00:08]The end
"""


def texts(script):
    return [line.text for line in script.lines]


@pytest.mark.parametrize("change", [str, lambda text: "\ufeff" + text.replace("\n", "\r\n")])
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (SRT, ["Hello there,\nold friend.", "[door slams]", "JOHN: It is 5 < 6 & so."]),
        (VTT, ["Hi there", "good <bye>"]),
        (LRC, ["Chorus line", "Verse one", "Chorus line", "The end"]),
    ],
)
def test_formats_are_known_by_their_content(text, lines, change):
    script = read_script(change(text))
    assert texts(script) == lines
    assert script.is_timed


def test_the_voice_of_a_cue():
    assert [line.speaker for line in read_script(VTT).lines] == ["Bob", None]


def test_names_and_sounds_are_not_said():
    script = read_script(SRT)
    assert script.said == [
        "Hello",
        "there,",
        "old",
        "friend.",
        "It",
        "is",
        "5",
        "<",
        "6",
        "&",
        "so.",
    ]
    assert [line.number for line in script.lines] == [2, 7, 11]
    plain = read_script("Speaker 1: hello\n\n[Chorus]\nSpeaker 2: bye\nRemember: this")
    assert plain.said == ["hello", "bye", "Remember:", "this"]
    assert not plain.is_timed
    assert read_script("NOTE: all of this is said").said[0] == "NOTE:"


def test_cues_without_an_empty_line_between_them():
    script = read_script(
        "1\n00:01:00,000 --> 00:02:00,000\none\n2\n00:03:00,000 --> 00:04:00,000\ntwo\n\nmore\n"
        "00:05:00,000 --> 00:06:00,000\nthree\n\n4\n"
    )
    assert texts(script) == ["one", "two\nmore", "three"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SRT.replace("00:00:03,000 -->", "00:00:03,000 ->"), "line 7 of the SRT"),
        (SRT.replace("00:00:03,000 -->", "00:00:3x,000 -->"), "line 7 of the SRT"),
        (SRT.replace("00:00:04,000", "00:00:02,000"), "line 7 of the SRT.*ends before it starts"),
        (SRT.replace("00:00:03,000 --> 00:00:04,000 X1:40 X2:600\n", ""), "line 7 of the SRT"),
        (VTT.replace("01:00:03.000 -->", "01:00:03.000"), "line 14 of the WebVTT"),
        (LRC.replace("[00:08]", "[00:8x]"), "line 6 of the LRC"),
        (LRC.replace("[00:08]", ""), "line 6 of the LRC"),
        ("[Script Info]\nTitle: x\n", "SubStation"),
        ('<?xml version="1.0"?><tt></tt>', "XML"),
        ("{10}{20}Hello", "MicroDVD"),
        ("0:00:01.000,0:00:02.000\nHello", "SubViewer"),
        ('{"segments": []}', "JSON"),
        ("start\tend\ttext\n0\t1\ta", "TSV"),
        ("WEBVTT\n\n", "is empty"),
        ("1\n00:00:01,000 --> 00:00:02,500\n[music]\n", "only names of speakers and descriptions"),
    ],
)
def test_what_is_malformed_is_named(text, message):
    with pytest.raises(InvalidOption, match=message) as caught:
        read_script(text)
    assert caught.value.name == "text"


@pytest.mark.parametrize(
    "text",
    ["12 men --> 3 women", "[see 12: the end] he said", "Press 3 -- > twice", '{"quoted"} he said'],
)
def test_plain_text_stays_plain(text):
    script = read_script(text)
    assert (script.tokens, script.is_timed) == (text.split(), False)


def test_words_that_are_not_said_get_places():
    script = read_script(SRT)
    words = [Word(text, i + 1.0, i + 1.5, 0.9, "aligned") for i, text in enumerate(script.said)]
    placed = {word.text: (word.start, word.end) for word in script.placed(words)}
    assert placed["JOHN:"] == (4.5, 4.5) or placed["JOHN:"] == (5.0, 5.0)
    assert placed["[door"][0] == 4.5
    assert placed["slams]"][1] == 5.0
    assert [word.text for word in script.placed(words)] == script.tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("你好，世界！", ["你", "好，", "世", "界！"]),
        ("「ビール、2本」", ["「ビ", "ー", "ル、", "2", "本」"]),
        ("สวัสดี ที่", ["ส", "วั", "ส", "ดี", "ที่"]),
        ("用iPhone 15拍", ["用", "iPhone", "15", "拍"]),
        ("한국어 띄어쓰기 plain", ["한국어", "띄어쓰기", "plain"]),
    ],
)
def test_unspaced_scripts_are_split_by_character(text, tokens):
    assert tokens_in(text) == tokens
    script = read_script(text)
    assert script.tokens == tokens
    assert script.text_of(0, len(tokens)) == text


def test_words_are_joined_without_spaces_where_none_are_written():
    assert join_words(["你", "好，", "世", "界！", "3", "月"]) == "你好，世界！3月"
    assert join_words(["Hello", "world"]) == "Hello world"
    assert join_words([]) == ""


@given(st.text(alphabet="ab 你好、ー\u3099ดี่ัเ1(「」).,-", max_size=30))
def test_splitting_loses_nothing(text):
    assert "".join(tokens_in(text)) == "".join(text.split())
    assert [part for token in tokens_in(text) for part in tokens_in(token)] == tokens_in(text)


def test_lines_of_a_plain_text():
    script = read_script("  First  line\n\n second\tline \n")
    assert [(line.text, line.number) for line in script.lines] == [
        ("First line", 1),
        ("second line", 3),
    ]
    assert script.text_of(1, 3) == "line second"
