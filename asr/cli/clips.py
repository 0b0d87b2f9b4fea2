"""``asr clips``: write each segment of a recording to its own file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from asr.align import load_aligner
from asr.cli.arguments import add_quiet, add_recognition, add_recording, options_of, settings_of
from asr.cli.files import say_warnings, source
from asr.cli.progress import Bar
from asr.engines import load_engine
from asr.pipeline.transcriber import collect
from asr.types import Segment

if TYPE_CHECKING:
    import argparse

    from asr.pipeline.run import Event
    from asr.types import Transcript


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, and set the function to run."""
    add_recording(parser)
    parser.add_argument(
        "-o", "--output-dir", type=Path, required=True, help="folder for the WAV files"
    )
    parser.add_argument("--padding", type=float, default=0.1, help="seconds around each segment")
    add_quiet(parser)
    add_recognition(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write each clip as soon as its segment is final."""
    # pydub belongs to an extra.
    from asr.pictures.clips import ClipWriter
    from asr.pictures.inspection import Inspector

    settings, writer = settings_of(options), ClipWriter(options.output_dir, options.padding)

    async def work(path: Path, bar: Bar) -> Transcript:
        async with Inspector(load_engine(settings), load_aligner(settings)) as inspector:

            def on_event(event: Event) -> None:
                bar.on_event(event)
                if isinstance(event, Segment) and event.words and inspector.recording:
                    writer.write(event, inspector.recording, inspector.n_samples)

            events = inspector.transcribe_file(path, options_of(options, settings))
            return await collect(events, on_event)

    with source(options.audio) as path, Bar(options.audio, hidden=options.quiet) as bar:
        transcript = asyncio.run(work(path, bar))
    say_warnings(options.audio, transcript)
    return 0
