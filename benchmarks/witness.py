"""Measure how many planted mistakes the witness finds, and how often it doubts correct texts.

    python -m benchmarks.witness [--real MANIFEST]

The speech is synthetic, by Festival and Flite (benchmarks/corpus.py), and real if a manifest is
given. Recordings without word times are first aligned with their true text. Then each recording is
measured in bad conditions too.

Thresholds were chosen on the half called "chosen on": Festival's voices and half of the real
speakers. The other half, "held out", has other voices, texts, speakers, sounds and random seeds.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.align.hmm.forced import ForcedAligner
from asr.align.witness import Doubt, doubts
from asr.evaluation import read_manifest
from asr.types import SAMPLE_RATE, Audio, Hypothesis
from benchmarks import corpus
from benchmarks.measure import save
from benchmarks.planted import (
    Piece,
    Planted,
    RememberingScorer,
    answered,
    deleted,
    inserted,
    interrupted,
    pieces,
    right,
    spoiled,
    swapped,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEAR = 0.3
"""Seconds by which a doubt may miss the mistake and still count as finding it."""
N_EMPTY = 12
UNSPOILT = ("clean", "numbers")
HARD = ("noise 10 dB", "pink noise 10 dB")
EVERYTHING = "everything"
PLANTS = {
    "right text": right,
    "5 words put in": inserted,
    "5 words left out": deleted,
    "another text": swapped,
}


class Judge:
    """Aligns texts and asks the witness."""

    def __init__(self) -> None:
        self.forced = ForcedAligner(RememberingScorer())

    def doubts(self, audio: Audio, texts: list[str]) -> tuple[list[Doubt], Hypothesis]:
        """Align a text; return the doubts of the witness and the timed hypothesis."""
        found = self.forced.align(audio, texts)
        heard = Hypothesis(0, " ".join(texts), found.words, unwritten=found.unwritten)
        return doubts(heard), heard

    def finds(self, audio: Audio, planted: Planted) -> bool:
        """Whether a doubt lies at the mistake.

        If no single place is known, as in a wholly wrong text, any doubt counts.
        """
        found, heard = self.doubts(audio, planted.texts)
        span = planted.span
        if planted.words is not None:
            first, end = planted.words
            span = heard.words[first].start, heard.words[end - 1].end
        if span is None:
            return bool(found)
        return any(it.start <= span[1] + NEAR and it.end >= span[0] - NEAR for it in found)


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the speech.

    Attributes:
        write: writes the synthetic recordings and their manifest.
        conditions: the bad conditions in which clean speech is measured.
        between: sounds that are inserted between words; the chunks take them in turn.
        real: parity of the real speakers that belong to this half.
        seed: of everything random.
    """

    name: str
    write: Callable[[Path], Path]
    conditions: tuple[str, ...]
    between: tuple[str, ...]
    real: int
    seed: int


HALVES = (
    Half(
        "chosen on",
        corpus.write,
        ("noise 20 dB", *HARD, "music 10 dB", "telephone"),
        ("hiss", "beeps", "music", "knocks"),
        real=1,
        seed=100,
    ),
    Half(
        "held out",
        corpus.write_held_out,
        ("noise 20 dB", *HARD, "chatter 10 dB", "music 10 dB", "telephone"),
        ("applause", "siren", "engine", "music"),
        real=0,
        seed=9000,
    ),
)


def speech(half: Half, folder: Path, real: Path | None, forced: ForcedAligner) -> list[Piece]:
    """Cut the speech of a half into chunks, as recorded."""
    made = [it for it in read_manifest(half.write(folder)) if set(it.categories) & set(UNSPOILT)]
    found = list(pieces(made, forced))
    spoken = read_manifest(real) if real else []
    for piece in pieces([it for it in spoken if _parity(it.file) == half.real], forced):
        kind = "real, 8 kHz" if "8k" in piece.category else "real"
        found.append(replace(piece, category=kind))
    return found


