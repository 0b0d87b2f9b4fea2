"""Checks a corrected transcript that a client sent, in a child process with limits.

A parser holds the lock of the interpreter until it ends, and the transcript of ten hours has 10 MB.
The child also bounds what a small body may expand to.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asr.service.jobs.edited import TIMINGS, pack, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asr.workers.template import Channel

MAX_TEXT_BYTES: Final = 64 << 20
"""The longest JSON text, after decompression. Ten hours of speech take about 12 MB."""
MAX_SEGMENTS: Final = 100_000
MAX_WORDS: Final = 500_000
MAX_SEGMENT_TEXT: Final = 20_000
MAX_WORD_TEXT: Final = 1_000
MAX_NAME: Final = 100
MAX_SPEAKERS: Final = 1_000
MAX_DOUBTS: Final = 100
MAX_DOUBT_TEXT: Final = 500
MAX_CHANNEL: Final = 64
SLACK: Final = 0.001
"""Seconds. Times are rounded to milliseconds, each by itself."""
_STEP: Final = 1 << 20


class Refused(Exception):
    """The transcript is not accepted.

    Attributes:
        param: the field that is wrong, or None if the whole body is.
        status: of HTTP.
    """

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


@dataclass(frozen=True, slots=True)
class Rules:
    """What depends on the job.

    Attributes:
        seconds: the length of the recording.
        channels: for each speaker of a recording with separate channels, the channel.
    """

    seconds: float
    channels: dict[str, int]


# --- in the child -------------------------------------------------------------------------------


def check_job(channel: Channel) -> None:
    """Check the body in a file, and write the transcript to store beside it.

    The answer has the digest, or why the body is refused.
    """
    request, _ = channel.receive()
    try:
        data = Path(request["body"]).read_bytes()
        text = inflated(data) if request["is_gzip"] else data
        checked = check_body(text, Rules(request["seconds"], request["channels"]))
    except Refused as refused:
        channel.send({"message": str(refused), "param": refused.param, "status": refused.status})
        return
    Path(request["target"]).write_bytes(pack(checked))
    channel.send({"digest": hashlib.sha256(checked.encode()).hexdigest()})


def inflated(data: bytes) -> bytes:
    """Decompress gzip, but no more than `MAX_TEXT_BYTES`.

    Raises:
        Refused: the data is no gzip, is incomplete, or becomes too long.
    """
    decoder = zlib.decompressobj(wbits=31)
    try:
        text = decoder.decompress(data, MAX_TEXT_BYTES + 1)
    except zlib.error:
        raise Refused("the body is not gzip, as Content-Encoding says") from None
    if len(text) > MAX_TEXT_BYTES:
        raise _too_long()
    if not decoder.eof or decoder.unused_data:
        raise Refused("the body is not one complete gzip stream")
    return text


def _too_long() -> Refused:
    return Refused(f"a transcript may have {MAX_TEXT_BYTES} bytes of JSON", status=413)


def check_body(text: bytes, rules: Rules) -> str:
    """Check a JSON text; returns the transcript as `edited.text_of` writes it.

    Raises:
        Refused: it is not accepted. The message names the field.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise _too_long()
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("the body is not JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise Refused("the body must be a JSON object with segments")
    segments = _list(body, "segments", "segments", MAX_SEGMENTS)
    speakers = _speakers(body.get("speakers"))
    return text_of(_segments(segments, rules), speakers)


def _segments(given: list[Any], rules: Rules) -> Iterator[dict[str, Any]]:
    n_words, last = 0, 0.0
    for index, item in enumerate(given):
        place = f"segments[{index}]"
        if not isinstance(item, dict):
            raise Refused(f"{place}: must be an object", place)
        segment = _segment(item, index, place, rules)
        if segment["start"] < last - SLACK:
            message = "must not be before the start of the previous segment"
            raise Refused(f"{place}.start: {message} ({last} s)", f"{place}.start")
        last = max(last, segment["start"])
        n_words += len(segment["words"])
        if n_words > MAX_WORDS:
            raise Refused(f"segments: more than {MAX_WORDS} words", "segments")
        yield segment


def _segment(item: dict[str, Any], index: int, place: str, rules: Rules) -> dict[str, Any]:
    start, end = span_of(item, place, 0.0, rules.seconds, "the recording")
    speaker = _optional_text(item, "speaker", place, MAX_NAME)
    is_line = _flag(item, "line", place)
    text = (_lines if is_line else _text)(item, "text", place, MAX_SEGMENT_TEXT)
    words = check_words(_list(item, "words", f"{place}.words", MAX_WORDS), place, (start, end))
    if words and _letters(text) != _letters("".join(word["word"] for word in words)):
        message = "differs from its words; send the words of this text"
        raise Refused(f"{place}.text: {message} (POST realign gives them)", f"{place}.text")
    return {
        "id": index,
        "start": start,
        "end": end,
        "text": text,
        "speaker": speaker,
        "channel": _channel(item, place, speaker, rules),
        "words": words,
        "doubts": _doubts(item, place),
        **({"line": True} if is_line else {}),
    }


def check_words(given: list[Any], place: str, span: tuple[float, float]) -> list[dict[str, Any]]:
    """Check the words of a segment.

    Raises:
        Refused: one of them is not accepted.
    """
    words: list[dict[str, Any]] = []
    last = span[0]
    for index, item in enumerate(given):
        here = f"{place}.words[{index}]" if place else f"words[{index}]"
        if not isinstance(item, dict):
            raise Refused(f"{here}: must be an object", here)
        word = _word(item, here, span)
        if word["start"] < last - SLACK:
            message = f"must not be before the start of the previous word ({last} s)"
            raise Refused(f"{here}.start: {message}", f"{here}.start")
        # Rounding may have changed the order by a millisecond.
        word["start"] = last = max(last, word["start"])
        word["end"] = max(word["end"], last)
        words.append(word)
    return words


def _word(item: dict[str, Any], place: str, span: tuple[float, float]) -> dict[str, Any]:
    start, end = span_of(item, place, *span, "its segment")
    text = _text(item, "word", place, MAX_WORD_TEXT)
    if not text:
        raise Refused(f"{place}.word: must not be empty", f"{place}.word")
    timing = item.get("timing", "edited")
    if timing not in TIMINGS:
        raise Refused(f"{place}.timing: must be one of {', '.join(TIMINGS)}", f"{place}.timing")
    doubtful = _flag(item, "doubtful", place)
    confidence = item.get("confidence")
    if confidence is not None:
        confidence = _number(confidence, f"{place}.confidence")
        if not 0 <= confidence <= 1:
            raise Refused(f"{place}.confidence: must be 0 to 1, or null", f"{place}.confidence")
    return {
        "word": text,
        "start": start,
        "end": end,
        "confidence": confidence,
        "timing": timing,
        "doubtful": doubtful,
    }


def span_of(
    item: dict[str, Any], place: str, low: float, high: float, inside: str
) -> tuple[float, float]:
    """The times of a segment or a word.

    Raises:
        Refused: they are not in order, or outside [low, high].
    """
    dot = f"{place}." if place else ""
    start, end = (_number(item.get(name), f"{dot}{name}") for name in ("start", "end"))
    if start > end:
        message = f"must not be after the end ({start} > {end})"
        raise Refused(f"{dot}start: {message}", f"{dot}start")
    for name, value in (("start", start), ("end", end)):
        if not low - SLACK <= value <= high + SLACK:
            message = f"{value} is outside {inside} ({low} to {high} s)"
            raise Refused(f"{dot}{name}: {message}", f"{dot}{name}")
    return min(max(start, low), high), min(max(end, low), high)


def _number(value: Any, place: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or abs(value) > 1e9 or not math.isfinite(value):
        raise Refused(f"{place}: must be a number", place)
    return round(float(value), 3)


def _list(item: dict[str, Any], name: str, place: str, most: int) -> list[Any]:
    found = item.get(name)
    if not isinstance(found, list):
        raise Refused(f"{place}: must be a list", place)
    if len(found) > most:
        raise Refused(f"{place}: at most {most} items", place)
    return found


def _flag(item: dict[str, Any], name: str, place: str) -> bool:
    """A truth value; false if it was not sent."""
    found = item.get(name, False)
    if not isinstance(found, bool):
        raise Refused(f"{place}.{name}: must be true or false", f"{place}.{name}")
    return found


def _lines(item: dict[str, Any], name: str, place: str, most: int) -> str:
    """A text with its line breaks. Empty lines are left out."""
    found = item.get(name)
    if not isinstance(found, str) or len(found) > most:
        return _text(item, name, place, most)  # which says what is wrong
    lines = (clean_text(line, f"{place}.{name}", most) for line in found.split("\n"))
    return "\n".join(filter(None, lines))


def _text(item: dict[str, Any], name: str, place: str, most: int) -> str:
    """A text in one line, with single spaces."""
    return clean_text(item.get(name), f"{place}.{name}", most)


def clean_text(found: Any, place: str, most: int) -> str:
    """A text in one line, with single spaces.

    Raises:
        Refused: it is no text, too long, or has control characters or halves of surrogate pairs.
    """
    if not isinstance(found, str):
        raise Refused(f"{place}: must be a string", place)
    if len(found) > most:
        raise Refused(f"{place}: at most {most} characters", place)
    text = " ".join(found.split())
    if not text.isprintable() and any(map(_is_control, text)):
        message = "must not contain control characters or halves of surrogate pairs"
        raise Refused(f"{place}: {message}", place)
    return text


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs")


def _optional_text(item: dict[str, Any], name: str, place: str, most: int) -> str | None:
    return None if item.get(name) is None else _text(item, name, place, most) or None


def _channel(item: dict[str, Any], place: str, speaker: str | None, rules: Rules) -> int | None:
    """The channel that was sent. If none was, that of the speaker."""
    if "channel" not in item:
        return rules.channels.get(speaker or "")
    channel: int | None = item["channel"]
    is_number = isinstance(channel, int) and not isinstance(channel, bool)
    if channel is not None and not (is_number and 0 <= channel < MAX_CHANNEL):
        raise Refused(f"{place}.channel: must be the number of a channel", f"{place}.channel")
    return channel


def _doubts(item: dict[str, Any], place: str) -> list[str]:
    if item.get("doubts") is None:
        return []
    found = _list(item, "doubts", f"{place}.doubts", MAX_DOUBTS)
    return [
        clean_text(doubt, f"{place}.doubts[{index}]", MAX_DOUBT_TEXT)
        for index, doubt in enumerate(found)
    ]


def _speakers(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict) or len(given) > MAX_SPEAKERS:
        message = f"must be an object with at most {MAX_SPEAKERS} names"
        raise Refused(f"speakers: {message}", "speakers")
    names = {}
    for speaker, name in given.items():
        key = clean_text(speaker, "speakers", MAX_NAME)
        place = f"speakers.{key}"
        names[key] = clean_text(name, place, MAX_NAME)
        if not key or not names[key]:
            raise Refused(f"{place}: must not be empty", place)
    return names


def _letters(text: str) -> str:
    return "".join(text.split())
