"""What is wrong with a database, in words that help.

SQLite and PostgreSQL report trouble in a line of text. The table below recognises the usual kinds.
"""

from __future__ import annotations

import re
from typing import Final

from asr.errors import StoreUnavailable

DAMAGED: Final = "the database of jobs is damaged"
FOREIGN: Final = "the database of jobs has the tables of another program or version"

_OTHER_PLACE: Final = "set another ASR_DATABASE_URL or ASR_DATA_DIR"
_AWAY_WITH_IT: Final = (
    "stop the service, and restore jobs.db from a backup, or move it away with jobs.db-wal and "
    "jobs.db-shm; `sqlite3 jobs.db .recover` may save its jobs. Transcription without jobs works"
)
_KINDS: Final = (
    ("malformed|not a database|disk i/o error|encrypted", DAMAGED, _AWAY_WITH_IT),
    (
        "readonly|read-only|permission denied|insufficient privilege",
        "the database of jobs is read-only",
        "let the user of the service write to it and, for SQLite, to its folder",
    ),
    (
        "locked|lock timeout",
        "the database of jobs is locked",
        "end the program that holds it, such as a backup or a database shell",
    ),
    (
        "no such (table|column)|has no column|does not exist|undefined|already exists",
        FOREIGN,
        _OTHER_PLACE,
    ),
    (
        "unable to open",
        "the database of jobs cannot be opened",
        "jobs.db must be a file, and the service must be able to write to its folder",
    ),
    ("is full|no space", "the disk of the database of jobs is full", "free some space"),
)
"""Pattern in the error, summary, advice."""


def explained(cause: str) -> StoreUnavailable:
    """The error for a message of the database."""
    lines = cause.strip().splitlines()
    message = f"the database of jobs cannot be used now: {lines[0] if lines else 'no reason given'}"
    for pattern, summary, advice in _KINDS:
        if re.search(pattern, cause, re.IGNORECASE):
            return StoreUnavailable(message, summary, advice)
    return StoreUnavailable(message)


def foreign() -> StoreUnavailable:
    """The error for tables that this service did not make."""
    return StoreUnavailable(FOREIGN, FOREIGN, _OTHER_PLACE)


def described(error: StoreUnavailable) -> str:
    """The error with its advice, for the log."""
    return f"{error}. To repair it: {error.advice}" if error.advice else str(error)
