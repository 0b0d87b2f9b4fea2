"""The real Moonshine, on sample recordings.

Another processor or another version of ONNX Runtime may change a word, so the tests ask for words
that are easy to hear, not for exact texts.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from asr.audio.resample import decode
from asr.config import AudioLimits, DecodeOptions
from asr.engines import load_engine
from asr.engines.moonshine import engine as moonshine
from asr.engines.moonshine.engine import MoonshineEngine
from asr.engines.moonshine.folder import DECODER, ENCODER, TOKENIZER, find_folder
from asr.errors import (
    EngineFailed,
    EngineTimeout,
    EngineUnavailable,
    InvalidOption,
    WorkerDied,
)
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Audio, Chunk
from asr.workers import call
from tests.support import makers
from tests.support.burning import burn
from tests.support.paths import SAMPLES

PLAIN = DecodeOptions()


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(runner):
    engine = MoonshineEngine(2)
    runner.run(engine.open())
    yield engine
    runner.run(engine.close())


@pytest.fixture(scope="module")
def meeting():
    return np.concatenate(list(decode(SAMPLES / "meeting.wav", AudioLimits()).blocks))


def chunk_of(samples, index, start, end):
    """A chunk and its audio."""
    first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
    return Chunk(index, first, last), Audio(samples[first:last])


def template_of(engine):
    return engine._pool._template._process.pid


def children_of(engine):
    pid = template_of(engine)
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def is_alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"  # a zombie has ended


def test_it_hears_the_words_and_says_how_sure_it_is(runner, engine, meeting):
    chunk, audio = chunk_of(meeting, 3, 0, 6.6)
    heard = runner.run(engine.transcribe(chunk, audio, PLAIN))
    assert heard.chunk_index == 3
    assert "thank you for coming" in heard.text
    assert heard.words == ()  # an aligner times them
    assert len(heard.word_confidences) == len(heard.text.split())
    assert all(0 < confidence <= 1 for confidence in heard.word_confidences)
    assert -0.3 < heard.avg_logprob < 0
    assert not heard.is_cut


def test_a_second_attempt_hears_the_same_speech(runner, engine, meeting):
    chunk, audio = chunk_of(meeting, 0, 0, 3.5)
    first = runner.run(engine.transcribe(chunk, audio, PLAIN))
    again = runner.run(engine.retry(chunk, audio, PLAIN))
    assert "thank you for coming" in again.text
    assert again.avg_logprob != first.avg_logprob  # it got other input
    assert "silence" in engine.retry_note


def test_the_order_of_the_chunks_does_not_matter(runner, engine, meeting):
    chunks = [chunk_of(meeting, i, 1.5 * i, 1.5 * i + 2) for i in range(4)]

    async def one_by_one():
        return [await engine.transcribe(*chunk, PLAIN) for chunk in chunks]

    async def together_backwards():
        work = (engine.transcribe(*chunk, PLAIN) for chunk in reversed(chunks))
        return list(await asyncio.gather(*work))[::-1]

    first = runner.run(one_by_one())
    assert runner.run(together_backwards()) == first
    assert any(hypothesis.text for hypothesis in first)


@pytest.mark.parametrize("n_samples", [1, 100, 400, 894, 8_000])
def test_silence_has_no_text(runner, engine, n_samples):
    audio = Audio(makers.silence(n_samples / SAMPLE_RATE))
    hypothesis = runner.run(engine.transcribe(Chunk(0, 0, n_samples), audio, PLAIN))
    assert hypothesis.text == ""
    assert hypothesis.word_confidences == ()


@pytest.mark.parametrize("n_samples", [1, 160, 894, 895, 1_600])
def test_a_chunk_too_short_for_the_network_does_no_harm(runner, engine, meeting, n_samples):
    audio = Audio(meeting[16_000 : 16_000 + n_samples])
    hypothesis = runner.run(engine.transcribe(Chunk(0, 0, n_samples), audio, PLAIN))
    assert len(hypothesis.text.split()) <= 8


def test_noise_and_full_scale_do_no_harm(runner, engine):
    audio = Audio(np.clip(makers.noise(1, level=3), -1, 1))
    assert runner.run(engine.transcribe(Chunk(0, 0, SAMPLE_RATE), audio, PLAIN)).text == ""


@pytest.mark.parametrize("language", [None, "en", "EN", "en-US", "english", ""])
def test_english_is_served(language):
    assert MoonshineEngine(1).check(DecodeOptions(language=language)) == ()


@pytest.mark.parametrize("language", ["de", "eng-de", "fr-en", "entish"])
def test_other_languages_are_refused(language):
    with pytest.raises(InvalidOption, match="English only") as caught:
        MoonshineEngine(1).check(DecodeOptions(language=language))
    assert caught.value.name == "language"


def test_ignored_options_are_told():
    options = DecodeOptions(prompt="A talk.", keywords=("Nemotron",), temperature=0.5)
    assert MoonshineEngine(1).check(options) == (
        "Moonshine ignores prompt",
        "Moonshine ignores keywords",
        "Moonshine ignores temperature",
    )
    assert MoonshineEngine(1).check(DecodeOptions(temperature=0)) == ()


def test_settings_choose_the_engine_and_its_model():
    engine = load_engine(Settings(engine="auto", cpu_workers=3))
    assert isinstance(engine, MoonshineEngine)
    assert (engine.model, engine.slots, engine.language) == ("moonshine-tiny-en", 3, "en")
    assert engine.name.startswith("moonshine-tiny-en on onnxruntime 1.")
    other = load_engine(Settings(engine="moonshine", moonshine_model="/models/base-en"))
    assert other.model == "base-en"


def test_another_folder_of_the_same_form(runner, tmp_path, meeting):
    """The files of base have other hashes, so only the presence of the files is checked."""
    folder = tmp_path / "copy"
    shutil.copytree(find_folder(""), folder)

    async def run():
        engine = MoonshineEngine(1, str(folder))
        await engine.open()
        try:
            return await engine.transcribe(*chunk_of(meeting, 0, 0, 3.5), PLAIN)
        finally:
            await engine.close()

    assert "thank you" in runner.run(run()).text


def cut(path):
    path.write_bytes(path.read_bytes()[:100_000])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / ENCODER).write_bytes(b"not a model"), "verification failed"),
        (lambda folder: cut(folder / DECODER), "verification failed"),
        (lambda folder: shutil.copy(folder / ENCODER, folder / DECODER), "not a decoder"),
        (lambda folder: shutil.copy(folder / DECODER, folder / ENCODER), ""),
        (lambda folder: cut(folder / TOKENIZER), "ends within a piece|another model"),
        (lambda folder: (folder / TOKENIZER).write_bytes(b""), "another model"),
    ],
)
def test_a_damaged_model_does_not_open(runner, tmp_path, capfd, damage, reason):
    folder = tmp_path / "damaged"
    shutil.copytree(find_folder(""), folder)
    damage(folder)

    async def run():
        engine = MoonshineEngine(1, str(folder))
        message = rf"did not load.*({reason}).*: correct ASR_MOONSHINE_MODEL$"
        with pytest.raises(EngineUnavailable, match=message) as caught:
            await engine.open()
        await engine.close()
        return str(caught.value)

    assert "\n" not in runner.run(run())
    assert "Traceback" not in capfd.readouterr().err


def test_it_must_be_opened_first(runner, meeting):
    with pytest.raises(EngineUnavailable, match="not loaded"):
        runner.run(MoonshineEngine(1).transcribe(*chunk_of(meeting, 0, 0, 1), PLAIN))


def test_a_child_that_is_killed_each_time_fails_its_chunk_and_no_other(
    runner, engine, meeting, monkeypatch
):
    monkeypatch.setattr(call, "TRIES", 1)

    async def run():
        chunk, audio = chunk_of(meeting, 5, 0, 26)
        work = asyncio.create_task(engine.transcribe(chunk, audio, PLAIN))
        while not (running := children_of(engine)):
            await asyncio.sleep(0.01)
        os.kill(running[0], signal.SIGKILL)
        with pytest.raises(WorkerDied, match=r"chunk at 0\.0 s: .*SIGKILL") as caught:
            await work
        assert caught.value.signal == signal.SIGKILL
        again = await engine.transcribe(*chunk_of(meeting, 6, 0.4, 3.5), PLAIN)
        return caught.value.chunk_index, again

    index, hypothesis = runner.run(run())
    assert index == 5
    assert "morning" in hypothesis.text


def test_a_chunk_survives_killed_children(runner, engine, meeting):
    """Twice somebody kills the child, and the third one answers as if nothing had happened."""

    async def run():
        chunk, audio = chunk_of(meeting, 5, 0, 26)
        undisturbed = await engine.transcribe(chunk, audio, PLAIN)
        work = asyncio.create_task(engine.transcribe(chunk, audio, PLAIN))
        killed = set()
        while len(killed) < call.TRIES - 1:
            for child in set(children_of(engine)) - killed:
                os.kill(child, signal.SIGKILL)
                killed.add(child)
            await asyncio.sleep(0.01)
        return undisturbed, await work

    undisturbed, disturbed = runner.run(run())
    assert disturbed == undisturbed


def test_a_chunk_survives_a_killed_template(runner, engine, meeting):
    async def run():
        old = template_of(engine)
        chunk, audio = chunk_of(meeting, 5, 0, 26)
        work = asyncio.create_task(engine.transcribe(chunk, audio, PLAIN))
        while not children_of(engine):
            await asyncio.sleep(0.01)
        os.kill(old, signal.SIGKILL)
        assert "morning" in (await work).text
        again = await engine.transcribe(*chunk_of(meeting, 6, 0.4, 3.5), PLAIN)
        return old, template_of(engine), again

    old, new, hypothesis = runner.run(run())
    assert old != new
    assert "morning" in hypothesis.text


def test_a_chunk_that_takes_too_long(runner, engine, meeting, monkeypatch):
    asked = burn(engine._pool, monkeypatch)
    with pytest.raises(EngineTimeout, match=r"chunk at 0\.0 s"):
        runner.run(engine.transcribe(*chunk_of(meeting, 0, 0, 5), PLAIN))
    assert [limits.cpu_seconds for limits in asked] == [80]


def test_a_chunk_that_needs_too_much_memory(runner, engine, meeting, monkeypatch):
    monkeypatch.setattr(moonshine, "MEMORY_BYTES", 1 << 20)
    with pytest.raises(EngineFailed, match=r"chunk at 0\.0 s"):
        runner.run(engine.transcribe(*chunk_of(meeting, 0, 0, 20), PLAIN))


def test_cancelling_frees_the_cpu(runner, engine, meeting):
    async def run():
        work = asyncio.create_task(engine.transcribe(*chunk_of(meeting, 0, 0, 26), PLAIN))
        while not children_of(engine):
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        return children_of(engine)

    assert runner.run(run()) == []


def test_opening_again_leaves_no_second_template(runner):
    async def run():
        engine = MoonshineEngine(1)
        await engine.open()
        first = template_of(engine)
        await engine.open()
        second = template_of(engine)
        await engine.close()
        return first, second

    first, second = runner.run(run())
    assert first != second
    assert not is_alive(first)
    assert not is_alive(second)


def test_closing_ends_the_processes(meeting):
    async def run():
        engine = MoonshineEngine(1)
        await engine.open()
        pid = template_of(engine)
        work = asyncio.create_task(engine.transcribe(*chunk_of(meeting, 4, 0, 26), PLAIN))
        while not (running := children_of(engine)):
            await asyncio.sleep(0.01)
        await engine.close()
        with pytest.raises(WorkerDied):
            await work
        return [pid, *running]

    assert not any(is_alive(pid) for pid in asyncio.run(run()))
