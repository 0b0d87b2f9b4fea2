"""The times of a CTC model's frames; no model is loaded."""

from __future__ import annotations

from hypothesis import given, strategies as st

from asr.align.ctc.frames import FrameGrid, measure_grid
from asr.types import SAMPLE_RATE


def wav2vec2_frames(n_samples):
    for kernel, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


def parakeet_frames(n_samples):
    """Count every eighth mel frame; mel frames are centred, the first one on sample 0."""
    return -(-(1 + n_samples // 160) // 8)


def test_frames_of_wav2vec2():
    grid = measure_grid(wav2vec2_frames)
    assert grid == FrameGrid(320, 80)
    assert grid.seconds(0) == 40 / SAMPLE_RATE
    assert grid.n_frames(30 * SAMPLE_RATE) == wav2vec2_frames(30 * SAMPLE_RATE) == 1499


def test_frames_of_a_padded_encoder():
    grid = measure_grid(parakeet_frames)
    assert grid == FrameGrid(1280, -1280)
    middle = [(grid.seconds(k) + grid.seconds(k + 1)) / 2 for k in (0, 1, 374)]
    assert middle == [0, 0.08, 374 * 0.08]
    assert parakeet_frames(30 * SAMPLE_RATE) == 376
    assert grid.n_frames(30 * SAMPLE_RATE) == 375  # the last one would lie after the audio


@given(st.integers(0, 40 * SAMPLE_RATE), st.sampled_from([(320, 80), (1280, -1280), (640, 0)]))
def test_the_middles_of_all_frames_lie_in_the_audio(n_samples, numbers):
    grid = FrameGrid(*numbers)
    n_frames = grid.n_frames(n_samples)
    assert n_frames >= 0
    if n_frames:
        middle = (grid.seconds(n_frames - 1) + grid.seconds(n_frames)) / 2
        assert middle < n_samples / SAMPLE_RATE
