"""Times for the words of engines that have none. Importing this package imports no aligner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.errors import EngineUnavailable

if TYPE_CHECKING:
    from asr.align.base import Aligner
    from asr.config import Settings


def load_aligner(settings: Settings) -> Aligner | None:
    """The aligner that the settings ask for, not yet opened; None to spread words over the speech.

    Raises:
        EngineUnavailable: it cannot be used here.
    """
    if settings.aligner_name == "none":
        return None
    if settings.aligner_name == "ctc":
        raise EngineUnavailable("the aligner ctc is not part of this version: use sphinx")
    from asr.align.sphinx import SphinxAligner

    return SphinxAligner(settings.workers)
