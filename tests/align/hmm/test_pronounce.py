"""Pronunciations of words, with the real dictionary."""

from __future__ import annotations

import re
from pathlib import Path

import pocketsphinx
import pytest
from hypothesis import given, strategies as st

from asr.align.hmm.acoustics import read_phones
from asr.align.hmm.pronounce import MAX_PRONUNCIATIONS, Lexicon


@pytest.fixture(scope="module")
def phones():
    return read_phones(Path(pocketsphinx.get_model_path("en-us/en-us"))).names


@pytest.fixture(scope="module")
def lexicon():
    return Lexicon(Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")))


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("hello", "HH EH L OW"),  # the dictionary
        ("either", "AY DH ER"),  # its second entry
        ("b.", "B IY"),
        ("u.s", "Y UW Z"),  # plural of a letter
        ("dogs'", "D AO G Z"),
        ("talkin'", "T AO K IH N"),
        ("googled", "G UW G AH L D"),
        ("jetpacks", "JH EH T P AE K S"),  # compound
        ("microplastics", "M AY K R OW P L AE S T IH K S"),  # prefix
        ("zxcv", "Z IY EH K S S IY V IY"),  # no vowel: spelled
        ("nemotron", "N EH M OW T R AA N"),
        ("phosphorylation", "F AA S F AO R IH L EY SH AH N"),  # letter to sound
        ("ngozi", "NG G OW Z IY"),  # by the rules for other languages
    ],
)
def test_pronunciations(lexicon, word, phones):
    assert tuple(phones.split()) in lexicon.pronounce(word)


def test_rules_are_near_the_dictionary(lexicon):
    """Rules of this size typically get a fifth of the phones wrong."""
    entries = [word for word in list(lexicon._entries)[::900] if re.fullmatch("[a-z]{4,}", word)]
    n_wrong = n_phones = 0
    for word in entries:
        truth = lexicon._known(word)[0]
        guesses = lexicon._guessed(word)[-2:]
        n_wrong += min(distance(truth, guess) for guess in guesses)
        n_phones += len(truth)
    assert len(entries) > 100
    assert n_wrong / n_phones < 0.25


def distance(one, other):
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


@given(st.from_regex(r"[a-z']{1,60}|[a-z]\.s?", fullmatch=True))
def test_every_word_can_be_said(lexicon, phones, word):
    said = lexicon.pronounce(word)
    assert 1 <= len(said) <= MAX_PRONUNCIATIONS
    assert all(each and set(each) <= set(phones) for each in said)
