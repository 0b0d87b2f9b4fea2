"""OpenAI's `delay`: how certain a word must be before it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

DelayName = Literal["minimal", "low", "medium", "high", "xhigh"]


@dataclass(frozen=True, slots=True)
class Delay:
    """When a word of unfinished speech is sent.

    A word is sent when `n_hypotheses` successive hypotheses agree on it. So it ended at least
    ``(n_hypotheses - 1) * cadence`` seconds ago.

    Attributes:
        cadence: least number of seconds of new audio between two hypotheses.
        n_hypotheses: how many hypotheses must agree, at least 2.
    """

    cadence: float
    n_hypotheses: int


DELAYS: Final[dict[DelayName, Delay]] = {
    "minimal": Delay(0.3, 2),
    "low": Delay(0.35, 2),
    "medium": Delay(0.4, 2),
    "high": Delay(0.5, 3),
    "xhigh": Delay(0.8, 3),
}
DEFAULT: Final[DelayName] = "medium"
