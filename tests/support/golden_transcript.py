"""The transcript behind ``tests/support/golden``; run this module to write the files.

Review the diff before you commit it: users get output of exactly this form.
"""

from __future__ import annotations

from pathlib import Path

from asr.output.formats import FORMATS, render
from asr.types import Gap, Segment, Transcript, Word

FOLDER = Path(__file__).parent / "golden"


def _segment(index, start, step, text, **rest):
    """A segment of consecutive words of equal length; every third has no confidence."""
    parts = text.split(" ")
    words = tuple(
        Word(
            part,
            round(start + i * step, 4),
            round(start + (i + 1) * step - 0.02, 4),
            None if i % 3 == 2 else round(0.99 - 0.01 * i, 2),
            "interpolated" if i % 3 == 2 else "aligned",
        )
        for i, part in enumerate(parts)
    )
    return Segment(index, words[0].start, words[-1].end, text, words, **rest)


TRANSCRIPT = Transcript(
    segments=(
        _segment(0, 0.3204, 0.3, "Good morning, Mr. Poe.", avg_logprob=-0.12345),
        _segment(
            1,
            2.1,
            0.27,
            "The committee met on 24 November 2026, which was a Tuesday, and it went through every"
            " item on the agenda & a few more, although nobody in the room could later say why it"
            " had taken nine hours.",
            avg_logprob=-0.4,
            warnings=("repetition removed",),
        ),
        _segment(2, 62.0007, 0.45, "“Où est le café?” — שלום, 日本語 <b>--></b>"),
        _segment(3, 3661.9996, 0.2, "Rindfleischetikettierungsüberwachungsaufgabengesetz ok"),
        Segment(4, 3670.0, 3671.0, "", (), warnings=("nothing recognised",)),
        Segment(5, 3672.5, 3672.5, "End.", (Word("End.", 3672.5, 3672.5),), channel=1, speaker="B"),
    ),
    language="en",
    duration=3675.25,
    speech_seconds=31.4159,
    dropped_seconds=12.0,
    engine="omni/nemotron-3-nano",
    aligner="sphinx",
    warnings=("12 s of music were not transcribed",),
    gaps=(Gap(720.0, 960.0, "engine_failed"), Gap(3671.2, 3672.4, "engine_timeout", 1, "B")),
)  # fmt: skip


def golden_path(format_name):
    return FOLDER / f"transcript.{format_name}"


def main():
    FOLDER.mkdir(exist_ok=True)
    for name in FORMATS:
        golden_path(name).write_text(render(TRANSCRIPT, name), encoding="utf-8", newline="")


if __name__ == "__main__":
    main()
