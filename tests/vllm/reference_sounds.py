"""The recordings that both implementations hear, and what our client makes of them."""

import json
import shutil

import numpy as np
import soundfile

from asr import pcm
from asr.audio.resample import decode
from asr.config import AudioLimits, DecodeOptions
from asr.engines.omni.dialects import DIALECTS, request_body
from asr.types import SAMPLE_RATE, Audio
from tests.support.paths import ROOT

LENGTHS = {
    "50ms": 0.05,
    "1s": 1,
    "7.3s": 7.3,
    "29.99s": 29.99,
    "30s": 30,
    "30.05s": 30.05,
    "61s": 61,
}
LEVELS = ("silence", "loud")
RATES = {"8k": 8_000, "44.1k": 44_100, "48k": 48_000}
SPEECH = ("meeting", "telephone")
STEP = 1 / 32768


def voice(seconds, seed=0, rate=SAMPLE_RATE):
    """Buzz with a moving pitch, noise, and a level that goes up and down, within [-1, 1]."""
    generator = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = 3 * np.sin(2 * np.pi * 0.7 * t)
    tones = (np.sin(2 * np.pi * 120 * k * t + k * pitch) / k for k in range(1, 25))
    sound = sum(tones) + 0.3 * generator.standard_normal(len(t))
    return (sound * (0.1 + 0.08 * np.sin(2 * np.pi * 1.3 * t + seed))).astype(np.float32)


def write_files(folder):
    """Write a WAV file for each name."""
    made = {name: voice(seconds, seed) for seed, (name, seconds) in enumerate(LENGTHS.items())}
    made |= {"silence": np.zeros(2 * SAMPLE_RATE), "loud": np.clip(30 * voice(3), -1, 1 - STEP)}
    for name, samples in made.items():
        soundfile.write(folder / f"{name}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
    soundfile.write(folder / "float.wav", voice(5), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(folder / "over.wav", 8 * voice(5), SAMPLE_RATE, subtype="FLOAT")
    for name, rate in RATES.items():
        soundfile.write(folder / f"{name}.wav", voice(5, 7, rate), rate, subtype="FLOAT")
    for name in SPEECH:
        shutil.copy(ROOT / "samples" / f"{name}.wav", folder)


def decoded(path):
    """Decode a file as the service does: 16 kHz, mono, kept as 16-bit samples."""
    blocks = list(decode(path, AudioLimits()).blocks)
    return Audio(pcm.to_float32(pcm.to_int16(np.concatenate(blocks))))


def messages(audio, audio_format):
    """The messages of our request to vLLM."""
    body = request_body("tiny", audio, DecodeOptions(), DIALECTS["vllm"], audio_format)
    return json.loads(body)["messages"]


def write_requests(files, folder):
    """Write what our client decodes and sends, by the names of the files.

    Returns:
        the samples by name, and the instruction.
    """
    sounds = {path.stem: decoded(path) for path in sorted(files.glob("*.wav"))}
    # FLAC goes to vLLM for one of them; its samples must be the same.
    sent = {
        name: messages(audio, "flac" if name == "7.3s" else "wav") for name, audio in sounds.items()
    }
    (folder / "requests.json").write_text(json.dumps(sent), encoding="utf-8")
    samples = {name: audio.samples for name, audio in sounds.items()}
    np.savez(folder / "sounds.npz", **samples)
    return samples, sent["1s"][0]["content"][1]["text"]
