"""Alignment of a known text: on real samples, with fake aligners, over HTTP, and by command."""
# ruff: noqa: RUF001  # the texts are in several scripts

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import srt
from hypothesis import HealthCheck, assume, given, settings, strategies as st

import asr
from asr import cli
from asr.align.mismatch import Mismatch, Span
from asr.config import Options, SubtitleOptions
from asr.errors import EmptyAudio, EngineFailed, InvalidOption
from asr.evaluation import score_times
from asr.output.formats import render
from asr.output.subtitles import make_cues
from asr.pipeline import transcriber as pipeline
from asr.pipeline.known_text import MAX_TEXT, align_file, tokens_of
from asr.pipeline.run import Progress
from asr.pipeline.script_segments import script_segments
from asr.pipeline.text_warnings import text_warnings
from asr.pipeline.transcriber import Transcriber, collect
from asr.settings import Settings
from asr.text.script import read_script
from asr.types import Hypothesis, Segment, Transcript, Word
from tests.support import makers
from tests.support.fakes import FakeEngine
from tests.support.paths import SAMPLES
from tests.support.serving import make_wav

ROUTE = "/v1/align"


def facts(name):
    record = json.loads((SAMPLES / f"{name}.json").read_text("ascii"))
    return record["text"], [Word(w["text"], w["start"], w["end"]) for w in record["words"]]


class Exact:
    """An aligner that spreads words evenly, claims to have aligned, and records its input."""

    name = "exact"
    language = None

    def __init__(self):
        self.given = []

    async def open(self):
        pass

    async def close(self):
        pass

    async def align(self, audio, hypothesis):
        self.given.append((audio.duration, hypothesis.text))
        texts = hypothesis.text.split()
        step = audio.duration / len(texts)
        words = tuple(
            Word(text, i * step, min((i + 1) * step, audio.duration), 0.9, "aligned")
            for i, text in enumerate(texts)
        )
        return Hypothesis(hypothesis.chunk_index, hypothesis.text, words)


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def align(runner):
    """Align a text with a given engine and aligner; returns the transcript and earlier events."""
    keeper = Transcriber(FakeEngine())
    runner.run(keeper.open())

    def align(path, text, engine=None, aligner=None, options=Options(), keep_lines=None):  # noqa: B008  # frozen
        made = Transcriber(engine or FakeEngine(), aligner)
        made._decoders = keeper._decoders
        events = []
        work = collect(align_file(made, path, text, options, keep_lines=keep_lines), events.append)
        return runner.run(asyncio.wait_for(work, 30)), events

    yield align
    runner.run(keeper.close())


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """Ten bursts of 8 s, each with its own words, and the whole text."""
    spans = [(1 + 12 * i, 9 + 12 * i) for i in range(10)]
    path = makers.write(tmp_path_factory.mktemp("talk") / "talk.wav", makers.bursts(122, spans))
    return path, " ".join(text_of(span) for span in spans)


def text_of(span):
    return " ".join(f"word{round(span[0])}x{n}" for n in range(16))


def hear_talk(chunk):
    """An accurate recogniser for `talk`: it hears two words per second in each burst."""
    words = [
        Word(f"word{1 + 12 * i}x{n}", 1 + 12 * i + n / 2, 1.4 + 12 * i + n / 2)
        for i in range(10)
        for n in range(16)
    ]
    inside = [w for w in words if chunk.start <= w.start and w.end <= chunk.end]
    placed = tuple(Word(w.text, w.start - chunk.start, w.end - chunk.start) for w in inside)
    return Hypothesis(chunk.index, " ".join(w.text for w in placed), placed)


