"""Which length of chunks gives the fewest word errors, and how long the chunks really are."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from benchmarks.first_hour.arms import CHUNKS
from benchmarks.first_hour.bench import report_of
from benchmarks.first_hour.bootstrap import MIN_CLIPS, difference, wer_interval
from benchmarks.first_hour.instructions import SHORT_SECONDS, is_loop
from benchmarks.first_hour.recordings import long_recordings
from benchmarks.first_hour.references import selection
from benchmarks.first_hour.section import Section, Table, Verdict, interval, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.first_hour.answers import Answer
    from benchmarks.first_hour.bench import Bench
    from benchmarks.first_hour.bootstrap import Difference
    from benchmarks.first_hour.references import Clip

LONG_SECONDS: Final = 35.0
JOINED_SECONDS: Final = 90.0
MAX_JOINED: Final = 30
EDGES: Final = (0.0, SHORT_SECONDS, 5.0, 10.0, 15.0, 20.0, 25.0, 31.0)
MAX_SHORT_SHARE: Final = 0.01


def recordings(bench: Bench, clips: Sequence[Clip]) -> list[Clip]:
    """The long recordings of the references; if there are few, also some that are joined."""
    long = [clip for clip in clips if clip.seconds > LONG_SECONDS]
    if len(long) >= MIN_CLIPS:
        return selection(long, MAX_JOINED * JOINED_SECONDS)
    total = sum(clip.seconds for clip in clips)
    count = min(MAX_JOINED, max(3, round(total / JOINED_SECONDS)))
    folder = bench.folder / "audio"
    return [*long, *long_recordings(clips, folder, JOINED_SECONDS, count)]


async def measure(bench: Bench, clips: Sequence[Clip]) -> Section:
    """Transcribe long recordings in chunks of different lengths, with VAD and without guards."""
    title = "Length of chunks"
    some = recordings(bench, clips)
    if not some:
        told = "all clips are longer than 45 s and shorter than 35 s"
        return Section("chunks", title, (Verdict("chunk length", "not measurable", told),))
    heard = {arm.name: await bench.ask(arm, some) for arm in CHUNKS}
    scores = {
        name: [it.words for it in report_of(answers, some).results]
        for name, answers in heard.items()
    }
    default = CHUNKS[-1]
    compared = {arm.name: difference(scores[default.name], scores[arm.name]) for arm in CHUNKS[:-1]}
    rows = []
    for arm in CHUNKS:
        against = compared.get(arm.name)
        lengths = [length for it in heard[arm.name].values() for length in it.chunks]
        rows.append(
            (
                arm.title,
                interval(wer_interval(scores[arm.name])),
                "" if against is None else f"{100 * against.value:+.2f}",
                "" if against is None else f"{against.p:.3f}",
                str(len(lengths)),
                f"{sum(lengths) / max(1, len(lengths)):.1f}",
                str(sum(map(is_loop, heard[arm.name].values()))),
            )
        )
    titles = ("", "WER (95% interval)", "minus 30 s, points", "p", "chunks", "mean s", "loops")
    tables = (
        Table(f"Chunks of {len(some)} recordings of 35 s and more", [titles, *rows]),
        Table("How many chunks have how many seconds", _histogram(heard)),
    )
    verdicts = (_length_verdict(compared, len(some)), _short_verdict(heard[default.name]))
    return Section("chunks", title, verdicts, tables)


def _histogram(heard: Mapping[str, Mapping[str, Answer]]) -> list[tuple[str, ...]]:
    bins = list(pairwise(EDGES))
    rows = [("", *(f"{low:g} to {high:g}" for low, high in bins))]
    for arm in CHUNKS:
        lengths = [length for it in heard[arm.name].values() for length in it.chunks]
        counts = (sum(low <= it < high for it in lengths) for low, high in bins)
        rows.append((arm.title, *map(str, counts)))
    return rows


def _length_verdict(compared: Mapping[str, Difference | None], n_recordings: int) -> Verdict:
    item = "chunk length"
    if n_recordings < MIN_CLIPS:
        todo = f"give recordings of {MIN_CLIPS * JOINED_SECONDS / 60:.0f} minutes or more in total"
        return Verdict(item, "not measurable", f"only {n_recordings} recordings", todo)
    better = [
        f"{name.removeprefix('chunks_')} s ({100 * found.value:+.2f} points)"
        for name, found in compared.items()
        if found and found.is_significant and found.value < 0
    ]
    if better:
        todo = "tell the developers: the engine may prefer shorter chunks (preferred_seconds)"
        return Verdict(item, "look here", f"better than 30 s: {', '.join(better)}", todo)
    return Verdict(item, "pass", "no shorter length is significantly better than 30 s")


def _short_verdict(heard: Mapping[str, Answer]) -> Verdict:
    lengths = [length for it in heard.values() for length in it.chunks]
    n_short = sum(length < SHORT_SECONDS for length in lengths)
    item = f"no chunk under {SHORT_SECONDS:g} s"
    told = f"{n_short} of {len(lengths)} chunks ({percent(n_short / max(1, len(lengths)))})"
    if n_short > MAX_SHORT_SHARE * len(lengths):
        todo = "see `clips under 3 s`: if these fail, short regions must be merged with neighbours"
        return Verdict(item, "look here", told, todo)
    return Verdict(item, "pass", told)
