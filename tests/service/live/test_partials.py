"""Partial results of a session: deltas while someone talks, in process, with a known speaker."""

import asyncio
import itertools
import re

import numpy as np
import pytest
from hypothesis import example, given, settings as example_settings, strategies as st

from asr.engines.omni.http import VllmHttpEngine, VllmOptions
from asr.pipeline.transcriber import Transcriber
from asr.service.live import partials
from asr.service.live.partials import LONG_SECONDS
from asr.service.live.session import LiveSession, SessionLimits
from asr.service.live.session_config import SessionConfig
from asr.types import SAMPLE_RATE, Word
from tests.support.chat_server import ChatServer
from tests.support.live import (
    Client,
    Engine,
    Pipeline,
    assert_consistent,
    of_type,
    samples_of,
    settings,
    steady_words,
    talk,
)

COMMIT = {"type": "input_audio_buffer.commit"}
DELTA = "input_audio_transcription.delta"


def texts_of(events):
    return " ".join(assert_consistent(events).values()).split()


def plain(words):
    """The numbers of the words, without what an engine misheard."""
    return [int(re.match(r"w(\d+)", word)[1]) for word in words]


def before(events, kind):
    """The events before the first one of a kind."""
    return list(itertools.takewhile(lambda event: not event["type"].endswith(kind), events))


def test_words_are_sent_while_they_are_spoken(tmp_path):
    truth = steady_words(20)
    pcm = samples_of(truth)
    events = talk(Client(pcm, [settings()]), Engine(truth, pcm), tmp_path)
    early = of_type(before(events, "speech_stopped"), DELTA)
    assert len(early) >= 5
    sent = "".join(event["delta"] for event in early)
    assert sent.split() == [f"w{n}" for n in range(len(sent.split()))]
    assert len(sent.split()) >= 15
    assert texts_of(events) == [word.text for word in truth]
    started = of_type(events, "speech_started")[0]
    assert {event["item_id"] for event in early} == {started["item_id"]}


def test_a_client_may_want_only_whole_turns(tmp_path):
    truth = steady_words(12)
    pcm = samples_of(truth)
    engine = Engine(truth, pcm)
    events = talk(Client(pcm, [settings(partial_results=False)]), engine, tmp_path)
    assert engine.windows == []
    assert len(of_type(events, DELTA)) == 1
    assert texts_of(events) == [word.text for word in truth]


@given(st.integers(0, 10**9), st.sampled_from([0.0, 0.1, 0.4]), st.sampled_from([1, 6, 40]))
@example(1022, 0.4, 1)  # a word was sent twice
@example_settings(max_examples=3)
def test_no_word_is_lost_or_repeated_in_long_speech(tmp_path_factory, seed, misheard, pace):
    """Windows are cut and turns are cut, and hypotheses change."""
    truth = steady_words(130)
    pcm = samples_of(truth)
    engine = Engine(truth, pcm, seed, misheard, final_delay=seed % 60)
    events = talk(Client(pcm, [settings()], pace=pace), engine, tmp_path_factory.mktemp("session"))
    assert plain(texts_of(events)) == list(range(130))
    assert len(of_type(events, ".completed")) == 2
    assert [t.text for _, t in engine.kept] == list(assert_consistent(events).values())
    assert not list(tmp_path_factory.getbasetemp().rglob("*.interim"))


def test_long_speech_has_partial_results_from_its_start_to_its_end(tmp_path):
    truth = steady_words(200)
    pcm = samples_of(truth)
    engine = Engine(truth, pcm)
    events = talk(Client(pcm, [settings()], pace=30), engine, tmp_path)
    assert plain(texts_of(events)) == list(range(200))
    n_early = 0
    for done in of_type(events, ".completed"):
        own = [event for event in events if event.get("item_id") == done["item_id"]]
        early = of_type(before(own, "speech_stopped"), DELTA)
        n_early += len("".join(event["delta"] for event in early).split())
    assert n_early > 150
    lengths = [(end - start) / SAMPLE_RATE for start, end in engine.windows]
    assert max(lengths) < LONG_SECONDS + 2
    assert sum(lengths) < 20 * len(pcm) / SAMPLE_RATE


def test_turns_by_commit_have_partial_results_and_pauses_cost_nothing(tmp_path):
    truth = [
        Word(f"w{n}", at + n * 0.4, at + n * 0.4 + 0.35)
        for n, at in enumerate([1.0] * 10 + [9.0] * 10)
    ]
    pcm = samples_of(truth, 4.0)
    voiced = np.zeros(len(pcm), bool)
    for start, end in ((1.0, 5.0), (13.0, 17.0)):
        voiced[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] = True
    pcm[~voiced] //= 1000
    pcm += np.random.default_rng(0).integers(-3, 3, len(pcm)).astype("<i2")
    engine = Engine(truth, pcm)
    events = talk(Client(pcm, [settings(None)], [COMMIT], pace=30), engine, tmp_path)
    early = "".join(event["delta"] for event in of_type(before(events, "committed"), DELTA))
    assert early == " ".join(word.text for word in truth)
    assert texts_of(events) == early.split()
    assert max(end - start for start, end in engine.windows) < 6 * SAMPLE_RATE
    assert not [end for _, end in engine.windows if 7 < end / SAMPLE_RATE < 12.5]


def test_only_one_interim_request_runs_so_a_slow_engine_gets_fewer(tmp_path):
    truth = steady_words(30)
    pcm = samples_of(truth)
    engine = Engine(truth, pcm, delay=0.02)
    texts_of(talk(Client(pcm, [settings()], pace=1), engine, tmp_path))
    assert engine.max_running == 1
    assert 1 <= len(engine.windows) < 15


