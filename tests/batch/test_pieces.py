"""The law of pieces: what is recognised in pieces and stitched equals the transcript of one run."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from asr.audio.recording import Recording, channel_path
from asr.batch.pieces import Plan, cut, make_plan, recognise_piece, stitch_pieces
from asr.config import ChunkOptions, Options, SpeakerOptions, VadOptions
from asr.errors import EngineFailed
from asr.pipeline.transcriber import Transcriber, collect
from asr.types import Chunk
from tests.batch.inline import TellingEngine, talk
from tests.pipeline.test_speakers import FakeDiariser
from tests.support import makers


class Failing(TellingEngine):
    """Fails on every fifth chunk."""

    async def transcribe(self, chunk, audio, options):
        if chunk.index % 5 == 1:
            raise EngineFailed("no")
        return await super().transcribe(chunk, audio, options)


def two_channels(seconds):
    return np.stack([talk(seconds, 1), np.roll(talk(seconds, 2), 16_000 * 5)], axis=1)


def with_a_hole(seconds):
    samples = talk(seconds)
    samples[16_000 * 6 : 16_000 * 16] = 0
    return samples


OPTIONS = Options(chunk=ChunkOptions(max_seconds=8.0, search=3.0))
"""Short chunks, so that short recordings have many."""
CASES = {
    "pauses": (lambda: talk(24.0), OPTIONS, TellingEngine),
    "no pause": (lambda: makers.speech(22.0), OPTIONS, TellingEngine),
    "channels": (lambda: two_channels(15.0), replace(OPTIONS, channels="split"), TellingEngine),
    "digital silence": (lambda: with_a_hole(24.0), OPTIONS, TellingEngine),
    "no vad": (lambda: talk(24.0), replace(OPTIONS, vad=VadOptions("off")), TellingEngine),
    "gaps": (lambda: talk(24.0), replace(OPTIONS, on_error="gap"), Failing),
    "silence": (lambda: makers.silence(5.0), OPTIONS, TellingEngine),
}


async def planned(transcriber, source, target, options):
    plan = await make_plan(transcriber, source, target, options, 5.0)
    return Plan.unpack(plan.pack())


async def in_pieces(transcriber, plan, target, options):
    recordings = {
        channel: Recording(channel_path(target, channel)) for channel in range(plan.n_channels)
    }
    records = []
    for places in reversed(plan.pieces):
        records += await recognise_piece(transcriber, places, recordings, options)
    return await stitch_pieces(transcriber, plan, target, records, options)


@pytest.mark.parametrize("name", CASES)
def test_pieces_give_the_transcript_of_one_run(name, tmp_path):
    make, options, engine = CASES[name]
    source, target = makers.write(tmp_path / "a.wav", make()), tmp_path / "audio.pcm"

    async def compare():
        async with Transcriber(engine()) as transcriber:
            whole = await collect(transcriber.transcribe_file(source, options, tmp_path))
            plan = await planned(transcriber, source, target, options)
            places = [place for piece in plan.pieces for place in piece]
            for seconds in (4.0, 9.0):
                plan = Plan(plan.reports, cut(places, seconds))
                assert await in_pieces(transcriber, plan, target, options) == whole
                if name != "silence":
                    assert len(plan.pieces) > 1
                    assert whole.words
            assert (name == "gaps") == bool(whole.gaps)

    asyncio.run(compare())


def test_an_error_of_a_chunk_is_raised_without_gaps(tmp_path):
    source, target = makers.write(tmp_path / "a.wav", talk(20.0)), tmp_path / "audio.pcm"

    async def fail():
        async with Transcriber(Failing()) as transcriber:
            plan = await planned(transcriber, source, target, Options())
            with pytest.raises(EngineFailed):
                await in_pieces(transcriber, plan, target, Options())

    asyncio.run(fail())


def test_the_voices_of_a_split_recording_are_found_by_the_workers_of_its_pieces(tmp_path):
    source, target = makers.write(tmp_path / "a.wav", talk(18.0)), tmp_path / "audio.pcm"
    options = Options(speakers=SpeakerOptions())
    diariser = FakeDiariser(changes=(12.0,))

    async def compare():
        async with Transcriber(TellingEngine(), diariser=diariser) as transcriber:
            whole = await collect(transcriber.transcribe_file(source, options, tmp_path))
            n_chunks, diariser.n_embedded = diariser.n_embedded, 0
            plan = await planned(transcriber, source, target, options)
            assert diariser.n_embedded == 0
            assert await in_pieces(transcriber, plan, target, options) == whole
            assert diariser.n_embedded == n_chunks
            assert {segment.speaker for segment in whole.segments} == {"A", "B"}

    asyncio.run(compare())


def chunks(*spans):
    return [(0, Chunk(n, start, end, overlap)) for n, (start, end, overlap) in enumerate(spans)]


def test_pieces_end_in_silence():
    rate = 16_000
    places = chunks(
        (0, 30 * rate, 0),
        (29 * rate, 58 * rate, rate),  # overlaps the one before
        (60 * rate, 90 * rate, 0),
        (91 * rate, 99 * rate, 0),
    )
    assert [len(piece) for piece in cut(places, 29.0)] == [2, 1, 1]


def test_a_piece_is_cut_in_speech_if_there_is_no_silence():
    rate = 16_000
    spans = [(29 * n * rate, (29 * n + 30) * rate, rate if n else 0) for n in range(8)]
    assert [len(piece) for piece in cut(chunks(*spans), 60.0)] == [4, 4]


def test_no_chunk_is_lost_or_doubled():
    rng = np.random.default_rng(1)
    starts = np.cumsum(rng.integers(1, 40, 200)) * 16_000
    places = chunks(*((int(s), int(s) + 16_000, 0) for s in starts))
    for seconds in (0.1, 10.0, 300.0, 1e9):
        assert [place for piece in cut(places, seconds) for place in piece] == places
