"""The tables of jobs and their version. Times are seconds since 1970 by the database's clock.

Users have databases with these tables. A change that an older service does not notice, such as a
new table or a new column that may be null, is listed in `LATER_INDEXES` or `LATER_COLUMNS`, and the
version stays the same: so servers of both versions can share a database during an upgrade. For
any other change, increase `VERSION`, migrate databases of version 1, and adopt Alembic.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from asr.errors import StoreTooNew
from asr.service.jobs.troubles import foreign

VERSION: Final = 1
"""The version of the tables below. The table ``asr_schema`` stores it."""

QUEUED: Final = "queued"
RUNNING: Final = "running"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
UNFINISHED: Final = (QUEUED, RUNNING)
STATES: Final = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED)

metadata = sa.MetaData()

jobs = sa.Table(
    "asr_jobs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("request", sa.Text, nullable=False),  # request.JobRequest as JSON
    sa.Column("fingerprint", sa.String(64), nullable=False),  # JobRequest.fingerprint
    sa.Column("sha256", sa.String(64), nullable=False),  # of the recording
    sa.Column("n_bytes", sa.BigInteger, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("not_before", sa.Double, nullable=False, server_default="0"),  # of the next attempt
    sa.Column("started", sa.Double),
    sa.Column("finished", sa.Double),
    # The claim of a runner. Each claim has a new token, and every write of a runner names it.
    sa.Column("lease", sa.String(64)),
    sa.Column("lease_until", sa.Double),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    # Failures since the last new chunk that only the recording explains (suspicion.py).
    sa.Column("stalls", sa.Integer, nullable=False, server_default="0"),
    # Progress in seconds of audio, and seconds of work.
    sa.Column("decoded", sa.Double, nullable=False, server_default="0"),
    sa.Column("transcribed", sa.Double, nullable=False, server_default="0"),
    sa.Column("total", sa.Double),
    sa.Column("work_seconds", sa.Double, nullable=False, server_default="0"),
    # The result: the summary of asr.pipeline.checkpoint, or OpenAI's error object.
    sa.Column("n_chunks", sa.Integer),
    sa.Column("summary", sa.Text),
    sa.Column("error", sa.Text),
    # What the client calls the job: the file name, the name in lower case for searches, and a
    # JSON object of strings as `labels.pack_metadata` writes it.
    sa.Column("name", sa.Text),
    sa.Column("folded_name", sa.Text),
    sa.Column("metadata", sa.Text),
    # The bytes of a recording that stays after the job has ended, with the files made from it;
    # null if the recording is removed then.
    sa.Column("kept_bytes", sa.BigInteger),
    sa.Index("asr_jobs_of_owner", "owner", "created", "id"),
    sa.Index("asr_jobs_in_wait", "state", "not_before"),
    sa.Index(
        "asr_jobs_once",
        "fingerprint",
        unique=True,
        sqlite_where=sa.text("state IN ('queued', 'running', 'succeeded')"),
        postgresql_where=sa.text("state IN ('queued', 'running', 'succeeded')"),
    ),
)


def _job_column() -> sa.Column[str]:
    key = sa.ForeignKey(jobs.c.id, ondelete="CASCADE")
    return sa.Column("job", sa.String(32), key, primary_key=True)


chunks = sa.Table(
    "asr_chunks",
    metadata,
    _job_column(),
    sa.Column("channel", sa.Integer, primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
)

segments = sa.Table(
    "asr_segments",
    metadata,
    _job_column(),
    sa.Column("index", sa.Integer, primary_key=True),
    sa.Column("record", sa.Text, nullable=False),
)

idempotency_keys = sa.Table(
    "asr_idempotency_keys",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("job", sa.String(32), sa.ForeignKey(jobs.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),  # of what the client sent
)

callbacks = sa.Table(
    "asr_callbacks",
    metadata,
    _job_column(),
    sa.Column("url", sa.Text, primary_key=True),
    sa.Column("id", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # pending, delivered, failed
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_try", sa.Double, nullable=False, server_default="0"),
)

edits = sa.Table(
    "asr_edits",  # the corrected transcripts
    metadata,
    _job_column(),
    # Counts the changes. A row without content stays when the edits are forgotten, so that a
    # revision never comes twice.
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),  # SHA-256 of the content, or ""
    sa.Column("content", sa.LargeBinary),  # as edited.pack writes it
    sa.Column("saved", sa.Double, nullable=False),
)

deleted_jobs = sa.Table(
    "asr_deleted_jobs",  # so that a page of jobs can begin behind a job that was deleted
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("deleted", sa.Double, nullable=False),
)

key_usage = sa.Table(
    "asr_key_usage",  # what each server counts for the limits of each API key
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("server", sa.String(32), primary_key=True),
    sa.Column("day", sa.BigInteger, nullable=False),  # of the next two, in days since 1970
    sa.Column("n_bytes", sa.BigInteger, nullable=False),
    sa.Column("audio_seconds", sa.Double, nullable=False),
    sa.Column("n_open", sa.Integer, nullable=False),  # requests, at the time `seen`
    sa.Column("seen", sa.Double, nullable=False),
)

key_rates = sa.Table(
    "asr_key_rates",  # requests that a key may still send; the servers share them
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("tokens", sa.Double, nullable=False),
    sa.Column("filled", sa.Double, nullable=False),
)

LATER_INDEXES: Final = (
    sa.Index("asr_callbacks_due", callbacks.c.state, callbacks.c.next_try),
    # Deleting a job looks for its keys.
    sa.Index("asr_idempotency_keys_of_job", idempotency_keys.c.job),
    sa.Index("asr_jobs_ended", jobs.c.finished),
)
"""Indexes that the first release lacked, as it lacked `deleted_jobs`, `edits`, `key_usage` and
`key_rates`. An older service works with them, so the version of the tables stays the same."""

LATER_COLUMNS: Final = (jobs.c.name, jobs.c.folded_name, jobs.c.metadata, jobs.c.kept_bytes)
"""Columns that the first release lacked. All may be null."""

schema = sa.Table("asr_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))
"""One row: the version of the other tables. Version 1 was first released without this table."""


def create_tables(connection: sa.Connection) -> None:
    """Create the tables, or check the version of those that exist.

    Args:
        connection: in a transaction that excludes other servers, as `Database.open` begins it.

    Raises:
        StoreTooNew: a newer service made the tables.
    """
    refuse_newer(connection)
    # Tables without asr_schema are version 1.
    has_version = sa.inspect(connection).has_table(schema.name)
    metadata.create_all(connection)  # those that are missing
    if not has_version:
        connection.execute(sa.insert(schema).values(version=VERSION))
    _add_columns(connection)
    for index in LATER_INDEXES:
        index.create(connection, checkfirst=True)


def _add_columns(connection: sa.Connection) -> None:
    found = {column["name"] for column in sa.inspect(connection).get_columns(jobs.name)}
    for column in LATER_COLUMNS:
        if column.name not in found:
            added = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {jobs.name} ADD COLUMN {added}")


def refuse_newer(connection: sa.Connection) -> None:
    """Check the version of the tables, if there are any, and change nothing.

    Raises:
        StoreTooNew: a newer service made the tables.
        StoreUnavailable: another program made them.
    """
    if not sa.inspect(connection).has_table(schema.name):
        return
    versions = connection.execute(sa.select(schema.c.version)).scalars().all()
    if len(versions) != 1 or not isinstance(versions[0], int):
        raise foreign()
    found = versions[0]
    if found > VERSION:
        raise StoreTooNew(
            f"the tables of jobs have version {found}, and this service knows {VERSION}: start "
            f"the newer service that made them, or set another ASR_DATABASE_URL or ASR_DATA_DIR"
        )
