"""``asr plot``: draw a recording and its transcript."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from asr.align import load_aligner
from asr.cli.arguments import add_quiet, add_recognition, add_recording, options_of, settings_of
from asr.cli.files import source, stem
from asr.cli.progress import Bar
from asr.config import check
from asr.engines import load_engine

if TYPE_CHECKING:
    import argparse

    from asr.pictures.inspection import Inspection


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, and set the function to run."""
    add_recording(parser)
    parser.add_argument("-o", "--output", type=Path, help="PNG (default: AUDIO's name with .png)")
    parser.add_argument("--start", type=float, default=0.0, help="seconds (default: 0)")
    parser.add_argument("--end", type=float, help="seconds (default: a minute after the start)")
    add_quiet(parser)
    add_recognition(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the picture and print its path."""
    # librosa belongs to an extra and takes seconds to import.
    from asr.pictures.inspection import Inspector
    from asr.pictures.plot import MAX_SECONDS, plot

    settings, start = settings_of(options), options.start
    end = start + 60 if options.end is None else options.end
    check(0 <= start < end, "start", "must not be negative, and lie before --end")
    check(end - start <= MAX_SECONDS, "end", f"at most {MAX_SECONDS:g} seconds fit in a picture")

    async def work(path: Path, bar: Bar) -> Inspection:
        async with Inspector(load_engine(settings), load_aligner(settings)) as inspector:
            chosen = options_of(options, settings)
            return await inspector.inspect(path, chosen, (start, end), bar.on_event)

    with source(options.audio) as path, Bar(options.audio, hidden=options.quiet) as bar:
        inspection = asyncio.run(work(path, bar))
    target = options.output or Path(f"{stem(options.audio, [options.audio])}.png")
    plot(inspection, target)
    print(target)
    return 0
