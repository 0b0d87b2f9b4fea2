"""Measure the cost of forced alignment with a full-size CTC model on the recogniser's GPU.

The models have the published sizes but random weights. So speed and memory are those of a real
model, and the word times are meaningless. Each row of the result is for one model, data type and
batch size. It shows each stage alone, the whole aligner with many chunks at once, and how long the
event loop is delayed while the aligner works.

    PYTHONPATH=. python3 benchmarks/ctc_gpu.py [--models wav2vec2-large] [--batches 1,8,32]

Needs only numpy, torch and transformers; Parakeet's feature extractor also needs librosa.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import importlib.util
import json
import statistics
import sys
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

try:
    importlib.import_module("asr")
except ImportError:  # our dependencies are not installed; the aligner needs none of them
    bare = types.ModuleType("asr")
    bare.__path__ = [str(Path(__file__).resolve().parent.parent / "asr")]
    sys.modules["asr"] = bare

from asr.align.ctc.aligner import CtcAligner, CtcModel
from asr.align.ctc.spelling import Speller
from asr.align.ctc.trellis import Symbols, best_paths
from asr.types import SAMPLE_RATE, Audio, Hypothesis

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
MIN_SECONDS = 4.0
PROBE_SECONDS = 0.001


def wav2vec2_large(layers: int | None) -> tuple[Any, Any, Speller]:
    """Make wav2vec2-large: 317 M parameters, as wav2vec2-large-960h-lv60-self and MMS-300m."""
    config = transformers.Wav2Vec2Config(
        vocab_size=32,
        hidden_size=1024,
        num_hidden_layers=layers or 24,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        pad_token_id=0,
    )
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    speller = Speller(LETTERS, lambda text: [5 + ord(c) - ord("a") for c in text], Symbols(0, 4))
    return transformers.Wav2Vec2ForCTC(config), extractor, speller


def parakeet_ctc(layers: int | None) -> tuple[Any, Any, Speller]:
    """Make a model of the size of parakeet-ctc-1.1b; each word has two pieces, more than usual."""
    encoder = {
        "hidden_size": 1024,
        "num_hidden_layers": layers or 42,
        "num_attention_heads": 8,
        "intermediate_size": 4096,
        "num_mel_bins": 80,
        "subsampling_conv_channels": 256,
    }
    config = transformers.ParakeetCTCConfig(
        vocab_size=1025, pad_token_id=1024, encoder_config=encoder
    )
    extractor = transformers.ParakeetFeatureExtractor(feature_size=80)
    halves = lambda text: [sum(map(ord, text)) % 1000, 7 * len(text)]  # noqa: E731
    model = transformers.ParakeetForCTC(config)
    return model, extractor, Speller(LETTERS, halves, Symbols(1024))


MODELS = {"wav2vec2-large": wav2vec2_large}
if hasattr(transformers, "ParakeetForCTC") and importlib.util.find_spec("librosa"):
    MODELS["parakeet-ctc-1.1b"] = parakeet_ctc


def make_text(seed: int, n_words: int) -> str:
    """Make random words of 2 to 8 letters, 5 on average, as in English speech."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 9, n_words)
    return " ".join("".join(rng.choice(list(LETTERS), size)) for size in sizes)


def repeat(work: Callable[[], object]) -> float:
    """Measure the median seconds of a call, after one call to warm up.

    It measures at least three calls, and at least `MIN_SECONDS` / 4 in total.
    """
    work()
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < MIN_SECONDS / 4:
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure_stages(model: CtcModel, samples: np.ndarray, text: str, batch: int) -> dict[str, float]:
    """Measure each stage alone, in milliseconds per chunk."""
    features = model.features(samples)
    sizes = [len(samples)] * batch
    emissions = model.emissions([features] * batch, sizes)
    target = model.speller.spell(text.split()).target
    searched = functools.partial(best_paths, emissions, [target] * batch, model.speller.symbols)
    stages = {
        "features": repeat(lambda: model.features(samples)),
        "model": repeat(lambda: model.emissions([features] * batch, sizes)) / batch,
        "trellis": repeat(searched) / batch,
    }
    shape = {"frames": len(emissions[0]), "labels": len(target.labels)}
    return shape | {f"{name} ms": round(1000 * value, 2) for name, value in stages.items()}


