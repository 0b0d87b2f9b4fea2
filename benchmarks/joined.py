"""Measure the word errors that the pipeline adds to long recordings.

Clips are concatenated to recordings of 2, 10 and 60 minutes, with pauses of 0.3 to 1.5 s of low
noise, and without pauses. The WER of a recording is compared with that of its clips. Each clip
counts as often as it occurs. The clips are transcribed in two ways:

- single: each clip as its own file;
- moved: each clip alone between two such pauses, `N_MOVED` times. The VAD then cuts a few
  milliseconds earlier or later, and a small recogniser recognises some words differently. This is
  chance, not a loss of the pipeline.

With --control, whole clips are packed into chunks of at most 30 s and recognised without VAD, cuts
and merges. This measures what the recogniser itself loses if unrelated clips share a chunk.

    python -m benchmarks.joined [--speech MANIFEST ...] [--control] [--errors]

Every clip is resampled to 16 kHz and scaled to the same loudness, also as a single or moved clip. A
real recording has about one loudness, and differences between microphones are not the pipeline's
fault.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from asr import pcm
from asr.audio.recording import Recording
from asr.audio.resample import decode
from asr.config import AudioLimits, ChunkOptions, Options, VadOptions
from asr.evaluation import WordScore, read_manifest, score_words
from asr.pipeline.transcriber import Transcriber, collect, make_transcriber
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Chunk, Hypothesis, Transcript
from benchmarks.joined_errors import describe
from benchmarks.measure import save

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asr.evaluation import Utterance
    from asr.types import GapReason

SAMPLES = Path(__file__).resolve().parents[1] / "samples" / "manifest.jsonl"
LOUDNESS = 10 ** (-26 / 20)
"""Root mean square of each clip (-26 dBFS), if its peak is then at most `PEAK`."""
PEAK = 0.95
PAUSE_SECONDS = (0.3, 1.5)
PAUSE_NOISE = 10 ** (-70 / 20)
LONGEST_PACK = 30 * SAMPLE_RATE
N_MOVED = 4


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A clip at 16 kHz and the common loudness."""

    name: str
    text: str
    samples: np.ndarray


@dataclass(frozen=True, slots=True)
class Placed:
    """A clip at its place: [start, end) in samples of the recording."""

    clip: Clip
    start: int
    end: int


@dataclass(frozen=True)
class Joined:
    """A recording made of clips."""

    placed: tuple[Placed, ...]
    samples: np.ndarray

    @cached_property
    def text(self) -> str:
        """The reference."""
        return " ".join(each.clip.text for each in self.placed)


@dataclass
class KeptChunks:
    """A checkpoint that keeps the chunks of one transcription and their hypotheses, by index."""

    chunks: dict[int, tuple[Chunk, Hypothesis]] = field(default_factory=dict)

    def get(self, channel: int, chunk: Chunk) -> None:
        """Return nothing, so that every chunk is recognised."""

    def put(self, channel: int, chunk: Chunk, hypothesis: Hypothesis) -> None:  # noqa: ARG002
        """Keep one chunk."""
        self.chunks[chunk.index] = chunk, hypothesis

    def fail(self, channel: int, chunk: Chunk, reason: GapReason) -> None:
        """Ignore a chunk that failed."""


def load_clip(utterance: Utterance) -> Clip:
    """Decode a clip, resample it, and scale it to the common loudness."""
    samples = np.concatenate(list(decode(utterance.file, AudioLimits()).blocks))
    gain = min(LOUDNESS / np.sqrt(np.mean(samples**2)), PEAK / np.abs(samples).max())
    return Clip(utterance.file.name, utterance.text, (gain * samples).astype(np.float32))


def join(clips: Sequence[Clip], seconds: float, pauses: bool, seed: int) -> Joined:
    """Join clips until the recording is `seconds` long.

    Every clip occurs once before any clip occurs twice. Clips longer than half the recording are
    left out.
    """
    order, noise = random.Random(seed), np.random.default_rng(seed)
    fitting = [clip for clip in clips if len(clip.samples) <= seconds * SAMPLE_RATE / 2]
    parts, placed, position = [], [], 0
    for clip in _rounds(fitting, order):
        parts.append(clip.samples)
        placed.append(Placed(clip, position, position + len(clip.samples)))
        position = placed[-1].end
        if position >= seconds * SAMPLE_RATE:
            break
        if pauses:
            parts.append(_pause(order, noise))
            position += len(parts[-1])
    return Joined(tuple(placed), np.concatenate(parts))


def _pause(length: random.Random, noise: np.random.Generator) -> np.ndarray:
    n_samples = round(length.uniform(*PAUSE_SECONDS) * SAMPLE_RATE)
    return noise.normal(0, PAUSE_NOISE, n_samples).astype(np.float32)


def _rounds(clips: Sequence[Clip], order: random.Random) -> Iterator[Clip]:
    while True:
        yield from order.sample(clips, len(clips))


def packs(recording: Joined) -> list[list[Placed]]:
    """Groups of successive whole clips of at most 30 s. A longer clip is alone."""
    groups: list[list[Placed]] = []
    for placed in recording.placed:
        if groups and placed.end - groups[-1][0].start <= LONGEST_PACK:
            groups[-1].append(placed)
        else:
            groups.append([placed])
    return groups


