"""The diarisation error rate, speakers of words, and RTTM."""

import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.config import SubtitleOptions
from asr.errors import InvalidOption
from asr.evaluation import (
    DiarisationScore,
    SpeakerScore,
    read_rttm,
    score_speakers,
    score_turns,
)
from asr.evaluation.manifest import read_manifest
from asr.output.formats import render
from asr.output.rttm import Turn, turns_of
from asr.types import Segment, Transcript, Word

NAMES = "ABCD"


@st.composite
def turns(draw, names=NAMES):
    """Turns on a grid of 0.1 s. Those of one speaker do not overlap."""
    found = []
    for name in names:
        at = 0
        for pause, length in draw(
            st.lists(st.tuples(st.integers(1, 20), st.integers(1, 30)), max_size=4)
        ):
            found.append(Turn((at + pause) / 10, (at + pause + length) / 10, name))
            at += pause + length
    return sorted(found)


def brute_force(reference, hypothesis, collar, *, overlap):
    """The DER's parts on a grid, with the best of all mappings."""
    times = np.arange(0.05, 40, 0.1)
    edges = [edge for turn in reference for edge in (turn.start, turn.end)]
    keep = np.array([all(abs(at - edge) > collar for edge in edges) for at in times])

    def active(found, name):
        own = [turn for turn in found if turn.speaker == name]
        return np.array([any(turn.start < at < turn.end for turn in own) for at in times])

    said = np.array([active(reference, name) for name in NAMES])
    heard = np.array([active(hypothesis, name) for name in NAMES])
    keep &= overlap | (said.sum(axis=0) < 2)
    said, heard = said[:, keep], heard[:, keep]
    right = max(
        sum((said[i] & heard[j]).sum() for i, j in enumerate(order))
        for order in itertools.permutations(range(len(NAMES)))
    )
    n_said, n_heard = said.sum(axis=0), heard.sum(axis=0)
    parts = (
        n_said.sum(),
        np.maximum(n_said - n_heard, 0).sum(),
        np.maximum(n_heard - n_said, 0).sum(),
        np.minimum(n_said, n_heard).sum() - right,
    )
    return [part / 10 for part in parts]


@given(turns(), turns(), st.sampled_from([0.0, 0.2]), st.booleans())
def test_the_score_is_the_best_of_all_mappings(reference, hypothesis, collar, overlap):
    found = score_turns(reference, hypothesis, collar=collar, overlap=overlap)
    expected = brute_force(reference, hypothesis, collar, overlap=overlap)
    parts = [found.total, found.miss, found.false_alarm, found.confusion]
    assert parts == pytest.approx(expected, abs=1e-6)


@given(turns())
def test_other_names_are_no_error(reference):
    renamed = [turn._replace(speaker=f"speaker {turn.speaker}") for turn in reference]
    found = score_turns(reference, renamed)
    assert found.miss + found.false_alarm + found.confusion == pytest.approx(0.0)
    assert found.der == (None if not reference else pytest.approx(0.0))


def test_scores_add_up():
    one = score_turns([Turn(0, 10, "x")], [Turn(0, 5, "A"), Turn(5, 12, "B")])
    assert one == DiarisationScore(10.0, 0.0, 2.0, 5.0)
    assert one.der == pytest.approx(0.7)
    assert one + DiarisationScore(2.0, 1.0) == DiarisationScore(12.0, 1.0, 2.0, 5.0)


def test_scores_computed_by_hand():
    """x speaks from 0 to 6, y from 4 to 10. A is x until 5 and from 8, B speaks from 5 to 9."""
    reference = [Turn(0, 6, "x"), Turn(4, 10, "y")]
    hypothesis = [Turn(0, 5, "A"), Turn(5, 9, "B"), Turn(8, 12, "A")]
    # 0-4 right; 4-6: two said, one found; 6-8 right; 8-9: A too; 9-10: A for y; 10-12: A alone
    assert score_turns(reference, hypothesis) == DiarisationScore(12, 2, 3, 1)
    assert score_turns(reference, hypothesis, overlap=False) == DiarisationScore(8, 0, 3, 1)
    # Without 0.5 s around 0, 4, 6 and 10: 0.5-3.5, 4.5-5.5, 6.5-9.5 and 10.5-12 are left.
    collar = score_turns(reference, hypothesis, collar=0.5)
    assert collar == DiarisationScore(8, 1, 2.5, 0.5)
    assert score_turns([], hypothesis) == DiarisationScore(0, 0, 13, 0)
    assert score_turns(reference, []) == DiarisationScore(12, 12, 0, 0)
    assert score_turns([], []).der is None


