"""The compiled loops give what numpy gives."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from asr.align.hmm import compiled
from asr.align.hmm.acoustics import Scorer
from asr.align.hmm.compiled import compiler
from asr.align.hmm.compiled.mixing import BLOCK_FRAMES
from asr.align.hmm.forced import PRICES, ForcedAligner
from asr.align.hmm.viterbi import background_scores, best_path
from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.evaluation import read_manifest
from asr.text.spoken import spoken
from asr.types import SAMPLE_RATE, Audio
from tests.support.paths import SAMPLES

SECONDS = 6.0


@pytest.fixture(scope="module")
def scorer():
    return Scorer()


@pytest.fixture(scope="module")
def aligner(scorer):
    return ForcedAligner(scorer)


@pytest.fixture(scope="module")
def audio():
    samples = np.concatenate(list(decode(SAMPLES / "meeting.wav", AudioLimits()).blocks))
    return Audio(samples[: round(SECONDS * SAMPLE_RATE)])


@pytest.fixture(scope="module")
def texts():
    words = {it.file.name: it.words for it in read_manifest(SAMPLES / "manifest.jsonl")}
    said = [word.text for word in words["meeting.wav"] if word.end < SECONDS]
    return [*said[:4], "otherwise", "1905", "привет", *said[4:]]


@pytest.fixture
def without_numba(monkeypatch):
    def switch():
        monkeypatch.setattr(compiled, "load", lambda *_: None)

    return switch


def test_scores_equal_those_of_numpy(scorer, audio, without_numba):
    senones = np.array([5000, 7, 300, 7, 126, 4242, *range(1000, 1400)])
    fast = scorer.score(audio.pcm16(), senones)
    without_numba()
    plain = scorer.score(audio.pcm16(), senones)
    apart = np.abs(fast.values - plain.values)
    assert len(plain) > 2 * BLOCK_FRAMES
    assert plain.values.std() > 3.0
    # The order of sums differs, so the fourth and the fifth best Gaussian may change places.
    assert np.quantile(apart, 0.999) < 2e-3
    assert apart.mean() < 1e-3


@pytest.mark.parametrize("n_frames", [1, 2, 9, BLOCK_FRAMES - 1, BLOCK_FRAMES, BLOCK_FRAMES + 1])
def test_frames_do_not_depend_on_the_block(scorer, n_frames):
    streams = np.random.default_rng(n_frames).normal(size=(3, n_frames, 13)).astype(np.float32)
    senones = np.array([3, 2000, 4000])
    whole = scorer._mixtures.score(streams, senones)
    single = [scorer._mixtures.score(streams[:, [it]], senones)[0] for it in range(n_frames)]
    assert whole == pytest.approx(np.array(single), abs=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_the_searches_equal_those_of_numpy(scorer, aligner, audio, texts, without_numba, whole):
    lattice = aligner._builder.build(spoken(texts, aligner._lexicon), PRICES)
    wanted = np.append(lattice.used_senones(), scorer.phones.all_monophones)
    scores = scorer.score(audio.pcm16(), wanted)
    background = background_scores(scorer.phones, scores)
    fast = best_path(lattice, scores, background, whole=whole)
    without_numba()
    assert (background_scores(scorer.phones, scores) == background).all()
    plain = best_path(lattice, scores, background, whole=whole)
    assert [(step.arc, step.start) for step in fast] == [(it.arc, it.start) for it in plain]
    assert all((a.scores == b.scores).all() for a, b in zip(fast, plain, strict=True))
    assert len(fast) > len(texts) / 2


def test_an_alignment_without_numba_is_the_same(aligner, audio, texts, without_numba):
    fast = aligner.align(audio, texts)
    without_numba()
    plain = aligner.align(audio, texts)
    assert [(it.start, it.end) for it in plain.words] == [(it.start, it.end) for it in fast.words]
    confidences = [it.confidence or 0.0 for it in plain.words]
    assert confidences == pytest.approx([it.confidence or 0.0 for it in fast.words], abs=2e-3)


def test_a_machine_without_numba_uses_numpy_and_says_so(monkeypatch, caplog):
    for name in [name for name in sys.modules if name.startswith("asr.align.hmm.compiled.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert compiled.load.__wrapped__("mixing") is None
    assert "without numba" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, EOFError, OSError])
def test_without_a_usable_cache_it_is_compiled_at_each_start(monkeypatch, error):
    def njit(*_signature, cache=False, **_options):
        if cache:
            raise error("no folder is writable, or a file is damaged")
        return lambda function: function

    monkeypatch.setattr(compiler.numba, "njit", njit)
    assert compiler.compiled("void()")(len) is len


@pytest.mark.parametrize(
    ("chosen", "features", "expected"),
    [
        (None, {"avx512f": True, "amx-tile": True}, "-prefer-256-bit"),
        (None, {"avx512f": True, "amx-tile": False}, None),
        ("+avx2", {"amx-tile": True}, "+avx2"),
    ],
)
def test_wide_vectors_are_for_cpus_that_keep_their_clock(monkeypatch, chosen, features, expected):
    monkeypatch.setattr(compiler.numba.config, "CPU_FEATURES", chosen)
    compiler.prefer_wide_vectors(features)
    assert expected == compiler.numba.config.CPU_FEATURES


def test_an_error_of_the_compiler_leaves_numpy(monkeypatch, caplog):
    def fails(_name):
        raise AssertionError("LLVM failed")

    monkeypatch.setattr(compiled.importlib, "import_module", fails)
    assert compiled.load.__wrapped__("mixing") is None
    assert "without numba" in caplog.text