class Bench:
    """Transcribes clips and recordings.

    Attributes:
        transcriber: an open transcriber.
        options: how to transcribe.
        singles: the transcript of each clip as its own file, by its name.
        moved: the transcripts of each clip between pauses, by its name.
    """

    def __init__(self, transcriber: Transcriber, options: Options, folder: Path) -> None:
        self.transcriber = transcriber
        self.options = options
        self.singles: dict[str, str] = {}
        self.moved: dict[str, list[str]] = {}
        self._folder = folder

    async def hear_singles(self, clips: Sequence[Clip]) -> None:
        """Transcribe each clip as its own file, and `N_MOVED` times between pauses."""
        pause = partial(_pause, random.Random(0), np.random.default_rng(0))
        for clip in clips:
            self.singles[clip.name] = (await self.transcribe(clip.samples)).text
            around = [[pause(), clip.samples, pause()] for _ in range(N_MOVED)]
            self.moved[clip.name] = [
                (await self.transcribe(np.concatenate(parts))).text for parts in around
            ]

    async def transcribe(self, samples: np.ndarray, heard: KeptChunks | None = None) -> Transcript:
        """Transcribe samples through the whole pipeline."""
        path = self._folder / "joined.wav"
        soundfile.write(path, samples, SAMPLE_RATE, "PCM_16")
        events = self.transcriber.transcribe_file(path, self.options, checkpoint=heard)
        return await collect(events)

    async def control(self, recording: Joined) -> str:
        """The text if chunks are whole clips, without VAD, cuts and merges."""
        path = self._folder / "joined.pcm"
        path.write_bytes(pcm.to_bytes(pcm.to_int16(recording.samples)))
        return " ".join(
            await asyncio.gather(
                *(self._pack(i, pack, Recording(path)) for i, pack in enumerate(packs(recording)))
            )
        )

    async def _pack(self, index: int, pack: list[Placed], recording: Recording) -> str:
        chunk = Chunk(index, pack[0].start, pack[-1].end)
        if chunk.end_sample - chunk.start_sample > LONGEST_PACK:
            return self.singles[pack[0].clip.name]
        return (await self.transcriber.recognise(chunk, recording, self.options)).text

    def single_score(self, recording: Joined) -> WordScore:
        """The errors of the single clips, each as often as it occurs in the recording."""
        clips = [placed.clip for placed in recording.placed]
        return _sum(score_words(clip.text, self.singles[clip.name]) for clip in clips)

    def moved_score(self, recording: Joined) -> WordScore:
        """The errors of the clips between pauses, `N_MOVED` times each."""
        clips = [placed.clip for placed in recording.placed]
        return _sum(
            score_words(clip.text, text) for clip in clips for text in self.moved[clip.name]
        )


def _sum(scores: Iterable[WordScore]) -> WordScore:
    return sum(scores, WordScore())


async def measure(
    bench: Bench, recordings: Sequence[Joined], name: str, options: argparse.Namespace
) -> dict[str, Any]:
    """A row of the table: recordings of one kind."""
    joined, control = WordScore(), WordScore()
    seconds = 0.0
    for number, recording in enumerate(recordings):
        heard = KeptChunks()
        started = time.perf_counter()
        transcript = await bench.transcribe(recording.samples, heard)
        seconds += time.perf_counter() - started
        joined += score_words(recording.text, transcript.text)
        if options.control:
            control += score_words(recording.text, await bench.control(recording))
        if options.errors:
            print(f"\n## {name}, recording {number}")
            print(*describe(recording, transcript, heard.chunks, bench.singles), sep="\n")
    single = _sum(map(bench.single_score, recordings))
    moved = _sum(map(bench.moved_score, recordings))
    return {
        "recordings": f"{len(recordings)} x {name}",
        "words": joined.n_reference,
        "hits": joined.hits,
        "subst.": joined.substitutions,
        "ins.": joined.insertions,
        "del.": joined.deletions,
        "WER joined": f"{joined.wer or 0:.2%}",
        "single": f"{single.wer or 0:.2%}",
        "loss": _points(joined, single),
        "moved": f"{moved.wer or 0:.2%}",
        "loss against moved": _points(joined, moved),
        "seconds each": round(seconds / len(recordings), 1),
        **({"control against single": _points(control, single)} if options.control else {}),
    }


def _points(joined: WordScore, single: WordScore) -> str:
    return f"{100 * ((joined.wer or 0) - (single.wer or 0)):+.2f}"


async def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every length, with pauses and without."""
    manifests = options.speech or [SAMPLES]
    clips = [load_clip(each) for each in chain(*map(read_manifest, manifests))]
    chosen = Options(
        vad=VadOptions(options.vad),
        chunk=ChunkOptions(
            max_seconds=options.chunk_seconds,
            preferred_seconds=options.preferred_seconds,
        ),
    )
    rows = []
    with tempfile.TemporaryDirectory(prefix="asr-bench-") as folder:
        async with make_transcriber(Settings.from_env()) as transcriber:
            bench = Bench(transcriber, chosen, Path(folder))
            await bench.hear_singles(clips)
            for minutes in options.minutes:
                for pauses in (True, False):
                    n = max(1, round(options.total / minutes))
                    made = [join(clips, 60 * minutes, pauses, options.seed + i) for i in range(n)]
                    name = f"{minutes:g} min, {'pauses' if pauses else 'no pauses'}"
                    rows.append(await measure(bench, made, name, options))
                    print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, print the table and save it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speech", type=Path, action="append", help="manifest; may be repeated")
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 10, 60])
    parser.add_argument(
        "--total", type=float, default=60, help="total minutes of audio of each row"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chunk-seconds", type=float, default=30.0)
    parser.add_argument("--preferred-seconds", type=float, help="default: that of the engine")
    parser.add_argument("--vad", default="webrtc", choices=["webrtc", "silero", "off"])
    parser.add_argument(
        "--control", action="store_true", help="also recognise chunks of whole clips"
    )
    parser.add_argument(
        "--errors", action="store_true", help="list the errors that the single clips do not have"
    )
    options = parser.parse_args()
    rows = asyncio.run(run(options))
    save("joined", rows, {"seed": options.seed, "vad": options.vad})


if __name__ == "__main__":
    main()
