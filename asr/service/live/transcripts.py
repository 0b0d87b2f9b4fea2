"""The transcripts of live sessions, kept for a while after the socket closed.

A client that loses its connection misses the last events. So each transcript is also written as a
line to a file of its session, and the client can fetch the file by the session's id.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from asr.output.numbers import rounded, to_plain
from asr.service.errors import NotFound
from asr.service.transcriptions.events import segment_body

if TYPE_CHECKING:
    from pathlib import Path

    from asr.service.live.turns import Turn
    from asr.types import Transcript

NAME = "transcript.jsonl"
Status = Literal["open", "ended"]


@dataclass(slots=True)
class _Kept:
    owner: str
    folder: Path
    status: Status = "open"
    deleted: set[str] = field(default_factory=set)
    # Writing a line may take several system calls.
    lock: threading.Lock = field(default_factory=threading.Lock)


class Transcripts:
    """The sessions of one API process, by id.

    Args:
        keep_seconds: how long the transcripts of a session can be fetched after its end.
    """

    def __init__(self, keep_seconds: float) -> None:
        self._keep_seconds = keep_seconds
        self._sessions: dict[str, _Kept] = {}

    def begin(self, session_id: str, owner: str, folder: Path) -> None:
        """Register a session. From now on its folder belongs to this object."""
        self._sessions[session_id] = _Kept(owner, folder)

    def end(self, session_id: str) -> None:
        """Keep the transcripts for `keep_seconds`. A session without any is removed at once."""
        kept = self._sessions[session_id]
        kept.status = "ended"
        seconds = self._keep_seconds if (kept.folder / NAME).exists() else 0.0
        asyncio.get_running_loop().call_later(seconds, self._forget, session_id)

    def _forget(self, session_id: str) -> None:
        kept = self._sessions.pop(session_id)
        asyncio.get_running_loop().run_in_executor(None, shutil.rmtree, kept.folder, True)

    def add(self, session_id: str, turn: Turn, transcript: Transcript) -> None:
        """Add the transcript of a turn, unless its item was deleted."""
        line = json.dumps(
            {
                "item_id": turn.item_id,
                "start": rounded(turn.start),
                "end": rounded(turn.end),
                "transcript": transcript.text,
                "segments": [segment_body(it) for it in transcript.segments],
                "gaps": to_plain(transcript.gaps),
            },
            ensure_ascii=False,
        )
        kept = self._sessions[session_id]
        with kept.lock:
            if turn.item_id not in kept.deleted:
                with (kept.folder / NAME).open("a", encoding="utf-8") as file:
                    file.write(line + "\n")

    def text_of(self, session_id: str, item_id: str) -> str | None:
        """The text of an item, or None if it has no transcript yet."""
        kept = self._sessions[session_id]
        with kept.lock:
            items = map(json.loads, _lines(kept))
            return next((item["transcript"] for item in items if item["item_id"] == item_id), None)

    def delete(self, session_id: str, item_id: str) -> None:
        """Delete the transcript of an item. If there is none yet, `add` will not store it."""
        kept = self._sessions[session_id]
        with kept.lock:
            kept.deleted.add(item_id)
            lines = _lines(kept)
            left = [line for line in lines if json.loads(line)["item_id"] != item_id]
            if len(left) < len(lines):
                draft = kept.folder / f"{NAME}.new"
                draft.write_text("".join(f"{line}\n" for line in left), encoding="utf-8")
                draft.replace(kept.folder / NAME)

    def read(self, session_id: str, owner: str) -> dict[str, Any]:
        """The session as a JSON object, with its items in order of time.

        Raises:
            NotFound: this owner has no such session.
        """
        kept = self._sessions.get(session_id)
        if kept is None or kept.owner != owner:
            message = "there is no such session, or it is no longer kept"
            raise NotFound(message, "not_found", "session_id")
        with kept.lock:
            lines = _lines(kept)
        return {
            "id": session_id,
            "object": "realtime.transcription_session",
            "status": kept.status,
            "items": sorted((json.loads(line) for line in lines), key=lambda item: item["start"]),
        }


def _lines(kept: _Kept) -> list[str]:
    path = kept.folder / NAME
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
