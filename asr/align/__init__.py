"""Times for the words of engines that have none. Importing this package imports no aligner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.errors import EngineUnavailable

if TYPE_CHECKING:
    from asr.align.base import Aligner
    from asr.settings import Settings


def load_aligner(settings: Settings) -> Aligner | None:
    """The aligner that the settings ask for, not yet opened; None to spread words over the speech.

    Raises:
        EngineUnavailable: it cannot be used here.
    """
    if settings.aligner_name == "none":
        return None
    if settings.aligner_name == "ctc":
        return ctc_aligner(settings)
    from asr.align.hmm.aligner import SphinxAligner

    return SphinxAligner(settings.workers)


def ctc_aligner(settings: Settings) -> Aligner:
    """The CTC aligner with the model that the settings name, not yet opened.

    Raises:
        EngineUnavailable: no model is named, or the extra is not installed.
    """
    if not settings.ctc_model:
        raise EngineUnavailable("the ctc aligner needs ASR_CTC_MODEL, a folder or a hub id")
    try:
        from asr.align.ctc.aligner import CtcAligner
        from asr.align.ctc.spelling import likeliest
        from asr.text.spoken import spoken
    except ImportError as error:
        message = f"the ctc aligner needs the extra: pip install 'asr-service[ctc]' ({error})"
        raise EngineUnavailable(message) from error
    return CtcAligner(
        settings.ctc_model,
        settings.ctc_device,
        speak=lambda tokens: likeliest(tokens, spoken(tokens, ())),
    )
