"""The whole pipeline with the HTTP engine and a fake vLLM server on a real socket."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from asr.config import Options, VadOptions
from asr.engines.omni.http import VllmHttpEngine, VllmOptions
from asr.pipeline.transcriber import Transcriber, collect
from asr.types import Segment
from tests.support import makers
from tests.support.chat_server import ChatServer, completion
from tests.support.serving import until

N_CHUNKS = 12


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two recordings: twelve bursts of speech, so far apart that each is a chunk, and one burst."""
    folder = tmp_path_factory.mktemp("recordings")
    spans = [(1 + 4.5 * i, 2.6 + 4.5 * i) for i in range(N_CHUNKS)]
    long = makers.write(folder / "long.wav", makers.bursts(56, spans))
    return long, makers.write(folder / "short.wav", makers.bursts(5, spans[:1]))


@contextlib.asynccontextmanager
async def service(delay: float, slots: int):
    async with ChatServer(delay=delay) as server:
        engine = VllmHttpEngine(VllmOptions((server.url,), slots=slots))
        async with Transcriber(engine) as transcriber:
            yield server, transcriber


def test_segments_come_in_order_while_later_chunks_are_in_work(recordings):
    async def run():
        async with service(0.05, 4) as (server, transcriber):
            served = []

            def note(event):
                if isinstance(event, Segment):
                    served.append(server.served)

            transcript = await collect(transcriber.transcribe_file(recordings[0], Options()), note)
            assert server.most == 4
            return served, transcript

    served, transcript = asyncio.run(run())
    assert transcript.text == " ".join(["hello from one"] * N_CHUNKS)
    starts = [word.start for word in transcript.words]
    assert starts == sorted(starts)
    assert served[0] < N_CHUNKS
    assert transcript.engine == "omni (nvidia/omni on vllm)"


def test_cancelling_a_recording_aborts_what_is_in_flight(recordings):
    async def run():
        async with service(30, 5) as (server, transcriber):
            work = collect(transcriber.transcribe_file(recordings[0], Options()))
            task = asyncio.create_task(work)
            await until(lambda: server.in_flight == 5)
            task.cancel()
            await until(lambda: server.aborted == 5)
            assert (server.in_flight, server.served) == (0, 0)
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())


def test_a_short_recording_overtakes_a_long_one(recordings):
    async def run():
        async with service(0.15, 1) as (server, transcriber):
            long, short = recordings
            first = asyncio.create_task(collect(transcriber.transcribe_file(long, Options())))
            await until(lambda: server.served >= 1)
            transcript = await collect(transcriber.transcribe_file(short, Options()))
            assert transcript.text == "hello from one"
            assert server.served < N_CHUNKS
            assert not first.done()
            assert (await first).text.count("hello") == N_CHUNKS

    asyncio.run(run())


def test_a_loop_is_mended_and_the_segment_says_so(recordings):
    async def run():
        async with service(0, 1) as (server, transcriber):
            server.answers = [(200, {}, completion("thank you " * 40))]
            return await collect(transcriber.transcribe_file(recordings[1], Options()))

    (segment,) = asyncio.run(run()).segments
    assert segment.text == "hello from one"
    assert "repeats itself" in segment.warnings[0]


def test_log_probabilities_reach_the_words_of_the_transcript(recordings):
    tokens = [{"token": text, "bytes": None, "logprob": -0.5} for text in ("so", " it", " is")]

    async def run():
        async with service(0, 1) as (server, transcriber):
            answer = completion("so it is", logprobs={"content": tokens})
            server.answers = [(200, {}, answer)]
            return await collect(transcriber.transcribe_file(recordings[1], Options()))

    transcript = asyncio.run(run())
    assert [word.confidence for word in transcript.words] == [0.6065] * 3
    assert transcript.segments[0].avg_logprob == -0.5


def test_an_empty_answer_is_asked_again_only_where_a_vad_heard_speech(recordings):
    async def run(vad):
        async with service(0, 1) as (server, transcriber):
            server.answers = [(200, {}, completion(""))] * 4
            options = Options(vad=VadOptions(kind=vad))
            await collect(transcriber.transcribe_file(recordings[1], options))
            return len(server.headers)

    assert asyncio.run(run("webrtc")) > 1
    assert asyncio.run(run("off")) == 1
