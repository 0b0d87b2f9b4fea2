"""The limits of a key hold for all servers of one database together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from asr.errors import StoreUnavailable
from asr.service.access import shared
from asr.service.access.client_secrets import ClientSecrets
from asr.service.access.keys import Key, Keyring
from asr.service.access.limits import DAY_SECONDS, KeyUse
from asr.service.access.media_tokens import MediaTokens
from asr.service.access.shared import SharedMeters
from asr.service.clock import SharedClock
from asr.service.errors import LimitReached
from asr.service.jobs import key_usage as key_usage_module
from asr.service.jobs.key_usage import KeyUsage
from asr.service.jobs.tables import key_rates, key_usage
from asr.settings import Settings


@pytest.fixture
def database(database):
    """No usage is left of other tests, which share one Postgres."""
    for table in (key_usage, key_rates):
        asyncio.run(database.run(lambda c, table=table: c.execute(table.delete())))
    return database


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """A slow machine must not make a server count for itself."""
    monkeypatch.setattr(shared, "PATIENCE_SECONDS", 600)


def server(database, wall=time.time):
    meters = SharedMeters(SharedClock(wall))
    meters.store = KeyUsage(database)
    return meters


@pytest.fixture
def two(database):
    return server(database), server(database)


def key_of(**limits):
    return Key.model_validate({"name": "k", "key": "secret"} | limits)


async def passes(meters, key):
    """Whether a request is accepted. It ends at once."""
    with contextlib.suppress(LimitReached):
        async with meters.place(meters.of(key)):
            return True
    return False


def test_both_servers_share_the_requests_of_a_minute(two):
    async def run():
        key = key_of(requests_per_minute=6)
        accepted = [await passes(two[i % 2], key) for i in range(10)]
        assert accepted == [True] * 6 + [False] * 4

    asyncio.run(run())


def test_requests_at_the_same_time_share_them_too(two):
    async def run():
        key = key_of(requests_per_minute=3)
        accepted = await asyncio.gather(*(passes(two[i % 2], key) for i in range(12)))
        assert sum(accepted) == 3

    asyncio.run(run())


def test_a_token_after_retry_after(two, monkeypatch):
    async def run():
        key, moment = key_of(requests_per_minute=6), [1000.0]
        monkeypatch.setattr(key_usage_module, "_time", lambda _: moment[0])
        assert [await passes(two[0], key) for _ in range(7)][-2:] == [True, False]
        with pytest.raises(LimitReached) as refusal:
            async with two[1].place(two[1].of(key)):
                pass
        moment[0] += refusal.value.retry_after
        assert await passes(two[1], key)
        assert not await passes(two[0], key)

    asyncio.run(run())


def test_open_requests_count_at_both(two):
    async def run():
        key = key_of(concurrency=2)
        async with two[0].place(two[0].of(key)), two[1].place(two[1].of(key)):
            with pytest.raises(LimitReached) as refusal:
                async with two[0].place(two[0].of(key)):
                    pass
            assert refusal.value.code == "concurrency_limit_exceeded"
            assert not await passes(two[1], key)
        await two[1].exchange()
        assert await passes(two[0], key)

    asyncio.run(run())


def test_the_place_of_a_short_request_is_free_at_once(two):
    async def run():
        key = key_of(concurrency=1)
        two[0].of(key)
        await two[0].exchange()  # it writes that nothing is open, as it is after the request
        assert await passes(two[0], key)
        await two[0].exchange()
        assert await passes(two[1], key)

    asyncio.run(run())


def test_the_place_of_a_request_that_was_cancelled_is_free_at_once(two):
    async def run():
        key, take = key_of(concurrency=1), two[0].store.take

        async def taken(*rest):
            await take(*rest)
            raise asyncio.CancelledError

        two[0].of(key)
        await two[0].exchange()
        two[0].store.take = taken
        with pytest.raises(asyncio.CancelledError):
            await passes(two[0], key)
        await two[0].exchange()
        assert await passes(two[1], key)

    asyncio.run(run())


def test_an_exchange_does_not_forget_a_request_that_began_meanwhile(two):
    async def run():
        key = key_of(concurrency=1)
        meters, exchange = two[0], two[0].store.exchange
        async with contextlib.AsyncExitStack() as request:

            async def late(*rest):
                await request.enter_async_context(meters.place(meters.of(key)))
                return await exchange(*rest)

            meters.of(key).add_bytes(1)
            meters.store.exchange = late
            await meters.exchange()  # it has read the counts before the request began
            assert not await passes(two[1], key)

    asyncio.run(run())


def test_an_exchange_counts_a_request_that_takes_its_place(two):
    async def run():
        key = key_of(concurrency=1)
        meters, take = two[0], two[0].store.take
        meters.of(key).add_bytes(1)

        async def taken(*rest):
            tokens = await take(*rest)
            await meters.exchange()  # before the request counts here
            assert not await passes(two[1], key)
            return tokens

        meters.store.take = taken
        assert await passes(meters, key)
        assert meters._wake.is_set()
        await meters.exchange()
        assert await passes(two[1], key)

    asyncio.run(run())


def test_the_open_requests_of_a_dead_server_are_forgotten(two, monkeypatch):
    async def run():
        key, now = key_of(concurrency=1), key_usage_module._time
        async with two[0].place(two[0].of(key)):
            assert not await passes(two[1], key)
            later = key_usage_module.LOST_SECONDS + 1
            monkeypatch.setattr(key_usage_module, "_time", lambda c: now(c) + later)
            assert await passes(two[1], key)

    asyncio.run(run())


def test_bytes_of_a_day_count_at_both(two):
    async def run():
        key = key_of(bytes_per_day=1000)
        first, second = (meters.of(key) for meters in two)
        first.add_bytes(700)
        await two[0].exchange()
        await two[1].exchange()
        with pytest.raises(LimitReached) as refusal:
            second.add_bytes(301)
        assert refusal.value.code == "bytes_limit_exceeded"

    asyncio.run(run())


def test_audio_of_a_day_counts_at_both_and_for_jobs(two):
    async def run():
        key = key_of(audio_hours_per_day=1)
        two[0].of(key)
        two[0].add_audio("k", 3600)
        await two[0].exchange()
        assert not await passes(two[1], key)
        assert two[1].of(key).audio_wait() > 0

    asyncio.run(run())


def test_a_server_that_starts_later_knows_what_was_used(two, database):
    async def run():
        key = key_of(audio_hours_per_day=1)
        two[0].of(key)
        two[0].add_audio("k", 3600)
        await two[0].exchange()
        late = server(database)
        await late.exchange()
        assert late.of(key).audio_wait() > 0

    asyncio.run(run())


def test_writing_twice_counts_once(two):
    async def run():
        key = key_of(bytes_per_day=1000)
        two[0].of(key).add_bytes(600)
        for _ in range(3):
            two[0]._written.clear()  # as after an answer of the database that was lost
            await two[0].exchange()
        assert await passes(two[1], key)
        assert two[1].of(key).elsewhere.n_bytes == 600

    asyncio.run(run())


def test_the_day_is_that_of_the_database(database, monkeypatch):
    """One server's clock is five minutes ahead. Both begin the new day at the same moment."""
    midnight = 20_000 * DAY_SECONDS
    moment = [midnight - 60.0]
    monkeypatch.setattr(key_usage_module, "_time", lambda _: moment[0])

    async def run():
        key = key_of(bytes_per_day=1000)
        right, ahead = (server(database, lambda skew=s: moment[0] + skew) for s in (0, 300))
        for meters in (ahead, right):
            await meters.exchange()
        ahead.of(key).add_bytes(800)
        assert ahead.of(key).here == KeyUse(19_999, 800)
        await ahead.exchange()
        await right.exchange()
        with pytest.raises(LimitReached) as refusal:
            right.of(key).add_bytes(201)
        assert refusal.value.retry_after == 60
        moment[0] += 60
        ahead.of(key).add_bytes(800)
        right.of(key).add_bytes(200)

    asyncio.run(run())


