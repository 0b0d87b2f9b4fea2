"""Words as labels of a CTC model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.align.ctc.spelling import Speller, likeliest, make_speller
from asr.align.ctc.trellis import STAR, Symbols

UPPER = {"<pad>": 0, "<s>": 1, "|": 2, "'": 3, **{c: 4 + i for i, c in enumerate("ABCDEFGHIST")}}
LOWER = {"<blank>": 0, "<unk>": 1, "'": 2, **{c: 3 + i for i, c in enumerate("abcdefghistü")}}
PIECES = {"<unk>": 0, "\u2581": 1, "\u2581be": 2, "ad": 3, "ab": 4, "'": 5, "<pad>": 6}


def letters_of(speller, vocabulary, text):
    """Spell a text; return the labels of each word as letters, with "*" for a star."""
    names = {label: token for token, label in vocabulary.items()} | {STAR: "*"}
    spelled = speller.spell(text.split())
    words = ["" for _ in text.split()]
    for label, word, opens in zip(
        spelled.target.labels, spelled.word, spelled.target.opens_word, strict=True
    ):
        words[word] += ("." if opens and words[word] else "") + names[label]
    return words


def upper(**more):
    return make_speller(UPPER, ("<pad>", "<s>"), Symbols(0, 2), list, **more)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("Head, SHEDS!", ["HEAD", "SHEDS"]),
        ("it's it\u2019s 'its'", ["IT'S", "IT'S", "ITS"]),
        ("d\u00e9j\u00e0", ["DE*A"]),
        ("stra\u00dfe", ["ST*ASSE"]),
        ("\ufb01st", ["FIST"]),
        ("- ... \u2014 ' b", ["", "", "", "", "B"]),
        ("side-by-side", ["SIDE.B*.SIDE"]),
        ("42 $5 C3", ["*", "*", "C*"]),
        ("\u4e2d\u6587 bad", ["*", "BAD"]),
        ("a|b <s> <pad>", ["A*B", "*S*", "*AD*"]),
    ],
)
def test_spelling_in_upper_case(text, spelled):
    assert letters_of(upper(), UPPER, text) == spelled


def test_spelling_in_lower_case_keeps_the_marks_that_the_model_knows():
    speller = make_speller(LOWER, ("<unk>",), Symbols(0), list)
    assert letters_of(speller, LOWER, "B\u00dcCHE B\u00fcche b\u00e9b\u00e9") == [
        "b\u00fcche", "b\u00fcche", "bebe",
    ]  # fmt: skip


def test_spelling_in_pieces():
    encoded = {"bead": (2, 3), "beab": (2, 4), "be": (2,)}
    speller = make_speller(PIECES, ("<unk>", "<pad>"), Symbols(6), encoded.__getitem__)
    spelled = letters_of(speller, PIECES, "Bead, 7 BEAB be9")
    assert spelled == ["\u2581bead", "*", "\u2581beab", "\u2581be*"]


def test_a_piece_that_the_tokenizer_does_not_know_is_a_star():
    speller = Speller("ab", lambda _: [], Symbols(0))
    assert speller.spell(["ab"]).target.labels.tolist() == [STAR]


def test_spoken_forms_belong_to_their_token():
    def speak(tokens):
        return [{"5%": ["six", "hats"]}.get(token, [token]) for token in tokens]

    speller = upper(speak=speak)
    assert letters_of(speller, UPPER, "a 5% bid") == ["A", "SI*.HATS", "BID"]
    assert speller.spell(["5%", "b"]).word.tolist() == [0] * 7 + [1]


def test_the_likeliest_reading_is_taken_and_foreign_letters_stay():
    five = ((("five",), ("fifth",)), (("dollars",),))
    tokens = ["$5", "B", "na\u00efve", "-", "\u4e2d"]
    slots = [five, ((("b.",),),), ((("naive",),),), (), (((),),)]
    forms = [["five", "dollars"], ["b"], ["na\u00efve"], ["", ""], ["\u4e2d"]]
    assert likeliest(tokens, slots) == forms


@given(st.lists(st.text(min_size=1, max_size=8), max_size=6))
def test_any_text_can_be_spelled(tokens):
    spelled = upper().spell(tokens)
    labels = spelled.target.labels
    assert len(labels) == len(spelled.word) == len(spelled.target.opens_word)
    assert set(labels) <= {STAR, *UPPER.values()} - {0, 1, 2}
    assert np.all(np.diff(spelled.word) >= 0)
    assert np.all(spelled.target.opens_word[np.flatnonzero(np.diff(spelled.word, prepend=-1))])
