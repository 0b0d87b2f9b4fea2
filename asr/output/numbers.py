"""Values as we write them in JSON."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any


def rounded(value: float | None) -> float | None:
    """To 3 decimals; None if unknown or not finite, for which JSON has no number."""
    return round(value, 3) if value is not None and math.isfinite(value) else None


def to_plain(value: Any) -> Any:
    """The dataclasses of `asr.types` as dicts, lists and rounded numbers."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return rounded(value) if isinstance(value, float) else value
