"""`Slices`: costly work in pieces, in turn, and all together no longer than a slice per round."""

import asyncio
import time

from asr.service.http.slices import SLICE_SECONDS, Slices


def test_work_is_done_in_turn_until_it_ends():
    done = []

    def worker(name, n):
        pieces = iter(range(n, 0, -1))

        def work():
            left = next(pieces)
            done.append(f"{name}{left}")
            return left > 1

        return work

    async def run():
        slices = Slices(asyncio.get_running_loop())
        slices.add(worker("a", 3), lambda: None)
        slices.add(worker("b", 2), lambda: None)
        while len(done) < 5:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert done == ["a3", "b2", "a2", "b1", "a1"]


def test_others_run_between_the_slices():
    rounds = []

    async def run():
        loop = asyncio.get_running_loop()
        slices, n_pieces = Slices(loop), 0

        def work():
            nonlocal n_pieces
            time.sleep(SLICE_SECONDS)
            n_pieces += 1
            return n_pieces < 10

        slices.add(work, lambda: None)
        while n_pieces < 10:
            rounds.append(n_pieces)
            await asyncio.sleep(0)

    asyncio.run(run())
    assert rounds == list(range(10))


def test_a_piece_that_starts_a_task_ends_the_round():
    done = []

    async def run():
        slices = Slices(asyncio.get_running_loop())

        def work():
            slices.end()
            done.append("work")
            return len(done) < 4

        slices.add(work, lambda: None)
        while len(done) < 4:
            await asyncio.sleep(0)
            done.append("other")

    asyncio.run(run())
    assert done[:4] == ["work", "other"] * 2


def test_work_that_fails_gives_up_and_stops_nothing_else():
    ended, errors = [], []

    async def run():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
        slices = Slices(loop)
        slices.add(lambda: 1 / 0, lambda: ended.append("failed"))
        slices.add(lambda: ended.append("other"), lambda: None)
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert ended == ["failed", "other"]
    assert [type(error) for error in errors] == [ZeroDivisionError]
