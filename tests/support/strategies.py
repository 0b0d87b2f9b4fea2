"""Hypothesis strategies for words, segments, transcripts, hypotheses of engines and options."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import strategies as st

from asr.config import SubtitleOptions
from asr.types import SAMPLE_RATE, Chunk, Gap, Hypothesis, Segment, Transcript, Word

NASTY_TEXTS = (
    "-->", "<i>", "&amp;", "<00:00:01.000>", "7", "1.", "42", "1.2.3", "00:00:01,000", "WEBVTT",
    "Mr.", "U.S.", "end.", "“end?”", "end!)", "clause,", "—", "...", '"', "\\n", "{\\an8}",
    "שלום", "مرحبا،", "नमस्ते।", "日本語。", "👩‍👩‍👧‍👦", "e\u0301", "\u200b", "\ufeff", "\x00",
    "a\tb", "two words", "line\n\nline", "x\r\ny", "\u2028", "", " ", "Donaudampfschifffahrt" * 4,
)  # fmt: skip

word_texts = st.sampled_from(NASTY_TEXTS) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
)
confidences = st.none() | st.integers(0, 1000).map(lambda n: n / 1000)
warnings = st.lists(st.sampled_from(["loop", "dropped <b>", "ü"]), max_size=2).map(tuple)
logprobs = st.none() | st.integers(-9000, 0).map(lambda n: n / 1000)


def words(start_ms: int, end_ms: int, max_size: int = 30) -> st.SearchStrategy[list[Word]]:
    """Valid words of a segment: starts are in order and often equal, ends are arbitrary."""
    times = st.tuples(st.integers(start_ms, end_ms), st.integers(0, 3000))

    def build(items):
        items.sort(key=lambda item: item[1][0])
        return [
            Word(text, start / 1000, min(start + length, end_ms) / 1000, confidence, timing)
            for text, (start, length), confidence, timing in items
        ]

    timings = st.sampled_from(["aligned", "engine", "interpolated"])
    return st.lists(st.tuples(word_texts, times, confidences, timings), max_size=max_size).map(
        build
    )


@st.composite
def segments(draw, index: int = 0, earliest_ms: int = 0) -> Segment:
    start = earliest_ms + draw(st.sampled_from([0, 0, 1, 700, 5000]))
    end = start + draw(st.sampled_from([0, 1, 40]) | st.integers(0, 20_000))
    spoken = draw(words(start, end))
    text = " ".join(word.text for word in spoken) if spoken else draw(word_texts)
    return Segment(
        index,
        start / 1000,
        end / 1000,
        text,
        tuple(spoken),
        draw(logprobs),
        draw(warnings),
        draw(st.none() | st.integers(0, 1)),
        draw(st.none() | st.just("A")),
    )


@st.composite
def segment_lists(draw, max_size: int = 6) -> list[Segment]:
    made: list[Segment] = []
    for index in range(draw(st.integers(0, max_size))):
        made.append(draw(segments(index, round(made[-1].end * 1000) if made else 0)))
    return made


PHRASES = (
    "Yes.", "No.", "Mhm.", "I see,", "and then", "well, you know,", "Mr. J. R. Poe", "No. 7",
    "on 24 November 2026", "it cost 5 million dollars.", "in New York City", "so then,",
    "Donaudampfschifffahrtsgesellschaftskapitän", "so what?", "nobody was there to see it", "the",
)  # fmt: skip


@st.composite
def conversations(draw, max_size: int = 12) -> list[Segment]:
    """Segments of two channels that often overlap in time, some spoken impossibly fast."""
    ends_ms = [0, 0]
    made: list[Segment] = []
    for _ in range(draw(st.integers(0, max_size))):
        channel = draw(st.integers(0, 1))
        start_ms = ends_ms[channel] + draw(st.sampled_from([0, 80, 300, 800, 4000]))
        texts = " ".join(draw(st.lists(st.sampled_from(PHRASES), min_size=1, max_size=8))).split()
        step = draw(st.sampled_from([20, 150, 330, 330, 330, 900]))
        words = tuple(
            Word(text, (start_ms + i * step) / 1000, (start_ms + (i + 1) * step) / 1000)
            for i, text in enumerate(texts)
        )
        ends_ms[channel] = start_ms + len(words) * step
        made.append(
            Segment(0, words[0].start, words[-1].end, " ".join(texts), words, None, (), channel,
                    f"channel {channel}")
        )  # fmt: skip
    made.sort(key=lambda segment: segment.start)
    return [replace(segment, id=i) for i, segment in enumerate(made)]


@st.composite
def transcripts(draw) -> Transcript:
    made = tuple(draw(segment_lists()))
    duration = made[-1].end if made else 0.0
    aligner = draw(st.none() | st.just("sphinx"))
    found = draw(gaps(duration))
    return Transcript(made, "en", duration, duration, 0.0, "omni", aligner, draw(warnings), found)


@st.composite
def gaps(draw, duration: float) -> tuple[Gap, ...]:
    """Up to three gaps inside a recording that do not overlap, in whole milliseconds."""
    times = sorted(draw(st.lists(st.integers(0, round(duration * 1000)), max_size=6, unique=True)))
    reasons = st.sampled_from(["engine_failed", "engine_timeout", "decoder_stopped"])
    who = draw(st.sampled_from([(None, None), (1, "A")]))
    return tuple(
        Gap(start / 1000, end / 1000, draw(reasons), *who)
        for start, end in zip(times[::2], times[1::2], strict=False)
    )


subtitle_options = st.builds(
    SubtitleOptions,
    max_line_width=st.integers(10, 60),
    max_line_count=st.integers(1, 3),
    max_cue_duration=st.sampled_from([0.5, 2.0, 7.0]),
    min_cue_duration=st.sampled_from([0.0, 0.833, 3.0]),
    max_cps=st.sampled_from([5.0, 17.5, 20.0, 1000.0]),
    min_gap=st.sampled_from([0.0, 0.083, 0.5]),
)


def hypotheses(index: int, seconds: float) -> st.SearchStrategy[Hypothesis]:
    """Hypotheses of a careless engine: times run backwards, overlap, or lie outside the chunk."""
    times = st.tuples(st.floats(0, seconds * 1.2), st.floats(0, 2))
    texts = st.sampled_from(["no", "No,", "yes.", "well"]) | word_texts

    def build(items, avg_logprob, warned):
        spoken = tuple(Word(text, start, start + length) for text, (start, length) in items)
        return Hypothesis(index, " ".join(w.text for w in spoken), spoken, avg_logprob, warned)

    return st.builds(build, st.lists(st.tuples(texts, times), max_size=15), logprobs, warnings)


@st.composite
def heard_chunks(draw, max_overlap: float = 0.0) -> list[tuple[Chunk, Hypothesis]]:
    """Chunks with careless hypotheses. Chunks overlap by at most `max_overlap` seconds."""
    pairs = []
    end = 0
    for index in range(draw(st.integers(1, 4))):
        overlap = draw(st.integers(0, round(max_overlap * SAMPLE_RATE))) if index else 0
        gap = 0 if overlap else draw(st.sampled_from([0, 1, 8000, 50_000]))
        length = draw(st.integers(1600, 20 * SAMPLE_RATE)) + 3 * SAMPLE_RATE * (max_overlap > 0)
        start = max(0, end - overlap) + gap
        chunk = Chunk(index, start, start + length, max(0, end - start))
        pairs.append((chunk, draw(hypotheses(index, chunk.duration))))
        end = chunk.end_sample
    return pairs


@dataclass(frozen=True)
class Speech:
    """Known words, and the hypotheses of an engine for overlapping chunks of them."""

    truth: list[Word]
    pairs: list[tuple[Chunk, Hypothesis]]


@st.composite
def spoken_words(draw) -> list[Word]:
    """Words with short gaps, in whole milliseconds.

    The ends of equal neighbours are at least 0.45 s apart. The copies of a word in two chunks
    differ by up to 0.16 s, so that closer words could not be told apart.
    """
    vocabulary = st.sampled_from(["no", "yes", "five", "the", "a", "recognise"])
    lengths = st.tuples(vocabulary, st.integers(120, 450), st.integers(20, 400))
    truth: list[Word] = []
    end = 0
    for text, length, gap in draw(st.lists(lengths, min_size=10, max_size=60)):
        while truth and truth[-1].text == text and gap + length < 450:
            gap += 100
        start = end + gap
        end = start + length
        truth.append(Word(text, start / 1000, end / 1000))
    return truth


@st.composite
def overlapping_speech(draw) -> Speech:
    """Speech that is cut at arbitrary times, also inside words, and recognised by `hear`."""
    truth = draw(spoken_words())
    overlap = draw(st.integers(700, 1500)) * 16
    length = draw(st.integers(5000, 10_000)) * 16
    noise = random.Random(draw(st.integers(0, 10**9)))
    pairs: list[tuple[Chunk, Hypothesis]] = []
    start = 0
    while start + overlap < (truth[-1].end + 0.3) * SAMPLE_RATE:
        chunk = Chunk(len(pairs), start, start + length, overlap if pairs else 0)
        pairs.append((chunk, hear(truth, chunk, noise)))
        start += length - overlap
    return Speech(truth, pairs)


@st.composite
def guessed_speech(draw, is_same: bool = True) -> Speech:
    """Distinct words that are recognised correctly, but up to 2 s off their times.

    No word is cut in half. With `is_same` two chunks return the same words in their overlap;
    without it they return entirely different words.
    """
    lengths = st.tuples(st.integers(120, 450), st.integers(0, 300))
    overlap = draw(st.integers(700, 1500))
    length = draw(st.integers(8000, 20_000))
    noise = random.Random(draw(st.integers(0, 10**9)))
    truth: list[Word] = []
    end = 0
    for n, (spoken, gap) in enumerate(draw(st.lists(lengths, min_size=20, max_size=80))):
        start, end = end + gap, end + gap + spoken
        truth.append(Word(f"word{n}", start / 1000, end / 1000))
    pairs: list[tuple[Chunk, Hypothesis]] = []
    first = 0
    while True:
        chunk = Chunk(len(pairs), first * 16, (first + length) * 16, overlap * 16 if pairs else 0)
        heard = []
        for word in truth:
            middle = word.midpoint
            if chunk.start <= middle < chunk.end:
                start = max(0.0, word.start - chunk.start + noise.uniform(-2, 2))
                text = word.text if is_same else f"{word.text}-{chunk.index}"
                stop = min(chunk.duration, start + word.end - word.start)
                heard.append(Word(text, start, max(start, stop), None, "interpolated"))
        text = " ".join(word.text for word in heard)
        pairs.append((chunk, Hypothesis(chunk.index, text, tuple(heard))))
        if chunk.end >= truth[-1].end:
            return Speech(truth, pairs)
        first += length - overlap


def hear(truth: list[Word], chunk: Chunk, noise: random.Random) -> Hypothesis:
    """The hypothesis of an engine for a chunk: times are up to 80 ms off.

    A word that the chunk cuts in half is recognised correctly, wrongly or not at all.
    """
    heard = []
    for word in truth:
        start, end = max(word.start, chunk.start), min(word.end, chunk.end)
        if end - start < word.end - word.start:
            how = noise.choice(["right", "wrong", "not"])
            if how == "not" or end - start < 0.25:
                continue
            text = word.text if how == "right" else f"mumble{len(heard)}-{chunk.index}"
        else:
            text = word.text
        first = max(0.0, start - chunk.start + noise.uniform(-0.08, 0.08))
        last = max(first, end - chunk.start + noise.uniform(-0.08, 0.08))
        heard.append(Word(text, first, last))
    return Hypothesis(chunk.index, " ".join(word.text for word in heard), tuple(heard), -0.1)


def assert_said(truth: list[Word], words: list[Word]) -> None:
    """Check that the words that were stitched from `hear` are complete: each once, at its time.

    A time may be 80 ms off, and another 80 ms where the next word ends it. It may be further off
    where a chunk has only a part (at least 0.25 s) of the longest word (0.45 s): `hear` may
    recognise such a part correctly.
    """
    assert [w.text for w in words] == [w.text for w in truth]
    for word, true in zip(words, truth, strict=True):
        assert word.start == pytest.approx(true.start, abs=0.29)
        assert word.end == pytest.approx(true.end, abs=0.29)
