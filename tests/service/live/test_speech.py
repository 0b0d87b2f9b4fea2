"""Speech without pauses in a live session: each word appears once, wherever turns are cut.

Property and unit tests in process, with a backend that knows the spoken words.
"""

import asyncio
import base64
import dataclasses
import itertools
import json
import math
import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.config import Options
from asr.errors import EngineError, WorkerDied
from asr.pipeline.transcriber import Transcriber
from asr.service.live import items
from asr.service.live.items import Items
from asr.service.live.session import LiveSession, SessionLimits
from asr.service.live.session_config import SessionConfig
from asr.service.live.turns import MARGIN_SAMPLES, Turn
from asr.types import SAMPLE_RATE, Chunk, Word
from tests.support.fakes import FakeEngine
from tests.support.live import events_of
from tests.support.makers import speech
from tests.support.realtime import TRANSCRIPTION
from tests.support.strategies import assert_said, hear, spoken_words


class Service:
    """A fake backend that returns the known words that lie in each turn.

    Args:
        truth: the words with their times in the session.
        delays: iterations of the event loop that each turn takes.
        errors: the errors to raise, by the number of the call.
    """

    def __init__(self, truth, seed=0, delays=(), errors=None):
        self.truth = truth
        self.noise = random.Random(seed)
        self.delays = delays
        self.errors = errors or {}
        self.kept = []
        self.n_calls = 0

    async def transcribe(self, turn, vad, decode, speakers=None):
        number, self.n_calls = self.n_calls, self.n_calls + 1
        for _ in range(self.delays[number] if number < len(self.delays) else 0):
            await asyncio.sleep(0)
        if number in self.errors:
            raise self.errors[number]
        for event in events_of(self.truth, turn, self.noise):
            yield event

    def count_bytes(self, n_bytes):
        pass

    def keep(self, turn, transcript):
        self.kept.append((turn, transcript))


def turns_of(folder, cuts):
    """The turns of a speech that is cut at these samples; the last cut is its end."""
    edges = list(itertools.pairwise([0, *cuts]))
    return [
        Turn(
            f"item{n}", start, end, folder / str(n),
            MARGIN_SAMPLES if n else 0, MARGIN_SAMPLES if n + 1 < len(edges) else 0,
        )
        for n, (start, end) in enumerate(edges)
    ]  # fmt: skip


def events_for(backend, turns):
    """The events that a client receives for these turns."""
    events = []

    async def send(body):
        events.append(json.loads(json.dumps(body)))

    async def talk():
        session = Items(backend, send)
        for turn in turns:
            await session.add(turn, SessionConfig("webrtc"))
        await session.finish()

    asyncio.run(talk())
    return events


def of_type(events, kind):
    return [event for event in events if event["type"].endswith(kind)]


def words_of(events):
    """The words of all items in order of arrival. Checks that the events are consistent."""
    deltas, segments = defaultdict(list), defaultdict(list)
    words, done = [], []
    for event in events:
        item = event.get("item_id")
        if event["type"].endswith(".delta"):
            deltas[item].append(event["delta"])
        elif event["type"].endswith(".segment"):
            assert item not in done
            assert event["id"] == f"{item}_{len(segments[item])}"
            segments[item].append(event["text"])
            words += [Word(w["word"], w["start"], w["end"]) for w in event["words"]]
        elif event["type"].endswith(".completed"):
            assert "".join(deltas[item]) == " ".join(segments[item]) == event["transcript"]
            done.append(item)
    return words


@st.composite
def cut_speech(draw):
    """Words, and the samples at which the speech is cut, also inside words."""
    truth = draw(spoken_words())
    cuts = [0]
    while cuts[-1] < (truth[-1].end + 0.1) * SAMPLE_RATE:
        cuts.append(cuts[-1] + draw(st.integers(2 * SAMPLE_RATE, 7 * SAMPLE_RATE)))
    return truth, cuts[1:]


@given(cut_speech(), st.integers(0, 10**9), st.lists(st.integers(0, 9), max_size=9))
def test_each_word_appears_once_wherever_the_cuts_are(tmp_path_factory, cut, seed, delays):
    truth, cuts = cut
    turns = turns_of(tmp_path_factory.getbasetemp(), cuts)
    service = Service(truth, seed, delays)
    events = events_for(service, turns)
    assert_said(truth, words_of(events))
    done = of_type(events, ".completed")
    assert [event["item_id"] for event in done] == [turn.item_id for turn in turns]
    seconds = [event["usage"]["seconds"] for event in done]
    assert seconds == [math.ceil(round(turn.end - turn.start, 3)) for turn in turns]
    assert [turn for turn, _ in service.kept] == turns
    assert [t.text for _, t in service.kept] == [event["transcript"] for event in done]


ENDS = (".completed", ".failed")
WORDS = [Word(f"w{n}", n / 2, n / 2 + 0.4) for n in range(40)]


