"""``asr align``: find the time of every word of a known text."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli.arguments import (
    add_known_speakers,
    add_output,
    add_recognition,
    add_recording,
    add_speakers,
    add_subtitles,
    options_of,
    settings_of,
    subtitles_of,
)
from asr.cli.files import deliver, source
from asr.cli.progress import Bar
from asr.cli.speakers import with_known
from asr.errors import InvalidOption
from asr.pipeline.known_text import align_file
from asr.pipeline.transcriber import collect, make_transcriber
from asr.text.decoding import decode_text
from asr.text.script import read_script

if TYPE_CHECKING:
    from asr.types import Transcript


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, and set the function to run."""
    add_recording(parser)
    parser.add_argument(
        "text",
        metavar="TEXT",
        type=Path,
        help="file with the words of the recording: plain text, SRT, WebVTT or LRC, in UTF-8; "
        "the times of subtitles are not used",
    )
    parser.add_argument(
        "--keep-lines",
        action=argparse.BooleanOptionalAction,
        help="make each line of the text one cue (default: only for SRT, WebVTT and LRC)",
    )
    add_output(parser, "srt")
    add_speakers(parser)
    add_known_speakers(parser)
    add_recognition(parser)
    add_subtitles(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Return 1 if the recording failed."""
    subtitles, settings = subtitles_of(options), settings_of(options)
    try:
        text = decode_text(options.text.read_bytes())
    except OSError as error:
        raise InvalidOption("TEXT", f"{options.text} cannot be read ({error})") from error
    read_script(text)  # so that a wrong text is refused before the engine is loaded
    options.files = [options.audio]
    if options.output_dir is not None:
        options.output_dir.mkdir(parents=True, exist_ok=True)

    async def work(path: Path, bar: Bar) -> Transcript:
        async with make_transcriber(settings) as transcriber:
            chosen = options_of(options, settings)
            chosen = await with_known(chosen, options.known_speaker, transcriber, settings)
            events = align_file(transcriber, path, text, chosen, keep_lines=options.keep_lines)
            return await collect(events, bar.on_event)

    with source(options.audio) as path, Bar(options.audio, hidden=options.quiet) as bar:
        transcript = asyncio.run(work(path, bar))
    deliver(transcript, options.audio, subtitles, options)
    return 0