# --- what comes out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aligner", "median", "near", "engine"),
    [
        ("auto", 0.015, 0.95, "given text"),
        (
            "none",
            0.3,
            0.4,
            "given text, found with moonshine-tiny-en",
        ),  # no times but interpolated ones
    ],
)
def test_a_sample_with_the_embedded_recogniser(aligner, median, near, engine):
    """Every word of the reference text comes out in order, with a nearly correct time."""
    text, words = facts("meeting")
    settings = Settings(aligner=aligner)
    transcript = asr.align_text(SAMPLES / "meeting.wav", text, settings=settings)
    assert [word.text for word in transcript.words] == text.split()
    times = score_times(words, transcript.words)
    assert times.matched == len(words)
    assert times.start_median < median
    assert times.within(0.2)[0] > near
    assert transcript.engine.startswith(engine)
    assert (transcript.aligner == "interpolation") == (aligner == "none")
    assert transcript.warnings == ()
    assert [s.text[-1] for s in transcript.segments] == ["."] * len(transcript.segments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "suffix", "median", "within"),
    [("lecture", "mp3", 0.03, 0.9), ("pauses", "ogg", 0.03, 0.95)],
)
def test_longer_samples_with_the_embedded_recogniser(name, suffix, median, within):
    text, words = facts(name)
    transcript = asr.align_text(SAMPLES / f"{name}.{suffix}", text, settings=Settings())
    times = score_times(words, transcript.words)
    assert times.matched == len(words)
    assert times.start_median < median
    assert times.within(0.2)[0] > within


def test_pieces_go_to_the_aligner_with_the_words_that_are_in_them(align, talk):
    path, text = talk
    aligner = Exact()
    transcript, events = align(path, text, FakeEngine(answer=hear_talk), aligner)
    pieces = sorted((piece for _, piece in aligner.given), key=text.index)
    assert " ".join(pieces) == text
    assert len(aligner.given) >= 5
    assert {word.timing for word in transcript.words} == {"aligned"}
    assert transcript.aligner == "exact"
    for word in transcript.words:
        number = int(word.text.partition("word")[2].partition("x")[0])
        assert number - 2.5 < word.start < number + 10.5
    assert transcript.segments == tuple(e for e in events if isinstance(e, Segment))
    progress = [e for e in events if isinstance(e, Progress)]
    done = [p.transcribed for p in progress]
    assert done == sorted(done)
    assert progress[-1].transcribed == transcript.duration == 122


def test_one_chunk_and_an_aligner_need_no_engine(align, tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.bursts(10, [(1, 8)]))
    engine, aligner = FakeEngine(), Exact()
    transcript, _ = align(path, "this is all that is said", engine, aligner)
    assert engine.chunks == []
    assert [text for _, text in aligner.given] == ["this is all that is said"]
    assert (transcript.engine, transcript.aligner) == ("given text", "exact")


def test_text_that_nobody_says_is_told_and_timed(align, talk):
    path, text = talk
    words = text.split()
    more = " ".join([*words[:64], *["never said by anyone here"] * 5, *words[64:]])
    transcript, _ = align(path, more, FakeEngine(answer=hear_talk), Exact())
    assert [word.text for word in transcript.words] == more.split()
    (warning,) = transcript.warnings
    assert warning.startswith("words 65 to 89 of the text were not said between")
    unsaid = transcript.words[64:89]
    assert {(w.timing, w.confidence) for w in unsaid} == {("interpolated", 0.0)}


def test_silence_gives_times_and_says_so(align, tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.silence(3))
    transcript, _ = align(path, "nothing to hear", aligner=Exact())
    assert transcript.warnings == ("no speech was found",)
    assert [word.confidence for word in transcript.words] == [0.0] * 3


def test_channels_are_mixed(align, tmp_path):
    call = np.stack([makers.bursts(8, [(1, 3)]), makers.bursts(8, [(4, 6)])], axis=1)
    path = makers.write(tmp_path / "a.wav", call)
    transcript, _ = align(path, "both of us", aligner=Exact(), options=Options(channels="split"))
    assert {segment.channel for segment in transcript.segments} == {None}


# --- texts that differ from the recording ---------------------------------------------------------


def hear_other(chunk):
    texts = [
        "nobody",
        "here",
        "speaks",
        "about",
        "the",
        "things",
        "which",
        "that",
        "paper",
        "pretends",
        "to",
        "describe",
    ]
    step = chunk.duration / len(texts)
    words = tuple(Word(t, i * step, (i + 0.9) * step) for i, t in enumerate(texts))
    return Hypothesis(chunk.index, " ".join(texts), words)


class Doubtful(Exact):
    """An aligner that finds the words, but is unsure."""

    async def align(self, audio, hypothesis):
        found = await super().align(audio, hypothesis)
        return replace(found, words=tuple(replace(w, confidence=0.4) for w in found.words))


