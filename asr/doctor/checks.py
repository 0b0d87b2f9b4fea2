"""The result of a check, and functions that read answers of servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import httpx

Level = Literal["ok", "warn", "fail"]

QUICK_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        level: "fail" if the service cannot work, "warn" if it works with a disadvantage.
        found: what was found, in a few words.
        fix: what the user can do about it; empty when all is well.
    """

    name: str
    level: Level
    found: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<4}  {self.name:<16}  {self.found}"
        return f"{line}; {self.fix}" if self.fix else line


def as_object(value: Any) -> dict[str, Any]:
    """Return the value if it is a JSON object, else an empty dict."""
    return value if isinstance(value, dict) else {}


def body_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the JSON object in an answer, or an empty dict if there is none."""
    try:
        return as_object(answer.json())
    except ValueError:
        return {}


def said(answer: httpx.Response) -> str:
    """Return the error message in an answer, on one line of at most 200 characters."""
    error = body_of(answer).get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(message or answer.text).split())[:200]


def is_this_service(ready: httpx.Response) -> bool:
    """Return whether our own service gave this answer to ``GET /ready``."""
    body = body_of(ready)
    return body.get("status") in {"ready", "loading", "unavailable"} and "engine" in body
