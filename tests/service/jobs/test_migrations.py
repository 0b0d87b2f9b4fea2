"""Versions and migrations of the tables of jobs, on SQLite and on a real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa

from asr.errors import StoreTooNew, StoreUnavailable
from asr.service.jobs.database import Database
from asr.service.jobs.leases import Leases
from asr.service.jobs.rows import NewJob
from asr.service.jobs.store import JobStore
from asr.service.jobs.tables import VERSION, create_tables, refuse_newer
from tests.support.postgres import needs_postgres
from tests.support.serving import launched

V1 = Path(__file__).parent / "v1"
"""The tables of the first release, as SQL for each database. Never change these files."""


@pytest.fixture(
    params=["sqlite", pytest.param("postgres", marks=[needs_postgres, pytest.mark.slow])]
)
def url(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return url_of_another(request.getfixturevalue("postgres_url"))


def url_of_another(url):
    """The URL of another empty database on the same server."""
    name = f"test_{uuid.uuid4().hex}"
    if url.startswith("postgres"):
        execute(url, f"CREATE DATABASE {name}")
    return f"{url.rpartition('/')[0]}/{name}"


def plainly(url):
    """An SQLAlchemy engine without the settings of `Database`."""
    return sa.create_engine(
        url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool
    )


def execute(url, *statements):
    with plainly(url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def ask(url, query):
    with plainly(url).connect() as connection:
        return connection.exec_driver_sql(query).scalar_one()


def make_v1(url):
    kind = "sqlite" if url.startswith("sqlite") else "postgres"
    statements = (V1 / f"{kind}.sql").read_text().split(";\n")
    execute(url, *filter(str.strip, statements))


def shape(url):
    """The schema of all tables as the inspector reports it, ignoring the order of columns."""
    inspector = sa.inspect(plainly(url))
    found = {}
    for table in inspector.get_table_names():
        columns = {
            column["name"]: (str(column["type"]), column["nullable"], column["default"])
            for column in inspector.get_columns(table)
        }
        indexes = {
            index["name"]: (
                index["column_names"],
                bool(index["unique"]),
                {name: str(value) for name, value in index["dialect_options"].items()},
            )
            for index in inspector.get_indexes(table)
        }
        keys = repr(inspector.get_foreign_keys(table)), inspector.get_pk_constraint(table)
        found[table] = columns, indexes, keys
    return found


async def opened(url):
    database = Database(url)
    try:
        await database.open(create_tables)
    finally:
        await database.close()


def new(owner="me"):
    identity = uuid.uuid4().hex
    return NewJob(identity, owner, "{}", identity, "0" * 64, 1)


def test_a_fresh_database_stores_its_version(url):
    asyncio.run(opened(url))
    assert ask(url, "SELECT version FROM asr_schema") == 1


def test_migrated_tables_equal_fresh_ones(url):
    """Fails when someone changes the tables without a migration."""
    fresh_url = url_of_another(url)
    make_v1(url)
    assert "asr_schema" not in shape(url)
    for each in (url, fresh_url):
        asyncio.run(opened(each))
        assert ask(each, "SELECT version FROM asr_schema") == VERSION
    assert shape(url) == shape(fresh_url)


def test_jobs_of_the_first_release_are_kept(url):
    make_v1(url)
    identity = uuid.uuid4().hex
    execute(
        url,
        "INSERT INTO asr_jobs (id, owner, state, request, fingerprint, sha256, n_bytes, created)"
        f" VALUES ('{identity}', 'me', 'queued', '{{}}', 'f', 's', 1, 0)",
        f"INSERT INTO asr_chunks VALUES ('{identity}', 0, 0, 1.5, 'record')",
    )

    async def run():
        database = Database(url)
        await JobStore(database).open()
        job = await Leases(database).claim("token", 60)
        await database.close()
        return job

    assert asyncio.run(run()).id == identity
    assert ask(url, "SELECT record FROM asr_chunks") == "record"


def test_opening_again_changes_nothing(url):
    make_v1(url)
    asyncio.run(opened(url))
    before = shape(url)
    asyncio.run(opened(url))
    assert shape(url) == before
    assert ask(url, "SELECT count(*) FROM asr_schema") == 1


@pytest.mark.parametrize("is_old", [True, False], ids=["old", "empty"])
def test_servers_that_start_at_once_create_the_tables_once(url, is_old):
    """Each start has its own connections, as separate servers would."""
    if is_old:
        make_v1(url)

    async def start():
        for _ in range(100):
            try:
                return await opened(url)
            except StoreUnavailable:  # SQLite refuses when two servers enable WAL at once
                await asyncio.sleep(0.05)  # the service retries too
        raise AssertionError("never opened")

    async def run():
        await asyncio.gather(*(start() for _ in range(6)))

    asyncio.run(run())  # creating a table twice would raise an error
    assert ask(url, "SELECT count(*) FROM asr_schema") == 1
    assert ask(url, "SELECT version FROM asr_schema") == VERSION


def test_a_newer_version_is_refused_and_left_alone(url):
    asyncio.run(opened(url))
    execute(url, "UPDATE asr_schema SET version = 7", "ALTER TABLE asr_jobs ADD COLUMN later TEXT")
    before = shape(url)

    async def run():
        store = JobStore(Database(url))
        with pytest.raises(StoreTooNew, match="version 7, and this service knows 1"):
            await store.open()
        with pytest.raises(StoreUnavailable, match="start the newer service"):
            await store.create(new())
        await store.close()

    asyncio.run(run())
    with pytest.raises(StoreTooNew):
        Database(url).read_once(refuse_newer)
    assert shape(url) == before
    assert ask(url, "SELECT count(*) FROM asr_jobs") == 0


def test_reading_the_version_changes_nothing(url):
    Database(url).read_once(refuse_newer)
    assert shape(url) == {}
    make_v1(url)
    Database(url).read_once(refuse_newer)
    assert "asr_schema" not in shape(url)


def test_the_service_does_not_start_on_a_newer_version(tmp_path):
    url = f"sqlite:///{tmp_path}/jobs.db"
    asyncio.run(opened(url))
    execute(url, "UPDATE asr_schema SET version = 2")
    with launched("-m", "asr", "serve", ASR_DATABASE_URL=url) as server:
        assert server.process.wait(20) == 2
        assert "Traceback" not in server.log
        assert "database_url: the tables of jobs have version 2" in server.log
        server.wait_gone()
