"""Log-mel features, windows, and the model that embeds them."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.errors import EngineUnavailable
from asr.speakers.fbank import FLOOR, fbank
from asr.speakers.model import SpeakerModel
from asr.speakers.thresholds import Thresholds
from asr.speakers.windows import cut_windows, speech_of
from tests.support.voices import voice, write_model

THRESHOLDS = Thresholds()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return SpeakerModel(write_model(tmp_path_factory.mktemp("model") / "tiny.onnx"))


def kaldi_frame(samples):
    """One frame as Kaldi's feature-window.cc and mel-computations.cc compute it, step by step."""
    x = samples.astype(np.float64) - samples.mean()
    for i in range(len(x) - 1, 0, -1):
        x[i] -= 0.97 * x[i - 1]
    x[0] -= 0.97 * x[0]
    x *= (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft(np.pad(x, (0, 112)))) ** 2

    def mel(hertz):
        return 1127.0 * np.log(1.0 + hertz / 700.0)

    low, high = mel(20.0), mel(8000.0)
    delta = (high - low) / 81
    bands = []
    for band in range(80):
        left, centre, right = (low + (band + i) * delta for i in range(3))
        energy = 0.0
        for i in range(256):
            at = mel(i * 16_000 / 512)
            if left < at < right:
                rise = (at - left) / (centre - left)
                fall = (right - at) / (right - centre)
                energy += (rise if at <= centre else fall) * power[i]
        bands.append(np.log(max(energy, FLOOR)))
    return np.array(bands)


def test_features_are_kaldis():
    samples = voice(700, 0.1)
    found = fbank(samples)
    assert found.shape == (1 + (1600 - 400) // 160, 80)
    for number in (0, 3, len(found) - 1):
        frame = samples[160 * number : 160 * number + 400]
        assert np.abs(found[number] - kaldi_frame(frame)).max() < 1e-3


def test_silence_and_short_audio_have_finite_features():
    assert np.all(fbank(np.zeros(1600, np.float32)) == pytest.approx(np.log(FLOOR)))
    assert fbank(np.zeros(3, np.float32)).shape == (1, 80)


@st.composite
def words(draw):
    """Ordered words."""
    spans, at = [], 0.0
    for pause, length in draw(
        st.lists(st.tuples(st.floats(0, 0.6), st.floats(0, 2.5)), max_size=12)
    ):
        spans.append((at + pause, at + pause + length))
        at += pause + length
    return spans


@given(words())
def test_windows_cover_the_words_and_no_gap(spans):
    stretches = speech_of(spans, THRESHOLDS.pause)
    windows = cut_windows(spans, THRESHOLDS)
    assert windows == sorted(windows)
    for start, end in windows:
        assert end - start <= THRESHOLDS.window + 1e-9
        assert any(low - 1e-9 <= start and end <= high + 1e-9 for low, high in stretches)
    for low, high in stretches:
        inside = [it for it in windows if low - 1e-9 <= it[0] and it[1] <= high + 1e-9]
        if high - low < THRESHOLDS.shortest:
            assert not inside
        else:
            assert inside[0][0] == low
            assert inside[-1][1] == pytest.approx(high)
            starts = [start for start, _ in inside]
            assert np.all(np.diff(starts) <= THRESHOLDS.hop + 1e-9)


def test_embeddings_do_not_depend_on_loudness_or_on_the_batch(model):
    samples = np.concatenate([voice(300, 3), voice(3000, 3)])
    windows = [(0.5, 2.0), (3.5, 5.0), (0.5, 1.3), (1.0, 2.5)]
    found = model.embed(samples, windows)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0)
    assert found @ model.embed(samples * 0.5, windows).T == pytest.approx(found @ found.T, abs=0.05)
    alone = np.concatenate([model.embed(samples, [window]) for window in windows])
    assert found == pytest.approx(alone, abs=1e-5)
    assert found[0] @ found[3] > 0.9 > 0.7 > found[0] @ found[1]


def test_a_known_voice_is_near_its_windows(model):
    own = model.embed_voice(voice(300, 25, seed=1))
    near, far = (model.embed(voice(hertz, 2), [(0.0, 1.5)])[0] for hertz in (300, 3000))
    assert own @ near > 0.9 > 0.7 > own @ far


def test_another_kind_of_model_is_refused(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    flat = [helper.make_tensor_value_info(it, TensorProto.FLOAT, ["n"]) for it in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", flat[:1], flat[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "abs.onnx")
    with pytest.raises(EngineUnavailable, match=r"abs\.onnx is no speaker model"):
        SpeakerModel(tmp_path / "abs.onnx")