class Away:
    """A database that is away, or that never answers."""

    def __init__(self, *, hangs):
        self.n_asked = 0
        self._hangs = hangs

    async def take(self, *_):
        self.n_asked += 1
        if self._hangs:
            await asyncio.Event().wait()
        raise StoreUnavailable("away")

    async def exchange(self, *_):
        raise StoreUnavailable("away")


@pytest.mark.parametrize("hangs", [False, True])
def test_without_the_database_each_server_counts_for_itself(monkeypatch, hangs):
    monkeypatch.setattr(shared, "PATIENCE_SECONDS", 0.01)

    async def run():
        meters = server(None)
        meters.store = away = Away(hangs=hangs)
        key = key_of(requests_per_minute=3, concurrency=5)
        assert [await passes(meters, key) for _ in range(5)] == [True] * 3 + [False] * 2
        assert away.n_asked == 1, "requests do not wait for it again and again"
        await meters.exchange()

    asyncio.run(run())


def test_the_last_count_of_the_others_stays_while_the_database_is_away(two):
    async def run():
        key = key_of(bytes_per_day=1000)
        two[0].of(key).add_bytes(900)
        await two[0].exchange()
        await two[1].exchange()
        two[1].store = Away(hangs=False)
        await two[1].exchange()
        with pytest.raises(LimitReached):
            two[1].of(key).add_bytes(200)

    asyncio.run(run())


