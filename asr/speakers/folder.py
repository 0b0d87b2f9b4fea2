"""Find the speaker model, and check its file."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Final

from asr.errors import SpeakersUnavailable
from asr.speakers.thresholds import MAX_BYTES

NAME: Final = "campplus"
MODEL: Final = f"{NAME}.onnx"
DESCRIPTION: Final = f"{NAME}.json"
"""Beside the model: the SHA-256 of its file, where it comes from, and its thresholds if they are
not the defaults."""
LICENCES: Final = ("LICENSE", "THIRD_PARTY_LICENSES")
INSTALL: Final = "asr speakers install"
"""The command that installs the model."""
EXTRA: Final = "pip install 'asr-service[speakers]'"
CORRECT: Final = "correct ASR_SPEAKER_MODEL"
"""What to do if the chosen file is wrong."""


def installed_folder() -> Path:
    """The folder in the Python environment into which ``asr speakers install`` puts the model."""
    return Path(sys.prefix) / "share" / "asr" / NAME


def model_path(chosen: str) -> Path:
    """The file of the model.

    Args:
        chosen: the setting ``speaker_model``; empty means the installed CAM++.
    """
    return Path(chosen).expanduser() if chosen else installed_folder() / MODEL


def obstacle(chosen: str) -> str:
    """Why speakers cannot be told apart here, with the fix; empty if they can.

    It looks whether the files are there, not at what is in them. The text names no folder, because
    the service sends it to clients.
    """
    if not model_path(chosen).is_file():
        missing = f"the file of the speaker model is missing: {CORRECT}"
        return missing if chosen else f"no speaker model is installed: run {INSTALL}"
    if importlib.util.find_spec("scipy") is None:
        return f"telling speakers apart needs the extra: {EXTRA}"
    return ""


def find_model(chosen: str) -> Path:
    """The file of the model, checked.

    Raises:
        SpeakersUnavailable: the file is missing or damaged, or the extra is not installed.
    """
    if reason := obstacle(chosen):
        raise SpeakersUnavailable(reason)
    path = model_path(chosen)
    expected = read_digest(path.with_suffix(".json"))
    if expected != digest_of(path) and (expected or not chosen):
        fix = CORRECT if chosen else f"run {INSTALL}"
        raise SpeakersUnavailable(f"{path} is damaged or of another version: {fix}")
    return path


def model_id(chosen: str) -> str:
    """What identifies the model. Embeddings of two models cannot be compared."""
    path = model_path(chosen)
    if known := read_digest(path.with_suffix(".json")):
        return known
    try:
        state = path.stat()
    except OSError:
        return path.name
    return _digest_once(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _digest_once(path: Path, _changed: int, _size: int) -> str:
    """The SHA-256 of a file, computed again only after the file has changed."""
    return digest_of(path)


def read_digest(description: Path) -> str | None:
    """The SHA-256 that a description names; None if it names none.

    Raises:
        SpeakersUnavailable: the description cannot be read, or its value is none.
    """
    if not description.is_file():
        return None
    try:
        found = json.loads(description.read_text("utf-8")[:MAX_BYTES]).get("sha256")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise SpeakersUnavailable(f"{description} cannot be read: {error}") from error
    if found is None:
        return None
    if not isinstance(found, str):
        raise SpeakersUnavailable(f"{description}: sha256 must be a string of hex digits")
    return found.lower()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
