"""``asr evaluate``: score transcripts against references."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from asr.cli.arguments import (
    add_quiet,
    add_recognition,
    add_speakers,
    options_of,
    settings_of,
)
from asr.config import ChunkOptions, check
from asr.pipeline.transcriber import collect, make_transcriber

if TYPE_CHECKING:
    import argparse

    from asr.types import Transcript


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, and set the function to run."""
    parser.add_argument(
        "manifest", type=Path, help="JSON lines with file, text, and optional words and rttm"
    )
    parser.add_argument(
        "--collar", type=float, default=0.2, help="seconds of tolerance for word times"
    )
    parser.add_argument(
        "--times", action="store_true", help="measure the aligner alone, on the reference text"
    )
    parser.add_argument("--chunk-seconds", type=float, default=30.0, help="longest chunk")
    parser.add_argument(
        "--min-chunk-seconds",
        type=float,
        default=ChunkOptions().min_seconds,
        help="a chunk with less speech is joined to its neighbour",
    )
    parser.add_argument("--json", type=Path, help="write the full report to this file")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw histograms of the errors")
    add_quiet(parser)
    add_speakers(parser)
    add_recognition(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; return 1 if one of the files failed."""
    try:  # only this command needs jiwer, which is an extra
        from asr.evaluation import ReferenceEngine, evaluate, read_manifest
    except ImportError:
        check(False, "evaluate", "jiwer is not installed; pip install 'asr-service[evaluation]'")
    settings = settings_of(options)
    chosen = replace(options_of(options, settings), chunk=_chunk_options(options))
    utterances = read_manifest(options.manifest)
    words_of = {utterance.file: utterance.words for utterance in utterances}
    reference = ReferenceEngine(settings.workers)
    with asyncio.Runner() as runner:
        transcriber = make_transcriber(settings, (lambda _: reference) if options.times else None)
        runner.run(transcriber.open())

        def transcribe(path: Path) -> Transcript:
            reference.words = words_of[path]
            return runner.run(collect(transcriber.transcribe_file(path, chosen)))

        bar = tqdm(total=len(utterances), unit="file", disable=True if options.quiet else None)
        with bar:
            report = evaluate(utterances, transcribe, on_result=lambda _: bar.update())
        runner.run(transcriber.close())
    print(report.to_markdown(options.collar))
    if options.json is not None:
        options.json.write_text(report.to_json(options.collar), encoding="utf-8")
    if options.plot is not None:
        from asr.pictures.plot import plot_errors

        print(*plot_errors(report, options.plot, options.collar), sep="\n")
    return 1 if report.failures else 0


def _chunk_options(options: argparse.Namespace) -> ChunkOptions:
    return ChunkOptions(max_seconds=options.chunk_seconds, min_seconds=options.min_chunk_seconds)
