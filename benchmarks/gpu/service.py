"""Measure the whole service in front of vLLM: several processes each post an hour of speech.

All of them post at the same time. The engine is the service's own, with two changes because the
weights are random: every answer has the same number of tokens, and the guards are off because they
would doubt every answer. The recordings are 16 kHz wav files that repeat two of the samples. Each
recording has its own faint noise, so that no cache can answer. Each output row also has vLLM's own
metrics for the pass. Their fields are described in benchmarks.gpu.load.

    python -m benchmarks.gpu.service http://127.0.0.1:8000 --files 1 4 16 --slots 256

With `--aligner sphinx` the service aligns words and guards answers, as it does by default. This
needs real text. So vLLM first does its work, and then its answer is replaced by the words of the
chunk from the samples' reference transcripts.

With `--local MODEL_DIR ARGUMENTS` the service's worker loads the model, without a vLLM server. The
output rows then have no metrics of vLLM:

    python -m benchmarks.gpu.service --local /tmp/omni '{"max_num_seqs": 384}' --files 1 4
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import soundfile
import soxr

from asr.engines.omni import local as vllm_local
from asr.engines.omni.http import VllmHttpEngine, VllmOptions
from asr.engines.omni.local import VllmLocalEngine, read_arguments
from asr.evaluation import ReferenceEngine, read_manifest
from asr.service import serve
from asr.settings import Settings
from asr.types import SAMPLE_RATE
from benchmarks.gpu.load import explain, fixed_length, make_client, read_metrics
from benchmarks.serving import serving

if TYPE_CHECKING:
    import contextlib
    from collections import Counter
    from concurrent.futures import Executor

    from asr.config import DecodeOptions
    from asr.types import Audio, Chunk, Hypothesis, Word

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SPOKEN = ("meeting.wav", "lecture.mp3")
"""The samples that a recording repeats, one after the other."""
TOKENS = "BENCH_TOKENS"
READ_BYTES = 1 << 20
READY_SECONDS = 550.0
LOCAL = {"load_format": "dummy", "moe_backend": "triton"}
"""vLLM arguments that serve.sh sets too."""


class FixedLengthEngine(VllmHttpEngine):
    """The real engine with answers of a fixed length, and no guards."""

    guarded = False

    def __init__(self, options: VllmOptions) -> None:
        super().__init__(options)
        self._dialect = fixed_length(int(os.environ[TOKENS]))


class SpokenTextEngine(FixedLengthEngine):
    """Waits for vLLM's answer, then returns the reference words instead; with guards."""

    guarded = True

    def __init__(self, options: VllmOptions) -> None:
        super().__init__(options)
        self._n_once, words = read_references()
        self._reference = ReferenceEngine(self.slots)
        self._reference.words = [*words, *(_later(it, self._n_once) for it in words)]

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Wait for vLLM, then return the reference words of the chunk.

        A chunk is shorter than one repetition, so two repetitions of the words are enough.
        """
        await super().transcribe(chunk, audio, options)
        start = chunk.start_sample % self._n_once
        n_samples = chunk.end_sample - chunk.start_sample
        first = replace(chunk, start_sample=start, end_sample=start + n_samples)
        return await self._reference.transcribe(first, audio, options)


class FixedLengthLocalEngine(VllmLocalEngine):
    """The real engine in the worker process, with answers of a fixed length and no guards."""

    guarded = False


start = vllm_local._start


async def start_fixed_length(*arguments: Any) -> Any:
    """Load the model, and make every answer as many tokens long as BENCH_TOKENS says."""
    n = int(os.environ[TOKENS])
    fixed = {"max_tokens": n, "min_tokens": n, "ignore_eos": True, "logprobs": None}
    loaded = await start(*arguments)
    make = loaded._new_sampling
    loaded._new_sampling = lambda **usual: make(**{**usual, **fixed})
    return loaded


def read_references() -> tuple[int, list[Word]]:
    """The number of samples in one repetition of a recording, and the words in it."""
    words_of = {it.file.name: it.words for it in read_manifest(SAMPLES / "manifest.jsonl")}
    words: list[Word] = []
    n_samples = 0
    for name in SPOKEN:
        words += [_later(word, n_samples) for word in words_of[name]]
        n_samples += len(read_sample(name))
    return n_samples, words


def _later(word: Word, n_samples: int) -> Word:
    seconds = n_samples / SAMPLE_RATE
    return replace(word, start=word.start + seconds, end=word.end + seconds)


def read_sample(name: str) -> np.ndarray:
    """Read a sample as mono float32 at 16 kHz, shape (n_samples,)."""
    samples, rate = soundfile.read(SAMPLES / name, dtype="float32", always_2d=True)
    resampled: np.ndarray = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE)
    return resampled


def make_engine(settings: Settings) -> FixedLengthEngine | FixedLengthLocalEngine:
    """Create the engine in the service's worker process."""
    if settings.engine_name == "omni-local":
        vllm_local._start = start_fixed_length  # type: ignore[assignment]
        arguments = LOCAL | read_arguments(settings.vllm_args)
        return FixedLengthLocalEngine(settings.vllm_model, arguments, settings.engine_slots)
    engine = FixedLengthEngine if settings.aligner_name == "none" else SpokenTextEngine
    return engine(VllmOptions(settings.vllm_urls, slots=settings.engine_slots))


