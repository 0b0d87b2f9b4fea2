from __future__ import annotations

import json
from pathlib import Path

import jiwer
import pytest
from hypothesis import given, settings, strategies as st

from asr.errors import EngineFailed, InvalidOption
from asr.evaluation import (
    Report,
    Result,
    TimeScore,
    Utterance,
    WordScore,
    evaluate,
    normalise,
    read_manifest,
    score_times,
    score_words,
)
from asr.types import Segment, Transcript, Word

texts = st.lists(st.sampled_from(["a", "b", "c", "d", "e"])).map(" ".join)
counts = st.integers(0, 1000)
word_scores = st.builds(WordScore, counts, counts, counts, counts)
seconds = st.floats(-5, 5)
time_scores = st.lists(st.tuples(seconds, seconds)).map(
    lambda pairs: TimeScore(len(pairs) + 1, tuple(s for s, _ in pairs), tuple(e for _, e in pairs))
)


def timed(text: str, start: float = 0.0, shift: float = 0.0) -> tuple[Word, ...]:
    """One word per half second, each 0.4 s long."""
    times = [start + shift + 0.5 * index for index in range(len(text.split()))]
    return tuple(Word(t, s, s + 0.4) for t, s in zip(text.split(), times, strict=True))


def transcript(text: str, words: tuple[Word, ...] = (), duration: float = 60.0) -> Transcript:
    segment = Segment(0, 0.0, duration, text, words)
    return Transcript((segment,), "en", duration, duration, 0.0, "fake", "sphinx")


# --- normaliser ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Hello, World!", "hello world"),
        ("O’Neil's dogs' 'tis", "o'neil's dogs tis"),  # noqa: RUF001
        ("cold-hearted man — well", "cold hearted man well"),
        ("data\u00adbase \u0915\u094d\u200d\u0937 a\u200bb", "database \u0915\u094d\u0937 a b"),
        ("Mr. & Mrs. Smith vs Dr. X, etc.", "mister and missus smith versus doctor x et cetera"),
        ("the U.S., at 5 p.m., AT&T", "the us at five pm at and t"),
        ("ﬁne Straße", "fine strasse"),
        ("0 7 13 20 42", "zero seven thirteen twenty forty two"),
        ("100 105 1,234", "one hundred one hundred five one thousand two hundred thirty four"),
        ("10000 1,000,000", "ten thousand one million"),
        ("2,000,000,001", "two billion one"),
        ("3.14 0.05 -3.5", "three point one four zero point zero five minus three point five"),
        ("1st 2nd 3rd 4th", "first second third fourth"),
        ("12th 20th 21st 100th", "twelfth twentieth twenty first one hundredth"),
        ("50% 2.5%", "fifty percent two point five percent"),
        ("$1 $3.50 $2.5", "one dollar three dollars fifty cents two point five dollars"),
        ("1984 1905 1900", "nineteen eighty four nineteen oh five nineteen hundred"),
        ("2005 2024", "two thousand five twenty twenty four"),
        ("007 5551234", "zero zero seven five five five one two three four"),
        ("1,000,000,000,000", "one" + 12 * " zero"),
        ("5-6 10:30", "five six ten thirty"),
        ("mp3 4k 1980s", "mp3 4k 1980s"),
        ("... — !", ""),
    ],
)  # fmt: skip
def test_normalise(written, spoken):
    assert normalise(written) == spoken.split()


@given(st.text() | st.from_regex(r"[-$]?[0-9,.]{1,20}(st|th|%)?", fullmatch=True))
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(" ".join(once)) == once


def test_a_number_of_any_length_has_words():
    assert len(normalise("9" * 10_000)) == 10_000


