"""The CTC aligner with a model that reads its labels from the samples, and with tiny random models.

These tests need the extra ``[ctc]``; ``make test-ctc`` makes an environment with it and runs them.
"""

from __future__ import annotations

import asyncio
import json
import types

import numpy as np
import pytest

from asr.align import ctc_aligner
from asr.errors import EngineUnavailable
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Audio, Hypothesis, ordered
from tests.support import makers

torch = pytest.importorskip("torch", reason="torch is not installed: run make test-ctc")
transformers = pytest.importorskip("transformers", reason="run make test-ctc")

from asr.align.ctc.aligner import CtcAligner, CtcModel, load_model, speller_for  # noqa: E402
from asr.align.ctc.spelling import as_written, make_speller  # noqa: E402
from asr.align.ctc.trellis import Symbols  # noqa: E402

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"
VOCABULARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4}
VOCABULARY |= {letter: len(VOCABULARY) + i for i, letter in enumerate(LETTERS)}
HOP, FIELD = 320, 400
FRAME = HOP / SAMPLE_RATE


async def align_all(aligner, pairs):
    await aligner.open()
    try:
        work = (
            aligner.align(Audio(samples), Hypothesis(i, text))
            for i, (samples, text) in enumerate(pairs)
        )
        return await asyncio.gather(*work)
    finally:
        await aligner.close()


def align(aligner, *pairs):
    return asyncio.run(align_all(aligner, pairs))


def check_words(result, samples, text):
    assert [word.text for word in result.words] == text.split()
    ordered(result.words, 0, len(samples) / SAMPLE_RATE)


# --- a model that reads planted labels ------------------------------------------------------------


