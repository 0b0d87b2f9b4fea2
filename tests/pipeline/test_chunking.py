"""Cutting speech regions into chunks: property tests and examples on made-up regions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.config import ChunkOptions
from asr.pipeline.chunking import (
    HOP_SAMPLES,
    MIN_PAUSE_HOPS,
    SMOOTH_HOPS,
    Chunker,
    longest_pause,
    make_chunks,
    quietest,
)
from asr.types import SAMPLE_RATE, Audio, SpeechRegion
from tests.support import makers

HOUR = 3600 * SAMPLE_RATE


def read(start, end):
    """Samples whose loudness depends on their position alone."""
    position = np.arange(start, end)
    return Audio((0.5 * np.sin(position / 1000.0) * np.sin(position / 70_001.0)).astype(np.float32))


@st.composite
def some_regions(draw):
    """Ordered, disjoint regions; some are far longer than any chunk, some touch."""
    regions, last = [], draw(st.integers(0, 50_000))
    for _ in range(draw(st.integers(0, 8))):
        start = last + draw(st.one_of(st.just(0), st.integers(0, 100_000)))
        last = start + draw(st.one_of(st.integers(1, 30_000), st.integers(1, 400_000)))
        regions.append(SpeechRegion(start, last))
    return regions


some_options = st.sampled_from(
    [
        ChunkOptions(max_seconds=2, max_gap=0.5, overlap=0.5, search=1.0),
        ChunkOptions(max_seconds=3, max_gap=0, overlap=0.1, search=2.0),
        ChunkOptions(max_seconds=5, max_gap=2, overlap=1.0, search=4.0),
        ChunkOptions(max_seconds=5, max_gap=9, overlap=0.00003, search=1.5),
        ChunkOptions(max_seconds=2, max_gap=1, overlap=0.9, search=1.1),
        ChunkOptions(5, preferred_seconds=3, overlap=1.0, search=2.0),
        ChunkOptions(6, preferred_seconds=1, overlap=0.5, search=3.0),
        ChunkOptions(15, preferred_seconds=10, max_gap=0.5, overlap=0.5, search=3.0),
        ChunkOptions(8, max_gap=0.5, search=2.0, min_seconds=0),
    ]
)


def samples(seconds):
    return round(seconds * SAMPLE_RATE)


def is_forced(chunk):
    """Whether the chunk begins where speech had to be cut."""
    return chunk.overlap > 0


def is_quiet(sample):
    """Whether `read` has a pause at this sample. Its loudest samples are 0.5."""
    around = read(max(0, sample - 5 * HOP_SAMPLES), sample + 5 * HOP_SAMPLES).samples
    return np.sqrt(np.mean(around**2)) < 0.05


# --- laws ---------------------------------------------------------------------------------------


@given(some_regions(), some_options)
def test_every_region_is_covered_and_no_chunk_is_too_long(regions, options):
    chunks = make_chunks(regions, options, read)
    for region in regions:
        position = region.start_sample
        for chunk in chunks:
            if chunk.start_sample <= position < chunk.end_sample:
                position = chunk.end_sample
        assert position >= region.end_sample
    assert all(c.end_sample - c.start_sample <= samples(options.max_seconds) for c in chunks)


@given(some_regions(), some_options)
def test_chunks_are_numbered_and_in_order(regions, options):
    chunks = make_chunks(regions, options, read)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    for before, after in pairwise(chunks):
        assert before.start_sample < after.start_sample
        assert before.end_sample < after.end_sample
        assert after.overlap == max(0, before.end_sample - after.start_sample)


@given(some_regions(), some_options)
def test_chunks_overlap_where_speech_was_cut_and_nowhere_else(regions, options):
    chunks = make_chunks(regions, options, read)
    overlap = samples(options.overlap) // 2 * 2
    edges = [chunk.start_sample for chunk in chunks if not is_forced(chunk)]
    edges += [c.end_sample for c, after in pairwise(chunks) if not is_forced(after)]
    if overlap:  # without overlap a cut is invisible
        assert {chunk.overlap for chunk in chunks} <= {0, overlap}
        for edge in edges:
            assert is_quiet(edge) or not any(r.start_sample < edge < r.end_sample for r in regions)
        for chunk in filter(is_forced, chunks):
            middle = chunk.start_sample + overlap // 2
            assert any(r.start_sample < middle < r.end_sample for r in regions)


def inside(chunk, regions):
    """The regions that lie in the chunk, at least in part."""
    return [
        r
        for r in regions
        if r.start_sample < chunk.end_sample and chunk.start_sample < r.end_sample
    ]


def speech_in(start, end, regions):
    spans = ((max(r.start_sample, start), min(r.end_sample, end)) for r in regions)
    return sum(max(0, last - first) for first, last in spans)


def least(options):
    """Samples of speech in a chunk that is not short."""
    limits = options.min_seconds, options.max_seconds / 10, options.search / 2
    return samples(min(limits))


@given(some_regions(), some_options)
def test_a_long_pause_in_a_chunk_has_little_speech_on_one_side(regions, options):
    """Only a chunk that would be short alone is joined to another one across a long pause."""
    for chunk in make_chunks(regions, options, read):
        parts = inside(chunk, regions)
        assert parts
        is_long = [
            after.start_sample - before.end_sample > samples(options.max_gap)
            for before, after in pairwise(parts)
        ]
        pauses = [number + 1 for number, it in enumerate(is_long) if it]
        edges = [0, *pauses, len(parts)]
        groups = [parts[start:end] for start, end in pairwise(edges)]
        amounts = [speech_in(chunk.start_sample, chunk.end_sample, group) for group in groups]
        for number in range(1, len(groups)):
            assert min(sum(amounts[:number]), amounts[number]) < least(options)


@given(some_regions(), some_options)
def test_no_short_chunk_has_a_neighbour_within_reach(regions, options):
    chunks = make_chunks(regions, options, read)
    for before, after in pairwise(chunks):
        if min(before.speech_samples, after.speech_samples) < least(options):
            together = after.end_sample - before.start_sample
            room = samples(options.max_seconds) - samples(options.search) - 2 * least(options)
            is_far = together > samples(options.max_seconds)
            if before.speech_samples < least(options):  # nor could the next one be cut elsewhere
                assert is_far or any(
                    it.start_sample < after.end_sample < it.end_sample for it in regions
                )
                assert after.start_sample - before.start_sample > room
            else:
                assert is_far


@given(some_regions(), some_options)
def test_a_chunk_knows_how_much_of_it_is_speech(regions, options):
    for chunk in make_chunks(regions, options, read):
        inside = sum(
            max(0, min(r.end_sample, chunk.end_sample) - max(r.start_sample, chunk.start_sample))
            for r in regions
        )
        assert chunk.speech_samples == inside


@given(some_regions(), some_options, st.data())
def test_chunks_do_not_depend_on_the_pushes(regions, options, data):
    """Open regions, which grow until they close, and known silence change nothing either."""
    chunker, chunks, closed = Chunker(options, read), [], []
    starts = [region.start_sample for region in regions[1:]]
    for region, following in zip(regions, [*starts, 10**7], strict=False):
        grown = data.draw(
            st.lists(st.integers(region.start_sample, region.end_sample), max_size=4).map(sorted)
        )
        for end in grown:
            chunks += chunker.push(closed, SpeechRegion(region.start_sample, end))
            closed = []
        closed.append(region)
        for settled in data.draw(
            st.lists(st.integers(region.end_sample, following), max_size=2).map(sorted)
        ):
            chunks += chunker.push(closed, settled_sample=settled)
            closed = []
    chunks += chunker.push(closed) + chunker.finish()
    assert chunks == make_chunks(regions, options, read)


@given(some_regions(), some_options)
def test_chunks_come_as_soon_as_they_are_full(regions, options):
    """Less than one chunk of speech is held back, however long the speech."""
    chunker, end = Chunker(options, read), 0
    for region in regions:
        for so_far in range(region.start_sample, region.end_sample, 20_000):
            for chunk in chunker.push([], SpeechRegion(region.start_sample, so_far)):
                end = chunk.end_sample
            longest = samples(options.max_seconds) + least(options)
            assert so_far - max(end, regions[0].start_sample) <= longest or (
                so_far - region.start_sample <= longest
            )
        for chunk in chunker.push([region]):
            end = chunk.end_sample


@given(some_regions(), some_options, st.integers(1, 1000))
def test_hours_later_the_chunks_are_the_same(regions, options, hours):
    shift = hours * HOUR
    moved = [SpeechRegion(r.start_sample + shift, r.end_sample + shift) for r in regions]
    late = make_chunks(moved, options, lambda start, end: read(start - shift, end - shift))
    early = make_chunks(regions, options, read)
    assert [(c.index, c.start_sample - shift, c.end_sample - shift, c.overlap) for c in late] == [
        (c.index, c.start_sample, c.end_sample, c.overlap) for c in early
    ]


@given(some_regions(), some_options)
def test_only_speech_that_was_decoded_is_read(regions, options):
    asked = []

    def recorder(start, end):
        asked.append((start, end))
        return read(start, end)

    make_chunks(regions, options, recorder)
    for start, end in asked:
        assert any(r.start_sample <= end <= r.end_sample for r in regions)
        assert start < end


# --- by example ---------------------------------------------------------------------------------


def regions_at(*spans):
    return [SpeechRegion(samples(start), samples(end)) for start, end in spans]


def spans_of(chunks):
    return [(chunk.start, chunk.end) for chunk in chunks]


def test_neighbours_share_a_chunk_until_the_pause_is_long():
    regions = regions_at((1, 3), (4, 6), (8.5, 9), (9.1, 12))
    chunks = make_chunks(regions, ChunkOptions(), read)
    assert spans_of(chunks) == [(1, 6), (8.5, 12)]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 10), (13, 14), (19, 29)], [(0, 14), (19, 29)]),  # the left one is nearer
        ([(0, 10), (15, 16), (19, 29)], [(0, 10), (15, 29)]),  # the right one is nearer
        ([(0, 28), (31, 32), (36, 46)], [(0, 28), (31, 46)]),  # only the right one is in reach
        ([(0, 10), (14, 15), (50, 60)], [(0, 15), (50, 60)]),
        ([(0, 28), (31, 32), (70, 80)], [(0, 28), (31, 32), (70, 80)]),  # none is
        ([(5, 6)], [(5, 6)]),
        ([(5, 6), (12, 13), (20, 21)], [(5, 21)]),
        ([(0, 1), (29, 30), (58, 59)], [(0, 30), (58, 59)]),
        ([(0, 10), (13, 16.5), (20, 30)], [(0, 10), (13, 16.5), (20, 30)]),  # none is short
    ],
)
def test_a_short_chunk_is_joined_to_its_nearer_neighbour(spans, expected):
    chunks = make_chunks(regions_at(*spans), ChunkOptions(), read)
    assert spans_of(chunks) == expected


def test_a_short_chunk_joins_a_region_that_must_be_cut():
    audio = makers.noise(60)
    audio[samples(27) : samples(27.5)] *= 0.01
    first, second, *_ = cut(audio, (1, 2), (6, 60))
    assert first.start == 1
    assert 27 < first.end == second.start < 27.5


def test_the_rest_of_long_speech_is_not_short():
    chunks = cut(makers.noise(31), (0, 31))
    assert [chunk.overlap for chunk in chunks] == [0, SAMPLE_RATE]
    assert chunks[1].duration >= 2


def test_a_chunk_waits_only_while_a_short_one_may_join_it():
    chunker = Chunker(ChunkOptions(), read)
    held, short, far = regions_at((0, 20), (25, 26), (30, 40))
    assert chunker.push([held], settled_sample=samples(29)) == []
    assert chunker.start_sample == 0
    assert spans_of(chunker.push([], settled_sample=samples(30.1))) == [(0, 20)]
    assert chunker.start_sample is None
    again = Chunker(ChunkOptions(), read)
    assert again.push([held, short], settled_sample=samples(28)) == []
    assert spans_of(again.push([], far)) == [(0, 20)], "the short one is nearer to the new one"
    assert again.push([far]) == []
    assert spans_of(again.finish()) == [(25, 40)]


def test_without_a_shortest_chunk_only_near_regions_share_one():
    spans = [(0, 10), (13, 14), (19, 29)]
    chunks = make_chunks(regions_at(*spans), ChunkOptions(min_seconds=0), read)
    assert spans_of(chunks) == spans


def test_a_region_that_does_not_fit_opens_a_chunk():
    regions = regions_at((0, 12), (13, 25), (26, 36))
    chunks = make_chunks(regions, ChunkOptions(max_seconds=30), read)
    assert spans_of(chunks) == [(0, 25), (26, 36)]
    assert [chunk.overlap for chunk in chunks] == [0, 0]


def test_a_region_as_long_as_a_chunk_is_not_cut():
    assert spans_of(make_chunks(regions_at((5, 35)), ChunkOptions(max_seconds=30), read)) == [
        (5, 35)
    ]


def cut(audio, *spans, options=None):
    """The chunks of some audio in which speech was found at `spans`."""
    return make_chunks(
        regions_at(*spans), options or ChunkOptions(), lambda start, end: Audio(audio[start:end])
    )


def test_long_speech_without_a_pause_is_cut_at_its_quietest_place():
    audio = makers.noise(40)
    audio[samples(26) : samples(26.3)] *= 0.3
    chunks = cut(audio, (0, 40))
    assert len(chunks) == 2
    middle = (chunks[0].end + chunks[1].start) / 2
    assert 26.05 <= middle <= 26.25
    assert chunks[1].overlap == SAMPLE_RATE


def test_long_speech_is_cut_in_a_short_pause_without_overlap():
    audio = makers.noise(40)
    audio[samples(26) : samples(26.3)] *= 0.01
    chunks = cut(audio, (0, 40))
    assert len(chunks) == 2
    assert chunks[0].end == chunks[1].start
    assert 26.05 <= chunks[0].end <= 26.25
    assert chunks[1].overlap == 0


def test_speech_above_the_preferred_length_is_cut_only_in_a_pause():
    audio = makers.noise(29)
    options = ChunkOptions(preferred_seconds=12)
    assert spans_of(cut(audio, (0, 28), options=options)) == [(0, 28)]
    audio[samples(6) : samples(6.3)] *= 0.01
    audio[samples(9) : samples(9.5)] *= 0.01
    first, second = cut(audio, (0, 28), options=options)
    assert 9 < first.end == second.start < 9.5
    assert (first.start, second.end) == (0, 28)


def test_regions_share_a_chunk_up_to_the_preferred_length():
    options = ChunkOptions(preferred_seconds=7)
    regions = regions_at((0, 2), (2.5, 4), (4.5, 6), (6.5, 9), (9.5, 10))
    assert spans_of(make_chunks(regions, options, read)) == [(0, 6), (6.5, 10)]


def test_no_regions_no_chunks():
    assert make_chunks([], ChunkOptions(), read) == []
    assert Chunker(ChunkOptions(), read).push([], SpeechRegion(5, 5)) == []


# --- the quietest place -------------------------------------------------------------------------


@given(st.integers(0, 290), st.integers(0, 3))
def test_the_quietest_place_is_found(hop, seed):
    audio = makers.noise(3, seed=seed)
    quiet = slice(hop * HOP_SAMPLES, (hop + SMOOTH_HOPS) * HOP_SAMPLES)
    audio[quiet] *= 0.001
    assert quietest(Audio(audio)) == (quiet.start + quiet.stop) // 2


@given(st.integers(0, 3 * SMOOTH_HOPS * HOP_SAMPLES))
def test_the_quietest_place_is_inside(n_samples):
    found = quietest(Audio(makers.noise(n_samples / SAMPLE_RATE)))
    assert 0 <= found <= n_samples


def test_a_short_dip_is_no_pause():
    audio = makers.noise(2)
    audio[samples(0.5) : samples(0.52)] = 0  # the closure of a stop
    audio[samples(1.2) : samples(1.3)] *= 0.3
    assert quietest(Audio(audio)) == pytest.approx(samples(1.25), abs=2 * HOP_SAMPLES)


def test_the_longest_pause_is_found():
    audio = makers.noise(6)
    audio[samples(1) : samples(1.3)] = 0
    audio[samples(4) : samples(4.6)] *= 0.01
    found = longest_pause(Audio(audio))
    assert found is not None
    assert samples(4.05) <= found <= samples(4.55)


@given(st.integers(0, MIN_PAUSE_HOPS - 1))
def test_a_dip_shorter_than_a_pause_is_none(n_hops):
    audio = makers.noise(3)
    audio[samples(1) : samples(1) + n_hops * HOP_SAMPLES] = 0
    assert longest_pause(Audio(audio)) is None


def test_the_cut_in_a_pause_misses_a_soft_voice():
    """Someone 23 dB softer than the others is as quiet as a pause, but not the quietest place."""
    audio = makers.noise(10)
    audio[samples(3) : samples(5)] *= 0.07
    audio[samples(5) : samples(5.3)] *= 0.001
    found = longest_pause(Audio(audio))
    assert found is not None
    assert samples(5) <= found <= samples(5.3)


@pytest.mark.parametrize("seconds", [0, 0.005, 0.1, 2])
def test_silence_alone_has_no_pause(seconds):
    assert longest_pause(Audio(makers.silence(seconds))) is None


def test_silence_is_cut_at_its_first_place():
    assert quietest(Audio(makers.silence(1))) == SMOOTH_HOPS * HOP_SAMPLES // 2


@pytest.mark.slow
def test_librosa_finds_the_same_place():
    from librosa.feature import rms  # the import takes seconds; only this test needs it

    for seed in range(5):
        audio = makers.noise(6, seed=seed)
        audio *= 1 + 0.9 * np.sin(np.arange(len(audio)) / 9_000 + seed).astype(np.float32)
        window = SMOOTH_HOPS * HOP_SAMPLES
        loudness = rms(y=audio, frame_length=window, hop_length=HOP_SAMPLES, center=False)[0]
        expected = int(loudness.argmin()) * HOP_SAMPLES + window // 2
        assert quietest(Audio(audio)) == expected