@settings(max_examples=200)
@given(st.integers(0, 10**12 - 1))
def test_spoken_numbers_can_be_read_back(value):
    def meaning(words: list[str]) -> int:
        total = part = 0
        scales = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
        for word in words:
            if word in scales:
                total, part = total + part * scales[word], 0
            elif word == "hundred":
                part *= 100
            else:
                part += ones[word]
        return total + part

    teens = {" ".join(normalise(str(n))): n for n in range(20)}
    ones = teens | {normalise(str(n))[0]: n for n in range(20, 100, 10)}
    assert meaning(normalise(f"{value:,}")) == value


# --- words --------------------------------------------------------------------------------------


@given(texts)
def test_a_text_has_no_errors_against_itself(text):
    score = score_words(text, text)
    assert score == WordScore(hits=len(text.split()))
    assert score.wer == (0 if text else None)


@given(texts, texts)
def test_counts_agree_with_jiwer(reference, hypothesis):
    score, expected = score_words(reference, hypothesis), jiwer.process_words(reference, hypothesis)
    assert score == WordScore(
        expected.hits, expected.substitutions, expected.insertions, expected.deletions
    )
    if reference:
        assert score.wer == expected.wer >= 0
    else:
        assert score.wer is None
        assert score.insertions == len(hypothesis.split())


