"""Jobs whose speakers are told apart: provisional segments are replaced by the final ones."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from asr.config import AudioLimits
from asr.pipeline.checkpoint import pack_segment, unpack_segment
from asr.service.jobs.attempt import Attempt
from asr.service.jobs.request import JobRequest
from asr.service.jobs.stream import follow
from asr.service.jobs.tables import SUCCEEDED
from asr.service.transcriptions.form import JobForm, parse_fields
from asr.types import Segment, Transcript, Word

EARLY = tuple(
    Segment(i, 2.0 * i, 2.0 * i + 1, f"w{i}", (Word(f"w{i}", 2.0 * i, 2.0 * i + 1, speaker="A"),),
            speaker="A", is_provisional=True)
    for i in range(2)
)  # fmt: skip


def final(speakers, **more):
    return tuple(
        Segment(i, float(i), i + 1.0, f"v{i}", (), speaker=name, **more)
        for i, name in enumerate(speakers)
    )


class FakeLeases:
    """Keeps what is written."""

    def __init__(self):
        self.rows = {}

    def _keep(self, results):
        self.rows |= dict(results.segments)

    async def record(self, job, lease, results):
        self._keep(results)

    async def succeed(self, job, lease, results, n_segments, summary):
        self._keep(results)
        self.rows = {i: row for i, row in self.rows.items() if i < n_segments}


@pytest.mark.parametrize(
    "segments",
    [
        final("ABAB", speaker_confidence=0.9),
        final("A", speaker_confidence=0.9),
        final([None, None]),  # telling them apart failed at the end
    ],
)
def test_the_stored_segments_are_the_final_ones(segments):
    leases = FakeLeases()
    attempt = Attempt(leases, SimpleNamespace(id="j", stalls=0, owner=""), "lease")

    async def events():
        for event in (*EARLY, Transcript(segments, "en", 9.0, 9.0, 0.0, "e")):
            yield event
            await asyncio.sleep(0)

    asyncio.run(attempt.follow(events()))
    assert tuple(unpack_segment(leases.rows[i]) for i in sorted(leases.rows)) == segments


def job(state):
    request = JobRequest.of(parse_fields([("speakers", "2")], "off", AudioLimits(), JobForm, ""))
    return SimpleNamespace(
        id="j", owner="", state=state, request=request.pack(), is_finished=state == SUCCEEDED
    )


def told(n_seen, polls):
    """The events, as name and data, that a client gets from these polls."""
    last = polls[-1][1]
    left = iter(polls)

    async def news(_, n):
        state, records = next(left)
        return job(state), records[n:]

    async def stored(_):
        return last

    jobs = SimpleNamespace(
        watch=SimpleNamespace(news=news), store=SimpleNamespace(segments=stored), is_closing=False
    )

    async def work():
        return [text async for text in follow(jobs, job("running"), n_seen)]

    found = []
    for block in "".join(asyncio.run(work())).split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if lines.get("event") in ("segment", "speakers"):
            found.append((lines["event"], json.loads(lines["data"])))
    return found


@pytest.fixture(autouse=True)
def _without_changes(monkeypatch):
    """The events of the job itself have tests of their own."""
    monkeypatch.setattr("asr.service.jobs.stream._EventEncoder.changes", lambda *_: iter(()))


ENDED = [pack_segment(it) for it in final("ABA", speaker_confidence=0.9)]
STARTED = [pack_segment(it) for it in EARLY]


def test_a_client_that_followed_gets_the_final_speakers_at_the_end():
    events = told(0, [("running", STARTED), (SUCCEEDED, ENDED)])
    assert [name for name, _ in events] == ["segment", "segment", "speakers"]
    assert [it["speaker_is_provisional"] for _, it in events[:2]] == [True, True]
    final_ones = events[2][1]["segments"]
    assert [(it["id"], it["speaker"]) for it in final_ones] == [(0, "A"), (1, "B"), (2, "A")]
    assert not any("speaker_is_provisional" in it for it in final_ones)


def test_a_client_that_comes_late_or_again():
    late = told(0, [(SUCCEEDED, ENDED)])
    assert [(name, it["speaker"]) for name, it in late] == [
        ("segment", "A"), ("segment", "B"), ("segment", "A"),
    ]  # fmt: skip
    again = told(2, [(SUCCEEDED, ENDED)])
    assert [name for name, _ in again] == ["speakers"]


def test_a_provisional_segment_is_kept_as_one():
    assert unpack_segment(STARTED[0]) == EARLY[0]
    assert unpack_segment(pack_segment(replace(EARLY[0], is_provisional=False))) != EARLY[0]