def test_a_turn_does_not_wait_for_the_next_one(tmp_path):
    cuts = [round(seconds * SAMPLE_RATE) for seconds in (6.0, 12.35, 20.0)]
    events = events_for(Service(WORDS, delays=(0, 50, 100)), turns_of(tmp_path, cuts))
    texts = [event["transcript"].split() for event in of_type(events, ".completed")]
    assert texts == [[w.text for w in WORDS[a:b]] for a, b in ((0, 12), (12, 25), (25, 40))]


def test_after_a_turn_that_failed_no_word_is_lost(tmp_path):
    cuts = [round(seconds * SAMPLE_RATE) for seconds in (6.2, 12.0, 20.0)]
    service = Service(WORDS, errors={1: EngineError("it broke")}, delays=(9, 0, 0))
    events = events_for(service, turns_of(tmp_path, cuts))
    assert [event["item_id"] for event in of_type(events, ".failed")] == ["item1"]
    texts = [event["transcript"].split() for event in of_type(events, ".completed")]
    assert texts == [[w.text for w in WORDS[:12]], [w.text for w in WORDS[23:]]]


def separate(turns):
    """The same turns, as if silence were between them."""
    return [dataclasses.replace(turn, lead=0, tail=0) for turn in turns]


@pytest.mark.parametrize("error", [None, EngineError("it broke")])
@pytest.mark.parametrize("are_separate", [True, False])
def test_turns_are_sent_in_their_order(tmp_path, error, are_separate):
    """LiveKit, openai-agents and simple pages join the texts as they arrive."""
    cuts = [round(seconds * SAMPLE_RATE) for seconds in (6.2, 12.0, 20.0)]
    turns = turns_of(tmp_path, cuts)
    service = Service(WORDS, errors={0: error} if error else {}, delays=(99, 9, 0))
    events = events_for(service, separate(turns) if are_separate else turns)
    order = [event["item_id"] for event in events if TRANSCRIPTION in event["type"]]
    assert [item for item, _ in itertools.groupby(order)] == ["item0", "item1", "item2"]
    ends = [event["type"].rpartition(".")[2] for event in events if event["type"].endswith(ENDS)]
    assert ends == ["failed" if error else "completed", "completed", "completed"]


def test_a_turn_whose_worker_died_is_recognised_again(tmp_path, monkeypatch):
    monkeypatch.setattr(items, "RETRY_SECONDS", 0.0)
    cuts = [round(seconds * SAMPLE_RATE) for seconds in (6.2, 12.0, 20.0)]
    service = Service(WORDS, errors={1: WorkerDied("it died")})
    assert_said(WORDS, words_of(events_for(service, turns_of(tmp_path, cuts))))
    assert service.n_calls == 4


# --- from the socket to the engine ----------------------------------------------------------------


class Recognition(Service):
    """A backend that runs the real pipeline with an engine that returns the known words."""

    async def transcribe(self, turn, vad, decode, speakers=None):
        first = turn.start_sample - turn.lead

        def answer(chunk):
            start, end = first + chunk.start_sample, first + chunk.end_sample
            return hear(self.truth, Chunk(chunk.index, start, end), self.noise)

        transcriber = Transcriber(FakeEngine(answer=answer))
        async for event in transcriber.transcribe_pcm(turn.path, Options(vad=vad, decode=decode)):
            yield event


class Client:
    """Sends audio, and disconnects when the session has received all of it."""

    def __init__(self, pcm):
        pieces = (pcm[n : n + 48_000] for n in range(0, len(pcm), 48_000))
        self.messages = [
            json.dumps(
                {
                    "type": "input_audio_buffer.append",
                    "audio": base64.b64encode(piece.tobytes()).decode(),
                }
            )
            for piece in pieces
        ]
        self.received = []

    def processed(self):
        """The session frees the memory of its last message."""

    async def receive(self):
        if not self.messages:
            raise ConnectionResetError("the client left")
        return self.messages.pop(0)

    async def send(self, body):
        self.received.append(body)


def test_a_speaker_without_pauses_loses_no_word_and_repeats_none(tmp_path):
    truth = [Word(f"w{n}", n * 0.37 + 0.05, n * 0.37 + 0.4) for n in range(250)]
    samples = speech(truth[-1].end + 0.1, 24_000)
    client = Client(np.round(samples * 32767).astype("<i2"))
    backend = Recognition(truth)

    async def talk():
        config = SessionConfig("webrtc", may_send_partials=False)
        limits = SessionLimits(60.0, 600.0)
        await LiveSession("sess", client, backend, config, tmp_path, limits).run()

    asyncio.run(talk())
    turns = [turn for turn, _ in backend.kept]
    assert len(turns) == 4
    for before, after in itertools.pairwise(turns):
        assert before.end_sample == after.start_sample
        assert before.tail == after.lead == MARGIN_SAMPLES
    assert_said(truth, words_of(client.received))
    assert not list(tmp_path.iterdir())
