"""The command line: ``asr transcribe | batch | align | plot | serve | evaluate | doctor | ...``.

Each command has a module, with its arguments and the function that runs it. `arguments` has the
arguments of several commands, `files` reads recordings and writes transcripts, `progress` draws the
progress bar. Heavy packages are imported only by the command that needs them.

Exit codes: 0 success, 1 at least one recording failed, 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from asr.cli import (
    align,
    batch,
    clips,
    doctor,
    evaluate,
    keys,
    models,
    plot,
    schema,
    serve,
    settings,
    speakers,
    transcribe,
)
from asr.errors import AsrError, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE_ERROR: Final = 2
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _prepare_output()
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return int(options.run(options))
    except InvalidOption as error:
        print(f"asr: {error.name}: {error}", file=sys.stderr)
        return USAGE_ERROR
    except AsrError as error:
        print(f"asr: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # An error without a file name is about the one recording of the command.
        name = None if error.filename else getattr(options, "audio", None)
        print(f"asr: {name}: {error}" if name else f"asr: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _prepare_output() -> None:
    """Make standard output accept every character, whatever the locale says.

    A file or a pipe gets UTF-8, as the files that we write. A terminal keeps its encoding, and
    characters that it lacks are escaped. File names that are not UTF-8 are written unchanged.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="backslashreplace")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


class _Version(argparse.Action):
    """Prints the version. The package's metadata is read only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            number = version("asr-service")
        except PackageNotFoundError:
            parser.exit(1, "asr: the package asr-service is not installed here\n")
        print(f"asr-service {number}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="asr", description="Speech to text with word times.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    transcribe.set_up(commands.add_parser("transcribe", help="transcribe files"))
    batch.set_up(commands.add_parser("batch", help="transcribe an archive, also on a cluster"))
    align.set_up(commands.add_parser("align", help="find the times of the words of a known text"))
    plot.set_up(commands.add_parser("plot", help="draw a recording and its transcript"))
    clips.set_up(commands.add_parser("clips", help="cut a recording into its segments"))
    serve.set_up(commands.add_parser("serve", help="start the web service"))
    evaluate.set_up(commands.add_parser("evaluate", help="score against references"))
    keys.set_up(commands.add_parser("keys", help="make API keys"))
    models.set_up(commands.add_parser("models", help="install the embedded recogniser"))
    speakers.set_up(commands.add_parser("speakers", help="install the speaker model; store voices"))
    doctor.set_up(commands.add_parser("doctor", help="check this setup and say what to fix"))
    settings.set_up(commands.add_parser("settings", help="print the table of settings"))
    schema.set_up(commands.add_parser("schema", help="print the JSON Schema of transcripts"))
    return parser
