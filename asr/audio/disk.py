"""Tells errors of the disk from errors of the recording.

FFmpeg reports both in the same way. Its demuxers return EIO for a file that is cut off, and FFmpeg
returns EIO when the disk fails. So after EIO the file is read again, without FFmpeg.
"""

from __future__ import annotations

import errno
import os
from typing import Final

_OF_THE_SYSTEM: Final = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOENT,
    errno.EACCES,
    errno.ESTALE,
    errno.ENOSPC,
)
_BLOCK: Final = 1 << 20


def refuse_disk_errors(error: Exception, source: object) -> None:
    """Raise the OSError that a decoder's error stands for, if it is no fault of the recording.

    Args:
        error: from FFmpeg.
        source: the file as ``file:PATH``; any other source is not read again.

    Raises:
        OSError: the system or the disk is at fault.
    """
    number = getattr(error, "errno", None)
    if number in _OF_THE_SYSTEM:
        raise OSError(number, os.strerror(number)) from error
    if number == errno.EIO and isinstance(source, str) and source.startswith("file:"):
        descriptor = os.open(source.removeprefix("file:"), os.O_RDONLY)
        try:
            check_readable(descriptor)
        finally:
            os.close(descriptor)


def check_readable(descriptor: int) -> None:
    """Read a whole file, without moving its position.

    Raises:
        OSError: it cannot be read.
    """
    position = 0
    while block := os.pread(descriptor, _BLOCK, position):
        position += len(block)