def test_an_interim_request_is_cancelled_when_the_turn_ends(tmp_path):
    truth = steady_words(10)
    pcm = samples_of(truth)
    engine = Engine(truth, pcm, delay=60.0)
    assert texts_of(talk(Client(pcm, [settings()]), engine, tmp_path)) == [w.text for w in truth]
    assert (len(engine.windows), engine.cancelled, engine.running) == (1, 1, 0)


def test_an_interim_request_is_cancelled_when_the_audio_is_cleared(tmp_path):
    truth = steady_words(6)
    pcm = samples_of(truth)
    engine = Engine(truth, pcm, delay=5.0)
    clear = {"type": "input_audio_buffer.clear"}
    events = talk(Client(pcm, [settings(None)], [clear]), engine, tmp_path)
    assert (engine.cancelled, engine.running) == (1, 0)
    assert of_type(events, DELTA, ".completed") == []


def test_answers_that_the_guards_refuse_are_ignored(tmp_path, monkeypatch):
    monkeypatch.setattr(partials, "FAILED_SECONDS", 0.0)
    truth = steady_words(20)
    pcm = samples_of(truth)
    engine = Engine(truth, pcm, interim=lambda *_: None)
    events = talk(Client(pcm, [settings()]), engine, tmp_path)
    assert len(engine.windows) > 3
    assert of_type(before(events, "speech_stopped"), DELTA) == []
    assert texts_of(events) == [word.text for word in truth]


def test_an_unexpected_error_stops_only_the_partial_results(tmp_path, caplog):
    truth = steady_words(20)
    pcm = samples_of(truth)

    def fail(start, end):
        raise KeyError("a bug")

    events = talk(Client(pcm, [settings()]), Engine(truth, pcm, interim=fail), tmp_path)
    assert texts_of(events) == [word.text for word in truth]
    assert "partial results" in caplog.text


def test_the_final_text_begins_with_what_was_sent_even_if_it_is_wrong(tmp_path):
    truth = steady_words(20)
    pcm = samples_of(truth)
    events = talk(
        Client(pcm, [settings()]),
        Engine(truth, pcm, interim=lambda *_: "we heard something else. And more"),
        tmp_path,
    )
    (text,) = assert_consistent(events).values()
    assert text.startswith("we heard something else. And more w")
    assert text.endswith("w17 w18 w19")


@pytest.mark.parametrize(("delay", "least"), [("minimal", 0.3), ("medium", 0.4), ("xhigh", 1.6)])
def test_delay_sets_how_long_a_word_waits(tmp_path, delay, least):
    truth = steady_words(30)
    pcm = samples_of(truth)
    engine = Engine(truth, pcm)
    client = Client(pcm, [settings(delay=delay)], pace=30)
    waits = []
    send = client.send

    async def timed(body):
        if body["type"].endswith(DELTA):
            last = truth[int(body["delta"].split()[-1][1:])]
            waits.append(engine.windows[-1][1] / SAMPLE_RATE - last.end)
        await send(body)

    client.send = timed
    texts_of(talk(client, engine, tmp_path))
    assert len(waits) > 3
    assert min(waits[:-1]) >= least - 0.01
    assert min(waits[:-1]) <= least + 0.7


def test_a_closed_session_leaves_no_task(tmp_path):
    truth = steady_words(10)
    pcm = samples_of(truth)

    async def run():
        engine = Engine(truth, pcm, delay=0.01)
        client = Client(pcm, [settings()])
        limits = SessionLimits(60.0, 3600.0)
        await LiveSession("sess", client, engine, SessionConfig("webrtc"), tmp_path, limits).run()
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(run()) == set()


# --- omni on a server -----------------------------------------------------------------------------


def talk_to_omni(folder, delay, *answers):
    """Talk for 4 s to omni on a stand-in for vLLM; return the events and the stand-in."""
    pcm = samples_of(steady_words(10))
    client = Client(pcm, [settings()], seconds=0.02)

    async def run():
        async with ChatServer(delay=delay) as server:
            server.answers = list(answers)
            engine = VllmHttpEngine(VllmOptions((server.url,), slots=2))
            async with Transcriber(engine) as transcriber:
                limits, config = SessionLimits(60.0, 3600.0), SessionConfig("webrtc")
                backend = Pipeline(transcriber, folder)
                await LiveSession("sess", client, backend, config, folder, limits).run()
            return server

    server = asyncio.run(run())
    return client.received, server


def test_omni_has_partial_results_where_its_server_keeps_up(tmp_path):
    events, server = talk_to_omni(tmp_path, 0.01)
    early = of_type(before(events, "speech_stopped"), DELTA)
    assert [event["delta"] for event in early] == ["hello from one"]
    assert texts_of(events) == ["hello", "from", "one"]
    assert server.most == 1


def test_a_slow_server_gets_one_interim_request_which_ends_with_the_turn(tmp_path):
    events, server = talk_to_omni(tmp_path, 2.5)
    assert of_type(before(events, "speech_stopped"), DELTA) == []
    assert texts_of(events) == ["hello", "from", "one"]
    assert (server.served, server.aborted) == (1, 1)


def test_refused_interim_requests_change_nothing(tmp_path):
    refused = (400, {}, b"{}")
    events, _ = talk_to_omni(tmp_path, 0.0, refused)
    assert texts_of(events) == ["hello", "from", "one"]
