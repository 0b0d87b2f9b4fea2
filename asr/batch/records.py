"""What a run writes down for people and for the next run: the manifest and the index.

Both are also written while the run goes on, so they can be read, and survive a killed driver.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from asr.batch.manifest import JSONL, write_manifest
from asr.batch.results import TOKEN
from asr.errors import EngineUnavailable

if TYPE_CHECKING:
    from asr.batch.campaign import Campaign
    from asr.batch.index import Index
    from asr.batch.store import Store

SAVE_SECONDS: Final = 60.0
SHARE: Final = 50
"""After a save that took long, wait this many times as long."""


class Records:
    """Writes the manifest and the index of a run.

    Args:
        store: the output folder.
        token: of this run.
        index: hashes of paths.
        campaign: the state of the run.

    Attributes:
        names: of the files of the manifest.
    """

    def __init__(self, store: Store, token: str, index: Index, campaign: Campaign) -> None:
        self._store = store
        self._token = token
        self._index = index
        self._campaign = campaign
        self._next = 0.0
        self.names: list[str] = [JSONL]

    def save_sometimes(self) -> None:
        """Save if the last time is long ago.

        Raises:
            EngineUnavailable: the output folder was removed or replaced.
            OSError: it cannot be written.
        """
        if time.monotonic() >= self._next:
            self.save()

    def save(self) -> None:
        """Save now. It raises the same errors as `save_sometimes`."""
        started = time.monotonic()
        if (self._store.read(TOKEN) or b"").decode() != self._token:
            told = "the output folder was removed or replaced during the run; run again"
            raise EngineUnavailable(told)
        self._index.save()
        self.names = write_manifest(self._store, self._campaign.rows())
        wall = time.monotonic() - started
        self._next = time.monotonic() + max(SAVE_SECONDS, SHARE * wall)

    def save_last(self) -> str:
        """Save at the end; return why it was impossible, or nothing."""
        try:
            self.save()
        except (EngineUnavailable, OSError) as error:
            return str(error)
        return ""