def _parity(file: Path) -> int:
    """Return 0 or 1 for each speaker; files are named by speaker, such as LJ001-0001."""
    before_number = re.split(r"\d", file.stem.lower())[0]
    return zlib.crc32(re.findall(r"[a-z]+", before_number)[-1].encode()) % 2


def disturbed(half: Half, piece: Piece, number: int) -> Iterator[Piece]:
    """Yield a chunk as it is, in bad conditions, and interrupted by a sound.

    A clean chunk gets all conditions of its half, any other chunk only `HARD`.
    """
    seed = half.seed + number
    yield piece
    for condition in half.conditions if piece.category == "clean" else HARD:
        yield spoiled(piece, condition, seed)
    yield interrupted(piece, half.between[number % len(half.between)], seed)


def measure(judge: Judge, half: Half, some: list[Piece], pool: list[str]) -> list[dict[str, Any]]:
    """Measure a row for each category of speech, and one for all."""
    found: Counter[tuple[str, str]] = Counter()
    total: Counter[str] = Counter()
    every = (it for number, piece in enumerate(some) for it in disturbed(half, piece, number))
    for number, piece in enumerate(every):
        kinds = (piece.category, EVERYTHING)
        total.update(kinds)
        for name, plant in PLANTS.items():
            is_found = judge.finds(piece.audio, plant(piece, random.Random(number), pool))
            found.update({(kind, name): is_found for kind in kinds})
    return [
        {"half": half.name, "speech": kind, "chunks": n}
        | {name: f"{found[kind, name]} ({found[kind, name] / n:.1%})" for name in PLANTS}
        for kind, n in sorted(total.items(), key=lambda row: (row[0] == EVERYTHING, row[0]))
    ]


def measure_answers(judge: Judge, half: Half, some: list[Piece]) -> dict[str, Any]:
    """Measure a row: another speaker says five words in a pause, and the text lacks them."""
    # The chunks are sorted by speaker, so the chunk half a list away has another speaker.
    others = some[len(some) // 2 :] + some[: len(some) // 2]
    cases = [answered(piece, other) for piece, other in zip(some, others, strict=True)]
    n_found = sum(judge.finds(whole.audio, planted) for whole, planted in cases)
    text = f"{n_found} ({n_found / len(some):.1%})"
    row = {"half": half.name, "speech": "another speaker", "chunks": len(some)}
    return row | dict.fromkeys(PLANTS, "") | {"5 words left out": text}


def measure_empty(judge: Judge, pool: list[str]) -> list[dict[str, Any]]:
    """Measure texts of 5 to 20 words with audio in which nobody speaks."""
    noise = np.random.default_rng(0)
    levels = {"digital silence": 0.0, "hiss": 1e-4, "loud noise": 0.06}
    rows = []
    for name, level in levels.items():
        chance = random.Random(1)
        n_found = 0
        for _ in range(N_EMPTY):
            at, n_words = chance.randrange(len(pool) - 20), chance.choice((5, 10, 20))
            length = round(chance.uniform(3, 12) * SAMPLE_RATE)
            samples = (level * noise.standard_normal(length)).astype(np.float32)
            n_found += bool(judge.doubts(Audio(samples), pool[at : at + n_words])[0])
        text = f"{n_found} ({n_found / N_EMPTY:.1%})"
        row = {
            "half": "",
            "speech": name,
            "chunks": N_EMPTY,
            **dict.fromkeys(PLANTS, ""),
            "another text": text,
        }
        rows.append(row)
    return rows


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, help="manifest of real recordings with their text")
    options = parser.parse_args()
    if not corpus.is_all_available():
        raise SystemExit("festival and flite are not both installed; see benchmarks/corpus.py")
    judge = Judge()
    if options.real is None:
        print("no real recordings: --real was not given")
    rows = []
    for half in HALVES:
        with tempfile.TemporaryDirectory() as folder:
            some = speech(half, Path(folder), options.real, judge.forced)
        pool = [text for piece in some for text in piece.texts]
        rows += [*measure(judge, half, some, pool), measure_answers(judge, half, some)]
    save("witness", rows + measure_empty(judge, pool))


if __name__ == "__main__":
    main()
