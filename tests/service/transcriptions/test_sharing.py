"""`Sharing`: how long shared work continues after its last follower has left."""

import asyncio
import contextlib

import pytest

from asr.service.transcriptions import sharing
from asr.service.transcriptions.sharing import Sharing, Work


class Returning:
    """A client that is expected to send its request again."""

    def will_return(self, waited):
        return True


async def nothing_yet():
    await asyncio.Event().wait()
    yield


def work(freed, turn=None):
    async def begin(stack):
        if turn is not None:
            await turn.wait()
        return await stack.enter_async_context(contextlib.aclosing(nothing_yet()))

    resources = contextlib.AsyncExitStack()
    resources.callback(freed.set)
    return Work(begin, resources)


async def begun():
    """Shared work that has begun, and an event that is set when its resources are freed."""
    shared, freed = Sharing(), asyncio.Event()
    made = work(freed)
    shared.add("mark", made)
    while not made.has_begun:
        await asyncio.sleep(0)
    return shared, made, freed


async def follow_and_leave(shared, made):
    async with shared.following(made, Returning()):
        await asyncio.sleep(0)


def test_the_linger_time_starts_when_the_last_follower_leaves(monkeypatch):
    async def run():
        shared, made, freed = await begun()
        monkeypatch.setattr(sharing, "LINGER_SECONDS", 0.2)
        await follow_and_leave(shared, made)
        monkeypatch.setattr(sharing, "LINGER_SECONDS", 3600.0)
        await follow_and_leave(shared, made)
        await asyncio.sleep(0.5)
        assert shared.find("mark") is made
        assert not freed.is_set()
        await shared.close()
        assert freed.is_set()
        assert shared.find("mark") is None

    asyncio.run(run())


@pytest.mark.parametrize("leaves", [1, 2])
def test_work_ends_after_the_linger_time(monkeypatch, leaves):
    async def run():
        shared, made, freed = await begun()
        monkeypatch.setattr(sharing, "LINGER_SECONDS", 0.1)
        for _ in range(leaves):
            await follow_and_leave(shared, made)
        await freed.wait()
        assert shared.find("mark") is None

    asyncio.run(run())


def test_work_that_has_not_begun_ends_with_its_last_follower(monkeypatch):
    monkeypatch.setattr(sharing, "LINGER_SECONDS", 1e9)

    async def run():
        shared, freed = Sharing(), asyncio.Event()
        made = work(freed, turn=asyncio.Event())
        shared.add("mark", made)
        async with shared.following(made, Returning()):
            await follow_and_leave(shared, made)
            await asyncio.sleep(0.05)
            assert shared.find("mark") is made
            assert not freed.is_set()
        await freed.wait()
        assert shared.find("mark") is None

    asyncio.run(run())


def test_a_new_follower_keeps_the_work(monkeypatch):
    monkeypatch.setattr(sharing, "LINGER_SECONDS", 0.1)

    async def run():
        shared, made, freed = await begun()
        await follow_and_leave(shared, made)
        async with shared.following(made, Returning()):
            await asyncio.sleep(0.3)
            assert not freed.is_set()
        await shared.close()
        assert freed.is_set()

    asyncio.run(run())
