"""Measure the warnings of ``asr align`` about texts that differ from their recordings.

    python -m benchmarks.mismatch [--real MANIFEST] [--max-seconds 30]

Every recording (the samples, and real speech if a manifest is given) is aligned with its own text
and with wrong ones: the text of another recording, a German text, its own text twice, and its own
text with some words inserted, deleted or replaced. With added noise it is aligned with its own text
and with that of another recording. The words of the true text are timed first, so that it is known
when the deleted words are said.

The columns are: how many texts got a warning that some text was not said where it was wrong; how
many got a warning that speech is missing from the text where it is missing; and, of the words that
nobody said, the shares that are marked as aligned and that have a confidence above 0.9.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from asr.audio.resample import decode
from asr.config import AudioLimits, Options
from asr.evaluation import read_manifest
from asr.pipeline.known_text import align_file
from asr.pipeline.transcriber import collect, make_transcriber
from asr.settings import Settings
from asr.types import SAMPLE_RATE
from benchmarks.measure import save
from benchmarks.sounds import spoil

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asr.pipeline.transcriber import Transcriber
    from asr.types import Transcript, Word

SAMPLES = Path(__file__).resolve().parent.parent / "samples" / "manifest.jsonl"
GERMAN = (
    "Als ich heute Morgen aus dem Haus ging, lag der Schnee noch auf den Dächern, und niemand war"
    " auf der Straße zu sehen. Der Bäcker hatte schon geöffnet, aber er sagte kein Wort, sondern"
    " schob mir nur zwei Brötchen über den Tisch und zählte langsam das Wechselgeld ab."
)
NOISE = "noise 10 dB"
COLUMNS = (
    "texts", "warned", "not said", "of", "missing", "of missing", "wrong words", "aligned",
    "above 0.9",
)  # fmt: skip
MIN_WORDS = 8
"""Texts with fewer words are not changed, only replaced."""
UNSAID = re.compile(r"words? (\d+)(?: to (\d+))? of the text (?:was|were) not said")
UNWRITTEN = re.compile(r"speech from ([\d.]+) to ([\d.]+) s is not in the text")


@dataclass(frozen=True, slots=True)
class Case:
    """A text for a recording.

    Attributes:
        tokens: the words of the text.
        unsaid: [first, last) of its words that nobody says.
        unwritten: (start, end) in seconds of speech that it lacks.
    """

    kind: str
    file: Path
    tokens: list[str]
    unsaid: tuple[int, int] | None = None
    unwritten: tuple[float, float] | None = None


def cases(file: Path, words: Sequence[Word], other: Sequence[str]) -> Iterator[Case]:
    """Make the texts for a recording; `words` are those of its true text."""
    tokens, n = [word.text for word in words], len(words)
    whole = words[0].start, words[-1].end
    yield Case("right text", file, tokens)
    some = list(other[: n + 2])
    yield Case("text of another recording", file, some, (0, len(some)), whole)
    german = GERMAN.split()[: n + 2]
    yield Case("German text", file, german, (0, len(german)), whole)
    if n < MIN_WORDS:
        return
    yield Case("text twice", file, [*tokens, *tokens], None, None)
    inserted = list(other[:8])
    middle, end = n // 2, n // 2 + len(inserted)
    changed = [*tokens[:middle], *inserted, *tokens[middle:]]
    yield Case("8 words inserted", file, changed, (middle, end))
    first, last = n // 4, n // 4 + max(4, n // 3)
    span = words[first].start, words[last - 1].end
    yield Case("a third deleted", file, [*tokens[:first], *tokens[last:]], None, span)
    wrong = list(other[: last - first])
    replaced = [*tokens[:first], *wrong, *tokens[last:]]
    yield Case("a third replaced", file, replaced, (first, first + len(wrong)), span)
    start = max(4, n // 3)
    lost = words[0].start, words[start - 1].end
    yield Case("the first third deleted", file, tokens[start:], None, lost)


def unsaid_in(transcript: Transcript) -> list[tuple[int, int]]:
    """The words [first, last) that the warnings call unsaid."""
    found = [match.groups() for text in transcript.warnings for match in UNSAID.finditer(text)]
    return [(int(first) - 1, int(last or first)) for first, last in found]


def unwritten_in(transcript: Transcript) -> list[tuple[float, float]]:
    """The seconds of speech that the warnings call missing."""
    found = [match.groups() for text in transcript.warnings for match in UNWRITTEN.finditer(text)]
    return [(float(start), float(end)) for start, end in found]


def overlaps(spans: Sequence[tuple[float, float]], span: tuple[float, float]) -> bool:
    """Whether one of the spans overlaps another span."""
    return any(start < span[1] and end > span[0] for start, end in spans)


def noisy(folder: Path, file: Path) -> Path:
    """Write a recording with noise at 10 dB."""
    samples = np.concatenate(list(decode(file, AudioLimits()).blocks)).astype(np.float64)
    target = folder / f"{file.stem}.wav"
    soundfile.write(target, spoil(samples, NOISE, 7), SAMPLE_RATE, "PCM_16")
    return target


def score(case: Case, transcript: Transcript) -> dict[str, Any]:
    """Count what one alignment says."""
    unsaid, unwritten = unsaid_in(transcript), unwritten_in(transcript)
    is_right = case.kind.startswith("right text")
    row: dict[str, Any] = {
        "texts": 1,
        "warned": bool(unsaid or unwritten or (is_right and transcript.warnings)),
    }
    if case.kind == "text twice":
        row |= {"not said": bool(unsaid), "of": 1}
    if case.unsaid is not None:
        wrong = transcript.words[case.unsaid[0] : case.unsaid[1]]
        row |= {"not said": overlaps(unsaid, case.unsaid), "of": 1, "wrong words": len(wrong)}
        row["aligned"] = sum(word.timing == "aligned" for word in wrong)
        row["above 0.9"] = sum((word.confidence or 0) > 0.9 for word in wrong)
    if case.unwritten is not None:
        row |= {"missing": overlaps(unwritten, case.unwritten), "of missing": 1}
    return row


async def measure(
    transcriber: Transcriber, clips: Sequence[tuple[Path, str]], folder: Path
) -> list[dict[str, Any]]:
    """Align all recordings with all their texts."""
    rows: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(int))
    for number, (file, text) in enumerate(clips):
        true = await collect(align_file(transcriber, file, text, Options()))
        other = clips[(number + 5) % len(clips)][1].split()
        bad, wrong = noisy(folder, file), other[: len(true.words) + 2]
        some = [Case(f"right text, {NOISE}", bad, text.split())]
        some.append(Case(f"text of another recording, {NOISE}", bad, wrong, (0, len(wrong))))
        for case in [*cases(file, true.words, other), *some]:
            found = true
            if case.kind != "right text":
                events = align_file(transcriber, case.file, " ".join(case.tokens), Options())
                found = await collect(events)
            counted = score(case, found)
            if counted.get("not said") is False or counted.get("missing") is False:
                print(f"missed: {case.kind}: {file.name}: {' '.join(case.tokens)[:60]}")
            elif case.kind.startswith("right text") and counted["warned"]:
                print(f"false: {file.name}: {found.warnings}")
            for name, value in counted.items():
                rows[case.kind][name] += int(value)
    return [
        {"text": kind, **{name: row.get(name, "") for name in COLUMNS}}
        for kind, row in rows.items()
    ]


def clips_of(manifests: Sequence[Path], max_seconds: float) -> list[tuple[Path, str]]:
    """The recordings of manifests with their texts, without those that are longer."""
    items = (item for path in manifests for item in read_manifest(path))
    return [(it.file, it.text) for it in items if seconds_of(it.file) <= max_seconds]


def seconds_of(file: Path) -> float:
    """The length of a recording."""
    return sum(map(len, decode(file, AudioLimits()).blocks)) / SAMPLE_RATE


async def main(real: Path | None, max_seconds: float) -> None:
    """Measure and save the table."""
    clips = clips_of([*([real] if real else []), SAMPLES], max_seconds)
    async with make_transcriber(Settings()) as transcriber:
        with tempfile.TemporaryDirectory() as folder:
            save("mismatch", await measure(transcriber, clips, Path(folder)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, metavar="MANIFEST", help="JSONL of real speech")
    parser.add_argument("--max-seconds", type=float, default=1e9, help="leave out longer ones")
    options = parser.parse_args()
    asyncio.run(main(options.real, options.max_seconds))
