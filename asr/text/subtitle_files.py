"""Read subtitles and lyrics (SRT, WebVTT, LRC) for their lines; their times are discarded.

A format is recognised by its content, never by a file name. An error names the line.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from asr.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TIME: Final = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMES: Final = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_LIKE_TIMES: Final = re.compile(r"\s*\d[\d:.,]*\s*-{1,3}>|.*\d\s*-->\s*\d")
_TAG: Final = re.compile(
    r"</?(?:[biuscv]|font|lang|ruby|rt)\b[^<>\n]*>|</?c[.\w]*>|<\d+:[\d:.,]+>|\{\\[^}\n]*\}",
    re.IGNORECASE,
)
_VOICE: Final = re.compile(r"\s*<v(?:\.[^\s>]*)?\s+([^>]+)>")
_LRC_LINE: Final = re.compile(r"\s*((?:\[\d{1,3}:\d{1,2}(?:[.:]\d{1,3})?\]\s*)+)(.*)")
_LRC_TIME: Final = re.compile(r"\[(\d+):(\d+)(?:[.:](\d+))?\]")
_LRC_LIKE: Final = re.compile(r"\s*\[\s*\d[^\]]*:")
_LRC_WORD: Final = re.compile(r"<\d+:\d+(?:[.:]\d+)?>")
_LRC_FACT: Final = re.compile(r"\s*\[[A-Za-z#][\w #]*:[^\]]*\]\s*")
_OTHERS: Final = (
    (re.compile(r"\s*\[Script Info\]", re.IGNORECASE), "SubStation Alpha (ASS or SSA)"),
    (re.compile(r"\s*<(?:\?xml|tt\b|sami\b|!doctype|html\b)", re.IGNORECASE), "XML or HTML"),
    (re.compile(r"\s*\{\d+\}\{\d+\}"), "MicroDVD"),
    (re.compile(r"\s*\d+:\d\d:\d\d\.\d+,\d+:\d\d:\d\d\.\d+\s*\n"), "SubViewer (SBV)"),
    (re.compile(r"start\tend\ttext\n"), "TSV"),
    (re.compile(r"\s*(?:\{\s*\"[^\"]*\"\s*:|\[\s*\{\s*\")"), "JSON"),
)


@dataclass(frozen=True, slots=True)
class Cue:
    r"""The text of a cue or of a line of lyrics.

    Attributes:
        text: without tags; ``\n`` separates its lines.
        line: number of its first line in the file, from 1.
        speaker: the voice of a WebVTT cue, or None.
    """

    text: str
    line: int
    speaker: str | None = None


def read_cues(text: str) -> list[Cue] | None:
    r"""Read the cues of a file, in the order in which they are said.

    Args:
        text: the file; its lines end with ``\n``.

    Returns:
        The cues that have text; None if the text is neither subtitles nor lyrics.

    Raises:
        InvalidOption: the file is malformed, or in a format that we do not read.
    """
    for pattern, name in _OTHERS:
        if pattern.match(text):
            raise InvalidOption("text", f"is {name}; convert it to SRT, WebVTT or plain text")
    lines = text.split("\n")
    if re.match(r"\s*WEBVTT(?:\s|\Z)", text):
        return list(_read_blocks(lines, "WebVTT"))
    written = [line for line in lines if line.strip()]
    if any(map(_LIKE_TIMES.match, written[:2])):
        return list(_read_blocks(lines, "SRT"))
    lyrics = [line for line in written if not _LRC_FACT.fullmatch(line)]
    if lyrics and _LRC_LIKE.match(lyrics[0]) and any(map(_LRC_LINE.fullmatch, lyrics)):
        return _read_lrc(lines)
    return None


def _read_blocks(lines: Sequence[str], kind: str) -> Iterator[Cue]:
    """Read SRT or WebVTT: blocks of lines, separated by empty lines."""
    cue: Cue | None = None
    for first, block in _blocks(lines):
        begins = next((i for i, line in enumerate(block[:2]) if "-->" in line), None)
        if begins is None and _has_no_cue(first, block, kind, has_begun=cue is not None):
            continue
        if begins is None and cue is not None:  # an empty line inside the text of a cue
            cue = replace(cue, text=f"{cue.text}\n{_plain(block)}".strip("\n"))
            continue
        if begins == 1 and cue is not None and kind == "SRT" and not block[0].strip().isdecimal():
            cue = replace(cue, text=f"{cue.text}\n{_plain(block[:1])}".strip("\n"))
        if cue is not None and cue.text:
            yield cue
        place = begins or 0
        _check_times(block[place], first + place, kind)
        said = block[place + 1 :]
        voice = _VOICE.match(said[0]) if said and kind == "WebVTT" else None
        cue = Cue(_plain(said), first + place, voice and html.unescape(voice[1]).strip())
    if cue is not None and cue.text:
        yield cue


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each block with the number of its first line.

    A block ends at an empty line, and before the number and the times of another cue.
    """
    block: list[str] = []
    for number, line in enumerate(lines, 1):
        following = lines[number] if number < len(lines) else ""
        is_number = line.strip().isdecimal() and "-->" in following
        begins = is_number or ("-->" in line and len(block) > 1)
        if block and (begins or not line.strip()):
            yield number - len(block), block
            block = []
        if line.strip():
            block.append(line)
    if block:
        yield len(lines) + 1 - len(block), block


