"""Measure how often words of each confidence are right: the table in `asr.align.hmm.confidence`.

A word is right if it was said and starts within 0.2 s of where it was found. The texts have planted
mistakes: one word in ten replaced, five words inserted, or five words deleted. One half of the
chunks makes the table and the other half tests it.

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
    """Compute the isotonic regression of `right` on `ratios` at `GRID`, by pooling neighbours."""
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
    # The table is interpolated linearly, so each point is the mean of the steps around it.
    fine = np.linspace(GRID[0] - 1, GRID[-1] + 1, 2000)
    steps = shares[np.clip(np.searchsorted(firsts, fine, side="right") - 1, 0, None)]
    near = [np.abs(fine - place) <= 0.5 for place in GRID]
    return np.array([steps[mask].mean() for mask in near])


@dataclass(frozen=True, slots=True)
class Case:
    """A word of a planted text.

    Attributes:
        ratio: mean log-likelihood ratio of its frames; None if the search skipped it.
        confidence: according to the current table.
        is_right: the word was said and found at its true time. For a skipped word: it was said.
        chunk: number of its chunk.
    """

    ratio: float | None
    confidence: float
    is_right: bool
    chunk: int


def collect(forced: ForcedAligner, manifests: list[Path]) -> list[Case]:
    """Align all texts; return a case for each of their words."""
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
            ratio = float(token.scores.mean())
            cases.append(Case(ratio, confidence(token.scores), is_right, number))
    return cases


def main() -> None:
    """Fit a table on one half; test it and the current table on the other half."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, help="manifest of real recordings with their text")
    options = parser.parse_args()
    if not corpus.is_available():
        raise SystemExit("festival is not installed; see benchmarks/corpus.py")
    with tempfile.TemporaryDirectory() as folder:
        manifests = [corpus.write(Path(folder)), *([options.real] if options.real else [])]
        cases = collect(ForcedAligner(), manifests)
    heard = [case for case in cases if case.ratio is not None]
    # The kinds of mistake repeat every four chunks, so each half has all of them.
    half = np.array([case.chunk % 8 < 4 for case in heard])
    ratios = np.array([case.ratio for case in heard])
    right = np.array([case.is_right for case in heard], float)
    fitted = monotone(ratios[half], right[half])
    print("fitted on one half:", list(zip(GRID, fitted.round(3).tolist(), strict=True)))
    over = [case.is_right for case in cases if case.ratio is None]
    print(f"skipped: {len(over)} words, {np.mean(over):.3f} of them right")
    tested = [case for case in cases if case.chunk % 8 >= 4]
    confidences = np.array([case.confidence for case in tested])
    save("confidence", reliability(confidences, np.array([case.is_right for case in tested])))


def reliability(
    confidences: np.ndarray, right: np.ndarray, edges: tuple[float, ...] = EDGES
) -> list[dict[str, Any]]:
    """Measure the share of right words for each range of confidence."""
    rows = []
    for low, high in itertools.pairwise(edges):
        mask = (confidences >= low) & (confidences < high)
        if mask.any():
            rows.append({
                "confidence": f"{low:.2f}-{min(high, 1.0):.2f}",
                "words": int(mask.sum()),
                "mean confidence": round(float(confidences[mask].mean()), 3),
                "right": round(float(right[mask].mean()), 3),
            })  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
