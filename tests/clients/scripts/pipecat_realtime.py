"""Pipecat's OpenAIRealtimeSTTService: its default, which commits, and the server's semantic VAD."""

import asyncio

from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    InputAudioRawFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat.workers.runner import WorkerRunner
from report import BASE, CHUNK, KEY, pcm_24k, report

URL = f"{BASE.replace('http', 'ws', 1)}/realtime"
PIECE_SECONDS = 0.1
SILENCE = bytes(2 * 24000 * 2)


class Sink(FrameProcessor):
    """Collects the transcripts up to the last word of the recording."""

    def __init__(self, ended):
        super().__init__()
        self.texts, self._ended = [], ended

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            self.texts.append(frame.text)
            if "office" in frame.text.lower():
                self._ended.set()
        await self.push_frame(frame, direction)


class Source(FrameProcessor):
    """Notices errors."""

    errors = ()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, ErrorFrame):
            self.errors = (*self.errors, frame.error)
        await self.push_frame(frame, direction)


async def transcribe(what, **options):
    service = OpenAIRealtimeSTTService(api_key=KEY, base_url=URL, **options)
    started, ended = asyncio.Event(), asyncio.Event()
    source, sink = Source(), Sink(ended)
    params = PipelineParams(audio_in_sample_rate=24000)
    worker = PipelineWorker(Pipeline([source, service, sink]), params=params)
    worker.event_handler("on_pipeline_started")(lambda *_: started.set())

    async def speak():
        await started.wait()
        pcm = pcm_24k() + SILENCE
        for start in range(0, len(pcm), CHUNK):
            piece = pcm[start : start + CHUNK]
            await worker.queue_frame(InputAudioRawFrame(piece, 24000, 1))
            await asyncio.sleep(PIECE_SECONDS)  # as a microphone
        if not options:  # the VAD of the pipeline found the end of the turn
            await worker.queue_frame(VADUserStoppedSpeakingFrame())
        async with asyncio.timeout(60):
            await ended.wait()
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), speak())
    assert not source.errors, source.errors
    report(what, " ".join(sink.texts))


async def main():
    await transcribe("default")
    settings = OpenAIRealtimeSTTService.Settings(model="gpt-transcribe")
    vad = {"type": "semantic_vad"}
    await transcribe("semantic_vad", turn_detection=vad, settings=settings)


asyncio.run(main())