def make_recording(path: Path, seconds: float, seed: int) -> None:
    """Write repeated speech with the faint noise of `seed`, so that no two recordings are equal."""
    once = np.concatenate([read_sample(name) for name in SPOKEN]).astype(np.float32)
    speech = np.resize(once, round(seconds * SAMPLE_RATE))
    noise = np.random.default_rng(seed).standard_normal(len(speech), dtype=np.float32)
    soundfile.write(path, speech * 0.9 + noise * 1e-3, SAMPLE_RATE, subtype="PCM_16")


def service(
    engine: dict[str, str], aligner: str, slots: int, n_tokens: int
) -> contextlib.AbstractContextManager[tuple[str, int]]:
    """Run our service, either in front of vLLM or with vLLM in its worker process."""
    settings = {
        **engine,
        "ASR_ALIGNER": aligner,
        "ASR_ENGINE_SLOTS": str(slots),
        "ASR_MAX_ACTIVE_REQUESTS": "64",
        "ASR_LOG_LEVEL": "info",
        TOKENS: str(n_tokens),
    }
    return serving(["-m", __spec__.name, "--serve"], settings, READY_SECONDS)


def post(url: str, path: Path) -> tuple[float, list[str]]:
    """Transcribe a file after its upload; return its seconds and the `timing` of each word."""
    body = _send(url, path, response_format="full_json").json()
    words = [word for segment in body["segments"] for word in segment["words"]]
    return body["duration"], [word["timing"] for word in words]


def post_streamed(url: str, path: Path) -> tuple[float, list[str]]:
    """Transcribe a file during its upload; return its seconds and the `timing` of each word."""
    seconds, timings = 0.0, []
    for line in _send(url, path, stream="true").text.splitlines():
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            timings += [word["timing"] for word in event.get("words", ())]
            seconds += event.get("duration", 0.0)  # of the last event
    return seconds, timings


def _send(url: str, path: Path, **params: str) -> httpx.Response:
    with path.open("rb") as file:
        return httpx.post(
            url + "/v1/audio/transcriptions",
            params=params,
            headers={"content-type": "audio/wav"},
            content=iter(functools.partial(file.read, READ_BYTES), b""),
            timeout=590,
        ).raise_for_status()


def post_all(
    clients: Executor, url: str, paths: list[Path], vllm_url: str, *, streamed: bool
) -> dict[str, Any]:
    """Post all files at the same time and return the output row."""
    transcribe = functools.partial(post_streamed if streamed else post, url)
    counted = count(vllm_url)
    started = time.perf_counter()
    results = list(clients.map(transcribe, paths))
    wall = time.perf_counter() - started
    audio = sum(seconds for seconds, _ in results)
    return {
        "files": len(paths),
        "streamed": streamed,
        "hours": round(audio / 3600, 2),
        "wall_s": round(wall, 2),
        "rtfx": round(audio / wall),
        "words": sum(len(timings) for _, timings in results),
        "aligned": sum(timings.count("aligned") for _, timings in results),
        **explain(count(vllm_url) - counted, wall),
    }


def count(urls: str) -> Counter[str]:
    """The metrics of vLLM's servers; `urls` has commas between them and may be empty."""

    async def read() -> Counter[str]:
        async with make_client() as client:
            return await read_metrics(client, tuple(filter(None, urls.split(","))))

    return asyncio.run(read())


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", help="vLLM's address; put commas between several")
    parser.add_argument("--local", nargs=2, metavar=("MODEL", "ARGUMENTS"))
    parser.add_argument("--files", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--aligner", default="none", choices=("none", "sphinx", "ctc"))
    parser.add_argument("--streamed", action="store_true", help="transcribe while files arrive")
    parser.add_argument("--work", type=Path, help="folder that keeps the recordings for later runs")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark, or with `--serve` the service that it measures."""
    if "--serve" in sys.argv:
        serve(Settings.from_env(), make_engine)
        return
    options = parse()
    if options.local and options.aligner != "none":
        sys.exit("--aligner is for vLLM behind HTTP")
    folder = options.work or Path(tempfile.mkdtemp(prefix="asr-bench-"))
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{seed}.wav" for seed in range(max(options.files))]
    for seed, path in enumerate(paths):
        if not path.exists():
            make_recording(path, options.seconds, seed)
    if options.local:
        model, arguments = options.local
        engine = {"ASR_ENGINE": "omni-local", "ASR_VLLM_MODEL": model, "ASR_VLLM_ARGS": arguments}
    else:
        engine = {"ASR_VLLM_URL": options.url}
    with (
        ProcessPoolExecutor(len(paths)) as clients,
        service(engine, options.aligner, options.slots, options.tokens) as (ours, _),
    ):
        list(clients.map(time.sleep, [1.0] * len(paths)))  # until all processes run
        for n_files in options.files:
            what = clients, ours, paths[:n_files], options.url or ""
            row = post_all(*what, streamed=options.streamed)
            print(
                json.dumps({"service": options.slots, "aligner": options.aligner, **row}),
                flush=True,
            )


if __name__ == "__main__":
    main()
