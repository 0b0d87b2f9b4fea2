"""How tokens are sampled, and how answers and log-probabilities are read; no server."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from asr.config import DecodeOptions
from asr.engines.omni.prompt import GREEDY_UP_TO, Token, hypothesis, sampling


def tokens(*pairs: tuple[str, float]) -> list[Token]:
    return [Token(text.encode(), math.log(probability)) for text, probability in pairs]


# --- the request --------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [None, 0.0, 0.1, GREEDY_UP_TO])
def test_by_default_the_likeliest_token_is_taken(temperature):
    drawn = sampling(DecodeOptions(temperature=temperature), 10)
    assert (drawn.temperature, drawn.top_k) == (0.0, 1)


@pytest.mark.parametrize("temperature", [0.21, 0.7, 1.0])
def test_a_higher_temperature_has_something_to_choose_from(temperature):
    drawn = sampling(DecodeOptions(temperature=temperature), 10)
    assert drawn.temperature == temperature
    assert drawn.top_k > 1


def test_the_token_limit_grows_with_the_seconds():
    limits = [sampling(DecodeOptions(), seconds).max_tokens for seconds in (0, 1, 30)]
    assert limits == [32, 44, 392]


# --- the answer ---------------------------------------------------------------------------------


def test_each_word_is_as_sure_as_its_tokens():
    spoken = tokens(("he", 0.5), ("llo", 0.5), (" world", 0.9))
    heard = hypothesis(3, "hello world", spoken)
    assert (heard.chunk_index, heard.text, heard.words) == (3, "hello world", ())
    assert heard.word_confidences == (0.5, 0.9)
    assert heard.avg_logprob == pytest.approx(math.log(0.5 * 0.5 * 0.9) / 3)


def test_a_doubtful_comma_makes_no_word_doubtful():
    heard = hypothesis(0, "yes, no.", tokens(("yes", 0.8), (",", 0.01), (" no", 0.9), (".", 0.02)))
    assert heard.word_confidences == (0.8, 0.9)
    assert heard.avg_logprob == pytest.approx(math.log(0.8 * 0.9) / 2)


def test_a_token_of_two_words_counts_for_both():
    heard = hypothesis(0, "of the day", tokens(("of the", 0.4), (" day", 0.9)))
    assert heard.word_confidences == (0.4, 0.4, 0.9)


def test_a_word_of_signs_alone_has_their_probability():
    assert hypothesis(
        0, "a - b", tokens(("a", 0.5), (" -", 0.25), (" b", 0.5))
    ).word_confidences == (
        0.5,
        0.25,
        0.5,
    )


def test_what_is_stripped_does_not_count():
    spoken = tokens(
        ("<think>", 0.1), ("hm", 0.1), ("</think>", 0.1), ("Transcript", 0.1), (": ", 0.1),
        ('"', 0.1), ("so", 0.5), (" be", 0.75), (" it", 0.25), ('"', 0.1), ("<|im_end|>", 0.1),
    )  # fmt: skip
    heard = hypothesis(0, '<think>hm</think>Transcript: "so be it"', spoken)
    assert heard.text == "so be it"
    assert heard.word_confidences == (0.5, 0.75, 0.25)


def test_thinking_that_the_server_took_away_does_not_count():
    spoken = tokens(("yes", 0.1), (" well", 0.1), ("</think>", 0.1), ("\n", 0.1), ("yes", 0.6))
    assert hypothesis(0, "yes", spoken).word_confidences == (0.6,)


def test_letters_of_several_tokens_are_put_together():
    """A byte-level token may hold only part of a character."""
    word = "\u00e9t\u00e9".encode()
    spoken = [Token(word[:1], math.log(0.25)), Token(word[1:], 0.0), Token(b" 1", math.log(0.5))]
    assert hypothesis(0, "\u00e9t\u00e9 1", spoken).word_confidences == (0.5, 0.5)


@pytest.mark.parametrize(
    "spoken",
    [
        [],
        tokens(("other words", 0.5)),
        [Token(b"yes", math.nan)],
        [Token(b"yes", -math.inf)],
        [Token("\ufffd".encode(), 0.0)],
    ],
)
def test_tokens_that_tell_nothing_give_no_confidence(spoken):
    heard = hypothesis(0, "yes", spoken)
    assert (heard.text, heard.word_confidences, heard.avg_logprob) == ("yes", None, None)


def test_a_probability_above_one_is_one():
    assert hypothesis(0, "yes", [Token(b"yes", 1e-6)]).word_confidences == (1.0,)


def test_an_answer_cut_at_its_limit_says_so():
    assert hypothesis(0, "on and", is_cut=True).is_cut


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(texts, st.lists(st.integers(0, 120), max_size=8), st.data())
def test_there_is_a_confidence_for_every_word_however_the_bytes_are_cut(text, cuts, data):
    encoded = text.encode()
    edges = sorted({0, len(encoded), *(cut for cut in cuts if cut < len(encoded))})
    spoken = [Token(encoded[a:b], data.draw(st.floats(-20, 0))) for a, b in pairwise(edges)]
    heard = hypothesis(0, text, spoken)
    if heard.text:
        low, high = (math.exp(f(token.logprob for token in spoken)) for f in (min, max))
        assert len(heard.word_confidences) == len(heard.text.split())
        assert all(low - 1e-4 <= it <= high + 1e-4 for it in heard.word_confidences)
        assert heard.avg_logprob <= 0
    else:
        assert (heard.word_confidences, heard.avg_logprob) == (None, None)


def test_lines_stay_for_the_guards_to_see():
    heard = hypothesis(0, " we  met \r\n\n at noon\n", tokens((" we  met \r\n\n at noon\n", 0.5)))
    assert heard.text == "we met\nat noon"
    assert len(heard.word_confidences) == 4


def test_half_a_character_becomes_one_that_can_be_written():
    answer = "half \ud83d of it"
    heard = hypothesis(0, answer, [Token(answer.encode(errors="surrogatepass"), -0.1)])
    assert heard.text == "half \ufffd of it"
    assert len(heard.word_confidences) == 4
    assert heard.text.encode()
