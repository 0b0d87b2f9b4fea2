"""The state of a run: what is done and what is still to do. Nothing here does it.

A run is a sequence of rounds. Each round has all tasks that can be done now, the longest first. The
answers decide about the next round: the pieces of recordings that were split, tasks to try again,
and at the end, one by one, tasks that may have killed processes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asr.batch.identity import row_id
from asr.batch.item import Item
from asr.batch.manifest import Row
from asr.batch.progress import Rates
from asr.batch.tasks import Answer, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.batch.index import Index
    from asr.batch.item import State
    from asr.batch.progress import Progress
    from asr.batch.results import Done, Results
    from asr.batch.sources import Source

TRIES: Final = 3
"""Rounds in which a task may fail by the service's fault."""


class Campaign:
    """The state of a run.

    Args:
        sources: all paths.
        results: what exists.
        index: hashes of earlier runs.
        fingerprint: see `asr.batch.identity`.
        retry_failed: try recordings again that an earlier run failed on.
        progress: is told what happens.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        results: Results,
        index: Index,
        fingerprint: str,
        progress: Progress,
        *,
        retry_failed: bool = False,
    ) -> None:
        self._sources = sources
        self._results = results
        self._index = index
        self._fingerprint = fingerprint
        self._retry_failed = retry_failed
        self._progress = progress
        self._rates = Rates()
        self._by_content: dict[str, Item] = {}
        self._by_path: dict[str, Item] = {}
        self._items: dict[int, Item] = {}  # by identity, in the order found
        self.n_troubles = 0  # in a row
        self.trouble = ""
        self._away: set[str | None] = set()  # places, and None for ourselves
        for source in sources:
            self._add(source)
        self._known = results.known()
        self._facts: dict[str, Done] = {}
        for item in self.items:
            self._look_up(item)

    @property
    def items(self) -> list[Item]:
        """All recordings."""
        return list(self._items.values())

    def _add(self, source: Source) -> None:
        entry = None if source.error else self._index.get(source)
        item = self._by_content.get(entry.content) if entry else None
        if item is None:
            item = Item([], entry.content if entry else None)
            if source.error:
                item.state, item.error, item.fault = "failed", source.error, "path"
            self._items[id(item)] = item
        item.sources.append(source)
        self._by_path[source.path] = item
        if entry:
            self._by_content[entry.content] = item
            item.seconds = entry.seconds or item.seconds
            if entry.seconds and source.size:
                self._rates.learn(source.path, source.size, entry.seconds)

    def _look_up(self, item: Item) -> None:
        """See whether an earlier run did a recording."""
        if item.content is None or item.state != "new":
            return
        item.id = row_id(item.content, self._fingerprint)
        if item.id in self._known.done:
            done = self._results.done(item.id)
            if done and self._results.is_complete(item.id, done, self._known.outputs):
                self._finish(item, done)
                return
        if item.id in self._known.failed:
            self._meet_failure(item)

    def _meet_failure(self, item: Item) -> None:
        if self._retry_failed:
            self._results.forget_failure(item.id)
        else:
            item.error = self._results.failure(item.id) or "failed"
            item.state, item.fault = "failed", "recording"

    # --- hashing ------------------------------------------------------------------------------

    def unhashed(self) -> list[Task]:
        """Tasks for recordings that may be copies of each other, because they have the same size.

        All others are hashed when they are transcribed, so that they are read only once.
        """
        by_size: dict[int | None, list[Item]] = {}
        for item in self.items:
            if item.state == "new":
                by_size.setdefault(item.sources[0].size, []).append(item)
        groups = [group for group in by_size.values() if len(group) > 1]
        return [
            Task("hash", item.path) for group in groups for item in group if item.content is None
        ]

    def hashed(self, answer: Answer) -> None:
        """Hash a recording. A failure is ignored: transcribing the recording meets it again."""
        item = self._by_path[answer.task.path]
        if answer.status != "hashed" or item.content is not None:
            return
        self._index.add(item.sources[0], answer.content, None)
        item.content = answer.content
        first = self._by_content.setdefault(answer.content, item)
        if first is not item:
            self._merge(first, item)
        else:
            self._look_up(item)

    def _merge(self, first: Item, item: Item) -> None:
        first.sources += item.sources
        for source in item.sources:
            self._by_path[source.path] = first
        del self._items[id(item)]

    # --- rounds -------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """The tasks of the next round, the longest recordings first; none at the end.

        Tasks that must run alone come when nothing else is left.
        """
        self.estimate()
        ordered = sorted(self.items, key=lambda it: -it.seconds)
        tasks = [task for item in ordered for task in item.tasks()]
        normal = [task for task in tasks if not task.alone]
        return normal or tasks

    def estimate(self) -> None:
        """Estimate the lengths that are unknown, and tell the progress."""
        for item in self.items:
            if item.state == "new" and not item.n_pieces:
                source = item.sources[0]
                entry = self._index.get(source)
                known = entry.seconds if entry else None
                item.seconds = known or self._rates.seconds(source.path, source.size)
        self.count_all()

    def remaining(self) -> float:
        """Estimated seconds of audio that are still to do."""
        return sum(item.seconds for item in self.items if item.is_open)

    def take(self, answer: Answer) -> None:
        """Take the answer to a task of a round."""
        item = self._by_path[answer.task.path]
        if not item.is_open:
            return
        number = answer.task.number
        is_trouble = answer.status == "failed" and answer.fault == "service"
        self._count_trouble(item, answer, is_trouble=is_trouble)
        if answer.content:
            item.content, item.id = answer.content, answer.id
        if answer.status == "planned":
            item.state, item.seconds = "split", answer.seconds
            item.n_pieces, item.pieces = answer.pieces, set(range(answer.pieces))
        elif answer.status == "piece":
            item.pieces.discard(number)
        elif answer.status == "lost":
            self._begin_again(item, answer.task)
        elif answer.status == "suspect":
            item.alone.add(number)
        else:
            self._end(item, answer)

    def _begin_again(self, item: Item, task: Task) -> None:
        """Do a recording from the beginning, because files of its pieces were lost."""
        if item.state != "split" and task.kind != "file":  # another piece has told
            return
        item.state, item.n_pieces, item.pieces, item.alone = "new", 0, set(), set()
        item.n_troubles = 0
        item.n_losses += 1
        if item.n_losses >= TRIES:
            item.state, item.fault = "failed", "service"
            item.error = "the files of its pieces in the output folder were lost again and again"

    def _count_trouble(self, item: Item, answer: Answer, *, is_trouble: bool) -> None:
        if not is_trouble:
            self.n_troubles = 0
            self._away.clear()
            return
        self.n_troubles += 1
        item.is_away = answer.is_away
        self._away.add(item.place if answer.is_away else None)

    def is_hopeless(self, most: int) -> bool:
        """Whether so many tasks failed in a row that all others will.

        If only servers of recordings failed, those at other places are tried first.
        """
        if self.n_troubles < most:
            return False
        return None in self._away or all(it.place in self._away for it in self.items if it.is_open)

    def give_up_away(self) -> None:
        """Fail the recordings whose servers did not answer."""
        for item in self.items:
            if item.is_open and item.is_away:
                item.state = "failed"

    def _end(self, item: Item, answer: Answer) -> None:
        """Take an answer that says that a recording is done, or that a task failed."""
        done = self._results.done(answer.id) if answer.status == "done" else None
        if done is not None:
            self._finish(item, done)
        elif answer.status == "done":
            self._fail(item, replace(answer, error="its result was lost", fault="service"))
        else:
            self._fail(item, answer)

    def _finish(self, item: Item, done: Done) -> None:
        item.state, item.seconds = "done", done.seconds
        item.content = done.content
        self._facts[item.id] = done
        for source in item.sources:
            self._index.add(source, done.content, done.seconds)
            if source.size and done.seconds:
                self._rates.learn(source.path, source.size, done.seconds)

    def _drop_path(self, item: Item, answer: Answer) -> None:
        """Fail the path that was read; the recording may be readable under its other paths."""
        source = item.sources.pop(0)
        dropped = Item([source], state="failed", error=answer.error, fault="path")
        self._items[id(dropped)] = self._by_path[source.path] = dropped

    def _fail(self, item: Item, answer: Answer) -> None:
        if answer.fault == "path" and len(item.sources) > 1:
            self._drop_path(item, answer)
            return
        item.error, item.fault = answer.error, answer.fault
        if answer.fault == "service":
            self.trouble = answer.error
            item.n_troubles += 1
            if item.n_troubles < TRIES * max(1, item.n_pieces):
                return
        item.state = "failed"
        if answer.content and answer.fault != "path":
            self._index.add(item.sources[0], answer.content, None)

    # --- reports ------------------------------------------------------------------------------

    def count_all(self) -> None:
        """Tell the progress. It takes a moment, so it is not done for each answer."""
        progress = self._progress
        progress.found = sum(it.seconds for it in self.items if it.state != "failed")
        progress.done = sum(map(_done_seconds, self.items))
        progress.n_found = len(self._sources)
        progress.n_done = sum(len(it.sources) for it in self.items if it.state == "done")
        progress.n_failed = sum(len(it.sources) for it in self.items if it.state == "failed")

    def count(self, state: State) -> int:
        """How many paths are in a state."""
        return sum(len(item.sources) for item in self.items if item.state == state)

    def rows(self) -> list[Row]:
        """One row for each path."""
        first: dict[str, str] = {}
        return [self._row(source, first) for source in self._sources]

    def _row(self, source: Source, first: dict[str, str]) -> Row:
        item = self._by_path[source.path]
        original = first.setdefault(item.content, source.path) if item.content else source.path
        row = Row(
            source.path,
            item.id,
            content=item.content or "",
            duplicate_of=original if original != source.path else None,
        )
        if item.state == "failed":
            return replace(row, status="failed", error=item.error, fault=item.fault)
        done = self._facts.get(item.id)
        if item.state != "done" or done is None:  # perhaps it was tried, and the run ended
            return replace(row, error=item.error or None, fault=item.fault or None)
        return replace(
            row,
            status="done",
            seconds=done.seconds,
            rtfx=done.seconds / done.wall if done.wall else None,
            warnings=done.warnings,
            outputs=tuple(self._results.outputs(item.id).values()),
            engine=done.engine,
        )


def _done_seconds(item: Item) -> float:
    if item.state == "done":
        return item.seconds
    if item.n_pieces:
        return item.seconds * (1 - len(item.pieces) / item.n_pieces)
    return 0.0


def split_seconds(remaining: float, n_workers: int, longest: float | None) -> float:
    """From which length a recording is split.

    A recording may take a quarter of the share of one worker, so that it does not finish last on
    its own. Shorter pieces than `SHORTEST` cost more than they gain.

    Args:
        remaining: seconds of audio to do.
        n_workers: how many work at once.
        longest: the user's choice, or None.
    """
    if longest is not None:
        return longest
    return min(max(remaining / (4 * max(1, n_workers)), SHORTEST), LONGEST)


SHORTEST: Final = 600.0
LONGEST: Final = 4 * 3600.0