def _has_no_cue(first: int, block: Sequence[str], kind: str, *, has_begun: bool) -> bool:
    """Whether a block without times may be left out, as a comment may.

    Raises:
        InvalidOption: it should have times.
    """
    if kind == "WebVTT" and not has_begun and block[0].lstrip().startswith("WEBVTT"):
        return True
    if kind == "WebVTT" and re.match(r"(?:NOTE|STYLE|REGION)\b", block[0]):
        return True
    number = block[0].strip().isdecimal()
    if number and len(block) == 1:
        return True  # a cue without times and text says nothing
    if number or not has_begun or kind == "WebVTT":
        place = 1 if number or (len(block) > 1 and _LIKE_TIMES.match(block[1])) else 0
        missing = 'here must be times, such as "00:01:02,500 --> 00:01:04,000"'
        raise _error(first + place, kind, missing, block[place])
    return False


def _check_times(line: str, number: int, kind: str) -> None:
    found = _TIMES.fullmatch(line)
    if found is None:
        raise _error(number, kind, 'times look like "00:01:02,500 --> 00:01:04,000"', line)
    start, end = _seconds(found.groups()[:4]), _seconds(found.groups()[4:])
    if end < start:
        raise _error(number, kind, "the cue ends before it starts", line)


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = parts
    whole = 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0)
    return whole + float(f"0.{fraction or 0}")


def _error(number: int, kind: str, message: str, line: str) -> InvalidOption:
    shown = line.strip()[:60]
    return InvalidOption(
        "text", f"line {number} of the {kind} is malformed: {message}, not {shown!r}"
    )


def _plain(lines: Sequence[str]) -> str:
    """The text of a cue without tags, one line for each line that has text."""
    texts = (" ".join(html.unescape(_TAG.sub("", line)).split()) for line in lines)
    return "\n".join(text for text in texts if text)


def _read_lrc(lines: Sequence[str]) -> list[Cue]:
    """Read lyrics; a line with several times is sung several times."""
    timed: list[tuple[float, Cue]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or _LRC_FACT.fullmatch(line):
            continue
        found = _LRC_LINE.fullmatch(line)
        if found is None:
            raise _error(number, "LRC", 'a line starts with a time such as "[01:02.50]"', line)
        text = _plain([_LRC_WORD.sub("", found[2])])
        times = [_seconds((None, *time)) for time in _LRC_TIME.findall(found[1])]
        timed += [(time, Cue(text, number)) for time in times if text]
    if len({cue.line for _, cue in timed}) < len(timed):
        timed.sort(key=lambda item: item[0])
    return [cue for _, cue in timed]
