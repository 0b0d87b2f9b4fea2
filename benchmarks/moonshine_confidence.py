"""Compare confidences of Moonshine's words: which one predicts best whether a word is right?

    python -m benchmarks.moonshine_confidence samples/manifest.jsonl [MANIFEST ...]

The engine's confidence of a word is the probability of its least probable token. The aligner's says
how well the word fits the audio. Both are measured, and combinations of them without parameters.
Few words are wrong in clear speech. So the recordings are also transcribed in noise, and in pieces
of one to three words (benchmarks/nonspeech.py).

A word is right if the alignment that gives the WER matches all its tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jiwer
import numpy as np

from asr.align.hmm.aligner import SphinxAligner
from asr.align.witness import witness
from asr.config import Options
from asr.engines.moonshine.engine import MoonshineEngine
from asr.evaluation import normalise
from asr.pipeline.transcriber import Transcriber, collect
from benchmarks.confidence import reliability
from benchmarks.joined import KeptChunks
from benchmarks.measure import save
from benchmarks.nonspeech import AS_RECORDED, CUT_OUT, WORKERS, spoken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asr.config import DecodeOptions
    from asr.types import Audio, Chunk, Hypothesis
    from benchmarks.nonspeech import Spoken

EDGES: Final = (0.0, 0.3, 0.5, 0.7, 0.9, 0.97, 1.01)
IN_NOISE: Final = "in noise"
EVERYTHING: Final = "everything"
RULES: Final[dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "engine": lambda engine, _: engine,
    "aligner": lambda _, aligner: aligner,
    "lower of both": np.minimum,
    "product": np.multiply,
    "geometric mean": lambda engine, aligner: np.sqrt(engine * aligner),
}


class Separate(MoonshineEngine):
    """Moonshine whose confidences are not combined with the aligner's."""

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise one chunk."""
        return replace(await super().transcribe(chunk, audio, options), is_calibrated=False)

    async def retry(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise one chunk with more padding."""
        return replace(await super().retry(chunk, audio, options), is_calibrated=False)


@dataclass(frozen=True, slots=True)
class Case:
    """A recognised word: its two confidences, and whether it is right."""

    engine: float
    aligner: float
    is_right: bool


async def collect_cases(recordings: list[Spoken]) -> dict[str, list[Case]]:
    """Transcribe the recordings, `WORKERS` at once; return the words by condition."""
    places = asyncio.Semaphore(WORKERS)

    async def one(it: Spoken) -> list[Case]:
        kept = KeptChunks()
        async with places:
            await collect(transcriber.transcribe_file(it.file, Options(), checkpoint=kept))
        return _cases(it.text, [heard for _, (_, heard) in sorted(kept.chunks.items())])

    engine, aligner = Separate(WORKERS), SphinxAligner(WORKERS)
    async with Transcriber(engine, aligner, witness=witness) as transcriber:
        found = await asyncio.gather(*map(one, recordings))
    cases: defaultdict[str, list[Case]] = defaultdict(list)
    for it, some in zip(recordings, found, strict=True):
        is_noisy = it.condition not in (AS_RECORDED, CUT_OUT)
        cases[IN_NOISE if is_noisy else it.condition] += some
    return cases


def _cases(reference: str, heard: Iterable[Hypothesis]) -> list[Case]:
    pairs = [
        (word, own)
        for it in heard
        for word, own in zip(it.words, it.word_confidences or (), strict=True)
    ]
    marks = mark_right(reference, [word.text for word, _ in pairs])
    return [
        Case(own, own if word.confidence is None else word.confidence, is_right)
        for (word, own), is_right in zip(pairs, marks, strict=True)
        if is_right is not None
    ]


def mark_right(reference: str, texts: list[str]) -> list[bool | None]:
    """Say which words are right; None for words without tokens, such as a lone dash."""
    tokens = [normalise(text) for text in texts]
    flat = list(itertools.chain.from_iterable(tokens))
    found = jiwer.process_words(" ".join(normalise(reference)), " ".join(flat))
    matched = {
        chunk.hyp_start_idx + offset
        for chunk in found.alignments[0]
        if chunk.type == "equal"
        for offset in range(chunk.hyp_end_idx - chunk.hyp_start_idx)
    }
    ends = list(itertools.accumulate(map(len, tokens)))
    return [
        all(place in matched for place in range(end - len(some), end)) if some else None
        for end, some in zip(ends, tokens, strict=True)
    ]


def area(confidences: np.ndarray, right: np.ndarray) -> float:
    """The area under the ROC curve.

    It is the share of (right, wrong) pairs in which the right word has the higher confidence.
    """
    differences = confidences[right][:, None] - confidences[~right][None, :]
    return float(np.mean(differences > 0) + np.mean(differences == 0) / 2)


def measure(speech: str, cases: list[Case]) -> list[dict[str, Any]]:
    """Make a row for each confidence in `RULES`."""
    engine, aligner, right = (np.array(it) for it in zip(*map(_row, cases), strict=True))
    rows = []
    for name, rule in RULES.items():
        confidences = rule(engine, aligner)
        bins = reliability(confidences, right, EDGES)
        gap = sum(it["words"] * abs(it["mean confidence"] - it["right"]) for it in bins)
        rows.append({
            "speech": speech,
            "words": len(cases),
            "wrong": int((~right).sum()),
            "confidence": name,
            "AUC": round(area(confidences, right), 3),
            "Brier score": round(float(np.mean((confidences - right) ** 2)), 4),
            "calibration error": round(gap / len(cases), 3),
        })  # fmt: skip
    return rows


def _row(case: Case) -> tuple[float, float, bool]:
    return case.engine, case.aligner, case.is_right


def main() -> None:
    """Measure each condition, and the share of right words by confidence over all conditions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifests", nargs="+", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recordings = []
        for number, manifest in enumerate(options.manifests):
            place = Path(folder, str(number))
            place.mkdir()
            recordings += list(spoken(manifest, place))
        by_speech = asyncio.run(collect_cases(recordings))
    by_speech[EVERYTHING] = list(itertools.chain.from_iterable(by_speech.values()))
    rows = [row for name, cases in by_speech.items() for row in measure(name, cases)]
    save("moonshine-confidence", rows)
    every = map(_row, by_speech[EVERYTHING])
    engine, aligner, right = (np.array(it) for it in zip(*every, strict=True))
    for name in ("aligner", "lower of both"):
        save(
            f"moonshine-confidence-{name.replace(' ', '-')}",
            reliability(RULES[name](engine, aligner), right, EDGES),
        )


if __name__ == "__main__":
    main()
