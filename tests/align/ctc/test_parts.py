"""What the CTC aligner does apart from torch: frames, spelling, placing, batching."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.align import ctc_aligner
from asr.align.ctc.batching import Batcher
from asr.align.ctc.frames import FrameGrid, measure_grid
from asr.align.ctc.spelling import SpelledText, Speller, likeliest, make_speller
from asr.align.ctc.trellis import NO_LABEL, STAR, Symbols, Target
from asr.align.ctc.word_times import place_words
from asr.errors import EngineUnavailable, InvalidOption
from asr.settings import Settings
from asr.types import SAMPLE_RATE, ordered

# --- frames -------------------------------------------------------------------------------------


def wav2vec2_frames(n_samples):
    for kernel, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


def parakeet_frames(n_samples):
    """Mel frames centred on their samples, the first on sample 0, then each eighth of them."""
    return -(-(1 + n_samples // 160) // 8)


def test_frames_of_wav2vec2():
    grid = measure_grid(wav2vec2_frames)
    assert grid == FrameGrid(320, 80)
    assert grid.seconds(0) == 40 / SAMPLE_RATE
    assert grid.n_frames(30 * SAMPLE_RATE) == wav2vec2_frames(30 * SAMPLE_RATE) == 1499


def test_frames_of_a_padded_encoder():
    grid = measure_grid(parakeet_frames)
    assert grid == FrameGrid(1280, -1280)
    middle = [(grid.seconds(k) + grid.seconds(k + 1)) / 2 for k in (0, 1, 374)]
    assert middle == [0, 0.08, 374 * 0.08]
    assert parakeet_frames(30 * SAMPLE_RATE) == 376
    assert grid.n_frames(30 * SAMPLE_RATE) == 375  # the last would lie behind the audio


@given(st.integers(0, 40 * SAMPLE_RATE), st.sampled_from([(320, 80), (1280, -1280), (640, 0)]))
def test_the_middles_of_all_frames_lie_in_the_audio(n_samples, numbers):
    grid = FrameGrid(*numbers)
    n_frames = grid.n_frames(n_samples)
    assert n_frames >= 0
    if n_frames:
        middle = (grid.seconds(n_frames - 1) + grid.seconds(n_frames)) / 2
        assert middle < n_samples / SAMPLE_RATE


# --- spelling -----------------------------------------------------------------------------------

UPPER = {"<pad>": 0, "<s>": 1, "|": 2, "'": 3, **{c: 4 + i for i, c in enumerate("ABCDEFGHIST")}}
LOWER = {"<blank>": 0, "<unk>": 1, "'": 2, **{c: 3 + i for i, c in enumerate("abcdefghistü")}}
PIECES = {"<unk>": 0, "\u2581": 1, "\u2581be": 2, "ad": 3, "ab": 4, "'": 5, "<pad>": 6}


def letters_of(speller, vocabulary, text):
    """The labels of each word of the text, written with its letters and "*" for a star."""
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


# --- placing ------------------------------------------------------------------------------------

GRID = FrameGrid(1600, 0)  # a tenth of a second


def place(texts, path, words, labels=None, confidence=0.8, duration=1.0):
    labels = np.array(words if labels is None else labels, np.intp)
    target = Target(labels, np.ones(len(words), bool))
    emission = np.log(np.full((len(path), 10), confidence))
    spelled = SpelledText(target, np.array(words, np.intp))
    return place_words(texts, spelled, np.array(path), emission, GRID, duration)


def times(words):
    return [(round(word.start, 6), round(word.end, 6)) for word in words]


def test_words_lie_where_their_labels_do():
    words = place(["a", "b"], [-1, 0, 1, -1, 1, -1, 2, -1, -1, -1], [0, 0, 1])
    assert times(words) == [(0.1, 0.5), (0.6, 0.7)]
    assert [word.confidence for word in words] == pytest.approx([0.8, 0.8])
    assert {word.timing for word in words} == {"aligned"}


def test_words_without_labels_share_the_pause_by_their_letters():
    words = place(["-", "a", "bb", "...", "c", "!"], [-1, 0, -1, -1, -1, -1, 1, -1, -1, -1], [1, 4])
    assert times(words) == [
        (0, 0.1),
        (0.1, 0.2),
        (0.2, 0.466667),
        (0.466667, 0.6),
        (0.6, 0.7),
        (0.7, 1),
    ]
    timings = ["interpolated", "aligned", "interpolated", "interpolated", "aligned", "interpolated"]
    assert [word.timing for word in words] == timings
    assert [word.confidence is None for word in words] == [t == "interpolated" for t in timings]


def test_a_word_of_stars_has_times_and_no_witness():
    words = place(["a", "42"], [0, -1, 1, 1, -1], [0, 1], labels=[3, STAR])
    assert times(words) == [(0, 0.1), (0.2, 0.4)]
    assert (words[1].timing, words[1].confidence) == ("interpolated", None)


def test_a_star_in_a_word_does_not_count_for_its_confidence():
    words = place(["a4"], [0, 1, 1, 1], [0, 0], labels=[3, STAR])
    assert (words[0].timing, words[0].confidence) == ("aligned", pytest.approx(0.8))


def test_no_word_leaves_the_audio():
    words = place(["a", "-"], [0, 0, 0], [0], duration=0.25)
    assert times(words) == [(0, 0.25), (0.25, 0.25)]


@given(st.data())
def test_words_in_words_out_in_order(data):
    n_words = data.draw(st.integers(1, 8))
    spelled = sorted(data.draw(st.lists(st.integers(0, n_words - 1), min_size=1, max_size=10)))
    labels = data.draw(
        st.lists(st.sampled_from([STAR, 3]), min_size=len(spelled), max_size=len(spelled))
    )
    path = []
    for index in range(len(spelled)):
        path += [NO_LABEL] * data.draw(st.integers(0, 3)) + [index] * data.draw(st.integers(1, 3))
    duration = data.draw(st.floats(0.05, 5))
    words = place([f"w{i}" for i in range(n_words)], path, spelled, labels, duration=duration)
    assert [word.text for word in words] == [f"w{i}" for i in range(n_words)]
    ordered(words, 0, duration)
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))


# --- batching -----------------------------------------------------------------------------------


def batches(items, limit, work=None, **options):
    """Submit all at once; the batches that were made, and what came back."""
    made = []

    def record(batch):
        made.append((list(batch), threading.current_thread()))
        return [work(item) if work else item * 10 for item in batch]

    async def main():
        async with Batcher(record, float, limit, **options) as batcher:
            tasks = [batcher.submit(item) for item in items]
            return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    threads = {thread for _, thread in made}
    assert len(threads) <= 1
    assert threading.main_thread() not in threads
    return [batch for batch, _ in made], results


def test_a_batch_counts_with_its_padding():
    made, results = batches([1, 1, 4, 1, 9, 1], limit=8)
    assert made == [[1, 1], [4, 1], [9], [1]]
    assert results == [10, 10, 40, 10, 90, 10]


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 30))
def test_every_item_is_done_once_in_order(items, limit):
    made, results = batches(items, limit)
    assert [item for batch in made for item in batch] == items
    assert results == [item * 10 for item in items]
    assert all(len(batch) == 1 or max(batch) * len(batch) <= limit for batch in made)


def test_a_bad_item_spoils_no_other():
    def work(item):
        if item == 3:
            raise RuntimeError("out of memory")
        return item

    _, results = batches([1, 2, 3, 4, 5], 100, work)
    assert [r if isinstance(r, int) else str(r) for r in results] == [1, 2, "out of memory", 4, 5]


def test_who_comes_within_the_window_goes_along():
    made = []

    async def main():
        async with Batcher(lambda b: made.append(len(b)) or b, float, 100, window=0.2) as batcher:
            first = asyncio.create_task(batcher.submit(1))
            await asyncio.sleep(0.02)
            await asyncio.gather(first, batcher.submit(2))

    asyncio.run(main())
    assert made == [2]


def test_while_a_batch_is_in_work_the_next_one_gathers():
    made, go = [], threading.Event()

    def work(batch):
        made.append(list(batch))
        go.wait(5)
        return batch

    async def main():
        async with Batcher(work, float, 100) as batcher:
            tasks = [asyncio.create_task(batcher.submit(1))]
            while not made:
                await asyncio.sleep(0.001)
            tasks += [asyncio.create_task(batcher.submit(item)) for item in (2, 3, 4)]
            await asyncio.sleep(0.01)
            tasks[2].cancel()
            go.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    assert made == [[1], [2, 4]]
    assert isinstance(results[2], asyncio.CancelledError)


def test_work_that_raises_anything_leaves_the_batcher_alive():
    def work(batch):
        return [10 // item for item in batch]

    async def main():
        async with Batcher(work, float, 1) as batcher:
            with pytest.raises(ZeroDivisionError):
                await batcher.submit(0)
            return await batcher.submit(5)

    assert asyncio.run(main()) == 2


def test_closing_tells_who_waits():
    go = threading.Event()

    async def main():
        batcher = Batcher(lambda batch: go.wait(5) and batch, float, 1)
        async with batcher:
            tasks = [asyncio.create_task(batcher.submit(1)) for _ in range(3)]
            await asyncio.sleep(0.05)
            asyncio.get_running_loop().call_later(0.05, go.set)
        with pytest.raises(EngineUnavailable):
            await batcher.submit(1)
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    assert [type(result) for result in results] == [EngineUnavailable] * 3


# --- loading ------------------------------------------------------------------------------------


def test_the_aligner_needs_a_model_and_the_extra(monkeypatch):
    with pytest.raises(EngineUnavailable, match="ASR_CTC_MODEL"):
        ctc_aligner(Settings())
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "asr.align.ctc.aligner", raising=False)
    with pytest.raises(EngineUnavailable, match=r"asr-service\[ctc\]"):
        ctc_aligner(Settings(ctc_model="models/some"))
    with pytest.raises(InvalidOption, match="auto, cpu, cuda"):
        Settings(ctc_device="tpu")
