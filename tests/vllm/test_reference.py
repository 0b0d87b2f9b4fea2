"""vLLM, fed by our client, computes what the reference implementation in transformers computes.

`make test-reference` builds the two environments. README.md has the table of the differences.

Tolerances: both run the model in bfloat16, whose rounding is 0.4%. Each result is compared with
transformers in float32, and vLLM may be twice as far from it as transformers in bfloat16 is.
"""

import os
import subprocess
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from tests.support.paths import ROOT
from tests.support.serving import clean_env
from tests.vllm import reference_sounds as sounds
from tests.vllm.reference_sounds import LENGTHS, LEVELS, RATES, SPEECH, STEP
from tests.vllm.servers import ENVIRONMENT, PYTHON
from tests.vllm.tiny_text import AUDIO_TOKENS

pytestmark = [pytest.mark.reference, pytest.mark.timeout(3000)]

REFERENCE = Path(
    os.environ.get("REFERENCE_TEST_PYTHON", ROOT / ".venv-reference" / "bin" / "python")
)
SAME = (*LENGTHS, *LEVELS, "meeting")
"""16 kHz and 16 bits: our client changes nothing."""
SHORT = tuple(
    name for name in (*SAME, *RATES, "telephone") if name not in ("30.05s", "61s", "50ms")
)
"""One clip for vLLM, as for transformers."""
EVERY = (*SAME, *RATES, "telephone", "float", "over")
ONE_MORE = {"30s", "silence"}
"""A multiple of 8 frames: transformers counts one audio token more than vLLM."""
RELATIVE = 2.0
BELOW_4_KHZ, ABOVE_4_KHZ = 90, 100
"""Of 128 mel bands."""
MAX_THREADS = {"OMP_NUM_THREADS": "1"}