def test_the_engine_is_asked_about_a_text_that_the_aligner_doubts(align, tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.bursts(10, [(1, 8)]))
    text = "purple elephants\nseldom juggle frozen\ntomatoes beside volcanic kitchens"
    transcript, _ = align(path, text, FakeEngine(answer=hear_other), Doubtful())
    other, unsaid, missing = transcript.warnings
    assert other.startswith("no passage of the text was recognised")
    assert unsaid.startswith("words 1 to 9 of the text were not said between 0.8 and 8.3 s")
    assert unsaid.endswith('(lines 1 to 3: "purple elephants seldom ... beside volcanic kitchens")')
    assert missing.endswith("s is not in the text")
    assert {(w.timing, w.confidence) for w in transcript.words} == {("interpolated", 0.05)}
    assert transcript.engine == "given text, found with fake engine"


def test_words_without_time_are_not_said_to_lie_between_two_equal_times():
    script = read_script("these were never said")
    (told,) = text_warnings(script, Mismatch(unsaid=(Span(1, 4, 3.21, 3.24),)))
    assert told == 'words 2 to 4 of the text were not said at 3.2 s ("were never said")'


def test_an_engine_that_fails_does_not_stop_an_alignment_that_is_possible_without_it(
    align, tmp_path
):
    path = makers.write(tmp_path / "a.wav", makers.bursts(10, [(1, 8)]))

    def fail(chunk):
        raise EngineFailed("gpu-1:8000 is broken")

    transcript, _ = align(path, "these are the words", FakeEngine(answer=fail), Doubtful())
    assert [word.timing for word in transcript.words] == ["aligned"] * 4
    assert transcript.warnings == ("the engine could not check the text: (see the log) is broken",)


def test_one_wrong_passage_of_many(align, talk):
    """The other passages keep their times and confidences."""
    path, text = talk
    words = text.split()
    wrong = "somebody else talked about quite another thing and then went home without any answer"
    words[48:62] = wrong.split()
    transcript, _ = align(path, " ".join(words), FakeEngine(answer=hear_talk), Exact())
    unsaid, missing = transcript.warnings
    assert unsaid.startswith("words 49 to 62 of the text were not said between 3")
    start, end = (float(x) for x in re.findall(r"\d+\.\d", missing))
    assert 36.5 < start < 38 < 43 < end < 45.5
    low = [place for place, word in enumerate(transcript.words) if word.confidence < 0.5]
    assert low == list(range(48, 62))


# --- lines and subtitles --------------------------------------------------------------------------

SUBTITLES = """1
00:00:50,000 --> 00:00:51,000
<i>one</i> two,
three

2
00:00:52,000 --> 00:00:53,000
ANN: four five
"""


def test_subtitles_are_retimed(align, tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.bursts(10, [(1, 8)]))
    transcript, _ = align(path, "\ufeff" + SUBTITLES.replace("\n", "\r\n"), aligner=Exact())
    cues = list(srt.parse(render(transcript, "srt")))
    assert [cue.content for cue in cues] == ["one two,\nthree", "ANN: four five"]
    assert cues[0].start.total_seconds() < 1.2
    assert cues[1].end.total_seconds() <= 10
    assert [word.text for word in transcript.words] == [
        "one",
        "two,",
        "three",
        "ANN:",
        "four",
        "five",
    ]
    assert render(transcript, "text") == "one two,\nthree\nANN: four five\n"
    assert transcript.text == "one two, three ANN: four five"


@pytest.mark.parametrize(
    ("keep_lines", "cues"),
    [(None, ["one two three four. five"]), (True, ["one", "two three four. five"])],
)
def test_the_lines_of_a_text_are_kept_on_request(align, tmp_path, keep_lines, cues):
    path = makers.write(tmp_path / "a.wav", makers.bursts(6, [(1, 4)]))
    text = "one\ntwo three four. five\n"
    transcript, _ = align(path, text, aligner=Exact(), keep_lines=keep_lines)
    wide = SubtitleOptions(max_line_width=500, max_line_count=1, min_cue_duration=5)
    found = [cue.content for cue in srt.parse(render(transcript, "srt", wide))]
    assert found == cues
    assert (len(transcript.segments) == 2) is (keep_lines is True or len(cues) == 1)


def test_a_text_without_spaces(align, tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.bursts(10, [(1, 8)]))
    transcript, _ = align(path, "你好，世界！ 再见 iPhone。", aligner=Exact())
    assert [w.text for w in transcript.words] == [
        "你",
        "好，",
        "世",
        "界！",
        "再",
        "见",
        "iPhone。",
    ]
    assert transcript.text == "你好，世界！再见 iPhone。"
    assert "你好，世界！" in render(transcript, "srt")
    lit = render(transcript, "vtt", SubtitleOptions(highlight_words=True))
    assert re.search(r"你<[\d:.]+>好，<[\d:.]+>世", lit)


