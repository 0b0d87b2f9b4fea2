"""Who speaks when, through the whole pipeline: DER, speakers of words and their number, CPU time.

    python -m benchmarks.speakers                      conversations of the voices in samples/
    python -m benchmarks.speakers --folder DIR         recordings with an RTTM of the same name
    python -m benchmarks.speakers --clustering         time and memory of clustering ten hours

The voices in samples/ are synthetic, so the first is a sanity check only. ``--folder`` looks for
NAME.wav (or flac, mp3, ogg, m4a) beside NAME.rttm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import av
import numpy as np
import soundfile

from asr.config import Options, read_speakers
from asr.evaluation import DiarisationScore, SpeakerScore, read_rttm, score_speakers, score_turns
from asr.output.rttm import Turn, turns_of
from asr.pipeline.transcriber import collect, make_transcriber
from asr.settings import Settings
from asr.speakers.clustering import cluster
from asr.speakers.thresholds import Thresholds
from asr.speakers.windows import speech_of
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLES: Final = Path(__file__).parent.parent / "samples"
VOICES: Final = {"slt": "meeting.wav", "ked": "telephone.wav", "kal": "memo.m4a"}
"""A sample of each synthetic voice."""
SUFFIXES: Final = (".wav", ".flac", ".mp3", ".ogg", ".m4a")
HOURS: Final = 10
WINDOWS_PER_HOUR: Final = 4800
COLLARS: Final = ((0.0, True), (0.0, False), (0.25, True), (0.25, False))
"""Collar in seconds, and whether overlapping speech is scored."""


def make_conversations(folder: Path, n_files: int, seed: int) -> None:
    """Concatenate phrases of different synthetic voices, with the truth as RTTM."""
    rng = random.Random(seed)
    phrases = {voice: _phrases(file) for voice, file in VOICES.items()}
    for number in range(n_files):
        voices = sorted(phrases)[: 2 + number % 2] if number else ["slt"]
        parts, lines, at = [np.zeros(SAMPLE_RATE // 2, np.float32)], [], SAMPLE_RATE // 2
        for voice in (rng.choice(voices) for _ in range(24)):
            sound = rng.choice(phrases[voice])
            start, seconds = at / SAMPLE_RATE, len(sound) / SAMPLE_RATE
            lines.append(f"SPEAKER talk 1 {start:.3f} {seconds:.3f} <NA> <NA> {voice} <NA> <NA>\n")
            pause = np.zeros(round(rng.uniform(0.2, 1.0) * SAMPLE_RATE), np.float32)
            parts += [sound, pause]
            at += len(sound) + len(pause)
        soundfile.write(folder / f"talk{number}.wav", np.concatenate(parts), SAMPLE_RATE)
        (folder / f"talk{number}.rttm").write_text("".join(lines), encoding="utf-8")


def _phrases(file: str) -> list[np.ndarray]:
    """The phrases of a sample, cut at its pauses, at equal loudness."""
    samples = _read(SAMPLES / file)
    record = json.loads((SAMPLES / file).with_suffix(".json").read_text(encoding="utf-8"))
    words = [(word["start"], word["end"]) for word in record["words"]]
    cuts = [(round(a * SAMPLE_RATE), round(b * SAMPLE_RATE)) for a, b in speech_of(words, 0.15)]
    spoken = [samples[start:end] for start, end in cuts if end - start > SAMPLE_RATE]
    return [0.05 * phrase / np.sqrt(np.square(phrase).mean()) for phrase in spoken]


def _read(path: Path) -> np.ndarray:
    """16 kHz mono."""
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    with av.open(str(path)) as container:
        frames = [it for frame in container.decode(audio=0) for it in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The recordings and their RTTM files."""
    named = {path.stem: path for path in folder.iterdir() if path.suffix in SUFFIXES}
    return [(named[it.stem], it) for it in sorted(folder.glob("*.rttm")) if it.stem in named]


