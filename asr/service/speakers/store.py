"""Stored voices: one small file for each name of each key.

A file holds the name, the embedding and the seconds of speech, never audio. A voiceprint is
personal data, so files can be read by their owner only, and deleting one leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from asr.config import SPEAKER_NAME_RULE, KnownVoice, check, is_speaker_name
from asr.durable import sync_folder
from asr.errors import InvalidOption
from asr.service.clock import wall_time
from asr.service.errors import NotFound
from asr.service.names import folded
from asr.speakers.packing import unpack

MAX_VOICES: Final = 1000
"""Stored voices of one key."""
FOLDER: Final = "voices"
"""In the data folder."""


@dataclass(frozen=True, slots=True)
class StoredVoice:
    """A voice as it is stored.

    Attributes:
        voice: its name and embedding.
        model: the model that made the embedding; those of another one cannot be compared.
        created_at: Unix time.
    """

    voice: KnownVoice
    model: str
    created_at: float


def check_name(name: str) -> None:
    """Check the name of a new voice. Clients must be able to write it into a URL.

    Raises:
        InvalidOption: it cannot be used.
    """
    check(is_speaker_name(name), "name", SPEAKER_NAME_RULE)
    is_part = name not in (".", "..") and not set(name) & {"/", "\\"}
    check(is_part, "name", "must not be . or .. and have no / or \\, because URLs contain it")
    check("\ufffd" not in name, "name", "is not UTF-8")


class VoiceStore:
    """The voices of all keys. All methods block on the disk.

    Args:
        folder: belongs to this object.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, owner: str, voice: KnownVoice, model: str) -> tuple[StoredVoice, bool]:
        """Store a voice; one with the same name is replaced.

        Returns:
            The voice, and whether the name is new.

        Raises:
            InvalidOption: the key has too many voices.
        """
        path = self._path(owner, voice.name)
        is_new = not path.exists()
        n_voices = len(list(path.parent.glob("*.json"))) if is_new else 0
        check(n_voices < MAX_VOICES, "name", f"a key may store {MAX_VOICES} voices: delete some")
        stored = StoredVoice(voice, model, wall_time())
        for is_last in (False, True):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                _write(path, stored)
                break
            except FileNotFoundError:  # a deletion of the last voice has just removed the folder
                if is_last:
                    raise
        return stored, is_new

    def get(self, owner: str, name: str) -> StoredVoice:
        """The voice with this name.

        Raises:
            NotFound: there is none.
        """
        found = _read(self._path(owner, name))
        if found is None:
            raise NotFound("there is no stored voice of this name", "not_found", "name")
        return found

    def all(self, owner: str) -> list[StoredVoice]:
        """All voices of a key, ordered by name."""
        found = filter(None, map(_read, self._folder_of(owner).glob("*.json")))
        return sorted(found, key=lambda stored: folded(stored.voice.name))

    def delete(self, owner: str, name: str) -> None:
        """Delete a voice.

        Raises:
            NotFound: there is none.
        """
        path = self._path(owner, name)
        try:
            path.unlink()
        except FileNotFoundError:
            raise NotFound("there is no stored voice of this name", "not_found", "name") from None
        sync_folder(path.parent)
        with suppress(OSError):  # it has others
            path.parent.rmdir()

    def _path(self, owner: str, name: str) -> Path:
        check(is_speaker_name(name), "name", SPEAKER_NAME_RULE)
        return self._folder_of(owner) / f"{_digest(folded(name))}.json"

    def _folder_of(self, owner: str) -> Path:
        return self._folder / _digest(owner)


def _digest(text: str) -> str:
    """A file name. Neither names of keys nor of people are used as paths."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _write(path: Path, stored: StoredVoice) -> None:
    voice = stored.voice
    record = {
        "name": voice.name,
        "seconds": voice.seconds,
        "embedding": voice.embedding,
        "model": stored.model,
        "created_at": stored.created_at,
    }
    descriptor, draft = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # readable by us only
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(descriptor)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _read(path: Path) -> StoredVoice | None:
    """The voice of a file; None if there is none, or it is damaged."""
    try:
        record = json.loads(path.read_text("utf-8"))
        voice = KnownVoice(record["name"], record["embedding"], float(record["seconds"]))
        if not np.isfinite(unpack(voice.embedding)).all():
            return None
        return StoredVoice(voice, str(record["model"]), float(record["created_at"]))
    except (OSError, ValueError, LookupError, TypeError, InvalidOption):
        return None