def run(python, module, *arguments):
    """Run a module in another environment."""
    paths = f"{ENVIRONMENT['PYTHONPATH']}:{ROOT}"
    ran = subprocess.run(
        [str(python), "-m", f"tests.vllm.{module}", *map(str, arguments)],
        env=clean_env(ENVIRONMENT | MAX_THREADS | {"PYTHONPATH": paths}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-5000:]


class Both:
    """The results of both implementations, and what our client decoded."""

    def __init__(self, theirs, ours, samples):
        self._theirs, self._ours, self.samples = dict(theirs), dict(ours), samples

    def theirs(self, name, key):
        """A result of transformers."""
        return self._theirs[f"{name}/{key}"]

    def ours(self, name, key):
        """A result of vLLM."""
        return self._ours[f"{name}/{key}"]

    def positions(self):
        """The frequencies of the positions: of transformers, of vLLM."""
        return self._theirs["positions"], self._ours["positions"]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Run both implementations once, one after the other."""
    for python in (PYTHON, REFERENCE):
        assert python.exists(), f"{python} is missing: run `make test-reference`"
    folder = tmp_path_factory.mktemp("reference")
    files = folder / "files"
    files.mkdir()
    sounds.write_files(files)
    samples, instruction = sounds.write_requests(files, folder)
    run(REFERENCE, "make_reference", folder / "model")
    theirs = (folder / "sounds.npz", instruction, folder / "theirs.npz")
    run(REFERENCE, "run_transformers", folder / "model", files, *theirs)
    inputs = (folder / "sounds.npz", folder / "requests.json")
    run(PYTHON, "run_vllm", folder / "model", *inputs, folder / "ours.npz")
    results = Both(np.load(folder / "theirs.npz"), np.load(folder / "ours.npz"), samples)
    print("\n" + table(results))
    return results


def table(both):
    """The measured differences, for people.

    Columns: samples in steps of 16 bits, and mel, between our decoder and transformers'; then
    embeddings and the prompt's log-probabilities of vLLM, and of transformers in bfloat16, both
    against transformers in float32.
    """
    titles = ("samples", "mel", "encoder", "(bf16)", "along", "(bf16)")
    lines = [f"{'':10} " + " ".join(f"{title:>9}" for title in titles)]
    for name in EVERY:
        theirs = both.theirs(name, "loaded")
        mel = relative(both.theirs(name, "mel"), both.theirs(name, "loaded_mel"))
        encoder = [
            relative(both.ours(name, "clips"), both.theirs(name, "clips32")),
            relative(both.theirs(name, "clips"), both.theirs(name, "clips32")),
        ]
        along = [
            relative(both.ours(name, "along"), both.theirs(name, "along32")),
            relative(both.theirs(name, "along"), both.theirs(name, "along32")),
        ]
        values = (sample_difference(both.samples[name], theirs), mel, *encoder, *along)
        lines.append(f"{name:10} " + " ".join(f"{value:9.2g}" for value in values))
    return "\n".join(lines)


def relative(found, exact):
    """The distance relative to the size of the exact result."""
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def apart(found, exact):
    """The greatest difference of the log-probabilities that both have."""
    n = min(len(found), len(exact))
    return np.abs(found[:n] - exact[:n]).max()


def sample_difference(found, exact):
    """In steps of 16 bits; the ends may differ by a sample after resampling."""
    n = min(len(found), len(exact))
    assert abs(len(found) - len(exact)) <= 1
    return np.abs(found[:n] - exact[:n]).max() / STEP


def snr(found, exact):
    """Signal to noise in dB."""
    n = min(len(found), len(exact))
    noise = np.sum((found[:n] - exact[:n]).astype(np.float64) ** 2)
    return 10 * np.log10(np.sum(exact[:n].astype(np.float64) ** 2) / noise)


@pytest.mark.parametrize("name", EVERY)
def test_vllm_hears_exactly_the_samples_that_the_service_decoded(both, name):
    assert both.ours(name, "rate") == 16_000
    np.testing.assert_array_equal(both.ours(name, "heard"), both.samples[name])
    np.testing.assert_array_equal(both.ours(name, "logprobs"), both.ours(name, "direct"))


@pytest.mark.parametrize("name", SAME)
def test_16_bit_samples_are_those_that_transformers_loads(both, name):
    np.testing.assert_array_equal(both.samples[name], both.theirs(name, "loaded"))


def test_rounding_to_16_bits_moves_a_sample_by_half_a_step(both):
    assert 0.4 < sample_difference(both.samples["float"], both.theirs("float", "loaded")) <= 0.5


@pytest.mark.parametrize("name", [*RATES, "telephone"])
def test_other_rates_are_resampled_as_transformers_does(both, name):
    """Both use soxr; what is left is the rounding to 16 bits."""
    theirs = both.theirs(name, "loaded")
    assert sample_difference(both.samples[name], theirs) <= 0.51
    assert snr(both.samples[name], theirs) > 70


def test_transformers_resamples_as_librosa_does(both, tmp_path):
    sounds.write_files(tmp_path)
    samples, rate = soundfile.read(tmp_path / "44.1k.wav", dtype="float32")
    exact = librosa.resample(samples, orig_sr=rate, target_sr=16_000)
    np.testing.assert_allclose(both.theirs("44.1k", "loaded"), exact, atol=1e-6)


@pytest.mark.parametrize("name", [*SHORT, "float", "over"])
def test_mel_features_are_the_same(both, name):
    """Preemphasis, window, filters, normalisation over valid frames; nobody adds dither."""
    assert both.ours(name, "mel").shape[1:] == both.theirs(name, "mel").shape
    assert both.ours(name, "mask")[0].sum() == both.theirs(name, "mask").sum()
    assert relative(both.ours(name, "mel")[0], both.theirs(name, "mel")) < 1e-5


@pytest.mark.parametrize(("name", "limit"), {"float": 0.001, "44.1k": 0.001, "48k": 0.001}.items())
def test_rounding_to_16_bits_hardly_moves_the_features(both, name, limit):
    assert 0 < relative(both.theirs(name, "mel"), both.theirs(name, "loaded_mel")) < limit


def test_a_recording_above_full_scale_has_other_features_where_it_is_quiet(both):
    """We scale it down, and the logarithm has a floor."""
    moved = relative(both.theirs("over", "mel"), both.theirs("over", "loaded_mel"))
    assert 0.005 < moved < 0.1


@pytest.mark.parametrize("name", ["8k", "telephone"])
def test_empty_bands_hold_the_noise_of_rounding(both, name):
    """Nothing sounds above 4 kHz, and each band is normalised. See docs/vllm.md."""
    ours, theirs = both.theirs(name, "mel"), both.theirs(name, "loaded_mel")
    below = relative(ours[:, :BELOW_4_KHZ], theirs[:, :BELOW_4_KHZ])
    above = relative(ours[:, ABOVE_4_KHZ:], theirs[:, ABOVE_4_KHZ:])
    assert below < 0.005
    assert above > 10 * below


def test_a_recording_over_30_s_is_encoded_in_clips(both):
    """transformers encodes it whole."""
    assert both.ours("61s", "mask").sum(1).tolist() == [3000, 3000, 100]
    assert both.theirs("61s", "mask").sum() == 6100
    assert both.ours("30.05s", "mask").sum(1).tolist() == [3000, 10]


def test_less_than_a_tenth_of_a_second_is_padded(both):
    assert both.ours("50ms", "mask").sum() == 10
    assert both.theirs("50ms", "mask").sum() == 5


@pytest.mark.parametrize("name", SHORT)
def test_transformers_counts_one_token_more_if_the_frames_are_a_multiple_of_8(both, name):
    n_frames = len(both.samples[name]) // 160
    more = len(both.theirs(name, "whole")) - len(both.ours(name, "clips"))
    assert more == (n_frames % 8 == 0)
    assert more == (name in ONE_MORE)


@pytest.mark.parametrize("name", EVERY)
def test_the_encoder_gives_the_same_embeddings(both, name):
    exact = both.theirs(name, "clips32")
    limit = max(RELATIVE * relative(both.theirs(name, "clips"), exact), 0.01)
    assert both.ours(name, "clips").shape == exact.shape
    assert relative(both.ours(name, "clips"), exact) < limit


@pytest.mark.parametrize("name", EVERY)
def test_other_recordings_in_the_batch_change_no_more_than_rounding_does(both, name):
    """The clips are padded to the longest, and the mask hides the padding."""
    rounding = relative(both.theirs(name, "clips"), both.theirs(name, "clips32"))
    assert relative(both.ours(name, "batched"), both.ours(name, "clips")) < RELATIVE * rounding


def test_vllm_rounds_the_frequencies_of_the_positions(both):
    """A difference that is known: fails when vLLM keeps them in float32."""
    exact, rounded = both.positions()
    assert 0.0002 < np.abs(rounded - exact).max() < 2**-9
    theirs32, as_vllm = both.theirs("30s", "clips32"), both.theirs("30s", "rounded")
    assert relative(as_vllm, theirs32) > 0.002
    assert relative(both.ours("30s", "clips"), as_vllm) < relative(
        both.ours("30s", "clips"), theirs32
    )


@pytest.mark.parametrize("name", [name for name in SHORT if name not in ONE_MORE])
def test_the_prompts_have_the_same_tokens(both, name):
    np.testing.assert_array_equal(both.ours(name, "ids"), both.theirs(name, "ids"))


@pytest.mark.parametrize("name", sorted(ONE_MORE))
def test_only_the_number_of_audio_tokens_differs_in_a_prompt(both, name):
    ours, theirs = both.ours(name, "ids"), both.theirs(name, "ids")
    inside = AUDIO_TOKENS.inside
    assert np.sum(theirs == inside) == np.sum(ours == inside) + 1
    np.testing.assert_array_equal(ours[ours != inside], theirs[theirs != inside])


@pytest.mark.parametrize("name", EVERY)
def test_the_first_token_has_the_same_probabilities(both, name):
    exact = both.theirs(name, "logprobs32")
    limit = max(RELATIVE * apart(both.theirs(name, "logprobs"), exact), 0.03)
    assert apart(both.ours(name, "logprobs"), exact) < limit


@pytest.mark.parametrize("name", EVERY)
def test_the_tokens_of_the_prompt_have_the_same_probabilities(both, name):
    """At the audio's positions they depend on the audio most."""
    exact = both.theirs(name, "along32")
    limit = max(RELATIVE * relative(both.theirs(name, "along"), exact), 0.01)
    assert both.ours(name, "along").shape == exact.shape
    assert relative(both.ours(name, "along"), exact) < limit


@pytest.mark.parametrize("name", EVERY)
def test_greedy_decoding_gives_the_same_tokens(both, name):
    """Up to a token that is ahead by no more than rounding makes."""
    noise = 2 * apart(both.theirs(name, "logprobs"), both.theirs(name, "logprobs32"))
    close = both.theirs(name, "leads") < 2 * noise
    n = int(close.argmax()) if close.any() else len(close)
    assert both.ours(name, "greedy")[:n].tolist() == both.theirs(name, "greedy")[:n].tolist()


def test_greedy_tokens_are_compared(both):
    same = [both.ours(name, "greedy")[0] == both.theirs(name, "greedy")[0] for name in EVERY]
    assert np.mean(same) > 0.9


def test_the_audio_changes_the_probabilities(both):
    """Otherwise the tests above would compare nothing."""
    n = len(both.theirs("8k", "along"))
    assert n == len(both.theirs("float", "along"))
    other = relative(both.ours("8k", "along"), both.theirs("float", "along32"))
    assert other > 10 * relative(both.ours("float", "along"), both.theirs("float", "along32"))


def test_speech_is_there(both):
    assert all(np.abs(both.samples[name]).max() > 0.05 for name in SPEECH)
