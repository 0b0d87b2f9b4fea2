"""The measurements at a stand-in server: well-behaved, and with each of its tricks."""

import asyncio
import json
from dataclasses import replace

import httpx
import pytest

from asr.errors import EngineUnavailable, InvalidOption
from asr.evaluation import Utterance
from benchmarks.first_hour import checks, hints, instructions, quality, report, run, thinking
from benchmarks.first_hour.answers import Answer, Call
from benchmarks.first_hour.arms import INSTRUCTIONS, PLACEHOLDER, SENT, SERVICE, TRAINED
from benchmarks.first_hour.bench import Bench
from benchmarks.first_hour.references import Clip
from benchmarks.first_hour.run import Request
from benchmarks.first_hour.section import Section, Table, Verdict
from benchmarks.first_hour.speed import Load


def verdicts(section):
    return {it.item: it for it in section.verdicts}


def test_everything_is_asked_once_and_a_second_run_asks_nothing_again(running):
    with running() as (bench, server):
        bench.clips = bench.clips[:1]
        request = Request(("thinking",), Load(1.0, (1,), (1,)), "a test")
        path = asyncio.run(run.everything(bench, request))
        n_asked, first = server.n_asked, path.read_text()
        asyncio.run(run.everything(bench, request))
        assert server.n_asked == n_asked + 1, "only the tone that shows the instruction"
    assert "- note: a test" in first
    assert "- clips: 1 of 1" in first
    assert "| thinking is off | pass |" in first
    body = json.loads((bench.folder / "report.json").read_text())
    assert [it["name"] for it in body["sections"]] == ["thinking"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in bench.folder.glob("answers/*"))


def test_doctor_and_tokens_need_no_plan(running):
    with running() as (bench, server):
        path = asyncio.run(run.everything(bench, Request(("tokens",))))
        assert server.n_asked == 2, "the tone alone, to identify the run and for the step"
    assert "chat template" in path.read_text()
    assert not (bench.folder / "rates.json").exists()


def test_the_folder_of_another_model_is_refused(running):
    with running() as (bench, _):
        bench.folder.mkdir()
        (bench.folder / "run.json").write_text('{"model": "other", "clips": []}')
        with pytest.raises(InvalidOption, match=r"another model, instruction, clips: .* folder"):
            asyncio.run(run.everything(bench, Request(())))


def test_a_server_that_is_away_ends_the_run_and_is_not_blamed_on_a_clip(running, monkeypatch):
    monkeypatch.setattr("asr.engines.omni.servers.OUTAGE_SECONDS", 0.1)
    with running() as (bench, _):
        pass
    with pytest.raises(EngineUnavailable):
        asyncio.run(bench.ask(SENT, bench.clips))
    assert bench.store(SENT).answers == {}


def test_tricks_are_found(running):
    with running("aloud", "loop", "think", "insert", "template") as (bench, _):
        bench.clips = bench.clips[1:3]
        # Asked below: as sent, with the text first, with thinking, and with wrong keywords.
        for arm in (*INSTRUCTIONS[:-1], *hints.arms(hints.choose(bench.clips))[:-1]):
            for clip in bench.clips:
                bench.store(arm).put(answer(clip))
        asked = asyncio.run(instructions.measure(bench, bench.clips))
        thought = asyncio.run(thinking.measure(bench, bench.clips))
        hinted = asyncio.run(hints.measure(bench, bench.clips))
        tokens = asyncio.run(checks.tokens(bench))
    found = verdicts(asked)["reasoning aloud and loops"]
    assert found.level == "look here"
    assert "2 of 2 answers reason aloud and 1 are loops" in found.found
    rows = {row[0]: row for row in asked.tables[0].rows}
    titles = asked.tables[0].rows[0]
    first = rows["as trained, but the text before the audio"]
    assert dict(zip(titles, first, strict=True))["aloud"] == "2"
    found = verdicts(thought)["thinking is off"]
    assert found.level == "look here"
    assert "2 have tags" in found.found
    found = verdicts(hinted)["unspoken keywords stay out of the text"]
    assert found.level == "look here"
    assert {it.level for it in tokens.verdicts if "tokens at" in it.item} == {"look here"}


@pytest.mark.parametrize(
    ("text", "tricks", "level"),
    [
        (PLACEHOLDER + TRAINED, (), "pass"),
        (TRAINED, (), "look here"),
        (PLACEHOLDER + TRAINED, ("template",), "look here"),
    ],
)
def test_tokens_are_those_of_training_only_if_nothing_stands_between(stand_in, text, tricks, level):
    body = {"model": "omni", "chat_template_kwargs": {"enable_thinking": False}}
    sound = {"type": "audio_url", "audio_url": {"url": "data:,"}}
    body["messages"] = [{"role": "user", "content": [sound, {"type": "text", "text": text}]}]

    async def compare():
        transport = httpx.ASGITransport(stand_in(*tricks).app())
        async with httpx.AsyncClient(transport=transport, base_url="http://omni") as client:
            prompt = await checks.rendered(client, body)
            return await checks.verdicts_of(client, "http://omni", body, prompt)

    tokens, template = asyncio.run(compare())
    assert tokens.level == level
    assert template.level == "pass"


