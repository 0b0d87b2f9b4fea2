"""What all servers count for the limits of keys; see `asr.service.access.shared`."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from asr.service.access.limits import DAY_SECONDS, KeyUse, refilled
from asr.service.jobs.database import Database, now, upsert
from asr.service.jobs.tables import key_rates, key_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOST_SECONDS: Final = 10.0
"""The open requests of a server that writes nothing for so long do not count: it is dead."""
_COUNTS: Final = ("day", "n_bytes", "audio_seconds", "n_open", "seen")


class KeyUsage:
    """The counts of all servers in the database. Every process has an id of its own.

    Every method raises `StoreUnavailable` when the database is unavailable.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._server = uuid.uuid4().hex

    async def exchange(
        self, own: Mapping[str, KeyUse], n_open: Callable[[str], int]
    ) -> tuple[float, dict[str, KeyUse]]:
        """As `UsageStore.exchange`."""
        uses = sorted(own.items())

        def work(connection: sa.Connection) -> tuple[float, dict[str, KeyUse]]:
            moment = _time(connection)
            rows = [self._row(owner, use, moment) for owner, use in uses]
            if rows:
                upsert(connection, key_usage, rows)
                self._lock(connection, [owner for owner, _ in uses])
            rows = [row | {"n_open": n_open(row["owner"])} for row in rows]
            upsert(connection, key_usage, rows, *_COUNTS)
            return moment, self._others(connection, moment)

        return await self._database.run(work)

    async def take(
        self, owner: str, rate: float | None, own: KeyUse, check: Callable[[KeyUse, float], None]
    ) -> float:
        """As `UsageStore.take`."""

        def work(connection: sa.Connection) -> float:
            moment = _time(connection)
            tokens = _locked_tokens(connection, owner, rate or 0.0, moment)
            others = self._others(connection, moment, owner)
            check(others.get(owner, KeyUse(int(moment // DAY_SECONDS))), tokens)
            left = tokens - 1 if rate is not None else tokens
            row = {"owner": owner, "tokens": left, "filled": moment}
            upsert(connection, key_rates, [row], "tokens", "filled")
            upsert(connection, key_usage, [self._row(owner, own, moment)], *_COUNTS)
            return left

        return await self._database.run(work)

    async def forget(self) -> None:
        """Delete the counts of the days before yesterday."""
        oldest = sa.func.floor(now() / DAY_SECONDS) - 1
        statement = sa.delete(key_usage).where(key_usage.c.day < oldest)
        await self._database.run(lambda connection: connection.execute(statement))

    def _row(self, owner: str, use: KeyUse, moment: float) -> dict[str, Any]:
        counts = (use.day, use.n_bytes, use.audio_seconds, use.n_open, moment)
        return {"owner": owner, "server": self._server} | dict(zip(_COUNTS, counts, strict=True))

    def _lock(self, connection: sa.Connection, owners: list[str]) -> None:
        """Let each `take` for these owners wait. What the earlier ones wrote is known by now."""
        table = key_usage.c
        is_ours = (table.server == self._server) & table.owner.in_(owners)
        query = sa.select(table.owner).where(is_ours).order_by(table.owner)
        connection.execute(query.with_for_update())

    def _others(
        self, connection: sa.Connection, moment: float, owner: str | None = None
    ) -> dict[str, KeyUse]:
        """The sums of the other servers by owner, or of one owner."""
        table, day = key_usage.c, int(moment // DAY_SECONDS)
        is_today, is_alive = table.day == day, table.seen > moment - LOST_SECONDS
        query = (
            sa.select(
                table.owner,
                sa.func.sum(sa.case((is_today, table.n_bytes), else_=0)),
                sa.func.sum(sa.case((is_today, table.audio_seconds), else_=0.0)),
                sa.func.sum(sa.case((is_alive, table.n_open), else_=0)),
            )
            .where(table.server != self._server)
            .group_by(table.owner)
        )
        if owner is not None:
            query = query.where(table.owner == owner)
        return {
            str(name): KeyUse(day, int(n_bytes), float(seconds), int(n_open))
            for name, n_bytes, seconds, n_open in connection.execute(query)
        }


def _time(connection: sa.Connection) -> float:
    return float(connection.execute(sa.select(now())).scalar_one())


def _locked_tokens(connection: sa.Connection, owner: str, rate: float, moment: float) -> float:
    """The tokens of a key at a moment. Other servers wait until this transaction ends."""
    upsert(connection, key_rates, [{"owner": owner, "tokens": rate, "filled": moment}])
    query = sa.select(key_rates.c.tokens, key_rates.c.filled).where(key_rates.c.owner == owner)
    tokens, filled = connection.execute(query.with_for_update()).one()
    return refilled(tokens, moment - filled, rate)
