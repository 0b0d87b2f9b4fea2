"""Damaged recordings in the real decoding process: they give samples or one of our errors."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from asr.audio.recording import PRELOAD, decode_recording
from asr.config import AudioLimits, VadOptions
from asr.errors import AudioError
from asr.workers.pool import ProcessPool
from tests.support import makers

LIMITS = AudioLimits(max_seconds=20, max_cpu_seconds=5, max_memory_bytes=1 << 30)
PATIENCE = 15.0
N_FEW = 40
FEW = ("wav", "float.wav", "flac", "mp3", "ogg", "mp4", "webm", "wma")  # one per demuxer
FORMATS = ("wav", "float.wav", "flac", "mp3", "ogg", "opus", "m4a", "mp4", "webm", "mkv", "wma")


def make(folder, name):
    """A small recording in one of the formats."""
    path = folder / f"whole.{name}"
    signal = makers.speech(0.5, 48_000)
    if name == "float.wav":
        return makers.write(path, signal, 48_000, "FLOAT")
    if name in ("wav", "flac", "mp3", "ogg", "opus"):
        return makers.write(path, signal, 48_000)
    codecs = {"m4a": "aac", "mp4": "aac", "webm": "libopus", "mkv": "aac", "wma": "wmav2"}
    kinds, videos = {"wma": "asf"}, {"mp4": "mpeg4"}
    return makers.write_container(
        path, signal, codecs[name], 48_000, kind=kinds.get(name), video=videos.get(name, "")
    )


def flip_bits(data, rng):
    for _ in range(rng.choice((1, 3, 30))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def flip_header(data, rng):
    for _ in range(rng.choice((1, 4, 12))):
        data[rng.randrange(min(256, len(data)))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return data


def delete(data, rng):
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 7, 100, 2000))]
    return data


def truncate(data, rng):
    return data[: rng.randrange(1, len(data))]


def repeat(data, rng):
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((4, 64, 1024))]
    return data[:start] + piece * rng.choice((2, 50)) + data[start:]


def splice(data, rng, other):
    n_head = rng.randrange(1, min(400, len(data)))
    return data[:n_head] + other[rng.randrange(len(other)) :]


def mutate(data, others, rng):
    kind = rng.choice((flip_bits, flip_header, delete, truncate, repeat, splice))
    rest = (bytearray(rng.choice(others)),) if kind is splice else ()
    return kind(bytearray(data), rng, *rest) or b"\0"


async def outcome(pool, path):
    """The outcome of decoding: "decoded", or the name of the error."""
    reports = decode_recording(pool, path, path.with_suffix(".pcm"), VadOptions(), LIMITS)
    try:
        async with asyncio.timeout(PATIENCE):
            last = [report async for report in reports][-1]
    except AudioError as error:
        return type(error).__name__
    assert last.finished
    assert path.with_suffix(".pcm").stat().st_size == 2 * last.n_samples > 0
    return "decoded"


async def fuzz(pool, folder, names, n_mutations, seed):
    """Count the outcomes; fail on any that is not allowed."""
    rng = random.Random(seed)
    whole = {name: make(folder, name).read_bytes() for name in FORMATS}
    outcomes = Counter()
    sound = makers.write(folder / "sound.wav", makers.speech(0.5))
    for number, name in enumerate(names * n_mutations):
        path = folder / f"damaged.{name}"
        path.write_bytes(mutate(whole[name], list(whole.values()), rng))
        try:
            outcomes[await outcome(pool, path)] += 1
        except BaseException:
            print(f"seed {seed}, mutation {number}: {path} is kept")
            raise
    assert await outcome(pool, sound) == "decoded"
    return outcomes


@pytest.fixture(scope="module")
def in_pool():
    """Run a coroutine with a pool that the tests share."""
    pool = ProcessPool(PRELOAD, 2)
    with asyncio.Runner() as runner:
        yield lambda work: runner.run(work(pool))
        runner.run(pool.close())


@pytest.mark.parametrize("name", FEW)
def test_damage_ends_in_samples_or_in_our_errors(in_pool, tmp_path, name):
    outcomes = in_pool(lambda pool: fuzz(pool, tmp_path, [name], N_FEW, seed=f"1 {name}"))
    assert outcomes.total() == N_FEW
    assert 0 < outcomes["decoded"] < N_FEW  # else the mutations are too mild or too wild


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_much_damage_ends_in_samples_or_in_our_errors(in_pool, tmp_path, seed):
    outcomes = in_pool(lambda pool: fuzz(pool, tmp_path, list(FORMATS), 100, seed))
    assert outcomes.total() == 100 * len(FORMATS)