@given(word_scores, word_scores, word_scores)
def test_pooling_words_is_associative(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert (a + b).n_reference == a.n_reference + b.n_reference
    assert a + WordScore() == a


def test_empty_sides():
    assert score_words("", "") == WordScore()
    assert score_words("one two", "") == WordScore(deletions=2)
    assert score_words("one two", "").wer == 1
    assert score_words("...", "one two") == WordScore(insertions=2)
    assert (score_words("", "a b") + score_words("c d", "c d")).wer == 1


def test_spelling_of_numbers_and_case_is_no_error():
    assert score_words("TWENTY FIVE percent, Mr. O'Hara", "25% mister o’hara").wer == 0  # noqa: RUF001


# --- times --------------------------------------------------------------------------------------


@given(st.integers(-900, 900), st.integers(1, 20))
def test_planted_shifts_are_recovered(shift_ms, n):
    text = " ".join(f"w{index}" for index in range(n))
    shift = shift_ms / 1000
    score = score_times(timed(text, 1), timed(text, 1, shift))
    assert score == TimeScore(n, (shift,) * n, (shift,) * n)
    assert score.start_median == score.start_p95 == score.end_median == abs(shift)
    assert score.within(abs(shift)) == (1, 1)
    assert score.within(abs(shift) - 0.001) == (0, 0)


def test_starts_and_ends_are_counted_apart():
    reference = [Word("a", 1.0, 1.4), Word("b", 2.0, 2.4)]
    score = score_times(reference, [Word("a", 1.1, 1.9), Word("B.", 1.7, 2.4)])
    assert score.start_errors == (0.1, -0.3)
    assert score.end_errors == (0.5, 0.0)
    assert score.within(0.2) == (0.5, 0.5)
    assert (score.start_median, score.start_p95, score.end_median) == (0.1, 0.3, 0.0)


@given(st.sets(st.integers(0, 9), max_size=10))
def test_lost_words_lower_the_matched_share(lost):
    words = timed(" ".join(f"w{index}" for index in range(10)))
    heard = [Word("x", w.start, w.end) if i in lost else w for i, w in enumerate(words)]
    for hypothesis in (heard, [word for i, word in enumerate(words) if i not in lost]):
        score = score_times(words, hypothesis)
        assert score.n_reference == 10
        assert score.matched_share == (10 - len(lost)) / 10
        assert score.start_median == (None if len(lost) == 10 else 0)


def test_a_written_word_of_several_tokens():
    two = [Word("twenty", 1.0, 1.4), Word("five", 1.4, 1.8)]
    one = [Word("25,", 1.1, 2.0)]
    assert score_times([Word("25", 1.0, 1.8)], two) == TimeScore(1, (0.0,), (0.0,))
    assert score_times([Word("twenty-five", 1.0, 1.8)], one) == TimeScore(1, (0.1,), (0.2,))
    assert score_times(two, one) == TimeScore(2)
    assert score_times([Word("25", 1.0, 1.8)], two[:1]) == TimeScore(1)
    assert score_times(timed("105"), timed("one hundred five")).matched == 1
    assert score_times(timed("105"), timed("one thousand five")).matched == 0


def test_words_without_tokens_are_no_words():
    dash = Word("—", 0.1, 0.2)
    assert score_times([dash, *timed("a b", 1)], [dash, *timed("a b", 1)]).n_reference == 2
    assert score_times([], timed("a b")) == TimeScore()
    assert TimeScore().matched_share is None
    assert TimeScore().within() == (None, None)


@given(time_scores, time_scores, time_scores)
def test_pooling_times_is_associative(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert (a + b).matched == a.matched + b.matched


# --- manifest -----------------------------------------------------------------------------------


def manifest(folder: Path, *lines: object) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text(
        "\n".join(x if isinstance(x, str) else json.dumps(x, ensure_ascii=False) for x in lines),
        "utf-8",
    )
    return path


def test_manifest(tmp_path):
    words = [{"word": "a", "start": 0, "end": 0.5}, {"text": "b", "start": 0.5, "end": 1.5}]
    path = manifest(
        tmp_path,
        {"file": "x.wav", "text": "a b", "category": "read, 8k", "words": words, "duration": 2},
        "",
        {"file": "sub/y.wav", "text": "line\u2028two", "words": None, "licence": "CC0"},
    )
    assert read_manifest(path) == [
        Utterance(
            tmp_path / "x.wav",
            "a b",
            (Word("a", 0, 0.5), Word("b", 0.5, 1.5)),
            ("read", "8k"),
            2,
        ),
        Utterance(tmp_path / "sub/y.wav", "line\u2028two"),
    ]


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("{", "manifest", "not JSON"),
        ("[]", "manifest", "object"),
        ({"text": "a"}, "file", "'file' must be str, not None"),
        ({"file": "x"}, "text", "'text' must be str"),
        ({"file": "x", "text": 3}, "text", "not 3"),
        ({"file": "x", "text": "a", "category": 1}, "category", "'category'"),
        ({"file": "x", "text": "a", "duration": True}, "duration", "not True"),
        ({"file": "x", "text": "a", "words": "a"}, "words", "'words' must be list"),
        ({"file": "x", "text": "a", "words": ["a"]}, "words", "words[0]: must be an object"),
        ({"file": "x", "text": "a", "words": [{"text": "a", "start": 0}]}, "end", "words[0]: fie"),
        ({"file": "x", "text": "a", "words": [{"start": 0, "end": 1}]}, "text", "words[0]: field"),
        (
            {"file": "x", "text": "a", "words": [{"text": "a", "start": 2, "end": 1}]},
            "words",
            "words[0]: word times [2, 1] are out of order",
        ),
        (
            {"file": "", "text": "", "words": [{"word": "", "start": s, "end": 3} for s in (2, 1)]},
            "words",
            "words[1]: word at [1, 3] is out of order",
        ),
    ],
)  # fmt: skip
def test_manifest_errors_name_line_and_field(tmp_path, line, name, said):
    path = manifest(tmp_path, {"file": "good.wav", "text": "a"}, "", line)
    with pytest.raises(InvalidOption) as caught:
        read_manifest(path)
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{path}, line 3")
    assert said in str(caught.value)


def test_unreadable_manifest(tmp_path):
    with pytest.raises(InvalidOption, match="cannot read") as caught:
        read_manifest(tmp_path / "none.jsonl")
    assert caught.value.name == "manifest"
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9")
    with pytest.raises(InvalidOption, match="cannot read"):
        read_manifest(tmp_path / "latin.jsonl")


# --- reports ------------------------------------------------------------------------------------


