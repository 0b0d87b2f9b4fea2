"""Rules against text where nobody speaks: laws, and answers that Moonshine gave."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asr.engines.moonshine.answer import Answer
from asr.engines.moonshine.engine import _hypothesis
from asr.engines.moonshine.silence import FILLERS, THANKS, is_doubted, is_noise
from asr.engines.moonshine.worker import NOTHING, _judged
from asr.types import SAMPLE_RATE, Chunk

CHUNK = Chunk(3, 5 * SAMPLE_RATE, 7 * SAMPLE_RATE)
WORDS = st.sampled_from(["the", "you", "printing", "Um,", "don't", "42.", "\u266a", "\u597d", "-"])
TEXTS = st.lists(WORDS, max_size=20).map(" ".join)
LOGPROBS = st.floats(-5, 0)


def answer(text, avg_logprob=-0.1):
    words = tuple(text.split())
    return Answer(words, (0.5,) * len(words), avg_logprob, is_cut=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "You",
        "Thank you",
        "You You",
        "\u266a\u266a\u266a",
        "\u266a Hey \u266a",
        "\u00a9 transcript Emily Beynon",
        "\u597d\u554a\u554a",
        "\u4f60\u5462? \u4f60\u5462?",
        "2-3\u0e15\u0e27\u0e1a\u0e19 01/02/2565",
        "...",
        "- -",
        "2, " * 40,
        "Hey, Red, " * 20,
    ],
)
def test_usual_answers_to_noise_are_noise_however_sure_the_model_is(text):
    assert is_noise(answer(text, 0.0))


@pytest.mark.parametrize(
    ("text", "avg_logprob"),
    [
        ("Thank you.", -0.06),
        ("Thank you for watching.", -0.05),
        ("You.", -0.21),
        ("Um.", -0.38),
        ("Yes.", -0.42),
        ("OK.", -0.5),
        ("No.", -0.5),
        ("Bye!", -0.15),
        ("5, 4, 3.", -0.5),
        ("A, B, C.", -0.5),
        ("Caf\u00e9 \u2013 \u20ac5.", -0.5),
        ("Words", -0.74),
        ("Apex one.", -0.64),
        ("Nine, nine, nine, nine, nine, nine, nine, two.", -0.2),
        ("Five little one eight, six one nine nine, six little.", -0.5),
    ],
)
def test_speech_is_kept(text, avg_logprob):
    heard = answer(text, avg_logprob)
    assert not is_noise(heard)
    assert not is_doubted(heard)


@pytest.mark.parametrize(
    ("text", "avg_logprob"),
    [
        ("Thank you for watching!", -0.26),
        ("Uh?", -0.5),
        ("Oh.", -0.83),
        ("Hey, Rick!", -1.28),
        ("The turkey has its body composition.", -0.71),
    ],
)
def test_doubtful_answers_to_music_and_reversed_speech(text, avg_logprob):
    assert is_doubted(answer(text, avg_logprob))


@given(TEXTS, LOGPROBS, LOGPROBS)
def test_a_surer_model_is_never_doubted_more(text, one, other):
    low, high = sorted((one, other))
    assert is_doubted(answer(text, low)) or not is_doubted(answer(text, high))


@given(TEXTS, LOGPROBS, LOGPROBS)
def test_noise_is_told_by_the_text_alone(text, one, other):
    assert is_noise(answer(text, one)) == is_noise(answer(text, other))


@given(st.lists(st.sampled_from(["printing", "books", "Um,", "42."]), min_size=1, max_size=7))
def test_a_few_words_that_the_model_is_sure_of_are_speech(words):
    heard = answer(" ".join(words) + " indeed.", 0.0)
    assert not is_noise(heard)
    assert not is_doubted(heard)


@given(
    st.lists(st.sampled_from(["no,", "one", "lily"]), min_size=2, max_size=3), st.integers(10, 40)
)
def test_what_is_only_a_loop_is_noise_and_what_has_other_words_too_is_not(unit, n_times):
    loop = unit * n_times
    assert is_noise(answer(" ".join(loop)))
    others = [f"word{number}" for number in range(len(loop))]
    assert not is_noise(answer(" ".join(loop + others)))


@given(st.sampled_from(sorted(FILLERS | THANKS)), LOGPROBS)
def test_a_filler_needs_a_punctuation_mark(filler, avg_logprob):
    assert is_noise(answer(filler.capitalize(), avg_logprob))
    assert not is_noise(answer(f"{filler.capitalize()}.", avg_logprob))


@given(TEXTS, LOGPROBS)
def test_nothing_that_may_be_speech_vanishes_without_a_warning(text, avg_logprob):
    heard = answer(text, avg_logprob)
    judged = _judged(heard)
    hypothesis = _hypothesis(CHUNK, judged)
    if is_noise(heard):
        assert judged == NOTHING
        assert hypothesis.warnings == ()
    elif is_doubted(heard):
        assert hypothesis.text == ""
        (warning,) = hypothesis.warnings
        assert f"{len(heard.words)} word" in warning
        assert "5.0 s" in warning
    else:
        assert (hypothesis.text, hypothesis.warnings) == (heard.text, ())
        assert hypothesis.word_confidences == heard.confidences
