"""Spoken forms of written tokens: examples and a property test."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings, strategies as st

from asr.text.spoken import MAX_READINGS, UNREADABLE, spoken
from tests.support.strategies import NASTY_TEXTS

KNOWN = frozenset((
    "nasa", "us", "it", "covid", "the", "no", "st", "sat", "ok", "a", "i", "at", "and", "hello",
    "world", "well", "known", "youtube",
))  # fmt: skip


def readings(token, before="", after=""):
    """List all ways to say a token, as text."""
    slots = spoken([before, token, after], KNOWN)[1]
    return {" ".join(itertools.chain(*choice)) for choice in itertools.product(*slots)}


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("Hello,", {"hello"}),
        ("don't", {"don't"}),
        ("don\u2019t", {"don't"}),
        ("café", {"cafe"}),
        ("$3.50", {"three dollars and fifty cents", "three dollars fifty", "three fifty"}),
        ("$125", {"one hundred twenty five dollars", "one hundred and twenty five dollars"}),
        ("£5.99", {"five pounds ninety nine", "five pounds and ninety nine pence"}),
        ("$1.2bn", {"one point two billion dollars"}),
        ("42%", {"forty two percent"}),
        ("3rd", {"third", "the third"}),
        ("21st", {"twenty first"}),
        ("10:30", {"ten thirty"}),
        ("7:05pm", {"seven oh five p. m."}),
        ("14:00", {"fourteen hundred", "two o'clock"}),
        ("1,234", {"one thousand two hundred thirty four"}),
        ("1942", {"nineteen forty two"}),
        ("1905", {"nineteen oh five"}),
        ("2005", {"two thousand five", "twenty oh five", "two thousand and five"}),
        ("350", {"three hundred fifty", "three fifty", "three five zero"}),
        ("1980s", {"nineteen eighties"}),
        ("'90s", {"nineties"}),
        ("mid-1990s", {"mid nineteen nineties"}),
        ("3/14/2023", {"march fourteenth twenty twenty three"}),
        ("3/14/2023", {"three fourteen twenty twenty three"}),
        ("2023-03-14", {"march fourteenth twenty twenty three"}),
        ("1/2", {"one half", "a half", "one slash two"}),
        ("5\u00bd", {"five and a half"}),
        ("24/7", {"twenty four seven"}),
        ("3.5", {"three point five"}),
        ("0.5", {"zero point five", "point five"}),
        ("-5", {"minus five", "negative five"}),
        ("5-10", {"five to ten", "five ten"}),
        ("555-1234", {"five five five one two three four"}),
        ("007", {"zero zero seven", "oh oh seven"}),
        ("5km", {"five kilometers"}),
        ("20°C", {"twenty degrees celsius", "twenty degrees c."}),
        ("16GB", {"sixteen gigabytes", "sixteen gigs"}),
        ("5'10\"", {"five foot ten"}),
        ("Dr.", {"doctor", "drive"}),
        ("St.", {"saint", "street"}),
        ("e.g.,", {"e. g.", "for example"}),
        ("NASA", {"nasa", "n. a. s. a."}),
        ("FBI", {"f. b. i."}),
        ("GPUs", {"g. p. u.s"}),
        ("U.S.", {"u. s."}),
        ("COVID-19", {"covid nineteen"}),
        ("B2B", {"b. two b."}),
        ("iPhone", {"iphone", "i phone"}),
        ("VIII,", {"eight", "the eighth"}),
        ("well-known", {"well known"}),
        ("and/or", {"and or", "and slash or"}),
        ("AT&T", {"at and t.", "a. t. and t."}),
        ("#5", {"number five", "hashtag five"}),
        ("&", {"and"}),
        ("ann@example.com", {"ann at example dot com"}),
        ("https://www.example.org/a", {"www dot example dot org slash a"}),
        ("1.2.3", {"one point two point three", "one two three"}),
        ("end.Next", {"end next"}),
    ],
)  # fmt: skip
def test_ways_to_say_a_token(token, said):
    assert said <= readings(token)


def test_readings_depend_on_the_adjacent_tokens():
    assert "fourteenth" in readings("14", before="March")
    assert "fourteenth" not in readings("14", before="bought")
    assert "kilometers" in readings("km", before="5")
    assert readings("in", before="lived") == {"in"}
    assert {"inches", "in"} <= readings("in", before="10")
    assert {"million dollars", "million"} <= readings("million", before="$2")
    assert readings("million", before="two") == {"million"}
    assert "minus" in readings("-", before="5", after="3")
    assert spoken(["\u2014"], KNOWN)[0] == ()


@pytest.mark.parametrize("token", ["...", "\u2014", "\U0001f600", "***", "(", "\u200b", "?!"])
def test_silent_tokens_have_no_slots(token):
    assert spoken([token], KNOWN) == [()]


@pytest.mark.parametrize("token", ["日本語", "مرحبا،", "שלום", "x" * 500, "9" * 60, "дом"])
def test_unreadable_tokens(token):
    assert spoken([token], KNOWN)[0] is UNREADABLE


TOKENS = st.sampled_from(NASTY_TEXTS) | st.text(max_size=20) | st.from_regex(
    r"[-+$£#@&]?[A-Za-z0-9.,:/'%°-]{1,25}", fullmatch=True
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(TOKENS, max_size=8))
def test_any_text_gets_few_plain_readings(tokens):
    said = spoken(tokens, KNOWN)
    assert len(said) == len(tokens)
    for slots in said:
        if slots is UNREADABLE:
            continue
        assert all(0 < len(slot) <= MAX_READINGS for slot in slots)
        assert all(len(slots) == 1 or reading for slot in slots for reading in slot)
        words = (word for slot in slots for reading in slot for word in reading)
        assert all(word.isascii() and word == word.lower() and word.strip() for word in words)
        assert not any(character.isdigit() for word in words for character in word)