def test_evaluate():
    known = {
        "good.wav": transcript("a b c", timed("a b c", 1, 0.1)),
        "poor.wav": transcript("x b", duration=30.0),
    }

    def recognise(path: Path) -> Transcript:
        if path.name == "broken.wav":
            raise EngineFailed("it broke", chunk_index=0)
        if path.name == "missing.wav":
            raise FileNotFoundError(path)
        return known[path.name]

    utterances = [
        Utterance(Path("good.wav"), "A b c.", timed("A b c.", 1), ("read",)),
        Utterance(Path("poor.wav"), "a b", timed("a b", 1), ("read", "noisy")),
        Utterance(Path("broken.wav"), "five more words here too", timed("five more"), ("noisy",)),
        Utterance(Path("missing.wav"), ""),
    ]
    seen: list[Result] = []
    report = evaluate(utterances, recognise, on_result=seen.append)

    assert tuple(seen) == report.results
    assert report.words == WordScore(hits=4, substitutions=1, deletions=5)
    assert report.words.wer == 0.6
    assert report.times == TimeScore(7, (0.1,) * 3, (0.1,) * 3)
    assert {name: part.words for name, part in report.categories.items()} == {
        "noisy": WordScore(hits=1, substitutions=1, deletions=5),
        "read": WordScore(hits=4, substitutions=1),
    }
    assert [result.utterance.file.name for result in report.failures] == [
        "broken.wav",
        "missing.wav",
    ]
    assert report.failures[0].error == "EngineFailed: it broke"


def test_a_bug_is_not_a_failed_utterance():
    def recognise(path: Path) -> Transcript:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate([Utterance(Path("x.wav"), "a")], recognise)


def made_report() -> Report:
    return Report(
        (
            Result(
                Utterance(Path("a.wav"), "a b c d", timed("a b c d", 1), ("read",)),
                transcript("a b c", timed("a b c", 1, 0.3), duration=90.0),
                wall_seconds=1.0,
            ),
            Result(Utterance(Path("b.wav"), "e"), transcript("e", duration=10.0), 9.0),
            Result(Utterance(Path("c.wav"), "f"), None, 10.0, "EngineFailed: no"),
        )
    )


def test_rtfx_is_a_ratio_of_sums():
    assert made_report().rtfx == 100 / 20
    assert Report(()).rtfx is None


def test_markdown():
    head, _, read, everything, _, machine, *failures = made_report().to_markdown(0.25).split("\n")
    cells = [cell.strip() for cell in head.strip("|").split("|")]
    for row, expected in (
        (
            read,
            {"": "read", "files": "1", "wer": "25.00%", "rtfx": "90", "matched share": "75.00%"},
        ),
        (everything, {"": "**all**", "failed": "1", "hits": "4", "deletions": "2", "rtfx": "5"}),
        (everything, {"start median": "0.300", "start within": "0.00%", "timed words": "4"}),
    ):
        shown = dict(zip(cells, (c.strip() for c in row.strip("|").split("|")), strict=True))
        assert expected.items() <= shown.items()
    assert "engine: fake + sphinx" in machine
    assert "collar: 0.25" in machine
    assert "normaliser: " in machine
    assert failures[-1] == "- c.wav: EngineFailed: no"


def test_json():
    body = json.loads(made_report().to_json())
    assert set(body["machine"]) == {
        "python", "platform", "cpus", "engine", "normaliser", "collar",
    }  # fmt: skip
    assert body["overall"]["wer"] == 2 / 6
    assert body["overall"]["failed"] == 1
    assert body["categories"]["read"]["matched_share"] == 0.75
    assert [file["error"] for file in body["files"]] == [None, None, "EngineFailed: no"]
    assert body["files"][2]["deletions"] == 1


def test_a_report_of_nothing():
    report = Report(())
    assert "n/a" in report.to_markdown()
    assert json.loads(report.to_json())["overall"]["wer"] is None
