"""Recordings made at test time: signals by numpy, files by soundfile and PyAV.

There are no binary fixtures, so that a test shows the properties of the file that it uses.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import av
import numpy as np
import soundfile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Shift = Callable[[float], float]

RATE = 16_000
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


# --- signals: float32, shape (n_samples,) -------------------------------------------------------


def tone(seconds: float, hertz: float = 440.0, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    """A sine that starts at phase 0."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def silence(seconds: float, rate: int = RATE) -> np.ndarray:
    """Zeros."""
    return np.zeros(round(seconds * rate), np.float32)


def noise(seconds: float, rate: int = RATE, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """White noise of a given standard deviation."""
    samples = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (level * samples).astype(np.float32)


def speech(seconds: float, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    """Harmonics of 120 Hz, four syllables per second; webrtcvad classifies it as speech."""
    time = np.arange(round(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 25))
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * time)
    return (level * voice * syllables / np.abs(voice).max()).astype(np.float32)


def bursts(seconds: float, spans: Sequence[tuple[float, float]], rate: int = RATE) -> np.ndarray:
    """Silence with `speech` in the given spans."""
    samples = silence(seconds, rate)
    for start, end in spans:
        burst = speech(end - start, rate)
        first = round(start * rate)
        samples[first : first + len(burst)] = burst
    return samples


def click(seconds: float, at: float, rate: int = RATE) -> np.ndarray:
    """Silence with one pulse of about 2 ms, whose highest sample is at `at` seconds.

    It is a 1.5 kHz cosine with a bell-shaped envelope, so that every codec keeps it.
    """
    time = np.arange(round(seconds * rate)) / rate - at
    pulse = np.cos(2 * np.pi * 1500 * time) * np.exp(-0.5 * (time / 0.0005) ** 2)
    return (0.8 * pulse).astype(np.float32)


def channels(samples: np.ndarray, count: int) -> np.ndarray:
    """The same samples in each of `count` channels, shape (n_samples, count)."""
    return np.repeat(samples[:, None], count, axis=1)


# --- files --------------------------------------------------------------------------------------


def write(
    path: Path, samples: np.ndarray, rate: int = RATE, subtype: str = "", kind: str = ""
) -> Path:
    """Write with libsndfile; `kind` is its format name, for a path without a known suffix."""
    if path.suffix == ".opus":
        kind, subtype = "OGG", "OPUS"
    soundfile.write(path, samples, rate, subtype=subtype or None, format=kind or None)
    return path


def write_container(
    path: Path,
    samples: np.ndarray,
    codec: str,
    rate: int = RATE,
    *,
    kind: str | None = None,
    video: str = "",
    shift: Shift | None = None,
    options: dict[str, str] | None = None,
    coding: dict[str, str] | None = None,
    picture_seconds: float | None = None,
) -> Path:
    """Write with FFmpeg.

    Args:
        path: the file.
        samples: shape (n_samples,) or (n_samples, n_channels).
        codec: FFmpeg's name of the audio encoder.
        rate: sample rate in Hz.
        kind: FFmpeg's name of the container, for a path without a known suffix.
        video: encoder of a small video track; without one there is no video.
        shift: maps the time of each audio packet to another, in seconds.
        options: options of the container.
        coding: options of the audio encoder.
        picture_seconds: length of the video, by default that of the sound.
    """
    with av.open(str(path), "w", format=kind, container_options=options or {}) as container:
        sound = container.add_stream(codec, rate=rate, options=coding or {})
        planes = samples[:, None] if samples.ndim == 1 else samples
        sound.layout = LAYOUTS[planes.shape[1]]
        sound.bit_rate = 64_000 * planes.shape[1]  # wmav2 and ac3 have no default that works
        picture = _add_video(container, video) if video else None
        if picture is not None:
            _encode_video(container, picture, picture_seconds or len(planes) / rate)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(planes.T, np.float32), "fltp", sound.layout.name
        )
        frame.sample_rate, frame.pts = rate, 0
        for packet in [*sound.encode(frame), *sound.encode(None)]:
            if shift is not None:
                _move(packet, shift)
            container.mux(packet)
    return path


def write_video(path: Path, seconds: float) -> Path:
    """A video without sound."""
    with av.open(str(path), "w") as container:
        _encode_video(container, _add_video(container, "mpeg4"), seconds)
    return path


def _move(packet: av.Packet, shift: Shift) -> None:
    base = packet.time_base
    moved = round(shift(float(packet.pts * base)) / base)
    packet.pts = packet.dts = moved


def _add_video(container: av.container.OutputContainer, codec: str) -> av.VideoStream:
    stream = container.add_stream(codec, rate=10)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    return stream


def _encode_video(
    container: av.container.OutputContainer, stream: av.VideoStream, seconds: float
) -> None:
    for _ in range(round(seconds * 10)):
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        container.mux(stream.encode(picture))
    container.mux(stream.encode(None))


def write_amr(path: Path, seconds: float) -> Path:
    """AMR-NB of 12.2 kbit/s with empty frames of 20 ms (RFC 4867), written without an encoder."""
    frame = bytes([7 << 3 | 4]) + bytes(31)
    path.write_bytes(b"#!AMR\n" + frame * round(seconds * 50))
    return path


def wav_bytes(samples: np.ndarray, rate: int = RATE, data_size: int | None = None) -> bytes:
    """PCM16 mono WAV; `data_size` replaces the data size in the header with a false one."""
    data = (samples * 32767).astype("<i2").tobytes()
    claimed = len(data) if data_size is None else data_size
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    riff = struct.pack("<4sI4s", b"RIFF", min(36 + claimed, 0xFFFFFFFF), b"WAVE")
    return riff + form + struct.pack("<4sI", b"data", claimed) + data
