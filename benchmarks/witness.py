"""What the witness finds of planted mistakes, and how often it doubts what is right.

    python -m benchmarks.witness [--real MANIFEST]

Speech by Festival (benchmarks/corpus.py), and real recordings if a manifest is given; such without
word times are timed by the aligner first, with their true text.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from asr.align.embedded import Embedded
from asr.align.witness import Doubt, doubts
from asr.evaluation import read_manifest
from asr.types import SAMPLE_RATE, Audio, Hypothesis
from benchmarks import corpus
from benchmarks.measure import save
from benchmarks.planted import (
    Piece,
    Planted,
    RememberingScorer,
    deleted,
    inserted,
    pieces,
    right,
    swapped,
)

NEAR = 0.3
"""Seconds by which a doubt may miss the mistake that it is about."""
N_EMPTY = 12
PLANTS = {
    "right text": right,
    "5 words put in": inserted,
    "5 words left out": deleted,
    "another text": swapped,
}


class Judge:
    """Aligns a text and asks the witness."""

    def __init__(self) -> None:
        self.embedded = Embedded(RememberingScorer())

    def doubts(self, audio: Audio, texts: list[str]) -> tuple[list[Doubt], Hypothesis]:
        """What the witness says of it."""
        found = self.embedded.align(audio, texts)
        heard = Hypothesis(0, " ".join(texts), found.words, unwritten=found.unwritten)
        return doubts(heard), heard

    def finds(self, audio: Audio, planted: Planted) -> bool:
        """Whether the mistake is found where it is; if it is everywhere, whether any is."""
        found, heard = self.doubts(audio, planted.texts)
        span = planted.span
        if planted.words is not None:
            first, end = planted.words
            span = heard.words[first].start, heard.words[end - 1].end
        if span is None:
            return bool(found)
        return any(it.start <= span[1] + NEAR and it.end >= span[0] - NEAR for it in found)


def measure(judge: Judge, all_pieces: list[Piece], pool: list[str]) -> list[dict[str, Any]]:
    """A row for each category of speech."""
    found: Counter[tuple[str, str]] = Counter()
    total: Counter[str] = Counter()
    for number, piece in enumerate(all_pieces):
        total[piece.category] += 1
        for name, plant in PLANTS.items():
            planted = plant(piece, random.Random(number), pool)
            found[piece.category, name] += judge.finds(piece.audio, planted)
    return [
        {"speech": kind, "chunks": n}
        | {name: f"{found[kind, name]} ({found[kind, name] / n:.1%})" for name in PLANTS}
        for kind, n in sorted(total.items())
    ]


def measure_empty(judge: Judge, pool: list[str]) -> list[dict[str, Any]]:
    """Texts of 5 to 20 words for audio in which nobody speaks."""
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
        row = {"speech": name, "chunks": N_EMPTY, **dict.fromkeys(PLANTS, ""), "another text": text}
        rows.append(row)
    return rows


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, help="manifest of real recordings with their text")
    options = parser.parse_args()
    if not corpus.is_available():
        raise SystemExit("festival is not installed; see benchmarks/corpus.py")
    judge = Judge()
    with tempfile.TemporaryDirectory() as folder:
        made = read_manifest(corpus.write(Path(folder)))
        every = list(pieces(made, judge.embedded))
    pool = [text for utterance in made for text in utterance.text.split()]
    if options.real is None:
        print("no real recordings: none were given by --real")
    else:
        real = read_manifest(options.real)
        pool += [text for utterance in real for text in utterance.text.split()]
        for piece in pieces(real, judge.embedded):
            kind = "real, 8 kHz" if "8k" in piece.category else "real"
            every.append(Piece(kind, piece.audio, piece.texts, piece.starts, piece.ends))
    save("witness", measure(judge, every, pool) + measure_empty(judge, pool))


if __name__ == "__main__":
    main()
