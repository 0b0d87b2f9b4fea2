"""Numbers as we write them in JSON."""

from __future__ import annotations

import math


def rounded(value: float | None) -> float | None:
    """To 3 decimals; None if unknown or not finite, for which JSON has no number."""
    return round(value, 3) if value is not None and math.isfinite(value) else None
