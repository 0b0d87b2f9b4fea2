"""Log lines, as text for people or as JSON for machines, with the id of the request they are of."""

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
"""Of the request that this task works on."""

_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def is_well_formed(name: str) -> bool:
    """Whether a client's own request id may go into logs and headers."""
    return _WELL_FORMED.fullmatch(name) is not None


class TextFormatter(logging.Formatter):
    """One line for a message, whatever clients put into it: a path may hold a line's end."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # as logging has it
        """The line, with what cannot be printed escaped."""
        line = super().formatMessage(record)
        if line.isprintable():
            return line
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class JsonFormatter(logging.Formatter):
    """One object in a line; `fields` that came as ``extra`` stand beside the message."""

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
    """Drops uvicorn's lines about WebSockets: they show the query; ours do not."""

    def filter(self, record: logging.LogRecord) -> bool:
        return '"WebSocket %s"' not in str(record.msg)


def configure_logging(level: str, form: str = "text") -> None:
    """Log lines of this package to standard error, one format in every process."""
    logging.basicConfig(level=logging.WARNING, format=TEXT)
    logging.getLogger("asr").setLevel(level.upper())
    logging.getLogger("uvicorn.error").addFilter(_NoHandshakes())
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(TEXT))


def adopt_loggers(form: str) -> None:
    """With JSON, send the lines of LitServe and uvicorn the same way, too."""
    if form != "json":
        return
    for name in FOREIGN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
