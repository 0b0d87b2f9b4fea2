"""How many words a transcript loses, and how many remarks of a model it keeps, with the aligner.

    python -m benchmarks.remarks

Takes stretches of samples/ with their texts. For "lost", every first and last sentence counts as a
possible remark, and noise is added. For "kept", the lines of texts/remarks.txt, which the model
might write, are put beside the text of one stretch: after it if they begin with "<< ".
"""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import mock

import numpy as np

from asr.align.hmm.aligner import SphinxAligner
from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.engines.omni.prompt import hypothesis
from asr.evaluation import read_manifest
from asr.pipeline import remarks
from asr.pipeline.recognition import Recogniser
from asr.types import SAMPLE_RATE, Audio, Chunk
from benchmarks.first_hour.recordings import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asr.evaluation import Utterance

LINES: Final = Path(__file__).with_name("texts") / "remarks.txt"
SECONDS: Final = 9.0
"""A stretch has at least so many seconds, and ends with a sentence."""
EDGE: Final = 0.3
NOISES: Final = (0.0, 0.01, 0.03, 0.1)
"""Standard deviations of the noise; full scale is 1."""


class _Silent:
    """Stands for an engine that asks a model with a text; it is not asked here."""

    slots = 1
    language = "en"
    guarded = True
    question_id = "any"


def stretches(recording: Utterance) -> Iterator[tuple[np.ndarray, str]]:
    """Yield samples and text of each stretch."""
    samples = np.concatenate(list(decode(recording.file, AudioLimits()).blocks))
    words = recording.words
    ends, first = [0], 0
    for number, word in enumerate(words, 1):
        is_long = word.end - words[first].start > SECONDS
        if word.text.endswith((".", "?", "!")) and (is_long or number == len(words)):
            ends.append(number)
            first = number
    for begin, end in pairwise(ends):
        start = max(0, round((words[begin].start - EDGE) * SAMPLE_RATE))
        stop = round((words[end - 1].end + EDGE) * SAMPLE_RATE)
        yield samples[start:stop], " ".join(word.text for word in words[begin:end])


async def cleaned(aligner: SphinxAligner, samples: np.ndarray, answer: str) -> str:
    """The answer without what the aligner does not hear."""
    recogniser = Recogniser(_Silent(), aligner)  # type: ignore[arg-type]
    chunk = Chunk(0, 0, len(samples))
    audio = Audio(samples.astype(np.float32))
    attempt = await recogniser.judge(chunk, audio, hypothesis(0, answer), None)
    return attempt.hypothesis.text


async def lost(aligner: SphinxAligner, found: list[tuple[np.ndarray, str]]) -> dict[str, int]:
    """Suspect every sentence, and count the texts that lose something."""
    noise = np.random.default_rng(0)
    n_lost = 0
    with (
        mock.patch.object(remarks, "may_be_the_models", return_value=True),
        mock.patch.object(remarks, "may_have_remarks", return_value=True),
    ):
        for samples, text in found:
            for level in NOISES:
                noisy = samples + noise.normal(0, level, len(samples))
                n_lost += await cleaned(aligner, noisy, text) != text
    return {"texts": len(found) * len(NOISES), "lost": n_lost}


async def kept(aligner: SphinxAligner, samples: np.ndarray, text: str) -> dict[str, object]:
    """Put each remark beside the text, and list those that stay."""
    lines = [line for line in LINES.read_text("utf-8").splitlines() if line]
    stay = []
    for line in lines:
        remark = line.removeprefix("<< ")
        answer = f"{text} {remark}" if line.startswith("<< ") else f"{remark} {text}"
        if (await cleaned(aligner, samples, answer)).strip('"') != text:
            stay.append(line)
    return {"remarks": len(lines), "kept": len(stay), "which": stay}


async def main() -> None:
    """Measure both."""
    aligner = SphinxAligner(1)
    await aligner.open()
    try:
        found = [it for each in read_manifest(SAMPLES) for it in stretches(each)]
        print(json.dumps(await lost(aligner, found)))
        print(json.dumps(await kept(aligner, *found[0]), indent=1, ensure_ascii=False))
    finally:
        await aligner.close()


if __name__ == "__main__":
    asyncio.run(main())
