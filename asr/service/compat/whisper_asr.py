"""The dialect of whisper-asr-webservice, which Bazarr and speakr use.

Its fields are in the query. https://github.com/ahmetoner/whisper-asr-webservice describes them;
speakr also sends those of whisperx-asr-service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asr.config import MAX_SPEAKERS
from asr.service.compat.answers import json_answer, text_answer, whisper_body, with_warnings
from asr.service.compat.fields import refusal, refuse_translation
from asr.service.compat.receive import Asked
from asr.text.languages import LANGUAGE_NAMES

if TYPE_CHECKING:
    from starlette.responses import Response

    from asr.service.compat.fields import Fields
    from asr.service.transcriptions.form import TranscriptionRequest
    from asr.types import Transcript

FILE_PARTS: Final = ("audio_file", "file")
OUTPUTS: Final = {
    "txt": "text",
    "vtt": "vtt",
    "srt": "srt",
    "tsv": "tsv",
    "json": "verbose_json",
}
TEXTS: Final = frozenset(OUTPUTS.values()) - {"verbose_json"}
EMBEDDINGS: Final = "return_speaker_embeddings"
NO_EMBEDDINGS: Final = "embeddings are never sent"
_SPEAKERS: Final = ("diarize", "enable_diarization", EMBEDDINGS)
BY_CHANNEL: Final = "speakers are told apart by channel only; send channels=split"
_NOT_HERE: Final = (
    "response_format",
    "stream",
    "upload_id",
    "include",
    "timestamp_granularities",
)


def translate(fields: Fields) -> Asked:
    """Translate a request to ``/asr``.

    Raises:
        Problem: 400, a field is wrong or asks for a translation.
    """
    task = fields.choice("task", {"transcribe": "", "translate": "translate"}, "transcribe")
    if task:
        raise refuse_translation("task")
    output = fields.choice("output", OUTPUTS, "txt")
    fields.give("response_format", output, "output")
    fields.give("prompt", fields.take("initial_prompt"), "initial_prompt")
    fields.give_vad(wanted=fields.flag("vad_filter"))
    for term in (fields.take("hotwords") or "").split(","):
        fields.give("keywords", term.strip() or None, "hotwords")
    with_words = bool(fields.flag("word_timestamps"))
    if with_words and output in TEXTS:
        fields.warn("word_timestamps", "only output=json has a place for the times of words")
    _translate_speakers(fields)
    return _encoded(fields, with_words=with_words)


def _translate_speakers(fields: Fields) -> None:
    """Translate whisperX's fields into ``speakers``, if there is a speaker model."""
    if not fields.tells_speakers:
        for name in _SPEAKERS:
            if fields.flag(name):
                fields.warn(name, NO_EMBEDDINGS if name == EMBEDDINGS else BY_CHANNEL)
        fields.ignore(("min_speakers", "max_speakers"), BY_CHANNEL)
        return
    wanted = [name for name in _SPEAKERS if fields.flag(name)]
    low, high = fields.number("min_speakers"), fields.number("max_speakers")
    if not wanted:
        return
    fields.give("speakers", _range(low, high), wanted[0])
    if EMBEDDINGS in wanted:
        fields.warn(EMBEDDINGS, NO_EMBEDDINGS)


def _range(low: float | None, high: float | None) -> str:
    """The value of ``speakers``. 0 means that there is no such bound.

    Raises:
        Problem: 400, the bounds do not fit.
    """
    fewest, most = round(low or 1), min(round(high or MAX_SPEAKERS), MAX_SPEAKERS)
    if not 1 <= fewest <= MAX_SPEAKERS:
        raise refusal("min_speakers", f"must be 1 to {MAX_SPEAKERS}")
    if most < fewest:
        raise refusal("max_speakers", "must be at least min_speakers")
    return "auto" if low is None and high is None else f"{fewest}-{most}"


def translate_detection(fields: Fields) -> Asked:
    """Translate a request to ``/detect-language``.

    Raises:
        Problem: 400, a field is wrong.
    """
    fields.ignore(("detect_lang_length", "detect_lang_offset"), "the language is not detected")
    return _encoded(fields)


def _encoded(fields: Fields, *, with_words: bool = False) -> Asked:
    is_pcm = fields.flag("encode") is False
    fields.refuse_any(_NOT_HERE, "send it to /v1/audio/transcriptions; /asr has output instead")
    return Asked(
        fields.translated(),
        tuple(fields.warnings),
        fields.origins,
        is_pcm=is_pcm,
        with_words=with_words,
    )


def render(transcript: Transcript, request: TranscriptionRequest, asked: Asked) -> Response:
    """The answer of ``/asr``."""
    transcript = with_warnings(transcript, request)
    if request.response_format in TEXTS:
        answer = text_answer(transcript, request)
    else:
        answer = json_answer(_body(transcript, with_words=asked.with_words))
    answer.headers["asr-engine"] = transcript.engine.encode("ascii", "replace").decode()
    return answer


def _body(transcript: Transcript, *, with_words: bool) -> dict[str, Any]:
    body = whisper_body(transcript, with_words=with_words)
    names = ("text", "duration", "segments", "warnings")
    return {"language": transcript.language, **{name: body[name] for name in names}}


def detected(engine: str, code: str, warnings: tuple[str, ...]) -> dict[str, object]:
    """The answer of ``/detect-language``: the language that the engine assumes.

    No engine says which language it heard, so ``confidence`` is null and a warning says so.
    """
    note = f"the language was not detected: {engine} assumes {code} unless a request names one"
    return {
        "detected_language": LANGUAGE_NAMES.get(code, code),
        "language_code": code,
        "confidence": None,
        "warnings": [note, *warnings],
    }
