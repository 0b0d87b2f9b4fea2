"""The tables of jobs. Times are seconds since 1970 by the clock of the database.

There are databases with these tables: whoever changes them adds a step to `migrations.STEPS`.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

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
    sa.Column("request", sa.Text, nullable=False),  # creation.JobRequest as JSON
    sa.Column("fingerprint", sa.String(64), nullable=False),  # of owner, content and options
    sa.Column("sha256", sa.String(64), nullable=False),  # of the recording
    sa.Column("n_bytes", sa.BigInteger, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("not_before", sa.Double, nullable=False, server_default="0"),  # when to try again
    sa.Column("started", sa.Double),
    sa.Column("finished", sa.Double),
    # Who works on it. The token is new with each claim, and every write of a worker names it.
    sa.Column("lease", sa.String(64)),
    sa.Column("lease_until", sa.Double),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("stalls", sa.Integer, nullable=False, server_default="0"),  # without a new chunk
    # How far it has come, in seconds.
    sa.Column("decoded", sa.Double, nullable=False, server_default="0"),
    sa.Column("transcribed", sa.Double, nullable=False, server_default="0"),
    sa.Column("total", sa.Double),
    sa.Column("work_seconds", sa.Double, nullable=False, server_default="0"),
    # What came of it: asr.pipeline.checkpoint's summary, or OpenAI's error object.
    sa.Column("n_chunks", sa.Integer),
    sa.Column("summary", sa.Text),
    sa.Column("error", sa.Text),
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


def _of_job() -> sa.Column[str]:
    key = sa.ForeignKey(jobs.c.id, ondelete="CASCADE")
    return sa.Column("job", sa.String(32), key, primary_key=True)


chunks = sa.Table(
    "asr_chunks",
    metadata,
    _of_job(),
    sa.Column("channel", sa.Integer, primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
)

segments = sa.Table(
    "asr_segments",
    metadata,
    _of_job(),
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
    _of_job(),
    sa.Column("url", sa.Text, primary_key=True),
    sa.Column("id", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # pending, delivered, failed
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_try", sa.Double, nullable=False, server_default="0"),
)

schema = sa.Table("asr_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))
"""One row: the version of all the others."""