@pytest.fixture
def stored(tmp_path, clips, bench_at):
    """A bench with 24 clips whose answers are stored, so that no server is asked."""
    many = [
        Clip(replace(clip.utterance, text=f"{clip.utterance.text} {n}"), clip.seconds)
        for n in range(6)
        for clip in clips
    ]
    bench = bench_at("http://127.0.0.1:9")
    bench = Bench(bench.settings, tmp_path / "stored", many, quiet=True)

    def put(arm, answer_of):
        store = bench.store(arm)
        for clip in many:
            store.put(answer_of(clip))

    return bench, put


def answer(clip, text=None, raw=None, sent=TRAINED, **more):
    text = clip.utterance.text if text is None else text
    call = Call(0.1, text if raw is None else raw, "", "stop", 50, 9, sent, True)
    return Answer(clip.id, text, duration=clip.seconds, calls=(call,), chunks=(1.0,), **more)


def without_last(clip):
    return clip.utterance.text.rsplit(" ", 2)[0]


def test_an_instruction_that_is_better_than_ours_is_named(stored):
    bench, put = stored
    put(SENT, lambda clip: answer(clip, without_last(clip)))
    for arm in INSTRUCTIONS[1:]:
        is_better = arm.name == "terse"
        put(arm, lambda clip, b=is_better: answer(clip, None if b else without_last(clip)))
    found = verdicts(asyncio.run(instructions.measure(bench, bench.clips)))["instruction"]
    assert found.level == "look here"
    assert "sent as trained" in found.found
    assert "terse" in found.found
    assert "TensorRT" not in found.found


def test_ours_passes_if_text_first_is_worse_and_reasons_aloud(stored):
    bench, put = stored
    for arm in (SENT, *INSTRUCTIONS[1:-1]):
        put(arm, answer)
    aloud = "The user wants me to transcribe this."
    put(INSTRUCTIONS[-1], lambda clip: answer(clip, f"{aloud} {clip.utterance.text}", aloud))
    found = verdicts(asyncio.run(instructions.measure(bench, bench.clips)))
    assert {name: it.level for name, it in found.items()} == dict.fromkeys(found, "pass")
    assert "24 clips with reasoning aloud" in found["order of parts"].found


def test_clips_under_three_seconds_that_fail_are_found(stored):
    bench, put = stored
    for arm in (SENT, *INSTRUCTIONS[1:]):
        put(arm, lambda clip: answer(clip, "no " * 40 if clip.seconds < 3 else None))
    found = verdicts(asyncio.run(instructions.measure(bench, bench.clips)))
    assert found["clips under 3 s"].level == "look here"
    assert found["reasoning aloud and loops"].level == "look here"


def test_doubts_about_right_texts_are_false_alarms(stored):
    bench, put = stored
    doubt = ("the text is in doubt (3 tried): it has 3 words for 9.5 s of speech",)
    put(SERVICE, lambda clip: answer(clip, warnings=doubt if clip.seconds < 2 else ()))
    section = asyncio.run(quality.doubts(bench, bench.clips))
    assert verdicts(section)["false alarms"].level == "look here"
    assert "6 of 24" in verdicts(section)["false alarms"].found
    assert section.tables[1].rows[1] == ("it has N words for N s of speech", "6")
    put(SERVICE, answer)
    section = asyncio.run(quality.doubts(bench, bench.clips))
    assert verdicts(section)["false alarms"].level == "pass"


@pytest.mark.parametrize(("is_right", "level"), [(True, "pass"), (False, "look here")])
def test_voxpopuli_is_compared_with_nvidia_and_with_the_gate(stored, is_right, level):
    bench, _ = stored
    words = " ".join(["reference"] * 30)
    clips = [
        Clip(Utterance(clip.utterance.file, f"{words} {n}", categories=("voxpopuli",)), 9.0)
        for n, clip in enumerate(bench.clips)
    ]
    store = bench.store(SERVICE)
    for clip in clips:
        store.put(answer(clip, None if is_right else clip.utterance.text.replace("ence", "", 5)))
    found = verdicts(asyncio.run(quality.categories(bench, clips)))
    assert found["gate 6.2 on VoxPopuli"].level == level
    assert found["WER on VoxPopuli"].level == level
    assert found["mean of eight sets, NVIDIA 5.93"].level == "not measurable"
    assert "AMI" in found["mean of eight sets, NVIDIA 5.93"].found


def test_a_report_has_the_verdicts_first_and_escapes_what_would_break_a_table():
    verdict = Verdict("it|em", "look here", "found", "next")
    section = Section("a", "Title", (verdict,), (Table("T", [("x", "y"), ("a|b\nc", "1")]),))
    text = report.to_markdown({"model": "omni"}, [section])
    assert "| it\\|em | **look here** | found | next |" in text
    assert "| a\\|b c | 1 |" in text
    assert text.index("look here") < text.index("## Title")


def test_a_run_of_some_steps_keeps_the_sections_of_the_others(tmp_path):
    one = Section("a", "One", (Verdict("x", "pass", "y"),), (Table("T", [("x",), ("y",)]),), ("z",))
    first = report.write(tmp_path, {}, [one]).read_text()
    again = report.stored(tmp_path)
    assert report.write(tmp_path, {}, list(again.values())).read_text() == first
    assert list(again) == ["a"]
    assert report.stored(tmp_path / "none") == {}
