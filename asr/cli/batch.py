"""``asr batch``: transcribe an archive, on this machine or on a Ray cluster."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from asr.cli.arguments import (
    add_channels,
    add_known_speakers,
    add_on_error,
    add_quiet,
    add_recognition,
    add_speakers,
    add_subtitles,
    add_track,
    options_of,
    settings_of,
    subtitles_of,
)
from asr.cli.speakers import with_known_alone
from asr.config import check
from asr.output.formats import FORMATS

if TYPE_CHECKING:
    import argparse
    from types import ModuleType

    from asr.batch.run import Outcome
    from asr.batch.sources import Listing

INTERRUPTED = 130


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, and set the function to run."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="files, folders, globs, http(s):// and s3:// URLs, or lists of them: .txt with one in"
        " each line, .jsonl with a field path, .csv with a column path; - reads a list from"
        " standard input",
    )
    parser.add_argument(
        "-o", "--out", required=True, metavar="DIR", help="folder, or s3://, gs:// or az:// URL"
    )
    parser.add_argument(
        "-f",
        "--format",
        action="append",
        choices=sorted(FORMATS),
        default=[],
        help="write this format besides json; may be repeated",
    )
    parser.add_argument("--retry-failed", action="store_true", help="try failed recordings again")
    parser.add_argument(
        "--rehash", action="store_true", help="read all files again; do not trust sizes and times"
    )
    _add_cluster(parser)
    add_quiet(parser)
    add_recognition(parser)
    add_channels(parser)
    add_track(parser)
    add_speakers(parser)
    add_known_speakers(parser)
    add_on_error(parser)
    add_subtitles(parser)
    parser.set_defaults(run=run)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Ray")
    group.add_argument(
        "--address", metavar="HOST:PORT", help="the Ray cluster to use; auto finds one"
    )
    group.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="number of actors (default: as many as fit)",
    )
    group.add_argument(
        "--cpus",
        type=int,
        default=0,
        metavar="N",
        help="processors of each actor (default: 1 for an embedded engine, 4 for Omni)",
    )
    group.add_argument(
        "--at-once",
        type=int,
        default=0,
        metavar="N",
        help="recordings at once in each actor (default: 1, or 2 for each processor with Omni)",
    )
    group.add_argument(
        "--split-minutes",
        type=float,
        metavar="M",
        help="split recordings longer than this (default: a quarter of the hours of each actor, but"
        " 10 minutes to 4 hours)",
    )


def run(options: argparse.Namespace) -> int:
    """Return 1 if a recording failed or was not reached."""
    for name in ("workers", "cpus", "at_once"):
        check(getattr(options, name) >= 0, name, "must be 0 or more")
    minutes = options.split_minutes
    check(minutes is None or minutes >= 1, "split_minutes", "must be 1 or more")
    try:  # only this command needs Ray, which is an extra
        from asr.batch import cluster
    except ImportError as error:
        told = f"Ray is not installed; pip install 'asr-service[batch]' ({error})"
        check(False, "batch", told)
    from asr.batch.signals import terminable

    with terminable():
        return _run(options, cluster)


def _run(options: argparse.Namespace, cluster: ModuleType) -> int:
    from asr.batch.progress import Progress
    from asr.batch.run import prepare, run_batch
    from asr.batch.sources import list_sources
    from asr.batch.tasks import Job

    minutes = options.split_minutes
    settings = settings_of(options)
    chosen = options_of(options, settings)
    if options.known_speaker:
        chosen = asyncio.run(with_known_alone(chosen, options.known_speaker, settings))
    listing = list_sources(options.sources)
    _say_found(listing, options)
    job = prepare(
        Job(
            settings,
            chosen,
            tuple(options.format),
            subtitles_of(options),
            options.out,
            fingerprint="",
            split_seconds=0.0,
        ),
        is_here=not options.address,
    )
    size = cluster.size_for(job, options.workers, options.cpus, options.at_once)
    with cluster.RayExecutor(options.address, size) as executor:
        outcome = run_batch(
            job,
            listing.sources,
            executor,
            Progress(hidden=options.quiet),
            retry_failed=options.retry_failed,
            rehash=options.rehash,
            longest=None if minutes is None else 60 * minutes,
        )
    return _ended(outcome, options)


def _say_found(listing: Listing, options: argparse.Namespace) -> None:
    check(bool(listing.sources), "source", "no recordings found")
    if options.quiet:
        return
    if listing.n_skipped:
        told = f"{listing.n_skipped} files without a suffix of recordings were skipped"
        print(f"asr: {told}; name them to transcribe them", file=sys.stderr)
    n_found = len(listing.sources)
    print(f"asr: {n_found} recording{'s' * (n_found != 1)} found", file=sys.stderr)


def _ended(outcome: Outcome, options: argparse.Namespace) -> int:
    if outcome.trouble:
        print(f"asr: {outcome.trouble}", file=sys.stderr)
    told = f"{outcome.n_done} done, {outcome.n_failed} failed, {outcome.n_pending} not reached"
    print(f"{told}: {options.out.rstrip('/')}/{outcome.manifest[0]}")
    if outcome.is_interrupted:
        return INTERRUPTED
    return 1 if outcome.n_failed or outcome.n_pending or outcome.trouble else 0
