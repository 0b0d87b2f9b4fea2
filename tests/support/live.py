"""A live session in process, without a socket: a speaker whose words are known.

The engine knows the words and their times. Its interim hypotheses change: the word at the end of
the audio is guessed, others are sometimes misheard, and the last one gets a full stop.
"""

import asyncio
import base64
import itertools
import json
import random
from collections import defaultdict

import numpy as np

from asr.audio.recording import Recording
from asr.config import Options
from asr.errors import EngineError
from asr.pipeline.stitch import stitch
from asr.service.live.session import LiveSession, SessionLimits
from asr.service.live.session_config import SessionConfig
from asr.types import SAMPLE_RATE, Chunk, Transcript, Word
from tests.support.makers import speech
from tests.support.strategies import hear

RATE_16 = {"type": "audio/pcm", "rate": SAMPLE_RATE}


def events_of(truth, turn, noise):
    """The segments and the transcript of a turn in which `truth` is spoken."""
    start, end = turn.start_sample - turn.lead, turn.end_sample + turn.tail
    segments = stitch([Chunk(0, 0, end - start)], [hear(truth, Chunk(0, start, end), noise)])
    seconds = (end - start) / SAMPLE_RATE
    return [*segments, Transcript(segments, "en", seconds, seconds, 0.0, "fake")]


class Engine:
    """The backend of a session; its words are spoken from the start of the session.

    Args:
        truth: the words with their times in the session.
        pcm: all samples of the session, by which it finds out what part it hears.
        seed: of the errors.
        misheard: the probability of an error in each word of an interim hypothesis.
        delay: seconds, or iterations of the event loop if it is 0, per interim request.
        interim: a function of (start, end) in samples that returns the interim text instead.
        final_delay: iterations of the event loop per final transcript.

    Attributes:
        windows: (start, end) in samples of each interim request.
        running: interim requests in progress; `max_running` is the highest number.
        cancelled: number of interim requests that were cancelled.
        kept: the final transcripts with their turns.
    """

    def __init__(self, truth, pcm, seed=0, misheard=0.0, delay=0.0, interim=None, final_delay=0):
        self.truth, self.misheard, self.delay = truth, misheard, delay
        self.final_delay = final_delay
        self._interim = interim or self._guess
        self._noise = random.Random(seed)
        self._bytes = pcm.astype("<i2").tobytes()
        self.windows, self.kept = [], []
        self.running = self.max_running = self.cancelled = 0

    async def recognise_interim(self, pcm, decode):
        start = self._bytes.index(pcm[:200].astype("<i2").tobytes()) // 2
        self.windows.append((start, start + len(pcm)))
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return self._interim(start, start + len(pcm))

    def _guess(self, start, end):
        texts = []
        for word in self.truth:
            if word.start * SAMPLE_RATE < start or word.start * SAMPLE_RATE > end:
                continue
            is_whole = word.end * SAMPLE_RATE <= end
            is_right = is_whole and self._noise.random() >= self.misheard
            texts.append(word.text if is_right else f"{word.text}-{self._noise.randrange(10**6)}")
        return " ".join(texts) + "." if texts else ""

    async def transcribe(self, turn, vad, decode, speakers=None):
        for _ in range(self.final_delay):
            await asyncio.sleep(0)
        for event in events_of(self.truth, turn, self._noise):
            yield event

    def count_bytes(self, n_bytes):
        pass

    def keep(self, turn, transcript):
        self.kept.append((turn, transcript))


class Pipeline:
    """A backend that runs the real pipeline with any engine, without a worker process."""

    def __init__(self, transcriber, folder):
        self._transcriber = transcriber
        self._folder = folder

    async def recognise_interim(self, pcm, decode):
        path = self._folder / "interim"
        path.write_bytes(pcm.astype("<i2").tobytes())
        try:
            return await self._transcriber.recognise_interim(Recording(path), decode, "speaker")
        except EngineError:
            return None

    async def transcribe(self, turn, vad, decode, speakers=None):
        options = Options(vad=vad, decode=decode)
        async for event in self._transcriber.transcribe_pcm(turn.path, options):
            yield event

    def count_bytes(self, n_bytes):
        pass

    def keep(self, turn, transcript):
        pass


