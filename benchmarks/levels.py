"""Measure the WER of recordings that were made quieter.

    python -m benchmarks.levels MANIFEST --gain 0 -30 -50 -60 [--vad off]

Each recording is multiplied by the gain (in dB), written as 24-bit PCM and transcribed with the
settings of the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from asr.config import Options, VadOptions
from asr.evaluation import read_manifest, score_words
from asr.pipeline.transcriber import Transcriber, collect, make_transcriber
from asr.settings import Settings


async def measure(transcriber: Transcriber, manifest: Path, gain: float, options: Options) -> str:
    """Return one line of the table."""
    n_errors = n_words = n_empty = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, utterance in enumerate(read_manifest(manifest)):
            samples, rate = soundfile.read(utterance.file, dtype="float32")
            path = Path(folder) / f"{number}.wav"
            soundfile.write(path, samples * np.float32(10 ** (gain / 20)), rate, "PCM_24")
            transcript = await collect(transcriber.transcribe_file(path, options))
            score = score_words(utterance.text, transcript.text)
            n_errors += score.substitutions + score.insertions + score.deletions
            n_words += score.n_reference
            n_empty += not transcript.text
    return f"| {gain:g} dB | {n_errors / n_words:.1%} | {n_empty} |"


async def main() -> None:
    """Read the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--gain", type=float, nargs="+", default=[0.0, -30.0, -50.0, -60.0])
    parser.add_argument("--vad", choices=("webrtc", "silero", "off"), default="webrtc")
    arguments = parser.parse_args()
    options = Options(vad=VadOptions(kind=arguments.vad))
    async with make_transcriber(Settings.from_env()) as transcriber:
        print("| gain | WER | clips without text |\n| --- | --- | --- |")
        for gain in arguments.gain:
            print(await measure(transcriber, arguments.manifest, gain, options), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