def test_recognised_text_without_spaces_finds_its_characters(align, talk):
    """The engine writes one word for a sentence; each character gets a part of its time."""
    path, _ = talk
    said = "今天天气很好我们去公园散步吧"

    def hear(chunk):
        word = Word(said if chunk.index == 0 else "嗯", 0.0, chunk.duration, 0.9)
        return Hypothesis(chunk.index, word.text, (word,))

    transcript, _ = align(path, said, FakeEngine(answer=hear), Exact())
    assert [word.text for word in transcript.words] == list(said)
    assert not any("not said" in warning for warning in transcript.warnings)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lines=st.lists(st.sampled_from(["a", "Yes.", "one two three", "[x]", "你好。"]), min_size=1),
    times=st.lists(st.floats(0, 3), min_size=60, max_size=60),
    keep_lines=st.booleans(),
    options=st.builds(
        SubtitleOptions,
        min_cue_duration=st.floats(0, 5),
        min_gap=st.floats(0, 1),
        max_cue_duration=st.floats(0.5, 60),
    ),
)
def test_nothing_ends_after_the_audio(lines, times, keep_lines, options):
    """For any times of an aligner, in all formats."""
    assume(any(line != "[x]" for line in lines))
    script = read_script("\n".join(lines[:20]))
    spans = [sorted(times[i : i + 2]) for i in range(len(script.said))]
    words = [Word(t, a, b) for t, (a, b) in zip(script.said, spans, strict=False)]
    duration = 2.0
    segments = script_segments(script, words, int(duration * 16_000), keep_lines=keep_lines)
    transcript = Transcript(segments, "en", duration, duration, 0.0, "given text")
    assert [w.text for w in transcript.words] == script.tokens
    assert all(w.end <= duration for w in transcript.words)
    cues = make_cues(segments, options, duration=duration)
    assert all(0 <= cue.start_ms < cue.end_ms <= 2000 for cue in cues)
    for subtitle in srt.parse(render(transcript, "srt", options)):
        assert subtitle.end.total_seconds() <= duration
    rows = [row.split("\t") for row in render(transcript, "tsv").splitlines()[1:]]
    assert all(int(row[1]) <= 2000 for row in rows)


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " \n\t", "x " * MAX_TEXT])
def test_texts_that_cannot_be(text):
    with pytest.raises(InvalidOption) as caught:
        tokens_of(text)
    assert caught.value.name == "text"


def test_a_text_for_another_recording(align, tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.bursts(3, [(1, 2)]))
    with pytest.raises(InvalidOption, match=r"3000 letters, too many for 3\.0 seconds"):
        align(path, "abcdef " * 500)


