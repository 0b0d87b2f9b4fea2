"""Whatever version of the tables a database holds, bring it to ours.

The database says which version it is. Version 1 did not: tables without the table of the version
are it. A later one is reached by steps, each from one version to the next, all of them in one
transaction: a database is of a version that there was, or not changed at all. There is no way back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import sqlalchemy as sa

from asr.errors import StoreTooNew
from asr.service.jobs.tables import jobs, metadata, schema

logger = logging.getLogger(__name__)

Step = Callable[[sa.Connection], None]

STEPS: Final[tuple[Step, ...]] = ()
"""The first leads from version 1 to 2, and so on.

A step is never changed once it was released, and says by itself what it changes (``ALTER TABLE``
in SQL that SQLite and Postgres both know): `asr.service.jobs.tables`, which the same change brings
to the new version, will have moved on when the step runs.
"""


def bring_up(connection: sa.Connection, steps: Sequence[Step] = STEPS) -> None:
    """Make the tables, or bring them to the version behind the last step.

    Args:
        connection: in a transaction that nobody else can begin meanwhile.
        steps: from version 1 on.

    Raises:
        StoreTooNew: they are of a version that is not known here.
    """
    newest = len(steps) + 1
    found = _version(connection)
    if found is None:
        metadata.create_all(connection)
        connection.execute(sa.insert(schema).values(version=newest))
        return
    _check(found, newest)
    if not sa.inspect(connection).has_table(schema.name):
        schema.create(connection)
        connection.execute(sa.insert(schema).values(version=found))
    for version, step in enumerate(steps[found - 1 :], found + 1):
        logger.info("the database of jobs goes to version %d", version)
        step(connection)
        connection.execute(sa.update(schema).values(version=version))


def refuse_newer(connection: sa.Connection) -> None:
    """Change nothing.

    Raises:
        StoreTooNew: as `bring_up`.
    """
    _check(_version(connection) or 1, len(STEPS) + 1)


def _version(connection: sa.Connection) -> int | None:
    """The version of the tables, or None where there are none."""
    inspector = sa.inspect(connection)
    if inspector.has_table(schema.name):
        version: int = connection.execute(sa.select(schema.c.version)).scalar_one()
        return version
    return 1 if inspector.has_table(jobs.name) else None


def _check(found: int, newest: int) -> None:
    if found > newest:
        raise StoreTooNew(
            f"the tables of jobs are of version {found}, and this service knows {newest}: start "
            f"the newer service that made them, or set another ASR_DATABASE_URL or ASR_DATA_DIR"
        )
