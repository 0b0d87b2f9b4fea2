"""Fair sharing of engine slots between jobs: property tests and examples."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from asr.pipeline.scheduler import NOBODY, FairSlots, Share

JOBS = "abcd"


class Crowd:
    """Tasks that hold a slot until they are told to let go."""

    def __init__(self, n_slots: int) -> None:
        self.slots = FairSlots(n_slots)
        self.tasks: list[asyncio.Task[None]] = []
        self.doors: dict[int, asyncio.Event] = {}
        self.holding: list[int] = []
        self.granted: list[str] = []
        self._numbers = itertools.count()

    def enter(self, job: str, share: Share = NOBODY, cost: float = 1.0) -> int:
        number = next(self._numbers)
        self.doors[number] = asyncio.Event()
        self.tasks.append(asyncio.create_task(self._hold(number, job, share, cost)))
        return number

    async def _hold(self, number: int, job: str, share: Share, cost: float) -> None:
        async with self.slots.slot(job, share, cost):
            self.holding.append(number)
            self.granted.append(job)
            try:
                await self.doors[number].wait()
            finally:
                self.holding.remove(number)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def leave(self, number: int) -> None:
        self.doors[number].set()
        await self.settle()

    async def empty(self) -> None:
        """Let every task finish and check that all slots are free again."""
        for door in self.doors.values():
            door.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from(JOBS)),
        st.tuples(st.sampled_from(["leave", "cancel", "cancel as it leaves"]), st.integers(0, 99)),
        st.tuples(st.just("settle"), st.none()),
    ),
    max_size=60,
)


@given(st.integers(1, 4), steps)
def test_never_more_than_n_and_none_is_lost(n_slots, script):
    async def run():
        crowd = Crowd(n_slots)
        for what, which in script:
            if what == "enter":
                crowd.enter(which, Share(ord(which) % 2, 0.5 + ord(which) % 3), ord(which) % 5 / 4)
            elif what == "settle":
                await crowd.settle()
                n_inside = len(crowd.holding)
                n_there = sum(not task.done() for task in crowd.tasks)
                assert n_inside == min(n_slots, n_there)  # no task waits while a slot is free
                assert crowd.slots.n_free == n_slots - n_inside
                assert crowd.slots.n_waiting == n_there - n_inside
            elif crowd.tasks:
                number = which % len(crowd.tasks)
                if what != "cancel":
                    crowd.doors[number].set()
                if what != "leave":
                    crowd.tasks[number].cancel()
            assert len(crowd.holding) <= n_slots
        await crowd.empty()
        assert (crowd.slots.n_free, crowd.slots.n_waiting) == (n_slots, 0)

    asyncio.run(run())


@given(st.integers(1, 3), st.dictionaries(st.sampled_from(JOBS), st.integers(1, 30), min_size=2))
def test_no_job_is_passed_over_twice_by_another(n_slots, sizes):
    """Between two grants to one waiting job, each other job gets at most one."""

    async def run():
        crowd = Crowd(n_slots)
        for job, size in sizes.items():
            for _ in range(size):
                crowd.enter(job)
        await crowd.settle()
        n_first = len(crowd.granted)
        while crowd.holding:
            await crowd.leave(crowd.holding[0])
        assert Counter(crowd.granted) == sizes
        left = Counter(sizes) - Counter(crowd.granted[:n_first])
        check_turns(crowd.granted[n_first:], left)

    asyncio.run(run())


def check_turns(granted, left):
    since = {job: set() for job in left}  # jobs that had a turn since the last turn of each
    for job in granted:
        for other in left.keys() - {job}:
            assert not left[other] or job not in since[other], f"two turns of {job} before {other}"
            since[other].add(job)
        since[job] = set()
        left[job] -= 1


def test_a_short_job_waits_for_one_turn_of_a_long_one():
    async def run():
        crowd = Crowd(2)
        for _ in range(100):
            crowd.enter("long")
        await crowd.settle()
        crowd.enter("short")
        await crowd.settle()
        await crowd.leave(crowd.holding[0])
        await crowd.leave(crowd.holding[0])
        assert crowd.granted[2:] == ["long", "short"]
        await crowd.empty()

    asyncio.run(run())


@pytest.mark.parametrize("share", [NOBODY, Share("another")])
def test_a_short_job_goes_before_ten_long_ones(share):
    async def run():
        crowd = Crowd(2)
        for number in range(200):
            crowd.enter(f"long {number % 10}")
        await crowd.settle()
        for _ in range(15):
            await crowd.leave(crowd.holding[0])
        crowd.enter("short", share)
        await crowd.settle()
        await crowd.leave(crowd.holding[0])
        assert crowd.granted[-1] == "short"
        await crowd.empty()

    asyncio.run(run())


@pytest.mark.parametrize("is_shared", [True, False], ids=["one key", "a key each"])
def test_a_short_job_goes_before_ten_long_ones_that_arrive_with_it(is_shared):
    def share(name):
        return NOBODY if is_shared else Share(name)

    async def run():
        crowd = Crowd(2)
        for number in range(200):
            name = f"long {number % 10}"
            crowd.enter(name, share(name))
        crowd.enter("short", share("short"), cost=0.3)
        await crowd.settle()
        await crowd.leave(crowd.holding[0])
        assert crowd.granted[2:] == ["short"]
        for _ in range(9):
            await crowd.leave(crowd.holding[0])
        assert sorted(crowd.granted[3:11]) == [f"long {number}" for number in range(2, 10)]
        await crowd.empty()

    asyncio.run(run())


async def shared_out(wishes, n_grants):
    """The first grants of one slot, where every share has endless chunks."""
    crowd = Crowd(1)
    door = crowd.enter("before all")
    await crowd.settle()
    for share, jobs, cost in wishes:
        for number in range(n_grants):
            crowd.enter(f"{share.name}{number % jobs}", share, cost)
    await crowd.settle()
    await crowd.leave(door)
    for _ in range(n_grants):
        await crowd.leave(crowd.holding[0])
    granted = crowd.granted[1 : 1 + n_grants]
    for task in crowd.tasks:
        task.cancel()
    await crowd.empty()
    return granted


weights = st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.0])
costs = st.sampled_from([0.05, 0.3, 1.0])


@given(st.lists(st.tuples(weights, st.integers(1, 3), costs), min_size=2, max_size=4))
@settings(deadline=None, max_examples=30)
@pytest.mark.slow
def test_shares_use_the_engine_by_their_weights(wishes):
    """The number of jobs of a share and the length of its chunks do not matter."""
    names = "abcd"
    made = [
        (Share(name, weight), jobs, cost)
        for name, (weight, jobs, cost) in zip(names, wishes, strict=False)
    ]
    granted = asyncio.run(shared_out(made, 400))
    used = {share.name: 0.0 for share, _, _ in made}
    cost_of = {share.name: cost for share, _, cost in made}
    for job in granted:
        used[job[0]] += cost_of[job[0]]
    per_weight = [used[share.name] / share.weight for share, _, _ in made]
    heaviest = min(share.weight for share, _, _ in made)
    assert max(per_weight) - min(per_weight) <= 2.2 / heaviest  # two chunks, whatever the length


def test_a_key_with_ten_jobs_has_no_more_than_a_key_with_one():
    many, one = Share("m"), Share("o")
    granted = asyncio.run(shared_out([(many, 10, 1.0), (one, 1, 1.0)], 40))
    assert Counter(job[0] for job in granted) == {"m": 20, "o": 20}
    assert {job for job in granted if job[0] == "m"} == {f"m{n}" for n in range(10)}


def test_leaving_and_rejoining_gives_no_advantage():
    """A share that asks for one chunk at a time goes first once and then waits its turn."""

    async def run():
        crowd = Crowd(1)
        for _ in range(40):
            crowd.enter("steady", Share("steady"))
        await crowd.settle()
        for _ in range(20):
            crowd.enter("sly", Share("sly"))
            await crowd.settle()
            await crowd.leave(crowd.holding[0])
            if crowd.granted[-1] != "sly":
                await crowd.leave(crowd.holding[0])
        n_sly = crowd.granted.count("sly")
        assert crowd.granted.count("steady") >= n_sly - 1
        await crowd.empty()

    asyncio.run(run())


def test_rejoining_with_short_chunks_does_not_overtake_a_new_share():
    async def run():
        crowd = Crowd(1)
        crowd.enter("before all")
        for name in "abc":
            crowd.enter(name, Share(name))
        for _ in range(6):
            crowd.enter("sly", Share("sly"), cost=0.2)
            await crowd.settle()
            await crowd.leave(crowd.holding[0])
        assert crowd.granted[1:5] == ["sly", "a", "b", "c"]
        await crowd.empty()

    asyncio.run(run())


def test_within_a_job_the_first_comes_first():
    async def run():
        crowd = Crowd(1)
        numbers = [crowd.enter("a") for _ in range(5)]
        order = []
        await crowd.settle()
        while crowd.holding:
            order.append(crowd.holding[0])
            await crowd.leave(crowd.holding[0])
        assert order == numbers

    asyncio.run(run())


def test_an_error_inside_gives_the_slot_back():
    async def run():
        slots = FairSlots(1)
        with contextlib.suppress(RuntimeError):
            async with slots.slot("a"):
                raise RuntimeError
        assert slots.n_free == 1

    asyncio.run(run())


def test_no_slots_are_refused():
    with pytest.raises(ValueError, match="not 0"):
        FairSlots(0)
