"""Checkpoints of unfinished recordings: read back exactly, used only where they match."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from hypothesis import given, strategies as st

from asr.config import ChunkOptions, Options, VadOptions
from asr.pipeline import checkpoint
from asr.pipeline.transcriber import Transcriber, collect
from asr.types import Segment
from tests.support import strategies
from tests.support.fakes import FakeEngine
from tests.support.makers import noise

OPTIONS = Options(vad=VadOptions(kind="off"))


@given(strategies.heard_chunks(1.0), st.sampled_from(["e", "ü\n\x00"]))
def test_chunks_are_read_back_exactly(pairs, engine):
    for chunk, hypothesis in pairs:
        place = (chunk.index % 2, chunk)
        n_words = len(hypothesis.text.split())
        more = {"word_confidences": (0.1,) * n_words, "is_cut": True, "unwritten": ((0.1, 0.2),)}
        hypothesis = replace(hypothesis, **more, is_calibrated=True)
        record = checkpoint.pack_chunk(place, hypothesis, engine)
        assert record.isascii()
        assert "\n" not in record
        assert checkpoint.unpack_chunk(record) == (place, hypothesis, engine)


@given(strategies.transcripts())
def test_transcripts_are_read_back_exactly(transcript):
    records = [checkpoint.pack_segment(segment) for segment in transcript.segments]
    segments = tuple(map(checkpoint.unpack_segment, records))
    assert checkpoint.unpack_summary(checkpoint.pack_summary(transcript), segments) == transcript


@pytest.fixture(scope="module")
def transcribe():
    """A function that transcribes; its transcriber is started only once."""
    engine = FakeEngine()
    transcriber = Transcriber(engine)

    def run(path, records, options=OPTIONS, name="fake engine"):
        """Return the transcript, the chunks that the engine heard, and all checkpoint records."""
        engine.name, engine.chunks = name, []
        new = []
        kept = checkpoint.Records(records, name, lambda *found: new.append(found[-1]))
        events = transcriber.transcribe_file(path, options, checkpoint=kept)
        return runner.run(collect(events)), engine.chunks, [*records, *new]

    with asyncio.Runner() as runner:
        runner.run(transcriber.open())
        yield run
        runner.run(transcriber.close())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = tmp_path_factory.mktemp("checkpoint") / "noise.wav"
    soundfile.write(made, noise(150), 16_000)
    return made


def test_only_what_is_missing_is_recognised(transcribe, path):
    whole, chunks, records = transcribe(path, [])
    assert len(chunks) == len(records) > 4
    for n_kept in range(len(records) + 1):
        kept = records[1::2] + records[::2]  # they finish in any order
        again, heard, now = transcribe(path, kept[:n_kept])
        assert again == whole
        assert len(heard) == len(records) - n_kept
        assert sorted(now) == sorted(records)


def test_channels_are_kept_apart(transcribe, tmp_path):
    """Both have a chunk of the same samples."""
    path = tmp_path / "two.wav"
    soundfile.write(path, np.stack([noise(70, seed=1), noise(70, seed=2)], axis=1), 16_000)
    split = replace(OPTIONS, channels="split")
    whole, chunks, records = transcribe(path, [], split)
    assert {segment.channel for segment in whole.segments} == {0, 1}
    assert len(chunks) == len(records) == 6
    for n_kept in range(len(records) + 1):
        again, heard, _ = transcribe(path, records[:n_kept], split)
        assert again == whole
        assert len(heard) == len(records) - n_kept


def test_records_of_other_chunks_or_engines_are_not_used(transcribe, path):
    _, chunks, records = transcribe(path, [])
    _, heard, _ = transcribe(path, records, name="another engine")
    assert len(heard) == len(chunks)
    shorter = replace(OPTIONS, chunk=ChunkOptions(max_seconds=20.0))
    fresh, all_of_them, _ = transcribe(path, [], shorter)
    mixed, heard, _ = transcribe(path, records, shorter)
    assert mixed == fresh
    assert len(heard) == len(all_of_them)


def test_a_chunk_is_kept_before_its_segments_are_told(path):
    kept_until, told = [0.0], []

    async def run():
        async with Transcriber(FakeEngine(slots=1)) as transcriber:
            kept = checkpoint.Records(
                [], "fake engine", lambda _, chunk, __: kept_until.append(chunk.end)
            )
            await collect(
                transcriber.transcribe_file(path, OPTIONS, checkpoint=kept),
                lambda event: (
                    isinstance(event, Segment) and told.append((event.end, kept_until[-1]))
                ),
            )

    asyncio.run(run())
    assert len(told) > 4
    assert all(end <= kept_end for end, kept_end in told)