def test_errors_of_the_recording(align, tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(EmptyAudio):
        align(tmp_path / "a.wav", "some text")


def test_an_error_of_the_aligner_leaves_nothing_behind(runner, align, talk):
    class Broken(Exact):
        async def align(self, audio, hypothesis):
            if len(self.given) == 2:
                raise InvalidOption("aligner", "broke")
            return await super().align(audio, hypothesis)

    with pytest.raises(InvalidOption, match="broke"):
        align(*talk, FakeEngine(answer=hear_talk), Broken())

    async def left():
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert runner.run(left()) == set()


# --- the service and the command line -----------------------------------------------------------


def post(server, *fields, **rest):
    parts = [("file", ("a.wav", make_wav(4))), *((name, (None, value)) for name, value in fields)]
    return server.client().post(ROUTE, files=parts, **rest)


def test_align_over_http(server):
    answer = post(server, ("text", "one two,\nthree four."))
    assert answer.status_code == 200, answer.text
    segments = answer.json()["segments"]
    assert [w["text"] for s in segments for w in s["words"]] == ["one", "two,", "three", "four."]
    captions = post(server, ("text", "one two, three four."), ("response_format", "srt")).text
    assert [cue.content for cue in srt.parse(captions)] == ["one two, three four."]
    events = post(server, ("text", "one two"), ("stream", "true")).text
    assert '"text": "one two"' in events


def test_a_long_text_may_be_a_file(server):
    text = ("word " * 60_000).encode()
    parts = [("file", ("a.wav", make_wav(2))), ("text", ("script.txt", text, "text/plain"))]
    answer = server.client().post(ROUTE, files=parts)
    assert answer.status_code == 400
    assert "240000 letters, too many for 2.0 seconds" in answer.json()["error"]["message"]


def test_subtitles_over_http(server):
    parts = [("file", ("a.wav", make_wav(4))), ("text", ("x.srt", SUBTITLES.encode(), "text/x"))]
    parts.append(("response_format", (None, "srt")))
    kept = server.client().post(ROUTE, files=parts)
    assert [cue.content for cue in srt.parse(kept.text)] == ["one two,\nthree", "ANN: four five"]
    parts.append(("keep_lines", (None, "false")))
    cut = server.client().post(ROUTE, files=parts)
    assert [cue.content for cue in srt.parse(cut.text)] == ["one two, three ANN: four five"]
    assert all(cue.end.total_seconds() <= 4 for cue in srt.parse(kept.text + cut.text))


def test_the_deltas_of_a_stream_are_its_text(server):
    answer = post(
        server, ("text", "一二。\n三四。\nfive."), ("stream", "true"), ("keep_lines", "1")
    )
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n") if "{" in line]
    events = [json.loads(line) for line in lines]
    deltas = [event["delta"] for event in events if event["type"] == "transcript.text.delta"]
    (done,) = (event["text"] for event in events if event["type"] == "transcript.text.done")
    assert "".join(deltas) == done == "一二。三四。 five."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one two".encode("utf-16"), "text: is UTF-16, not UTF-8"),
        ("caf\xe9".encode("cp1252"), "text: is probably Windows-1252 (cp1252), not UTF-8"),
        (SUBTITLES.replace("52,000 -->", "52,000").encode(), "text: line 7 of the SRT"),
        (b"[Script Info]\n", "text: is SubStation Alpha"),
    ],
)
def test_texts_that_are_refused_over_http(server, text, message):
    parts = [("file", ("a.wav", make_wav(2))), ("text", ("script.txt", text, "text/plain"))]
    answer = server.client().post(ROUTE, files=parts)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "text")
    assert error["message"].startswith(message)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([], "text"),
        ([("text", "  ")], "text"),
        ([("text", "a"), ("channels", "split")], "channels"),
        ([("text", "a"), ("text", "b")], "text"),
        ([("text", "a"), ("keep_lines", "maybe")], "keep_lines"),
    ],
)
def test_wrong_fields(server, fields, param):
    answer = post(server, *fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_the_form_is_documented(server):
    paths = server.client().get("/openapi.json").json()["paths"]
    form = paths[ROUTE]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file", "text"]


@pytest.mark.slow
def test_align_on_the_command_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(pipeline, "load_engine", lambda _: FakeEngine(2))
    audio = str(makers.write(tmp_path / "a.wav", makers.bursts(6, [(1, 4)])))
    script = tmp_path / "script.txt"
    script.write_text("\ufeffHello there,\nold friend.", encoding="utf-8")
    assert cli.main(["align", audio, str(script)]) == 0
    (cue,) = srt.parse(capsys.readouterr().out)
    assert cue.content == "Hello there, old friend."
    assert cli.main(["align", audio, str(script), "-f", "json", "-o", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "a.json").read_text())["text"] == cue.content
    assert cli.main(["align", audio, str(tmp_path / "none.txt")]) == cli.USAGE_ERROR
    script.write_text("")
    assert cli.main(["align", audio, str(script)]) == cli.USAGE_ERROR
    assert "text: is empty" in capsys.readouterr().err
    script.write_bytes("caf\xe9".encode("cp1252"))
    assert cli.main(["align", audio, str(script)]) == cli.USAGE_ERROR
    assert "cp1252" in capsys.readouterr().err
    script.write_text("Hello there,\nold friend.")
    assert cli.main(["align", audio, str(script), "--keep-lines"]) == 0
    kept = [cue.content for cue in srt.parse(capsys.readouterr().out)]
    assert kept == ["Hello there,", "old friend."]
    script.write_text(SUBTITLES)
    assert cli.main(["align", audio, str(script)]) == 0
    kept = [cue.content for cue in srt.parse(capsys.readouterr().out)]
    assert kept == ["one two,\nthree", "ANN: four five"]