async def probe(lags: list[float]) -> None:
    """Append the delays in seconds with which the event loop wakes this task, until cancelled."""
    while True:
        started = time.perf_counter()
        await asyncio.sleep(PROBE_SECONDS)
        lags.append(time.perf_counter() - started - PROBE_SECONDS)


async def measure_aligner(
    model: CtcModel, samples: np.ndarray, texts: Sequence[str], batch: int
) -> dict[str, float]:
    """Measure the whole aligner with three batches of chunks at once."""
    seconds = len(samples) / SAMPLE_RATE
    aligner = CtcAligner("random", load=lambda *_: model, batch_seconds=batch * seconds)
    await aligner.open()
    n_done, lags = 0, list[float]()

    async def client(stop: float) -> None:
        nonlocal n_done
        while time.perf_counter() < stop:
            text = texts[n_done % len(texts)]
            result = await aligner.align(Audio(samples), Hypothesis(n_done, text))
            if len(result.words) != len(text.split()) or result.warnings:
                raise RuntimeError(f"a chunk was not aligned: {result.warnings}")
            n_done += 1

    async def load(duration: float) -> float:
        started = time.perf_counter()
        await asyncio.gather(*(client(started + duration) for _ in range(3 * batch)))
        return time.perf_counter() - started

    await load(MIN_SECONDS / 4)
    n_done, task = 0, asyncio.create_task(probe(lags))
    elapsed = await load(MIN_SECONDS)
    task.cancel()
    await aligner.close()
    late = np.sort(lags) * 1000
    return {
        "chunks/s": round(n_done / elapsed, 2),
        "RTFx": round(n_done * seconds / elapsed, 1),
        "loop late p50 ms": round(float(late[len(late) // 2]), 2),
        "loop late p99 ms": round(float(late[int(len(late) * 0.99)]), 2),
        "loop late max ms": round(float(late[-1]), 2),
    }


def measure(name: str, dtype: str, batches: Sequence[int], options: Any) -> list[dict[str, Any]]:
    """Measure one model in one type, with each batch size."""
    torch.manual_seed(0)
    with torch.device(options.device):
        network, _, _ = built = MODELS[name](options.layers)
    network = network.to(options.device, DTYPES[dtype])
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    with torch.device("cpu"):
        model = CtcModel(network, *built[1:])
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(int(options.seconds * SAMPLE_RATE))).astype(np.float32)
    texts = [make_text(seed, options.words) for seed in range(64)]
    rows = []
    for batch in batches:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        row = {"model": name, "M parameters": round(n_parameters / 1e6), "type": dtype}
        row |= {"batch": batch, **measure_stages(model, samples, texts[0], batch)}
        row |= asyncio.run(measure_aligner(model, samples, texts, batch))
        if torch.cuda.is_available():
            row["GPU memory GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure the selected models, types and batch sizes; write JSON to the standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    is_gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if is_gpu else "cpu")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--types", default="bf16,fp16" if is_gpu else "fp32")
    parser.add_argument("--batches", default="1,8,32" if is_gpu else "1,2")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a chunk")
    parser.add_argument("--words", type=int, default=100, help="in a chunk")
    parser.add_argument("--layers", type=int, help="fewer than the real model has, to try it out")
    options = parser.parse_args()
    batches = [int(size) for size in options.batches.split(",")]
    rows = []
    for name in options.models.split(","):
        for dtype in options.types.split(","):
            rows += measure(name, dtype, batches, options)
    machine = {
        "device": torch.cuda.get_device_name() if is_gpu else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
    print(
        json.dumps({"machine": machine, "chunk seconds": options.seconds, "rows": rows}, indent=2)
    )


if __name__ == "__main__":
    main()
