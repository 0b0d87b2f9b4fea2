"""From embeddings to voices, from voices to words: laws on synthetic embeddings."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from asr.speakers import clustering
from asr.speakers.clustering import by_appearance, cluster, least_inside
from asr.speakers.labels import MOST, Heard, count_voices, label, snapshot
from asr.speakers.letters import letter_of
from asr.speakers.naming import Known
from asr.speakers.scores import best_path, word_scores
from asr.speakers.thresholds import Thresholds
from asr.speakers.windows import cut_windows
from tests.support.voices import around, directions

T = Thresholds()


def conversation(turns, voices, spread=0.6, seed=0):
    """`Heard` for turns of (voice, number of words), and the true voice of each word."""
    words, windows, owners, truth, at = [], [], [], [], 0.0
    for person, n_words in turns:
        said = [(at + 0.3 * i, at + 0.3 * i + 0.29) for i in range(n_words)]
        cut = cut_windows(said, T)
        words += said
        windows += cut
        owners += [person] * len(cut)
        truth += [person] * n_words
        at += 0.3 * n_words + 0.2
    embeddings = around(voices, np.array(owners), spread, seed).astype(np.float16)
    return Heard(np.array(windows), embeddings, words), tuple(truth)


@settings(max_examples=6, deadline=None)
@given(
    st.integers(1, 5),
    st.sampled_from([0.0, 0.3, 0.5]),  # a telephone makes all voices more similar
    st.integers(0, 1000),
)
def test_the_number_of_voices_is_found(n_voices, shared, seed):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.repeat(rng.permutation(n_voices), 6), rng.integers(0, n_voices, 40)])
    embeddings = around(directions(n_voices, shared=shared, seed=seed), truth, 0.6, seed)
    found = cluster(embeddings, T)
    assert np.array_equal(found, by_appearance(truth))


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_the_bounds_hold(low, more, seed):
    rng = np.random.default_rng(seed)
    embeddings = around(directions(4, seed=seed), rng.integers(0, 4, 60), 0.6, seed)
    n_found = len(np.unique(cluster(embeddings, T, low, low + more - 1)))
    assert low <= n_found <= low + more - 1


def test_blocks_give_what_one_clustering_gives(monkeypatch):
    truth = np.random.default_rng(0).integers(0, 4, 400)
    embeddings = around(directions(4), truth)
    whole = cluster(embeddings, T)
    monkeypatch.setattr(clustering, "BLOCK", 40)
    monkeypatch.setattr(clustering, "MAX_CLUSTERS", 12)
    assert np.array_equal(cluster(embeddings, T), whole)


def test_noise_without_voices_ends_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(clustering, "BLOCK", 40)
    monkeypatch.setattr(clustering, "MAX_CLUSTERS", 20)
    embeddings = np.random.default_rng(0).normal(size=(300, 64))
    assert len(cluster(embeddings, T)) == 300


@pytest.mark.parametrize("n_odd", [1, 2, 4])
@pytest.mark.parametrize("n_loops", [1, 5, 40])
def test_a_loop_has_no_more_voices_than_the_recording(n_odd, n_loops):
    """Odd windows are played again and again, so that there are many of them."""
    voices = directions(2)
    once = around(voices, np.repeat([0, 1, 0], [60, n_odd, 60]))
    loops = np.concatenate(
        [once + 0.005 * around(voices, [0] * len(once), seed=i) for i in range(n_loops)]
    )
    assert cluster(loops, T).max() == (n_odd >= T.least_windows(len(loops)))


def test_a_steady_sound_is_no_voice_in_a_long_recording():
    voices = directions(3)
    talk = around(voices, np.repeat([0, 2], 150))
    tone = np.repeat(voices[1:2], 30, axis=0)
    assert cluster(np.concatenate((talk[:200], tone, talk[200:])), T).max() == 1


def test_a_short_odd_sound_is_no_voice():
    truth = np.array([0] * 80 + [1] * 80 + [2] * 3)
    embeddings = around(directions(3), truth)
    assert cluster(embeddings, T).max() == 1
    short = np.concatenate([np.arange(20), np.arange(80, 100), np.arange(160, 163)])
    assert cluster(embeddings[short], T).max() == 2  # in a short recording it may be one


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(8, 30)), min_size=3, max_size=10),
    st.integers(0, 100),
)
def test_words_get_their_voice(turns, seed):
    turns = [*((person, 20) for person in range(3)), *turns]
    heard, truth = conversation(turns, directions(3, seed=seed), seed=seed)
    found = label(heard, T)
    assert found.names == ("A", "B", "C")
    assert found.voices == truth
    assert all(0 <= sure <= 1 for sure in found.confidences)
    assert sum(found.confidences) / len(truth) > 0.9
    assert found.warnings == ()


@pytest.mark.parametrize(("fewest", "n_words"), [(20, 2), (3, 2), (20, 40)])
def test_fewer_speakers_than_asked_for_give_a_warning(fewest, n_words):
    heard, _ = conversation([(0, n_words)], directions(1))
    found = label(heard, T, fewest, fewest)
    assert 0 < len(found.names) <= fewest
    assert len(found.voices) == n_words
    assert any("asked for" in it for it in found.warnings) == (len(found.names) < fewest)
    assert label(heard, T, 1, 1).warnings == ()


def test_a_voice_with_different_windows_is_loose():
    tight, _ = conversation([(0, 20), (1, 20)], directions(2), spread=0.6)
    loose, _ = conversation([(0, 20), (1, 20)], directions(2), spread=1.3)
    assert [label(it, T).is_loose for it in (tight, loose)] == [False, True]
    assert not label(loose, replace(T, loose=0.0)).is_loose
    alone = Heard(tight.windows[:1], tight.embeddings[:1], tight.words[:1])
    assert not label(alone, T).is_loose  # one window tells nothing


def test_the_mean_cosine_inside_a_voice():
    pair = np.array([[1.0, 0.0], [0.6, 0.8]])
    embeddings = np.concatenate((pair, pair[:1], [[0.0, 1.0]]))
    assert least_inside(embeddings, np.array([0, 0, 0, 1])) == pytest.approx((1 + 0.6 + 0.6) / 3)
    assert least_inside(embeddings, np.array([0, 0, 1, 1])) == 1.0


def test_fine_thresholds_replace_the_window():
    fine = Thresholds(fine_window=0.8, fine_relative=0.5).fine()
    assert (fine.window, fine.hop, fine.reliable, fine.relative) == (0.8, 0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="fine_hop"):
        Thresholds(fine_hop=2.0)


def test_one_voice_is_one_speaker():
    heard, _ = conversation([(0, 14)] * 8, directions(1))
    found = label(heard, T)
    assert (found.names, set(found.voices), set(found.confidences)) == (("A",), {0}, {1.0})
    assert not any(found.overlapped)


def test_words_without_windows_have_one_unsure_speaker():
    found = label(Heard(np.zeros((0, 2)), np.zeros((0, 0)), [(0.0, 0.1), (0.5, 0.6)]), T)
    assert found.names == ("A",)
    assert found.confidences == (0.5, 0.5)
    assert label(Heard(np.zeros((0, 2)), np.zeros((0, 0)), []), T).names == ()
    alone = label(Heard(np.zeros((0, 2)), np.zeros((0, 0)), [(0.0, 0.1)]), T, 3)
    assert alone.warnings == ("3 speakers were asked for, and words of 1 were found",)


def test_more_than_ten_voices_are_suspicious():
    n_voices = MOST + 3
    heard, _ = conversation([(i, 27) for i in range(n_voices)], directions(n_voices))
    found = label(heard, T)
    assert len(found.names) == MOST
    assert found.warnings[0].startswith(f"{n_voices} voices were found")
    asked = label(heard, T, 1, 20)
    assert (len(asked.names), asked.warnings) == (n_voices, ())


def test_a_word_between_voices_is_unsure_and_overlapped():
    voices = directions(2)
    turns = [(0, 20), (1, 80), (0, 60)]
    heard, _ = conversation(turns, voices)
    both = (voices[0] + voices[1]) / np.sqrt(2)
    is_both = (heard.windows[:, 0] >= 6.1) & (heard.windows[:, 0] < 7.5)
    heard.embeddings[is_both] = both
    found = label(heard, T)
    assert found.names == ("A", "B")
    starts = np.array([start for start, _ in heard.words])
    marked = starts[list(found.overlapped)]
    assert len(marked)
    assert np.all((marked >= 6) & (marked < 8))
    assert np.array(found.confidences)[(starts >= 6.2) & (starts < 6.7)].max() < 0.85


# --- known voices -------------------------------------------------------------------------------


def known(name, vector, seconds=8.0):
    return Known(name, vector / np.linalg.norm(vector), seconds)


def test_known_voices_get_their_names_and_others_the_next_letters():
    voices = directions(3)
    heard, _ = conversation([(0, 20), (1, 20), (2, 20)], voices)
    people = [known("Ben", voices[1]), known("Zoe", directions(1, seed=9)[0])]
    found = label(heard, T, known=people)
    assert found.names == ("A", "Ben", "B")
    named = label(heard, T, known=[known("A", voices[2])])
    assert named.names == ("B", "C", "A")  # a letter that is a name is not given twice


def test_a_short_reference_must_be_nearer():
    voices = directions(2)
    heard, _ = conversation([(0, 20), (1, 20)], voices)
    other = directions(4, seed=0)[3]
    weak = 0.45 * voices[0] + np.sqrt(1 - 0.45**2) * other
    assert label(heard, T, known=[known("Ann", weak, 8.0)]).names == ("Ann", "A")
    assert label(heard, T, known=[known("Ann", weak, 3.0)]).names == ("A", "B")


def test_a_name_between_two_voices_is_given_to_neither():
    voices = directions(2)
    heard, _ = conversation([(0, 20), (1, 20)], voices)
    assert label(heard, T, known=[known("Ann", voices[0] + voices[1])]).names == ("A", "B")


def test_a_warning_says_why_a_voice_got_no_name():
    voices = directions(3)
    heard, _ = conversation([(0, 20), (1, 20)], voices)
    found = label(heard, T, known=[known("Ann", voices[0]), known("Anne", voices[0])])
    assert found.names == ("A", "B")
    assert found.warnings == ("A sounds like 'Ann' and 'Anne', so it got no name",)
    found = label(heard, T, known=[known("Ann", voices[0] + voices[1])])
    assert found.warnings == ("A and B sound like 'Ann', so neither got the name",)
    clear = [known("Ann", voices[0]), known("Zoe", voices[2])]
    assert label(heard, T, known=clear).warnings == ()


@pytest.mark.parametrize(("n_each", "expected"), [(2, 1), (6, 2), (20, 2)])
def test_a_recording_of_one_person_may_hold_two(n_each, expected):
    numbers = np.repeat([0, 1], n_each)
    windows = np.stack((np.arange(2 * n_each), np.arange(2 * n_each) + 1.5), axis=1) * 0.75
    embeddings = around(directions(2), numbers)
    assert count_voices(windows, embeddings, T) == expected
    assert count_voices(windows, around(directions(1), numbers * 0), T) == 1
    assert count_voices(windows[:0], embeddings[:0], T) == 1


def test_one_known_voice_names_one_speaker():
    voices = directions(2, shared=0.3)
    heard, _ = conversation([(0, 20), (1, 20)], voices)
    names = label(heard, T, known=[known("Ann", voices[0])]).names
    assert names == ("Ann", "A")


# --- the parts ----------------------------------------------------------------------------------


def test_letters():
    assert [letter_of(i) for i in (0, 1, 25, 26, 27, 701, 702)] == [
        "A", "B", "Z", "AA", "AB", "ZZ", "AAA",
    ]  # fmt: skip


def test_a_change_costs_something():
    sums = np.array([[5.0, 0.0], [2.0, 2.5], [5.0, 0.0]])
    assert best_path(sums, 1.0).tolist() == [0, 0, 0]
    assert best_path(sums, 0.1).tolist() == [0, 1, 0]
    assert best_path(np.zeros((0, 2)), 1.0).tolist() == []


def test_scores_are_sums_over_frames():
    windows, cosines = np.array([[0.0, 1.5], [5.0, 6.5]]), np.array([[0.9, 0.1], [0.2, 0.8]])
    sums, means = word_scores([(0.5, 1.0), (3.0, 3.2), (5.2, 5.4)], windows, cosines)
    assert sums[0] == pytest.approx(50 * cosines[0])
    assert sums[1].tolist() == [0.0, 0.0]
    assert means[2] == pytest.approx(cosines[1])


def test_voices_keep_their_numbers_from_snapshot_to_snapshot():
    voices = directions(3)
    turns = [(0, 20), (1, 20), (0, 20), (2, 30), (1, 20)]
    heard, _ = conversation(turns, voices)
    early = Heard(heard.windows[:14], heard.embeddings[:14], [])
    first = snapshot(early, T, 1, None, ())
    assert first.numbers == (0, 1)
    second = snapshot(heard, T, 1, None, first.of_windows)
    assert second.of_windows[:14] == first.of_windows
    assert sorted(second.numbers) == [0, 1, 2]
    assert second.of_windows[-1] == 1
