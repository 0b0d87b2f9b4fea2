"""OpenAI's `delay`: how long partial results wait for certainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

DelayName = Literal["minimal", "low", "medium", "high", "xhigh"]


@dataclass(frozen=True, slots=True)
class Delay:
    """When a word of unfinished speech is sent.

    A word is sent when it is the same in `n_hypotheses` successive hypotheses. So it is at least
    ``(n_hypotheses - 1) * cadence`` before the end of the audio.

    Attributes:
        cadence: seconds of new audio between two hypotheses; more if the engine is slower.
        n_hypotheses: how many must agree.
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