def test_words_are_right_alone_and_in_overlaps():
    reference = [Turn(0, 4, "x"), Turn(3, 6, "y"), Turn(8, 9, "z")]
    words = [
        Word("a", 0.0, 0.5, speaker="A"),
        Word("b", 1.0, 1.5, speaker="B"),  # wrong
        Word("c", 3.2, 3.8, speaker="B"),  # both speak
        Word("d", 3.2, 3.8, speaker="C"),  # wrong
        Word("e", 6.1, 6.5, speaker="B"),  # y is nearest
        Word("f", 8.1, 8.5),  # no speaker
    ]
    hypothesis = [Turn(0, 3.5, "A"), Turn(3.5, 6, "B"), Turn(6, 6.4, "C")]
    found = score_speakers(reference, hypothesis, words)
    assert found == SpeakerScore(4, 2, 2, 1, files=1, count_right=1, count_error=0)
    assert found.accuracy == pytest.approx(0.5)
    assert score_speakers(reference, hypothesis[:1], []).count_error == 2
    assert SpeakerScore().accuracy is None


def test_rttm_is_written_and_read(tmp_path):
    words = [Word(f"w{i}", i, i + 0.9, speaker="A" if i < 3 else "Ben Li") for i in range(6)]
    segments = (
        Segment(0, 0, 2.9, "w0 w1 w2", tuple(words[:3]), speaker="A"),
        Segment(1, 3, 5.9, "w3 w4 w5", tuple(words[3:]), speaker="Ben Li"),
    )
    transcript = Transcript(segments, "en", 6.0, 6.0, 0.0, "e")
    path = tmp_path / "a.rttm"
    path.write_text(render(transcript, "rttm", SubtitleOptions()), encoding="utf-8")
    assert read_rttm(path) == (Turn(0.0, 2.9, "A"), Turn(3.0, 5.9, "Ben_Li"))
    assert turns_of(segments) == [Turn(0, 2.9, "A"), Turn(3, 5.9, "Ben Li")]


def test_a_file_with_several_recordings(tmp_path):
    path = tmp_path / "all.rttm"
    path.write_text(
        "SPKR-INFO one 1 <NA>\n;; comment\n"
        "SPEAKER one 1 2.0 1.0 <NA> <NA> x <NA> <NA>\n"
        "SPEAKER two 1 0.5 1.0 <NA> <NA> y <NA> <NA>\n"
    )
    assert read_rttm(path, "one") == (Turn(2.0, 3.0, "x"),)
    assert len(read_rttm(path)) == 2
    text = path.read_text()
    path.write_text("\ufeff" + "".join(f"  {line}\n" for line in text.splitlines()[2:]))
    assert read_rttm(path, "one") == (Turn(2.0, 3.0, "x"),)  # a byte order mark, indented lines
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"file": "two.wav", "text": "", "rttm": "all.rttm"}\n')
    assert read_manifest(manifest)[0].turns == (Turn(0.5, 1.5, "y"),)


@pytest.mark.parametrize(
    "line",
    ["SPEAKER a 1 0.5", "SPEAKER a 1 x 1 <NA> <NA> n", "SPEAKER a 1 -1 1 <NA> <NA> n",
     "SPEAKER a 1 1 nan <NA> <NA> n", "SPEAKER a 1 inf 1 <NA> <NA> n"],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path, line):
    (tmp_path / "a.rttm").write_text(f"\n{line}\n")
    with pytest.raises(InvalidOption, match="line 2"):
        read_rttm(tmp_path / "a.rttm")
    with pytest.raises(InvalidOption, match="cannot read"):
        read_rttm(tmp_path / "none.rttm")
