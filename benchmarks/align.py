"""Alignment of known texts over a long recording: ``python -m benchmarks.align``.

The samples are concatenated to a recording of five minutes, whose word times are known exactly. It
is aligned with four texts: the right one, one with an additional paragraph, one that lacks a
paragraph, and one in which every tenth word is wrong. Only words that are both said and written are
scored. The time found for each is compared with its true time.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

import asr
from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.types import SAMPLE_RATE
from benchmarks.measure import save

if TYPE_CHECKING:
    from asr.types import Transcript

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
NAMES = ("meeting.wav", "lecture.mp3", "memo.m4a", "pauses.ogg", "telephone.wav")
PAUSE_SECONDS = 1.0
UNSAID = (
    "The council then voted on the purchase of eleven wooden boats and a lighthouse, which was"
    " refused, since nobody could explain who would clean the windows or feed the keeper during the"
    " long winters of the north."
)

Token = tuple[str, float | None]
"""A word of the text and its start in seconds, or None if it is not said."""


def main() -> None:
    """Measure all texts and save the table."""
    with tempfile.TemporaryDirectory() as folder:
        audio = Path(folder) / "concatenated.wav"
        parts = concatenate(audio)
        rows = []
        for name, tokens in cases(parts).items():
            started = time.perf_counter()
            transcript = asr.align_text(audio, " ".join(text for text, _ in tokens))
            rows.append(row(name, tokens, transcript, time.perf_counter() - started))
    save("align", rows)


def concatenate(target: Path) -> list[list[Token]]:
    """Write all samples into one recording; return the words of each sample with their starts."""
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    blocks: list[np.ndarray] = [pause]
    parts: list[list[Token]] = []
    for name in NAMES:
        offset = sum(map(len, blocks)) / SAMPLE_RATE
        facts = json.loads((SAMPLES / name).with_suffix(".json").read_text("ascii"))
        parts.append([(word["text"], offset + word["start"]) for word in facts["words"]])
        blocks += [*decode(SAMPLES / name, AudioLimits()).blocks, pause]
    soundfile.write(target, np.concatenate(blocks), SAMPLE_RATE)
    return parts


def cases(parts: list[list[Token]]) -> dict[str, list[Token]]:
    """Make the texts to align, by name."""
    whole = [token for part in parts for token in part]
    unsaid: list[Token] = [(text, None) for text in UNSAID.split()]
    wrong = [("otherwise", None) if i % 10 == 5 else token for i, token in enumerate(whole)]
    return {
        "right": whole,
        "a paragraph more": [*parts[0], *parts[1], *unsaid, *parts[2], *parts[3], *parts[4]],
        "a paragraph less": [token for part in (*parts[:1], *parts[2:]) for token in part],
        "every tenth word wrong": wrong,
    }


def row(
    name: str, tokens: list[Token], transcript: Transcript, wall_seconds: float
) -> dict[str, Any]:
    """Compute a row of the table from one alignment."""
    words = transcript.words
    if [word.text for word in words] != [text for text, _ in tokens]:
        raise RuntimeError("the words of the transcript are not those of the text")
    errors = sorted(
        abs(word.start - start)
        for word, (_, start) in zip(words, tokens, strict=True)
        if start is not None
    )
    return {
        "text": name,
        "words": len(tokens),
        "start median ms": round(1000 * median(errors)),
        "start p95 ms": round(1000 * errors[int(0.95 * len(errors))]),
        "within 200 ms %": round(100 * sum(e <= 0.2 for e in errors) / len(errors), 1),
        "interpolated": sum(word.timing == "interpolated" for word in words),
        "warnings": len(transcript.warnings),
        "RTFx": round(transcript.duration / wall_seconds, 1),
        "aligner": transcript.aligner,
    }


if __name__ == "__main__":
    main()
