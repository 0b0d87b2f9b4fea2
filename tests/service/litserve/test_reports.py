"""`paced`: which reports of the recogniser's process are sent to the API, and when.

Unit tests and a property test, in process.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from asr.pipeline.run import Progress
from asr.service.litserve import worker as litapi
from asr.service.litserve.messages import Failed, Heartbeat
from asr.service.litserve.worker import paced
from asr.types import Segment, Transcript

DONE = Transcript(
    segments=(), language="en", duration=99.0, speech_seconds=0, dropped_seconds=99.0, engine="e"
)


def progress(at: float) -> Progress:
    return Progress(at, at, 99.0)


def segment(number: int) -> Segment:
    return Segment(number, number, number + 1, "", ())


async def crossing(*reports: object) -> list[object]:
    """What `paced` sends when all reports are already in its queue."""
    queue: asyncio.Queue = asyncio.Queue()
    for report in (*reports, None):
        queue.put_nowait(report)
    return [report async for report in paced(queue)]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litapi, "PROGRESS_SECONDS", 3600.0)


def test_the_first_progress_is_sent_at_once_and_the_last_before_the_transcript(slow: None) -> None:
    many = [progress(at) for at in range(100)]
    crossed = asyncio.run(crossing(*many[:50], segment(0), *many[50:], DONE))
    assert crossed == [many[0], segment(0), many[-1], DONE]


def test_delayed_progress_is_dropped_at_a_failure(slow: None) -> None:
    failed = Failed(ValueError())
    assert asyncio.run(crossing(progress(1), progress(2), failed)) == [progress(1), failed]


def test_delayed_progress_is_sent_before_a_heartbeat(monkeypatch) -> None:
    monkeypatch.setattr(litapi, "PROGRESS_SECONDS", 0.05)
    monkeypatch.setattr(litapi, "HEARTBEAT_SECONDS", 0.05)

    async def work() -> list[object]:
        queue: asyncio.Queue = asyncio.Queue()
        for at in range(3):
            queue.put_nowait(progress(at))
        reports = paced(queue)
        return [await anext(reports) for _ in range(4)]

    assert asyncio.run(work()) == [progress(0), progress(2), Heartbeat(), Heartbeat()]


REPORTS = st.lists(
    st.one_of(st.integers(0, 99).map(progress), st.integers(0, 99).map(segment)), max_size=30
)


@given(REPORTS, st.sampled_from([0.0, 3600.0]))
def test_only_progress_is_dropped_and_the_order_is_kept(reports, seconds) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litapi, "PROGRESS_SECONDS", seconds)
        crossed = asyncio.run(crossing(*reports, DONE))
    told = [it for it in reports if isinstance(it, Progress)]
    crossed_progress = [it for it in crossed if isinstance(it, Progress)]
    assert [it for it in crossed if not isinstance(it, Progress)] == [
        *(it for it in reports if not isinstance(it, Progress)),
        DONE,
    ]
    places = [next(i for i, it in enumerate(told) if it is one) for one in crossed_progress]
    assert all(before < after for before, after in pairwise(places))
    assert crossed_progress[-1:] == told[-1:]
    assert crossed[-1] == DONE
