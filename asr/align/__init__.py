"""Find when each word of a known text was said, and what in the audio contradicts the text.

In reading order: `base` (the interface of aligners), `interpolate` (times without a model), `hmm`
and `ctc` (the two real aligners), `witness` (doubts about a text), `anchors` and `longform` (a text
that is longer than a chunk), `mismatch` and `letters` (where a text and its recording differ). This
module makes the aligner that the settings name.

The package knows nothing of engines, jobs, files or HTTP. Importing it imports no aligner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.errors import EngineUnavailable

if TYPE_CHECKING:
    from asr.align.base import Aligner
    from asr.settings import Settings


def load_aligner(settings: Settings) -> Aligner | None:
    """Make the aligner that the settings name, not yet open; None means interpolation.

    Raises:
        EngineUnavailable: the aligner cannot be used here.
    """
    if settings.aligner_name == "none":
        return None
    if settings.aligner_name == "ctc":
        return ctc_aligner(settings)
    from asr.align.hmm.aligner import SphinxAligner

    return SphinxAligner(settings.workers)


def ctc_aligner(settings: Settings) -> Aligner:
    """Make the CTC aligner with the model that the settings name, not yet open.

    Raises:
        EngineUnavailable: the settings name no model, or the extra ``[ctc]`` is not installed.
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
