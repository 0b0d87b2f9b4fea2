"""Log lines as text for people or JSON for programs, with the id of the request."""

from __future__ import annotations

import json
import logging
import re
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

TEXT: Final = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
FOREIGN: Final = ("litserve", "uvicorn", "uvicorn.error", "uvicorn.access")

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that the current task works on."""

_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def is_well_formed(name: str) -> bool:
    """Whether a request id from a client is safe in logs and headers."""
    return _WELL_FORMED.fullmatch(name) is not None


class TextFormatter(logging.Formatter):
    """Writes each message on one line. A path, for example, can contain a line break."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name in logging
        """The line with unprintable characters escaped."""
        line = super().formatMessage(record)
        if line.isprintable():
            return line
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class JsonFormatter(logging.Formatter):
    """Writes one JSON object per line. ``extra={"fields": ...}`` adds members to it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        body: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if name := request_id.get():
            body["request_id"] = name
        body |= getattr(record, "fields", {})
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return json.dumps(body, ensure_ascii=False, default=str)


class _NoHandshakes(logging.Filter):
    """Drops uvicorn's lines about WebSockets, because they show the query."""

    def filter(self, record: logging.LogRecord) -> bool:
        return '"WebSocket %s"' not in str(record.msg)


def configure_logging(level: str, form: str = "text") -> None:
    """Log to standard error, in the same format in every process.

    Args:
        level: the lowest level that this package logs. For other packages it is warning.
        form: text or json.
    """
    logging.basicConfig(level=logging.WARNING, format=TEXT)
    logging.getLogger("asr").setLevel(level.upper())
    logging.getLogger("uvicorn.error").addFilter(_NoHandshakes())
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(TEXT))


def adopt_loggers(form: str) -> None:
    """With JSON, format the lines of LitServe and uvicorn too."""
    if form != "json":
        return
    for name in FOREIGN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
