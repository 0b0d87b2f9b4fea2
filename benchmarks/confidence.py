"""How often words of a confidence are right: the table in `asr.align.hmm.confidence`.

A word is right if it was said and starts within 0.2 s of where it was found. The texts have planted
mistakes (one word in ten replaced, or five words put in or left out). Half of the chunks make the
table and the other half test it.

    python -m benchmarks.confidence [--real MANIFEST]
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr.align.hmm.acoustics import FRAME_SECONDS
from asr.align.hmm.confidence import SKIPPED_CONFIDENCE, confidence
from asr.align.hmm.forced import ForcedAligner
from asr.evaluation import read_manifest
from benchmarks import corpus
from benchmarks.measure import save
from benchmarks.planted import deleted, inserted, pieces, replaced

COLLAR = 0.2
GRID = (-8.0, -5.0, -4.0, -3.0, -2.0, -1.5, -1.0, 0.0, 1.0, 2.0)
EDGES = (0.0, 0.12, 0.5, 0.8, 0.9, 0.95, 0.98, 1.01)
PLANTS = (replaced, inserted, replaced, deleted)


def monotone(ratios: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The isotonic regression of `right` on `ratios`, by pooling neighbours, at `GRID`."""
    order = np.argsort(ratios)
    blocks: list[list[float]] = []  # sum, count, first ratio
    for ratio, value in zip(ratios[order], right[order], strict=True):
        blocks.append([float(value), 1.0, float(ratio)])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            total, count, _ = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    firsts = np.array([block[2] for block in blocks])
    shares = np.array([block[0] / block[1] for block in blocks])
    # Between two places of the grid a line is drawn, so each takes the mean of what is around it.
    fine = np.linspace(GRID[0] - 1, GRID[-1] + 1, 2000)
    steps = shares[np.clip(np.searchsorted(firsts, fine, side="right") - 1, 0, None)]
    near = [np.abs(fine - place) <= 0.5 for place in GRID]
    return np.array([steps[mask].mean() for mask in near])


@dataclass(frozen=True, slots=True)
class Case:
    """A word of a planted text.

    Attributes:
        ratio: the mean log-likelihood ratio of its frames; None if it was passed over.
        sure: the confidence that it gets now.
        is_right: it was said, and there.
        chunk: number of its chunk.
    """

    ratio: float | None
    sure: float
    is_right: bool
    chunk: int


def collect(forced: ForcedAligner, manifests: list[Path]) -> list[Case]:
    """Every word whose sounds are known."""
    utterances = [utterance for manifest in manifests for utterance in read_manifest(manifest)]
    every = list(pieces(utterances, forced))
    pool = [text for utterance in utterances for text in utterance.text.split()]
    cases = []
    for number, piece in enumerate(every):
        planted = PLANTS[number % len(PLANTS)](piece, random.Random(number), pool)
        found = forced.find(piece.audio, planted.texts)
        for token, truth in zip(found, planted.truth, strict=True):
            if token is None:
                cases.append(Case(None, SKIPPED_CONFIDENCE, truth is not None, number))
                continue
            start = token.start * FRAME_SECONDS
            is_right = truth is not None and abs(start - truth) <= COLLAR
            sure = confidence(token.scores)
            cases.append(Case(float(token.scores.mean()), sure, is_right, number))
    return cases


def main() -> None:
    """Fit on one half, test what is in use and what was fitted on the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, help="manifest of real recordings with their text")
    options = parser.parse_args()
    if not corpus.is_available():
        raise SystemExit("festival is not installed; see benchmarks/corpus.py")
    with tempfile.TemporaryDirectory() as folder:
        manifests = [corpus.write(Path(folder)), *([options.real] if options.real else [])]
        cases = collect(ForcedAligner(), manifests)
    heard = [case for case in cases if case.ratio is not None]
    # The mistakes go round in fours, so that each half has all of them.
    half = np.array([case.chunk % 8 < 4 for case in heard])
    ratios = np.array([case.ratio for case in heard])
    right = np.array([case.is_right for case in heard], float)
    fitted = monotone(ratios[half], right[half])
    print("fitted on one half:", list(zip(GRID, fitted.round(3).tolist(), strict=True)))
    over = [case.is_right for case in cases if case.ratio is None]
    print(f"passed over: {len(over)} words, {np.mean(over):.3f} of them right")
    save("confidence", reliability([case for case in cases if case.chunk % 8 >= 4]))


def reliability(cases: list[Case]) -> list[dict[str, Any]]:
    """For each range of confidence how many words are right."""
    sure = np.array([case.sure for case in cases])
    right = np.array([case.is_right for case in cases])
    rows = []
    for low, high in itertools.pairwise(EDGES):
        mask = (sure >= low) & (sure < high)
        if mask.any():
            rows.append({
                "confidence": f"{low:.2f}-{min(high, 1.0):.2f}",
                "words": int(mask.sum()),
                "mean confidence": round(float(sure[mask].mean()), 3),
                "right": round(float(right[mask].mean()), 3),
            })  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