def test_old_days_are_deleted(two, database, monkeypatch):
    async def run():
        key = key_of(bytes_per_day=1000)
        past = time.time() - 3 * DAY_SECONDS
        monkeypatch.setattr(key_usage_module, "_time", lambda _: past)
        await two[0].exchange()
        two[0].of(key).add_bytes(1)
        await two[0].exchange()
        monkeypatch.undo()
        await two[1].exchange()
        two[1].of(key).add_bytes(1)
        await two[1].exchange()
        await two[1].store.forget()
        count = sa.select(sa.func.count()).select_from(key_usage)
        assert await database.read(lambda c: c.scalar(count)) == 1

    asyncio.run(run())


def test_the_loop_exchanges_at_once_when_a_request_ends(two, monkeypatch):
    monkeypatch.setattr(shared, "SYNC_SECONDS", 3600)

    async def run():
        key = key_of(concurrency=1)
        task = asyncio.create_task(two[0].run())
        async with two[0].place(two[0].of(key)):
            assert not await passes(two[1], key)
        async with asyncio.timeout(60):
            while not await passes(two[1], key):
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(run())


# --- tokens ---------------------------------------------------------------------------------------


def test_tokens_of_a_server_whose_clock_is_behind_are_valid_at_the_other(tmp_path):
    """A client secret of 60 s, made where it is five minutes earlier, would have expired."""
    truth = 1_000_000.0
    behind, ahead = (SharedClock(lambda skew=s: truth + skew) for s in (-300, 300))
    for clock in (behind, ahead):
        clock.set_to(truth)
        assert clock.now() == truth
    keyring = Keyring(Settings.from_env({"ASR_API_KEYS": '{"name": "k", "key": "secret"}'}))
    at = [
        SimpleNamespace(
            secrets=ClientSecrets(keyring, tmp_path / "key", clock.now),
            tokens=MediaTokens(keyring, tmp_path / "key", clock.now),
        )
        for clock in (behind, ahead)
    ]
    secret, expires_at = at[0].secrets.make("k", {}, 60)
    assert expires_at == truth + 60
    assert at[1].secrets.find([secret.encode()]).owner == "k"
    token, _ = at[1].tokens.make("k", "0" * 32)
    assert at[0].tokens.owner_of(token, "0" * 32) == "k"
