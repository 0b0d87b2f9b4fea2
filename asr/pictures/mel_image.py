"""A mel spectrogram as a PNG without axes, for a page that draws it below the waveform.

Needs the extra ``page``: librosa for the spectrogram, matplotlib for the colours. It runs in a
child process of `asr.workers`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from asr import pcm
from asr.audio.prepared import read_span
from asr.config import check
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from asr.workers.template import Channel

MAX_SECONDS: Final = 120.0
MAX_WIDTH: Final = 2000
MAX_HEIGHT: Final = 512
N_MELS: Final = 96
TOP_DB: Final = 70
_MIN_FFT: Final = 512


def warm() -> None:
    """Load the libraries, so that children start with them; without them nothing happens."""
    with contextlib.suppress(ImportError):
        image(np.zeros(_MIN_FFT, np.float32), 4, 4)


def draw_job(channel: Channel) -> None:
    """Write the picture of a span of a prepared recording to a file."""
    request, _ = channel.receive()
    samples = read_span(Path(request["folder"]), request["start"], request["end"])
    try:
        pixels = image(pcm.to_float32(samples), request["width"], request["height"])
    except ImportError:
        check(False, "spectrogram", "the server lacks it; pip install 'asr-service[page]'")
    Path(request["target"]).write_bytes(_png(pixels))
    channel.send({})


def image(samples: np.ndarray, width: int, height: int) -> np.ndarray:
    """The spectrogram as RGB of shape (height, width, 3); high frequencies are on top."""
    import librosa
    from matplotlib import colormaps

    hop = max(1, len(samples) // width)
    n_fft = max(_MIN_FFT, 1 << (hop - 1).bit_length())
    padded = np.pad(samples, (0, max(0, n_fft - len(samples))))
    power = librosa.feature.melspectrogram(
        y=padded, sr=SAMPLE_RATE, n_fft=n_fft, hop_length=hop, n_mels=N_MELS, fmax=SAMPLE_RATE / 2
    )
    decibels = librosa.power_to_db(power, ref=np.max, top_db=TOP_DB)
    n_frames = max(1, min(decibels.shape[1], -(-len(samples) // hop)))
    shown = 1 + decibels[::-1, :n_frames] / TOP_DB
    columns = np.minimum(np.arange(width) * n_frames // width, n_frames - 1)
    rows = np.linspace(0, len(shown) - 1, height)
    below = np.floor(rows).astype(int)
    above = np.minimum(below + 1, len(shown) - 1)
    share = (rows - below)[:, None]
    scaled = (1 - share) * shown[below][:, columns] + share * shown[above][:, columns]
    pixels: np.ndarray = (255 * colormaps["magma"](scaled)[..., :3]).astype(np.uint8)
    return pixels


def _png(pixels: np.ndarray) -> bytes:
    """Encode as PNG; matplotlib brings Pillow."""
    import io

    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(pixels).save(target, format="PNG")
    return target.getvalue()
