"""``asr transcribe``: transcribe files."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from asr.cli.arguments import (
    add_channels,
    add_known_speakers,
    add_on_error,
    add_output,
    add_recognition,
    add_speakers,
    add_subtitles,
    add_track,
    options_of,
    settings_of,
    subtitles_of,
)
from asr.cli.files import deliver, source
from asr.cli.progress import Bar
from asr.cli.speakers import with_known
from asr.errors import AsrError, InvalidOption
from asr.pipeline.transcriber import collect, make_transcriber

if TYPE_CHECKING:
    import argparse

    from asr.config import SubtitleOptions
    from asr.settings import Settings


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, and set the function to run."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="recordings; - is standard input")
    add_output(parser, "txt")
    add_recognition(parser)
    add_channels(parser)
    add_track(parser)
    add_speakers(parser)
    add_known_speakers(parser)
    add_on_error(parser)
    add_subtitles(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Return 1 if one of the files failed."""
    subtitles = subtitles_of(options)
    if options.output_dir is not None:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    n_failed = asyncio.run(_transcribe_all(options, settings_of(options), subtitles))
    return 1 if n_failed else 0


async def _transcribe_all(
    options: argparse.Namespace, settings: Settings, subtitles: SubtitleOptions
) -> int:
    """Transcribe the files one by one. A failed file does not stop the others."""
    n_failed = 0
    async with make_transcriber(settings) as transcriber:
        chosen = options_of(options, settings)
        chosen = await with_known(chosen, options.known_speaker, transcriber, settings)
        for name in options.files:
            try:
                with source(name) as path, Bar(name, hidden=options.quiet) as bar:
                    events = transcriber.transcribe_file(path, chosen)
                    transcript = await collect(events, bar.on_event)
                deliver(transcript, name, subtitles, options)
            except (AsrError, OSError) as error:
                if isinstance(error, InvalidOption):
                    raise
                n_failed += 1
                print(f"asr: {name}: {error}", file=sys.stderr)
    return n_failed
