"""Find the folder of a Moonshine model, and check its files."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Final

from asr.errors import EngineUnavailable

NAME: Final = "moonshine-tiny-en"
INSTALL: Final = "asr models install"
"""The command that installs the model."""
CORRECT: Final = "correct ASR_MOONSHINE_MODEL"
"""What to do if the chosen folder is wrong."""
ENCODER: Final = "encoder_model.ort"
DECODER: Final = "decoder_model_merged.ort"
TOKENIZER: Final = "tokenizer.bin"
LICENCE: Final = "LICENSE"
HASHES: Final = {
    ENCODER: "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
    DECODER: "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0",
    TOKENIZER: "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d",
}
"""SHA-256 of the files of Moonshine tiny for English, from moonshine-voice 0.1.0."""


def installed_folder() -> Path:
    """The folder in the Python environment into which ``asr models install`` puts the model."""
    return Path(sys.prefix) / "share" / "asr" / NAME


def find_folder(chosen: str) -> Path:
    """Return the folder of the model.

    Args:
        chosen: the setting ``moonshine_model``; empty means the installed Moonshine tiny.

    Raises:
        EngineUnavailable: a file is missing or has the wrong hash.
    """
    if chosen:
        return _complete(Path(chosen).expanduser(), CORRECT)
    candidates = [installed_folder(), *_package_folders()]
    folder = next((it for it in candidates if not _missing(it)), candidates[0])
    check_hashes(_complete(folder, f"run {INSTALL}"))
    return folder


def check_hashes(folder: Path) -> None:
    """Check the SHA-256 of each file of Moonshine tiny.

    Raises:
        EngineUnavailable: a file has the wrong hash.
    """
    if name := changed_file(folder):
        message = f"{folder / name} is damaged or of another version: run {INSTALL}"
        raise EngineUnavailable(message)


def changed_file(folder: Path) -> str | None:
    """The name of a file that is not the one that was released, or None."""
    for name, expected in HASHES.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                return name
    return None


def _complete(folder: Path, fix: str) -> Path:
    if missing := _missing(folder):
        raise EngineUnavailable(f"Moonshine has no {' and no '.join(missing)} in {folder}: {fix}")
    return folder


def _missing(folder: Path) -> list[str]:
    return [name for name in HASHES if not (folder / name).is_file()]


def _package_folders() -> list[Path]:
    """The folders of the model inside the package moonshine-voice, if that is installed.

    The package is not imported, because that would load its native library.
    """
    found = importlib.util.find_spec("moonshine_voice")
    places = (found.submodule_search_locations or []) if found is not None else []
    return [Path(place) / "assets" / "tiny-en" for place in places]
