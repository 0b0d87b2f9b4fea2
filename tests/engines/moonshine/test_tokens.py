"""The tokenizer, and words with their confidences."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from asr.engines.moonshine.answer import read_answer
from asr.engines.moonshine.folder import TOKENIZER, find_folder
from asr.engines.moonshine.model import Decoded
from asr.engines.moonshine.tokens import Tokenizer

pieces = st.lists(st.binary(max_size=300).filter(lambda it: not it.startswith(b"<")), max_size=8)


def file_of(entries):
    """The bytes of a tokenizer.bin with these pieces."""
    data = b""
    for entry in entries:
        size = len(entry)
        data += bytes([size] if size < 128 else [128 + size % 128, size // 128]) + entry
    return data


@given(pieces)
def test_every_length_is_read(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("tokens") / TOKENIZER
    path.write_bytes(file_of(entries))
    tokenizer = Tokenizer.read(path)
    space = "\u2581".encode()
    assert [tokenizer.piece(n) for n in range(len(entries))] == [
        entry.replace(space, b" ") for entry in entries
    ]


@pytest.mark.parametrize("data", [b"\x05ab", b"\x85", b"\x85\x01ab"])
def test_a_file_that_was_cut(tmp_path, data):
    path = tmp_path / TOKENIZER
    path.write_bytes(data)
    with pytest.raises(ValueError, match="ends within a piece"):
        Tokenizer.read(path)


def test_the_real_tokenizer():
    tokenizer = Tokenizer.read(find_folder("") / TOKENIZER)
    assert [tokenizer.piece(n) for n in range(3)] == [b"", b"", b""]  # control tokens
    texts = {tokenizer.piece(n) for n in range(32_768)}
    assert {b" the", b"ing", b".", b"a"} <= texts


def answer(*tokens, cut=False):
    """Read an answer of (piece, probability), with a sure end unless it was cut."""
    tokenizer = Tokenizer([piece.encode() for piece, _ in tokens])
    logprobs = [math.log(probability) for _, probability in tokens] + [0.0] * (not cut)
    return read_answer(Decoded(tuple(range(len(tokens))), tuple(logprobs), cut), tokenizer)


def test_a_word_is_as_sure_as_its_least_sure_token():
    got = answer(("\u2581Hel", 0.9), ("lo", 0.5), (",", 0.8), ("\u2581you", 0.7))
    assert got.words == ("Hello,", "you")
    assert got.confidences == pytest.approx((0.5, 0.7))
    assert got.text == "Hello, you"
    assert got.avg_logprob == pytest.approx(math.log(0.9 * 0.5 * 0.8 * 0.7) / 5)


def test_bytes_of_one_letter_in_two_tokens():
    tokenizer = Tokenizer([b" caf", b"\xc3", b"\xa9"])
    got = read_answer(Decoded((0, 1, 2), (-0.1, -0.2, -0.3, 0.0), is_cut=False), tokenizer)
    assert got.words == ("caf\u00e9",)


def test_a_repeated_comma_is_one():
    got = answer(("\u2581most", 0.9), (",,", 0.5), ("\u2581if", 0.9), (",", 0.9), (",", 0.4))
    assert got.words == ("most,", "if,")
    assert got.confidences == pytest.approx((0.5, 0.4))


def test_control_tokens_are_no_text():
    got = answer(("\u2581yes", 0.9), ("<unk>", 0.2), ("\u2581no", 0.8))
    assert got.text == "yes no"


@given(st.lists(st.tuples(st.text(max_size=6), st.floats(0.001, 1)), max_size=12), st.booleans())
def test_there_is_one_confidence_for_each_word(tokens, cut):
    tokens = [(piece.replace(" ", "\u2581"), p) for piece, p in tokens] or [("a", 0.5)]
    got = answer(*tokens, cut=cut)
    assert len(got.confidences) == len(got.text.split())
    assert all(0 < it <= 1 for it in got.confidences)
    assert got.is_cut == cut


def test_an_answer_without_tokens():
    got = read_answer(Decoded((), (-0.5,), is_cut=False), Tokenizer([]))
    assert (got.text, got.confidences, got.avg_logprob) == ("", (), -0.5)
