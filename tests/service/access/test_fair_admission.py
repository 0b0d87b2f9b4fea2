"""Places and turns are divided fairly among owners."""

import asyncio
import contextlib

import pytest

from asr.service.access.admission import Admission
from asr.service.errors import LimitReached


def test_an_owner_that_has_taken_all_places_leaves_some_to_others():
    """A key that sent its bodies slowly kept the requests of all other keys out."""
    admission = Admission(30, 10)
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(admission.place("many"))
        for _ in range(2):  # a twentieth
            stack.enter_context(admission.place("few"))
        for owner in ("many", "few"):
            with pytest.raises(LimitReached), admission.place(owner):
                pass
        with admission.place("third"):
            pass
    assert admission.counts() == {"active": 0, "waiting": 0}


async def served(admission, arrivals, cancelled=()):
    """The owners in the order of their turns. Each ends its turn when all have arrived."""
    order, go = [], asyncio.Event()

    async def work(owner):
        with admission.place(owner):
            async with admission.turn(owner):
                order.append(owner)
                await go.wait()

    tasks = [asyncio.create_task(work(owner)) for owner in arrivals]
    await asyncio.sleep(0)
    for number in cancelled:
        tasks[number].cancel()
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert admission.counts() == {"active": 0, "waiting": 0}
    return order


def test_the_next_turn_goes_to_the_owner_with_the_fewest():
    order = asyncio.run(served(Admission(2, 9), ["a"] * 6 + ["b"]))
    assert order[:2] == ["a", "a"]
    assert "b" in order[2:4]
    assert len(order) == 7


def test_an_owner_is_served_in_the_order_of_arrival():
    async def run():
        admission, order = Admission(1, 9), []

        async def work(number):
            async with admission.turn("a"):
                order.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*map(work, range(5)))
        return order

    assert asyncio.run(run()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("cancelled", [[0], [1], [0, 1], [3], [0, 1, 2, 3]])
def test_a_turn_of_a_cancelled_request_goes_to_another(cancelled):
    order = asyncio.run(served(Admission(2, 9), ["a"] * 5, cancelled))
    assert len(order) >= 5 - len(cancelled)
