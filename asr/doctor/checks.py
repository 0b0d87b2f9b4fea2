"""What a check says, and how answers of servers are read for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import httpx

Level = Literal["ok", "warn", "fail"]

QUICK_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and what was found; `fix` says what to do about it."""

    name: str
    level: Level
    found: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<4}  {self.name:<16}  {self.found}"
        return f"{line}; {self.fix}" if self.fix else line


def as_object(value: Any) -> dict[str, Any]:
    """The value, if it is a JSON object; else an empty one."""
    return value if isinstance(value, dict) else {}


def body_of(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty if it is none."""
    try:
        return as_object(answer.json())
    except ValueError:
        return {}


def said(answer: httpx.Response) -> str:
    """The message of an error, in one line."""
    error = body_of(answer).get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(message or answer.text).split())[:200]


def is_this_service(ready: httpx.Response) -> bool:
    """Whether an answer to ``GET /ready`` is one of ours."""
    body = body_of(ready)
    return body.get("status") in {"ready", "loading"} and "engine" in body
