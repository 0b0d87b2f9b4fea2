"""How a request wants speakers to be told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asr.config import SpeakerOptions, check, read_speakers

if TYPE_CHECKING:
    from asr.service.transcriptions.form import TranscriptionForm

NOT_CHECKED: Final = "no speaker model was looked for"


def choose_speakers(form: TranscriptionForm, no_speakers: str) -> SpeakerOptions | None:
    """The options for speakers; None if they are not told apart by voice.

    Without the field ``speakers``, OpenAI's fields ask for it: ``diarized_json``, known speakers.
    They did nothing before there was a speaker model, so without one they only give a warning.

    Args:
        form: the request.
        no_speakers: why speakers cannot be told apart; empty if they can.

    Raises:
        InvalidOption: the value is wrong, or there is no speaker model.
    """
    chosen = read_speakers(form.speakers or "off")
    if form.speakers is not None:
        check(chosen is None or not no_speakers, "speakers", no_speakers)
        return chosen
    asks = form.response_format == "diarized_json" and form.purpose != "job"
    asks = asks or bool(form.known_speaker_names or form.known_speaker_references)
    return SpeakerOptions() if asks and form.channels == "mix" and not no_speakers else None
