"""Transcript -> text in every format we offer, and the writers of the text formats.

The JSON formats are in `asr.output.full_json` (ours) and `asr.output.openai`; the rules for cues
are in `asr.output.subtitles`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import srt

from asr.config import SubtitleOptions, check
from asr.output.full_json import to_json
from asr.output.gaps import in_order, text_of
from asr.output.openai import to_diarized_json, to_verbose_json
from asr.output.rttm import to_rttm
from asr.output.subtitles import Cue, make_cues
from asr.spacing import join_words, tokens_in
from asr.types import LineSegment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asr.types import Transcript

DEFAULT_SUBTITLES = SubtitleOptions()


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a transcript.

    Attributes:
        content_type: of the HTTP response; the body is UTF-8.
        extension: of a file, without the dot.
        write: makes the text.
    """

    content_type: str
    extension: str
    write: Callable[[Transcript, SubtitleOptions], str]


def render(
    transcript: Transcript, format_name: str, subtitles: SubtitleOptions = DEFAULT_SUBTITLES
) -> str:
    """The transcript as text in one of `FORMATS`.

    Raises:
        InvalidOption: `format_name` is not in `FORMATS`.
    """
    check(format_name in FORMATS, "format", f"must be one of {', '.join(FORMATS)}")
    return FORMATS[format_name].write(transcript, subtitles)


def to_srt(transcript: Transcript, options: SubtitleOptions) -> str:
    """SubRip.

    Raises:
        RuntimeError: the ``srt`` library dropped a cue, which it does silently.
    """
    cues = make_cues(
        transcript.segments,
        options,
        labels=options.speaker_labels or not _is_by_voice(transcript),
        gaps=transcript.gaps,
        duration=transcript.duration,
    )
    subtitles = [
        srt.Subtitle(
            index=None,
            start=timedelta(milliseconds=cue.start_ms),
            end=timedelta(milliseconds=cue.end_ms),
            content=cue.text,
        )
        for cue in cues
    ]
    kept = list(srt.sort_and_reindex(subtitles))
    if len(kept) != len(cues):
        raise RuntimeError(f"srt kept {len(kept)} of {len(cues)} cues")
    return str(srt.compose(kept, reindex=False))


_LETTERS: Final = re.compile("[A-Z]{1,2}")


def _is_by_voice(transcript: Transcript) -> bool:
    """Whether speakers were told apart by their voices, in channels that are mixed.

    A transcript that somebody corrected has no confidences, but its words have speakers. If a
    person gave one of them a name, the speakers count as known.
    """
    mixed = [segment for segment in transcript.segments if segment.channel is None]
    if any(segment.speaker_confidence is not None for segment in mixed):
        return True
    speakers = {word.speaker for segment in mixed for word in segment.words} - {None}
    return bool(speakers) and all(_LETTERS.fullmatch(speaker or "") for speaker in speakers)


def to_vtt(transcript: Transcript, options: SubtitleOptions) -> str:
    """WebVTT, https://www.w3.org/TR/webvtt1/. Speakers are voice tags.

    With ``highlight_words``, each word of a cue after the first carries its start time. The style
    in the header dims words until then. A transcript without words says why in a comment.
    """
    blocks = ["WEBVTT\n", _FUTURE_STYLE] if options.highlight_words else ["WEBVTT\n"]
    if not transcript.text:
        blocks += [f"NOTE {_comment(warning)}\n" for warning in transcript.warnings]
    cues = make_cues(
        transcript.segments, options, gaps=transcript.gaps, duration=transcript.duration
    )
    for cue in cues:
        text = _timed(cue) if options.highlight_words else _escaped(cue.text)
        voice = f"<v {_escaped(cue.speaker)}>" if cue.speaker and cue.speaker.strip() else ""
        blocks.append(f"{_clock(cue.start_ms)} --> {_clock(cue.end_ms)}\n{voice}{text}\n")
    return "\n".join(blocks)


_FUTURE_STYLE = "STYLE\n::cue(:future) {\n  opacity: 0.5;\n}\n"


def _timed(cue: Cue) -> str:
    """The text with a timestamp tag before each word that starts later than the previous one.

    The standard demands increasing timestamps between the start and the end of the cue.
    """
    starts = iter(cue.starts_ms)
    last = cue.start_ms
    lines = []
    for line in cue.text.split("\n"):
        words = []
        for word, gap in _spaced(line, is_split=len(tokens_in(cue.text)) == len(cue.starts_ms)):
            start = next(starts, last)
            tag = f"<{_clock(start)}>" if last < start < cue.end_ms else ""
            last = max(last, start)
            words.append(gap + tag + _escaped(word))
        lines.append("".join(words))
    return "\n".join(lines)


def _comment(text: str) -> str:
    """The text in one line without an arrow, which would end the comment."""
    return " ".join(text.split()).replace("-->", "->")


def _spaced(line: str, *, is_split: bool) -> Iterator[tuple[str, str]]:
    """Yield the words of a line with the space before each.

    Args:
        line: of a cue.
        is_split: each character of an unspaced script is a word.
    """
    for place, text in enumerate(line.split()):
        for part, word in enumerate(tokens_in(text) if is_split else [text]):
            yield word, " " if place and not part else ""


def _escaped(text: str) -> str:
    """The text with the characters of tags escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_tsv(transcript: Transcript, _: SubtitleOptions) -> str:
    """One row for each segment, as Whisper writes it.

    Times are integer milliseconds, because a locale may read a decimal point differently.
    """
    rows = ["start\tend\ttext"]
    for item in in_order(transcript):
        text = " ".join(text_of(item).split())
        if text:
            rows.append(f"{round(item.start * 1000)}\t{round(item.end * 1000)}\t{text}")
    return "\n".join(rows) + "\n"


def to_text(transcript: Transcript, _: SubtitleOptions) -> str:
    """The words without times, with a notice in place of each gap.

    They are one line, or the lines of the user's text.
    """
    items = list(in_order(transcript))
    if any(isinstance(item, LineSegment) for item in items):
        return "\n".join(text_of(item) for item in items) + "\n"
    return join_words(text for text in map(text_of, items) if text) + "\n"


def _clock(ms: int) -> str:
    """WebVTT's HH:MM:SS.mmm."""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{ms:03}"


def _dump(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, indent=2) + "\n"


FORMATS: dict[str, Format] = {
    "json": Format("application/json", "json", lambda t, _: _dump(to_json(t))),
    "verbose_json": Format(
        "application/json", "verbose.json", lambda t, _: _dump(to_verbose_json(t))
    ),
    "diarized_json": Format(
        "application/json", "diarized.json", lambda t, _: _dump(to_diarized_json(t))
    ),
    "text": Format("text/plain; charset=utf-8", "txt", to_text),
    "srt": Format("application/x-subrip; charset=utf-8", "srt", to_srt),
    "vtt": Format("text/vtt; charset=utf-8", "vtt", to_vtt),
    "tsv": Format("text/tab-separated-values; charset=utf-8", "tsv", to_tsv),
    "rttm": Format("text/plain; charset=utf-8", "rttm", lambda t, _: to_rttm(t)),
}
"""Every format by its name."""

EXTENSIONS: Final = {
    "srt": "srt",
    "vtt": "vtt",
    "json": "json",
    "txt": "text",
    "tsv": "tsv",
    "rttm": "rttm",
}
"""The extension of a file or an address, and the name of the format that it asks for."""
