"""Word times through the whole pipeline: the real aligner, and an engine without errors."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from asr.align.hmm.aligner import SphinxAligner
from asr.align.witness import witness
from asr.cli import main
from asr.config import ChunkOptions, Options
from asr.engines.omni.prompt import RETRY_NOTE, warmer
from asr.evaluation import ReferenceEngine, evaluate, read_manifest
from asr.pipeline.transcriber import Transcriber, collect
from asr.types import Chunk, Hypothesis, Word
from tests.support.paths import SAMPLES

PLAIN = Options()


def utterance(name):
    (found,) = [it for it in read_manifest(SAMPLES / "manifest.jsonl") if it.file.stem == name]
    return found


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


def transcribe(runner, engine, name, options=PLAIN, **parts):
    async def run():
        async with Transcriber(engine, SphinxAligner(2), **parts) as transcriber:
            return await collect(transcriber.transcribe_file(utterance(name).file, options))

    return runner.run(run())


def test_the_reference_engine_says_what_is_said_in_the_chunk(runner):
    engine = ReferenceEngine(1)
    engine.words = (Word("one", 0.5, 0.9), Word("two", 0.9, 1.3), Word("three", 1.4, 1.8))
    chunk = Chunk(7, 8_000, 17_000)  # 0.5 s to 1.06 s: less than half of "two"
    heard = runner.run(engine.transcribe(chunk, None, PLAIN.decode))
    assert heard == Hypothesis(7, "one")
    assert runner.run(engine.transcribe(Chunk(0, 17_000, 32_000), None, PLAIN.decode)).text == (
        "two three"
    )


@pytest.mark.parametrize(("name", "seconds"), [("meeting", 8.0), ("memo", 30.0)])
def test_times_through_the_whole_line(runner, name, seconds):
    engine = ReferenceEngine(2)
    engine.words = utterance(name).words
    options = Options(chunk=ChunkOptions(max_seconds=seconds))
    transcript = transcribe(runner, engine, name, options)
    report = evaluate([utterance(name)], lambda _: transcript)
    assert report.words.wer == 0
    assert report.times.matched_share == 1
    assert report.times.start_median < 0.03
    assert report.times.within(0.1)[0] >= 0.95
    assert {word.timing for word in transcript.words} == {"aligned"}
    assert transcript.aligner.startswith("forced alignment on pocketsphinx")
    assert transcript.engine == "reference text"


class Inventive(ReferenceEngine):
    """An engine whose first answer for a chunk has invented words."""

    guarded = True
    retry_note = RETRY_NOTE
    invented = "and do not forget to subscribe to this wonderful channel"

    async def transcribe(self, chunk, audio, options):
        heard = await super().transcribe(chunk, audio, options)
        if options.temperature is None:
            half = heard.text.split()
            half[4:4] = self.invented.split()
            return Hypothesis(chunk.index, " ".join(half))
        return heard

    async def retry(self, chunk, audio, options):
        return await self.transcribe(chunk, audio, warmer(options))


def test_invented_words_are_asked_for_again(runner):
    engine = Inventive(2)
    engine.words = utterance("memo").words
    transcript = transcribe(runner, engine, "memo", witness=witness)
    assert transcript.text == utterance("memo").text
    (warning,) = {said for segment in transcript.segments for said in segment.warnings}
    assert "cannot be heard in the audio" in warning
    assert "replaced" in warning


@pytest.mark.slow
def test_invented_words_that_stay_are_told_with_their_times(runner):
    engine = Inventive(2)
    engine.words = utterance("memo").words
    plain = ReferenceEngine.transcribe

    async def always(chunk, audio, options):
        heard = await plain(engine, chunk, audio, options)
        texts = heard.text.split()
        texts[4:4] = engine.invented.split()
        return Hypothesis(chunk.index, " ".join(texts))

    engine.transcribe = always
    transcript = transcribe(runner, engine, "memo", witness=witness)
    assert engine.invented in transcript.text
    (warning,) = {said for segment in transcript.segments for said in segment.warnings}
    assert "the text is in doubt" in warning
    assert "cannot be heard in the audio" in warning
    made_up = [word for word in transcript.words if word.text in engine.invented.split()]
    assert np.mean([word.confidence for word in made_up]) < 0.5


def test_the_command_measures_times(tmp_path, capsys):
    lines = (SAMPLES / "manifest.jsonl").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if "memo.m4a" in line]
    record = json.loads(line)
    record["file"] = str(SAMPLES / record["file"])
    (tmp_path / "one.jsonl").write_text(json.dumps(record), encoding="utf-8")
    arguments = ["evaluate", "--times", "-q", "--json", str(tmp_path / "out.json")]
    assert main([*arguments, "--chunk-seconds", "10", str(tmp_path / "one.jsonl")]) == 0
    found = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert found["overall"]["matched_share"] == 1
    assert found["overall"]["start_median"] < 0.03
    assert "reference text + forced alignment" in capsys.readouterr().out
    assert main([*arguments, "--aligner", "none", str(tmp_path / "one.jsonl")]) == 0
    naive = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert naive["overall"]["start_median"] > 3 * found["overall"]["start_median"]