class Client:
    """Sends audio in pieces, then `last` events, and disconnects.

    Args:
        pcm: 16 kHz samples.
        first: events before the audio.
        last: events after it.
        piece: samples in a message.
        pace: iterations of the event loop between two messages.
        seconds: between two messages.
    """

    def __init__(self, pcm, first=(), last=(), piece=1600, pace=12, seconds=0.0):
        self._seconds = seconds
        pieces = (pcm[n : n + piece] for n in range(0, len(pcm), piece))
        audio = (
            {
                "type": "input_audio_buffer.append",
                "audio": base64.b64encode(it.astype("<i2").tobytes()).decode(),
            }
            for it in pieces
        )
        self._events = itertools.chain(first, audio, last)
        self._pace = pace
        self.received = []

    def processed(self):
        """The session frees the memory of its last message."""

    async def receive(self):
        for _ in range(self._pace):
            await asyncio.sleep(0)
        await asyncio.sleep(self._seconds)
        event = next(self._events, None)
        if event is None:
            raise ConnectionResetError("the client left")
        return json.dumps(event)

    async def send(self, body):
        self.received.append(json.loads(json.dumps(body)))


def settings(turn_detection=..., **transcription):
    """A session.update event for 16 kHz."""
    audio = {"format": RATE_16, "transcription": transcription}
    if turn_detection is not ...:
        audio["turn_detection"] = turn_detection
    body = {"type": "transcription", "audio": {"input": audio}}
    return {"type": "session.update", "session": body}


def talk(client, engine, folder):
    """Run a session to its end."""

    async def run():
        limits = SessionLimits(60.0, 3600.0)
        await LiveSession("sess", client, engine, SessionConfig("webrtc"), folder, limits).run()

    asyncio.run(run())
    return client.received


def steady_words(n_words, step=0.37, start=0.05):
    """Distinct words without pauses."""
    return [
        Word(f"w{n}", round(start + n * step, 3), round(start + n * step + step - 0.03, 3))
        for n in range(n_words)
    ]


def samples_of(truth, more=0.1):
    """Samples of a voice that are as long as the words; no two stretches are equal."""
    seconds = truth[-1].end + more
    noise = np.random.default_rng(1).normal(0, 30, round(seconds * SAMPLE_RATE))
    return (
        np.round(speech(seconds)[: len(noise)] * 30_000 + noise).clip(-32768, 32767).astype("<i2")
    )


def of_type(events, *kinds):
    return [event for event in events if event["type"].endswith(kinds)]


def assert_consistent(events):
    """Check what every client may rely on; return the transcripts by item, in order.

    At any time the deltas of an item are a prefix of its transcript, and in the end they are equal.
    The segments say the same, and their words are in order of time.
    """
    deltas, segments = defaultdict(str), defaultdict(list)
    done = {}
    for event in events:
        item = event.get("item_id")
        if event["type"].endswith(".delta"):
            assert item not in done
            assert event["delta"] != ""
            deltas[item] += event["delta"]
        elif event["type"].endswith("transcription.segment"):
            segments[item].append(event)
        elif event["type"].endswith(".completed"):
            done[item] = event["transcript"]
            assert deltas[item] == event["transcript"]
            texts = [segment["text"] for segment in segments[item]]
            assert " ".join(text for text in texts if text) == event["transcript"]
            words = [word for segment in segments[item] for word in segment["words"]]
            assert " ".join(word["word"] for word in words) == event["transcript"]
            times = [(word["start"], word["end"]) for word in words]
            assert all(start <= end for start, end in times)
            assert [start for start, _ in times] == sorted(start for start, _ in times)
    assert set(deltas) <= set(done)
    return done