async def measure(pairs: Sequence[tuple[Path, Path]], speakers: str) -> None:
    """Transcribe all recordings and print a table."""
    turns = dict.fromkeys(COLLARS, DiarisationScore())
    words = SpeakerScore()
    audio = 0.0
    async with make_transcriber(Settings.from_env()) as transcriber:
        options = Options(speakers=read_speakers(speakers))
        for recording, truth in pairs:
            transcript = await collect(transcriber.transcribe_file(recording, options))
            reference, found = read_rttm(truth), turns_of(transcript.segments)
            for collar, overlap in COLLARS:
                turns[collar, overlap] += score_turns(
                    reference, found, collar=collar, overlap=overlap
                )
            own = score_speakers(reference, found, transcript.words)
            words += own
            audio += transcript.duration
            print(_line(recording.stem, reference, found, own), flush=True)
    print_table(turns, words)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{3600 * cpu / max(audio, 1):.0f} CPU seconds an hour, recognition included")


def _line(name: str, reference: Sequence[Turn], found: Sequence[Turn], own: SpeakerScore) -> str:
    numbers = len({it.speaker for it in found}), len({it.speaker for it in reference})
    return f"{name}: {numbers[0]} of {numbers[1]} speakers, {own.alone_wrong} of {own.alone} wrong"


def print_table(turns: dict[tuple[float, bool], DiarisationScore], words: SpeakerScore) -> None:
    """Print the sums."""
    print("| collar | overlap | DER | miss | false alarm | confusion |")
    print("| --: | --- | --: | --: | --: | --: |")
    for (collar, overlap), score in turns.items():
        parts = [score.der or 0.0]
        parts += [it / max(score.total, 1e-9) for it in (score.miss, score.false_alarm)]
        parts.append(score.confusion / max(score.total, 1e-9))
        cells = " | ".join(f"{100 * part:.2f}%" for part in parts)
        print(f"| {collar} | {'scored' if overlap else 'left out'} | {cells} |")
    wrong = 100 * words.alone_wrong / max(words.alone, 1)
    both = 100 * words.overlapped_wrong / max(words.overlapped, 1)
    print(f"words with a wrong speaker: {wrong:.2f}% alone, {both:.1f}% in overlaps")
    print(f"the right number of speakers in {words.count_right} of {words.files} recordings")


def measure_clustering() -> None:
    """Cluster embeddings of ten hours of six voices with much noise."""
    rng = np.random.default_rng(0)
    voices = np.linalg.qr(rng.normal(size=(192, 192)))[0][:6]
    labels = rng.integers(0, 6, HOURS * WINDOWS_PER_HOUR)
    embeddings = np.empty((len(labels), 192), np.float16)
    for start in range(0, len(labels), 1000):
        noise = rng.normal(size=(len(labels[start : start + 1000]), 192)) / np.sqrt(192)
        embeddings[start : start + 1000] = voices[labels[start : start + 1000]] + noise
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.process_time()
    found = cluster(embeddings, Thresholds())
    seconds = time.process_time() - started
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before.ru_maxrss
    print(
        f"{len(labels)} windows: {found.max() + 1} voices, {seconds:.1f} s of CPU, {extra} kB more"
    )


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return Path(text)


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=_folder, help="recordings with an RTTM of the same name")
    parser.add_argument("--speakers", default="auto", help="as in a request")
    parser.add_argument("--files", type=int, default=6, help="conversations of synthetic voices")
    parser.add_argument("--clustering", action="store_true", help="measure clustering alone")
    options = parser.parse_args()
    if options.clustering:
        measure_clustering()
        return 0
    with tempfile.TemporaryDirectory(prefix="asr-speakers-") as name:
        folder = options.folder or Path(name)
        if options.folder is None:
            make_conversations(folder, options.files, seed=1)
        pairs = find_pairs(folder)
        if not pairs:
            parser.error(f"{folder} has no recording with an RTTM file of the same name")
        asyncio.run(measure(pairs, options.speakers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
