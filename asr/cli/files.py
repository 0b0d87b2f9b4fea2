"""Read recordings; write transcripts and warnings."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asr.output.formats import EXTENSIONS, render

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator, Sequence
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from asr.config import SubtitleOptions
    from asr.types import Transcript

_DESCRIPTOR: Final = re.compile(r"/dev/stdin|/(?:dev|proc/self)/fd/(\d+)")
"""Names of open files of this process. A shell makes them for ``<(command)``."""


@contextlib.contextmanager
def source(name: str) -> Generator[Path]:
    """The file to read.

    Standard input and pipes are copied to a file, because most formats need to seek, and because
    helper processes read the file.

    Raises:
        OSError: the file does not exist, or is neither a regular file nor a pipe.
    """
    stream = _open_stream(name)
    if stream is None:
        yield Path(name)
        return
    with stream as data, tempfile.NamedTemporaryFile(prefix="asr-stdin-") as spool:
        shutil.copyfileobj(data, spool)
        spool.flush()
        yield Path(spool.name)


def _open_stream(name: str) -> AbstractContextManager[BinaryIO] | None:
    """Standard input, an open file or a pipe, to copy; None for a regular file.

    Raises:
        OSError: as `source`.
    """
    if name == "-":
        return contextlib.nullcontext(sys.stdin.buffer)
    if descriptor := _DESCRIPTOR.fullmatch(name):
        return os.fdopen(os.dup(int(descriptor[1] or 0)), "rb")
    path = Path(name)
    if not path.exists():
        raise FileNotFoundError("no such file")
    if path.is_fifo():
        return path.open("rb")
    if not path.is_file():
        raise IsADirectoryError("not a regular file")
    return None


def deliver(
    transcript: Transcript, name: str, subtitles: SubtitleOptions, options: argparse.Namespace
) -> None:
    """Write the transcript of the recording `name`, one of ``options.files``, and its warnings."""
    _write(render(transcript, EXTENSIONS[options.format], subtitles), name, options)
    say_warnings(name, transcript)


def _write(text: str, name: str, options: argparse.Namespace) -> None:
    if options.output_dir is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    target = options.output_dir / f"{stem(name, options.files)}.{options.format}"
    partial = target.with_name(target.name + ".part")
    partial.write_text(text, encoding="utf-8", newline="")
    partial.replace(target)  # so that a file under this name is always complete


def stem(name: str, names: Sequence[str]) -> str:
    """The file name without its extension, or with it if two inputs share a stem."""
    if name == "-":
        return "stdin"
    own = Path(name).stem
    is_alone = [Path(other).stem for other in names].count(own) == 1
    return own if is_alone else Path(name).name


def say_warnings(name: str, transcript: Transcript) -> None:
    """Print the warnings of the transcript to standard error."""
    for warning in transcript.warnings:
        print(f"asr: {name}: warning: {warning}", file=sys.stderr)
