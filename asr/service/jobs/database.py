"""The database of jobs: SQLite in a file, or Postgres.

Every piece of work is one transaction in a thread. If the database is unavailable for any reason,
the error is `StoreUnavailable`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from asr.errors import InvalidOption, StoreTooNew, StoreUnavailable
from asr.service.jobs.troubles import FOREIGN, explained

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

logger = logging.getLogger(__name__)

N_THREADS: Final = 8
CONNECT_SECONDS: Final = 5
STATEMENT_SECONDS: Final = 30
SCHEMA_LOCK: Final = 4_701_972
"""Advisory lock in Postgres: one server at a time creates the tables."""
QUEUE_LOCK: Final = 4_701_973
"""Advisory lock in Postgres: one server at a time adds a job."""

_POSTGRES: Final = {
    "connect_timeout": CONNECT_SECONDS,
    "options": f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={CONNECT_SECONDS}s",
    # After about 15 s these detect that the host has vanished.
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
_OURS: Final = (exc.IntegrityError, exc.DataError)
"""Errors of a statement. All others mean that the database cannot be used: it is unreachable, full,
locked, read-only, damaged, or has other tables."""


class now(FunctionElement[float]):  # noqa: N801  # named like the SQL function
    """Seconds since 1970 by the clock of the database, which all servers share."""

    type = sa.Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite_now(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgres_now(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())"


class Database:
    """A pool of connections.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://...``. The first use opens the first connection,
            so a process may fork after making this.

    Raises:
        InvalidOption: the driver of PostgreSQL is not installed.

    Attributes:
        trouble: why the last transaction failed, or None if it did not.
    """

    def __init__(self, url: str) -> None:
        scheme, rest = url.split("://", 1)
        self._is_sqlite = scheme == "sqlite"
        self._engine = (
            _sqlite(url) if self._is_sqlite else _postgres(f"postgresql+psycopg://{rest}")
        )
        snapshot = {} if self._is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reader = self._engine.execution_options(only_reads=True, **snapshot)
        self._prepare: Callable[[sa.Connection], None] | None = None
        self._obstacle: str | None = "the database of jobs was not reached yet"
        self.trouble: StoreUnavailable | None = StoreUnavailable(self._obstacle)
        # Its own threads: a database that hangs must not block other users of the default pool.
        self._threads = ThreadPoolExecutor(N_THREADS, "database")

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Do `work`, which only reads, on one snapshot of the database.

        Raises:
            StoreUnavailable: the database is unavailable.
        """
        return await self._with_tables(self._reader, work)

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Do `work` in a transaction, which commits even if the caller is cancelled meanwhile.

        Raises:
            StoreUnavailable: the work may or may not have been done; do it again.
        """
        return await self._with_tables(self._engine, work)

    async def _with_tables(self, engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
        """Do `work`. If somebody has deleted the tables, create them and do it again."""
        self._check()
        try:
            return await self._in_thread(engine, work)
        except StoreUnavailable as error:
            if error.summary != FOREIGN or self._prepare is None:
                raise
            logger.warning("the tables of the database of jobs are gone, and their jobs with them")
        await self.open(self._prepare)
        return await self._in_thread(engine, work)

    async def _in_thread(self, engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(self._threads, _transact, engine, work)
        except StoreUnavailable as error:
            self.trouble = error
            raise
        self.trouble = None
        return result

    def _check(self) -> None:
        if self._obstacle is not None:
            raise StoreUnavailable(self._obstacle, self._obstacle)

    async def open(self, prepare: Callable[[sa.Connection], None]) -> None:
        """Run `prepare` under a lock that excludes other servers. Then allow `read` and `run`.

        Raises:
            StoreUnavailable: the database is unavailable, or another server holds the lock
                for too long.
            StoreTooNew: `prepare` raised it. `read` and `run` then fail with the same message.
        """

        def work(connection: sa.Connection) -> None:
            if not self._is_sqlite:  # SQLite has one writer at a time
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(SCHEMA_LOCK)))
            prepare(connection)

        try:
            await self._in_thread(self._engine, work)
        except StoreUnavailable as error:
            if isinstance(error, StoreTooNew):
                self._obstacle = str(error)
            elif error.advice:  # the kind of trouble is known
                self._obstacle = error.summary
            raise
        self._obstacle, self._prepare = None, prepare

    def read_once(self, work: Callable[[sa.Connection], T]) -> T:
        """Do `work`, which only reads, in this thread, and close the connection.

        Raises:
            StoreUnavailable: the database is unavailable.
        """
        try:
            return _transact(self._reader, work)
        finally:
            self._engine.dispose()

    async def close(self) -> None:
        """Close the idle connections."""
        await asyncio.to_thread(self._engine.dispose)


def _transact(engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
    try:
        with engine.begin() as connection:
            return work(connection)
    except (exc.DatabaseError, exc.InterfaceError, exc.TimeoutError) as error:
        is_lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
        if isinstance(error, _OURS) and not is_lost:
            raise
        raise explained(str(getattr(error, "orig", None) or error)) from error


def _postgres(url: str) -> sa.Engine:
    if importlib.util.find_spec("psycopg") is None:
        message = "PostgreSQL needs psycopg: pip install 'asr-service[postgres]'"
        raise InvalidOption("database_url", message)
    return sa.create_engine(
        url,
        pool_pre_ping=True,
        pool_timeout=CONNECT_SECONDS,
        connect_args=_POSTGRES,
    )


def _sqlite(url: str) -> sa.Engine:
    """SQLite, configured to survive a loss of power. Readers do not wait for the writer."""
    connect = {"timeout": CONNECT_SECONDS, "check_same_thread": False, "isolation_level": None}
    engine = sa.create_engine(url, connect_args=connect, pool_timeout=CONNECT_SECONDS)

    file = Path(url.removeprefix("sqlite:///"))

    @sa.event.listens_for(engine, "do_connect")
    def _make_folder(*_: object) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    # SQLite goes on with a file that somebody has deleted, and its jobs would be lost at the end.
    @sa.event.listens_for(engine, "checkout")
    def _check_file(_: object, record: sa.pool.ConnectionPoolEntry, __: object) -> None:
        if record.info["file"] != _identity(file):
            raise exc.DisconnectionError("the file of the database was deleted or replaced")

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, record: sa.pool.ConnectionPoolEntry) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        record.info["file"] = _identity(file)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A writer takes the lock at BEGIN, where SQLite waits for it. If it took the lock at its
        # first write, after a read, SQLite could refuse it without waiting.
        only_reads = connection.get_execution_options().get("only_reads")
        connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")

    return engine


def _identity(file: Path) -> tuple[int, int] | None:
    """What tells a file from another one that replaced it."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def lock_queue(connection: sa.Connection) -> None:
    """Let other transactions that call this wait until this one ends.

    So the number of waiting jobs that this transaction counts stays correct.
    """
    if connection.dialect.name != "sqlite":  # SQLite has one writer at a time
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(QUEUE_LOCK)))


def upsert(
    connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], *changed: str
) -> None:
    """Insert `rows`. If the primary key of a row exists, update its `changed` columns instead.

    Without `changed`, rows that violate a unique constraint are skipped.
    """
    if not rows:
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table)
    if changed:
        values = {name: statement.excluded[name] for name in changed}
        statement = statement.on_conflict_do_update(index_elements=table.primary_key, set_=values)
    else:
        statement = statement.on_conflict_do_nothing()
    connection.execute(statement, rows)