class Planted(torch.nn.Module):
    """A model with wav2vec2's frames; the level of a frame's middle sample is its label."""

    def __init__(self, fails_above=None):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(100.0))
        self.batches = []
        self.fails_above = fails_above

    def forward(self, input_values, attention_mask=None):
        self.batches.append(len(input_values))
        if self.fails_above is not None and input_values.max() > self.fails_above:
            raise RuntimeError("planted failure")
        middles = input_values.unfold(1, FIELD, HOP)[..., FIELD // 2]
        labels = (middles * self.scale).round().long().clamp(0, len(VOCABULARY) - 1)
        logits = 8.0 * torch.nn.functional.one_hot(labels, len(VOCABULARY)).float()
        if input_values.min() < -10:
            logits *= torch.nan
        return types.SimpleNamespace(logits=logits.to(input_values.dtype))


def planted_aligner(model=None, can_pad=True, **options):
    def load(source, device, speak):
        extractor = transformers.Wav2Vec2FeatureExtractor(
            do_normalize=False, return_attention_mask=can_pad
        )
        symbols = Symbols(0, VOCABULARY["|"])
        special = ("<pad>", "<s>", "</s>", "<unk>")
        speller = make_speller(VOCABULARY, special, symbols, list, speak)
        return CtcModel(model or Planted(), extractor, speller)

    return CtcAligner("planted", "cpu", load=load, **options)


def plant(rng, words):
    """Make samples that spell the words, and the start and end of each word in seconds."""
    samples, times = [np.zeros(SAMPLE_RATE // 10, np.float32)], []
    for word in words:
        start = sum(map(len, samples))
        for index, letter in enumerate(word):
            if index and letter == word[index - 1]:
                samples.append(np.zeros(HOP * 2, np.float32))
            level = VOCABULARY[letter] / 100
            samples.append(np.full(int(rng.integers(HOP + 1, 4 * HOP)), level, np.float32))
        times.append((start / SAMPLE_RATE, sum(map(len, samples)) / SAMPLE_RATE))
        samples.append(np.zeros(int(rng.integers(HOP, 20 * HOP)), np.float32))
    return np.concatenate(samples), times


def check_times(words, times):
    for word, (start, end) in zip(words, times, strict=True):
        assert abs(word.start - start) <= FRAME / 2 + 1e-6
        assert abs(word.end - end) <= FRAME / 2 + 1e-6
        assert word.timing == "aligned"
        assert word.confidence > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_word_times_are_exact_to_half_a_frame(seed):
    rng = np.random.default_rng(seed)
    chunks = []
    for _ in range(6):
        words = ["".join(rng.choice(list(LETTERS[:26]), rng.integers(1, 9))) for _ in range(20)]
        chunks.append((*plant(rng, words), " ".join(words).lower()))
    model = Planted()
    results = align(planted_aligner(model), *[(samples, text) for samples, _, text in chunks])
    assert max(model.batches) > 1
    for result, (samples, times, text) in zip(results, chunks, strict=True):
        check_words(result, samples, text)
        check_times(result.words, times)
        assert result.warnings == ()


@pytest.mark.parametrize("place", [0, 2, 4])
def test_speech_that_the_text_lacks_moves_no_word(place):
    spoken = ["ALPHA", "BRAVO", "CHARLIE", "DELTA"]
    extra = ["SOMETHING", "ELSE", "ALTOGETHER"]
    rng = np.random.default_rng(3)
    samples, times = plant(rng, [*spoken[:place], *extra, *spoken[place:]])
    [result] = align(planted_aligner(), (samples, " ".join(spoken)))
    check_times(result.words, [*times[:place], *times[place + 3 :]])


def test_a_number_gets_the_time_of_its_sound():
    samples, times = plant(np.random.default_rng(4), ["PAY", "FORTYTWO", "NOW"])
    [result] = align(planted_aligner(), (samples, "Pay 42 - now!"))
    pay, number, dash, now = result.words
    check_times([pay, now], [times[0], times[2]])
    assert number.timing == dash.timing == "interpolated"
    assert number.start == pytest.approx(times[1][0], abs=FRAME / 2 + 1e-6)
    assert number.end == pytest.approx(times[1][1], abs=FRAME / 2 + 1e-6)

    def speak(tokens):
        return [["forty", "two"] if token == "42" else as_written([token])[0] for token in tokens]

    [result] = align(planted_aligner(speak=speak), (samples, "Pay 42 now!"))
    check_times(result.words, times)


def test_words_that_were_not_said_have_low_confidence():
    samples, times = plant(np.random.default_rng(5), ["ALPHA", "BRAVO"])
    [result] = align(planted_aligner(), (samples, "alpha zzz bravo"))
    starts = [result.words[0].start, result.words[2].start]
    assert starts == pytest.approx([start for start, _ in times], abs=FRAME / 2 + 1e-6)
    confidences = [word.confidence for word in result.words]
    assert confidences[1] < 0.05
    assert min(confidences[0], confidences[2]) > 0.9


def test_text_that_does_not_fit_is_interpolated_with_a_warning():
    samples = makers.speech(1.0)
    [result] = align(planted_aligner(), (samples, "word " * 40))
    check_words(result, samples, "word " * 40)
    assert {word.timing for word in result.words} == {"interpolated"}
    assert result.warnings == ("the text does not fit 1.0 s of audio: word times are interpolated",)


@pytest.mark.parametrize("n_samples", [0, 1, 399, 400, 1000])
def test_audio_of_any_length(n_samples):
    samples = makers.noise(1.0)[:n_samples]
    [result] = align(planted_aligner(), (samples, "a b"))
    check_words(result, samples, "a b")


def test_text_without_sound_and_no_text():
    samples = makers.noise(1.0)
    dashes, nothing = align(planted_aligner(), (samples, "- ..."), (samples, " "))
    check_words(dashes, samples, "- ...")
    assert nothing.words == ()


@pytest.mark.parametrize("level", [50.0, -50.0])  # the planted model raises, or gives NaN
def test_a_chunk_that_breaks_the_model_affects_no_other_chunk(level):
    rng = np.random.default_rng(6)
    good = [plant(rng, ["ALPHA", "BRAVO"]) for _ in range(4)]
    pairs = [(samples, "alpha bravo") for samples, _ in good]
    pairs.insert(2, (np.full(SAMPLE_RATE, level, np.float32), "alpha bravo"))
    results = align(planted_aligner(Planted(fails_above=10)), *pairs)
    broken = results.pop(2)
    assert {word.timing for word in broken.words} == {"interpolated"}
    assert broken.warnings == ("the aligner failed (RuntimeError): word times are interpolated",)
    for result, (_, times) in zip(results, good, strict=True):
        check_times(result.words, times)


def test_a_batch_keeps_its_limit_of_seconds():
    model = Planted()
    samples, _ = plant(np.random.default_rng(7), ["ALPHA"])
    limit = 2.5 * len(samples) / SAMPLE_RATE
    align(planted_aligner(model, batch_seconds=limit), *[(samples, "alpha")] * 7)
    assert max(model.batches) == 2


def test_a_model_without_a_mask_gets_one_chunk_at_a_time():
    model = Planted()
    samples, times = plant(np.random.default_rng(7), ["ALPHA"])
    results = align(planted_aligner(model, can_pad=False), *[(samples, "alpha")] * 5)
    assert set(model.batches) == {1}
    for result in results:
        check_times(result.words, times)


def test_it_must_be_open_and_can_be_opened_again():
    aligner = planted_aligner()
    samples, times = plant(np.random.default_rng(8), ["ALPHA"])
    for _ in range(2):
        with pytest.raises(EngineUnavailable):
            asyncio.run(aligner.align(Audio(samples), Hypothesis(0, "alpha")))
        [result] = align(aligner, (samples, "alpha"))
        check_times(result.words, times)


# --- tiny random models through the real loading --------------------------------------------------


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory):
    """Make a folder with a tiny wav2vec2 of random weights."""
    folder = tmp_path_factory.mktemp("wav2vec2")
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY), encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        pad_token_id=0,
    )
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)
    transformers.Wav2Vec2CTCTokenizer(folder / "vocab.json").save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    extractor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def parakeet(tmp_path_factory):
    """Make a folder with a tiny Parakeet of random weights, whose labels are pieces of words."""
    tokenizers = pytest.importorskip("tokenizers")
    if not hasattr(transformers, "ParakeetForCTC"):
        pytest.skip("this transformers has no ParakeetForCTC")
    folder = tmp_path_factory.mktemp("parakeet")
    pieces = ["<unk>", "\u2581", "\u2581the", "\u2581c", "at", *"abcdefghijklmnopqrstuvwxyz'"]
    unigrams = [(piece, -float(len(pieces) - len(piece))) for piece in pieces]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(unigrams, unk_id=0))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    inner.decoder = tokenizers.decoders.Metaspace()
    tokenizer = transformers.ParakeetTokenizer(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    encoder = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "subsampling_conv_channels": 8,
    }
    blank = tokenizer.pad_token_id
    config = transformers.ParakeetCTCConfig(
        vocab_size=blank + 1, pad_token_id=blank, encoder_config=encoder
    )
    transformers.ParakeetForCTC(config).save_pretrained(folder)
    transformers.ParakeetFeatureExtractor().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "hop", "margin"), [("wav2vec2", 320, 80), ("parakeet", 1280, -1280)]
)
def test_a_model_from_a_folder(kind, hop, margin, request):
    model = load_model(request.getfixturevalue(kind), "cpu")
    assert (model.grid.hop, model.grid.margin) == (hop, margin)
    samples = [makers.speech(3.0), makers.noise(1.7), makers.speech(2.2)]
    features = [model.features(some) for some in samples]
    together = model.emissions(features, [len(some) for some in samples])
    for some, single, row in zip(samples, features, together, strict=True):
        [alone] = model.emissions([single], [len(some)])
        assert alone.shape == row.shape == (model.grid.n_frames(len(some)), alone.shape[1])
        np.testing.assert_allclose(np.exp(row).sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(row, alone, atol=1e-4)  # padding changes nothing


@pytest.mark.parametrize("kind", ["wav2vec2", "parakeet"])
def test_random_models_give_valid_words(kind, request):
    text = "The cat's 42 \u2014 d\u00e9j\u00e0 vu, well-known cat."
    pairs = [(makers.speech(seconds), text) for seconds in (3.0, 8.0, 4.5)]
    results = align(CtcAligner(request.getfixturevalue(kind), "cpu"), *pairs)
    for (samples, _), result in zip(pairs, results, strict=True):
        check_words(result, samples, text)
        timings = [word.timing for word in result.words]
        assert timings == [*["aligned"] * 2, *["interpolated"] * 2, *["aligned"] * 4]


def test_pieces_come_from_the_tokenizer(parakeet):
    tokenizer = transformers.AutoTokenizer.from_pretrained(parakeet)
    speller = speller_for(tokenizer, tokenizer.pad_token_id)
    labels = speller.spell(["The", "cat."]).target.labels.tolist()
    assert tokenizer.convert_ids_to_tokens(labels) == ["\u2581the", "\u2581c", "at"]


def test_normalisation_follows_the_configuration_of_the_model(wav2vec2, tmp_path):
    samples = makers.speech(2.0) * 0.1 + np.float32(0.2)
    features = load_model(wav2vec2, "cpu").features(samples)["input_values"]
    assert float(features.mean()) == pytest.approx(0, abs=1e-4)
    assert float(features.std()) == pytest.approx(1, abs=1e-3)


def test_the_settings_name_the_model(wav2vec2):
    aligner = ctc_aligner(Settings(ctc_model=wav2vec2, ctc_device="cpu"))
    [result] = align(aligner, (makers.speech(2.0), "hello there"))
    assert aligner.name == f"ctc ({wav2vec2})"
    assert [word.timing for word in result.words] == ["aligned"] * 2


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_a_model_that_is_not_there(device, tmp_path):
    aligner = CtcAligner(str(tmp_path), device)
    with pytest.raises(EngineUnavailable, match="ASR_CTC_MODEL"):
        asyncio.run(aligner.open())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(wav2vec2):
    with pytest.raises(EngineUnavailable, match="ASR_CTC_DEVICE"):
        asyncio.run(CtcAligner(wav2vec2, "cuda").open())
