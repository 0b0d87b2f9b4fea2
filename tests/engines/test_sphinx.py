"""The real pocketsphinx, on a sample recording."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from asr.audio.resample import decode
from asr.config import AudioLimits, DecodeOptions
from asr.engines import sphinx
from asr.engines.sphinx import SphinxEngine
from asr.errors import EngineFailed, EngineTimeout, EngineUnavailable, InvalidOption
from asr.types import SAMPLE_RATE, Audio, Chunk
from asr.workers.pool import ProcessPool
from tests.support import makers
from tests.support.paths import SAMPLES

PLAIN = DecodeOptions()


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(runner):
    engine = SphinxEngine(2)
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


def children_of(engine):
    pid = engine._pool._template._process.pid
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def is_alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"  # a zombie has ended


def test_it_hears_the_words_at_their_times(runner, engine, meeting):
    chunk, audio = chunk_of(meeting, 3, 0, 3)
    hypothesis = runner.run(engine.transcribe(chunk, audio, PLAIN))
    assert hypothesis.chunk_index == 3
    assert hypothesis.text == " ".join(word.text for word in hypothesis.words)
    about = json.loads((SAMPLES / "meeting.json").read_text(encoding="utf-8"))
    for expected in about["words"][:3]:  # Good morning, everyone,
        text = expected["text"].strip(",").lower()
        (heard,) = (word for word in hypothesis.words if word.text == text)
        assert heard.start == pytest.approx(expected["start"], abs=0.1)
        assert heard.end == pytest.approx(expected["end"], abs=0.15)
        assert heard.timing == "engine"


def test_words_are_in_order_inside_the_chunk_with_confidences(runner, engine, meeting):
    chunk, audio = chunk_of(meeting, 0, 4.2, 8.77)  # begins and ends within words
    words = runner.run(engine.transcribe(chunk, audio, PLAIN)).words
    assert len(words) >= 8
    assert all(0 <= word.start < word.end <= chunk.duration for word in words)
    assert all(before.end <= after.start + 1e-9 for before, after in pairwise(words))
    assert all(0 <= word.confidence <= 1 for word in words)
    assert len({word.confidence for word in words}) > 1
    assert not any(set("()<>[]") & set(word.text) for word in words)


def test_the_order_of_the_chunks_does_not_matter(runner, engine, meeting):
    """A reused decoder would keep the noise estimate of the previous chunk."""
    chunks = [chunk_of(meeting, i, 1.5 * i, 1.5 * i + 2) for i in range(4)]

    async def one_by_one():
        return [await engine.transcribe(*chunk, PLAIN) for chunk in chunks]

    async def together_backwards():
        work = (engine.transcribe(*chunk, PLAIN) for chunk in reversed(chunks))
        return list(await asyncio.gather(*work))[::-1]

    first = runner.run(one_by_one())
    assert runner.run(together_backwards()) == first
    assert all(hypothesis.words for hypothesis in first)


@pytest.mark.parametrize("n_samples", [1, 100, 400, 8_000])
def test_silence_has_no_words(runner, engine, n_samples):
    audio = Audio(makers.silence(n_samples / SAMPLE_RATE))
    hypothesis = runner.run(engine.transcribe(Chunk(0, 0, n_samples), audio, PLAIN))
    assert (hypothesis.text, hypothesis.words) == ("", ())


def test_noise_and_full_scale_do_no_harm(runner, engine):
    audio = Audio(np.clip(makers.noise(1, level=3), -1, 1))
    hypothesis = runner.run(engine.transcribe(Chunk(0, 0, SAMPLE_RATE), audio, PLAIN))
    assert all(0 <= word.start <= word.end <= 1 for word in hypothesis.words)


@pytest.mark.parametrize("language", [None, "en", "EN", "en-US", "english"])
def test_english_is_served(language):
    assert SphinxEngine(1).check(DecodeOptions(language=language)) == ()


@pytest.mark.parametrize("language", ["de", "eng-de", "fr-en", "", "entish"])
def test_other_languages_are_refused(language):
    if language == "":  # an empty string means no language
        assert SphinxEngine(1).check(DecodeOptions(language=language)) == ()
        return
    with pytest.raises(InvalidOption, match="English only") as caught:
        SphinxEngine(1).check(DecodeOptions(language=language))
    assert caught.value.name == "language"


def test_ignored_options_are_told():
    options = DecodeOptions(prompt="A talk.", keywords=("Nemotron",), temperature=0.5)
    assert SphinxEngine(1).check(options) == (
        "pocketsphinx ignores prompt",
        "pocketsphinx ignores keywords",
        "pocketsphinx ignores temperature",
    )
    assert SphinxEngine(1).check(DecodeOptions(temperature=0)) == ()


def test_the_transcript_will_name_its_engine():
    engine = SphinxEngine(3)
    assert engine.name.startswith("pocketsphinx 5")
    assert (engine.model, engine.slots, engine.language) == ("pocketsphinx", 3, "en")


def test_a_killed_child_fails_its_chunk_and_no_other(runner, engine, meeting):
    async def run():
        chunk, audio = chunk_of(meeting, 5, 0, 26)
        work = asyncio.create_task(engine.transcribe(chunk, audio, PLAIN))
        while not (running := children_of(engine)):
            await asyncio.sleep(0.01)
        os.kill(running[0], signal.SIGKILL)
        with pytest.raises(EngineFailed, match=r"chunk at 0\.0 s: .*SIGKILL") as caught:
            await work
        return caught.value.chunk_index, await engine.transcribe(
            *chunk_of(meeting, 6, 0.4, 1.9), PLAIN
        )

    index, hypothesis = runner.run(run())
    assert index == 5
    assert "morning" in hypothesis.text


def test_a_killed_template_is_started_again(runner, engine, meeting):
    async def run():
        old = engine._pool._template._process.pid
        chunk, audio = chunk_of(meeting, 5, 0, 26)
        work = asyncio.create_task(engine.transcribe(chunk, audio, PLAIN))
        while not children_of(engine):
            await asyncio.sleep(0.01)
        os.kill(old, signal.SIGKILL)
        with pytest.raises(EngineFailed):
            await work
        again = await engine.transcribe(*chunk_of(meeting, 6, 0.4, 1.9), PLAIN)
        return old, engine._pool._template._process.pid, again

    old, new, hypothesis = runner.run(run())
    assert old != new
    assert "morning" in hypothesis.text


def test_a_chunk_that_takes_too_long(runner, engine, meeting, monkeypatch):
    monkeypatch.setattr(sphinx, "CPU_SECONDS_BASE", 1)
    monkeypatch.setattr(sphinx, "CPU_SECONDS_PER_SECOND", 0)
    loop_of_speech = np.tile(meeting, 3)
    with pytest.raises(EngineTimeout, match=r"chunk at 0\.0 s"):
        runner.run(engine.transcribe(*chunk_of(loop_of_speech, 0, 0, 75), PLAIN))


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


def test_models_that_do_not_load(capfd):
    engine = SphinxEngine(1)
    engine._pool = ProcessPool(["tests.support.child_jobs:fail_to_load"], 1)

    async def run():
        with pytest.raises(EngineUnavailable, match="pocketsphinx did not load"):
            await engine.open()
        await engine.close()

    asyncio.run(run())
    assert "this template does not load" in capfd.readouterr().err


def test_closing_ends_the_processes(meeting):
    async def run():
        engine = SphinxEngine(1)
        await engine.open()
        pid = engine._pool._template._process.pid
        work = asyncio.create_task(engine.transcribe(*chunk_of(meeting, 4, 0, 26), PLAIN))
        while not (running := children_of(engine)):
            await asyncio.sleep(0.01)
        await engine.close()
        with pytest.raises(EngineFailed):
            await work
        return [pid, *running]

    assert not any(is_alive(pid) for pid in asyncio.run(run()))
