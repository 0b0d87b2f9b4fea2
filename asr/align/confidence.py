"""How likely it is that a word was said where it was found."""

from __future__ import annotations
from typing import Final
import numpy as np

PASSED_OVER: Final = 0.1


def confidence(scores: np.ndarray) -> float:
    return float(1 / (1 + np.exp(-(scores.mean() + 1))))
