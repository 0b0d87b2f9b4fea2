"""The parts that need no server: references, statistics, stored answers, changes of requests."""

import json
from dataclasses import replace

import pytest
import soundfile

from asr.errors import InvalidOption
from asr.evaluation import Utterance, WordScore
from asr.types import SAMPLE_RATE, Word
from benchmarks.first_hour import published
from benchmarks.first_hour.__main__ import main
from benchmarks.first_hour.answers import Answer, Call, Store
from benchmarks.first_hour.arms import PLACEHOLDER, TRAINED, as_trained, saying, thinking
from benchmarks.first_hour.bootstrap import difference, wer_interval
from benchmarks.first_hour.hints import choose
from benchmarks.first_hour.instructions import is_trained
from benchmarks.first_hour.plan import Estimate
from benchmarks.first_hour.recordings import long_recordings, sentences
from benchmarks.first_hour.references import Clip, find_clips, selection
from benchmarks.first_hour.run import STEPS
from benchmarks.first_hour.speed import Load
from benchmarks.first_hour.wire import read_call, text_part
from tests.support.makers import speech

CALL = Call(0.5, "hello there", "", "stop", 30, 4, TRAINED, True)


def write_wav(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, speech(seconds), SAMPLE_RATE)
    return path


def test_a_manifest_a_librispeech_tree_and_texts_beside_audio_are_read(tmp_path):
    write_wav(tmp_path / "one" / "a.wav")
    line = {"file": "a.wav", "text": "Hello.", "category": "voxpopuli,hard"}
    (tmp_path / "one" / "manifest.jsonl").write_text(json.dumps(line))
    write_wav(tmp_path / "two" / "test-other" / "61" / "70" / "61-70-0001.flac")
    texts = tmp_path / "two" / "test-other" / "61" / "70" / "61-70.trans.txt"
    texts.write_text("61-70-0001 HELLO THERE\n61-70-0002 NO SUCH FILE\n")
    write_wav(tmp_path / "three" / "memo" / "b.wav")
    (tmp_path / "three" / "memo" / "b.txt").write_text("Good morning.")
    write_wav(tmp_path / "three" / "memo" / "no text.wav")
    found = {name: find_clips(tmp_path / name) for name in ("one", "two", "three")}
    assert [(it.utterance.text, it.category, it.seconds) for it in found["one"]] == [
        ("Hello.", "voxpopuli", 1.0)
    ]
    assert [(it.utterance.text, it.category) for it in found["two"]] == [
        ("HELLO THERE", "librispeech test-other")
    ]
    assert [(it.utterance.text, it.category) for it in found["three"]] == [
        ("Good morning.", "memo")
    ]
    assert published.set_of(found["two"][0].category).name == "LibriSpeech other"


def test_a_folder_without_references_is_an_error_that_says_what_is_needed(tmp_path):
    write_wav(tmp_path / "a.wav")
    with pytest.raises(InvalidOption, match=r"trans\.txt"):
        find_clips(tmp_path)


def test_what_lies_beside_a_manifest_is_read_once(tmp_path):
    for name in ("listed", "beside"):
        write_wav(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(f"\ufeff{name} words")
    (tmp_path / "some.jsonl").write_text(json.dumps({"file": "listed.wav", "text": "Listed."}))
    assert [clip.utterance.text for clip in find_clips(tmp_path)] == ["Listed.", "beside words"]


def test_an_earlier_run_and_hidden_files_are_no_references(tmp_path):
    write_wav(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text("hello")
    answers = tmp_path / "hour" / "answers"
    answers.mkdir(parents=True)
    (answers / "sent.jsonl").write_text('{"clip": "1"}')
    (tmp_path / "hour" / "run.json").write_text("{}")
    (tmp_path / "._some.jsonl").write_bytes(b"\xff")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "folder.txt").write_text("a folder is no audio")
    assert [clip.utterance.text for clip in find_clips(tmp_path)] == ["hello"]


def test_the_same_words_by_two_speakers_are_two_clips(tmp_path):
    for speaker in ("one", "two"):
        write_wav(tmp_path / speaker / "001.wav")
        (tmp_path / speaker / "001.txt").write_text("seven")
    assert [clip.category for clip in find_clips(tmp_path)] == ["one", "two"]


def test_a_text_in_another_encoding_is_an_error_that_names_the_file(tmp_path):
    write_wav(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_bytes("\u00fcber".encode("latin-1"))
    with pytest.raises(InvalidOption, match=r"a\.txt"):
        find_clips(tmp_path)


def test_answers_with_line_breaks_of_unicode_and_half_characters_are_stored(tmp_path):
    clip = Clip(Utterance(write_wav(tmp_path / "a.wav"), "hello"), 1.0)
    text = "one\u2028two\x85three"
    Store(tmp_path / "arm.jsonl").put(
        Answer(clip.id, text, calls=(replace(CALL, content="\ud83d"),))
    )
    again = Store(tmp_path / "arm.jsonl")
    assert again.has(clip)
    assert again.answers[clip.id].text == text


@pytest.mark.parametrize(
    "wrong",
    [
        ["--minutes", "0"], ["--minutes", "nan"], ["--parallel", "-1"], ["--speed-files", "0"],
        ["--speed-minutes", "-1"],
    ],
)  # fmt: skip
def test_numbers_that_measure_nothing_are_refused(wrong, tmp_path, capsys):
    needed = ["--server", "http://vllm", "--references", str(tmp_path), "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        main([*needed, *wrong])
    assert wrong[0] in capsys.readouterr().err


def test_wrong_arguments_are_told_and_not_continued(tmp_path, capsys):
    file = write_wav(tmp_path / "a.wav")
    for references, out, told in (
        (tmp_path / "no", tmp_path / "out", "does not exist"),
        (tmp_path, file, "must be a folder"),
    ):
        server = ["--server", "http://vllm"]
        assert main([*server, "--references", str(references), "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert told in said
        assert "again" not in said


@pytest.mark.parametrize(
    ("category", "name"),
    [
        ("voxpopuli", "VoxPopuli"),
        ("VoxPopuli_en", "VoxPopuli"),
        ("librispeech test-clean", "LibriSpeech clean"),
        ("ami ihm", "AMI"),
        ("tedlium", "TED-LIUM"),
        ("amiable", None),
        ("telephone", None),
    ],
)
def test_categories_are_matched_with_published_sets(category, name):
    assert getattr(published.set_of(category), "name", None) == name


def test_the_published_mean_is_that_of_the_sets():
    assert sum(it.wer for it in published.SETS) / 8 == pytest.approx(published.MEAN, abs=0.005)


def test_a_selection_takes_all_categories_in_turn_and_grows_with_its_length(tmp_path):
    file = write_wav(tmp_path / "a.wav")
    clips = [
        Clip(Utterance(file, f"{name} {n}", categories=(name,)), 10.0)
        for name, count in (("many", 20), ("few", 2))
        for n in range(count)
    ]
    small, large = selection(clips, 45), selection(clips, 100)
    assert [clip.category for clip in small].count("few") == 2
    assert len(small) == 4
    assert len(large) == 10
    assert set(small) < set(large)
    assert selection(reversed(clips), 45) == small


def test_equal_arms_do_not_differ_and_a_worse_one_does():
    good = [WordScore(hits=20)] * 15 + [WordScore(hits=19, substitutions=1)] * 15
    bad = [WordScore(hits=15, substitutions=5)] * 30
    same, worse = difference(good, good), difference(good, bad)
    assert (same.value, same.p, same.is_significant) == (0.0, 1.0, False)
    assert worse.is_significant
    assert worse.low < worse.value < worse.high
    assert worse.value == pytest.approx(0.225)
    assert difference(bad, good).value == pytest.approx(-worse.value)
    found = wer_interval(good)
    assert found.value == pytest.approx(0.025)
    assert found.low < found.value < found.high
    few = difference(good[-5:], bad[-5:])
    assert few.is_unclear
    assert not few.is_significant, "five clips are too few"
    assert not any(it.is_unclear for it in (same, worse, difference(bad[-5:], good[-5:])))
    assert difference([WordScore(insertions=1)], [WordScore()]) is None


def test_answers_are_read_back_and_a_line_that_was_not_finished_does_no_harm(tmp_path):
    path = tmp_path / "sent.jsonl"
    answer = Answer("a", "Hello there", (Word("Hello", 0.1, 0.5, 0.9),), calls=(CALL,))
    store = Store(path)
    store.put(answer)
    assert path.stat().st_mode & 0o077 == 0, "transcripts are for their owner"
    path.write_text(path.read_text() + '{"clip": "b", "te')
    again = Store(path)
    assert again.answers == {"a": answer}
    again.put(Answer("c", "more"))
    assert set(Store(path).answers) == {"a", "c"}


def test_a_failed_clip_counts_as_missing(tmp_path):
    file = write_wav(tmp_path / "a.wav")
    clip = Clip(Utterance(file, "hello"), 1.0)
    store = Store(tmp_path / "sent.jsonl")
    store.put(Answer(clip.id, error="EngineFailed: no"))
    assert not store.has(clip)
    assert store.answers[clip.id].result(clip).words.deletions == 1
    store.put(Answer(clip.id, "hello"))
    assert Store(tmp_path / "sent.jsonl").has(clip)


def body():
    audio = {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,AAAA"}}
    parts = [audio, {"type": "text", "text": "Write it down."}]
    kwargs = {"chat_template_kwargs": {"enable_thinking": False}, "max_tokens": 50}
    return {"messages": [{"role": "user", "content": parts}], **kwargs}


def test_an_arm_changes_the_text_and_the_order_and_keeps_the_audio():
    changed = body()
    saying("Transcribe:", is_audio_first=False)(changed)
    assert text_part(body()) == ("Write it down.", True)
    assert text_part(changed) == ("Transcribe:", False)
    assert changed["messages"][0]["content"][1] == body()["messages"][0]["content"][0]
    saying(TRAINED)(changed)
    assert text_part(changed) == (TRAINED, True)
    assert changed["chat_template_kwargs"] == {"enable_thinking": False}


def test_the_text_of_training_says_where_the_audio_goes_if_that_of_the_service_does():
    plain, placed = body(), body()
    placed["messages"][0]["content"][1]["text"] = PLACEHOLDER + "Write it down."
    as_trained(plain)
    as_trained(placed)
    assert text_part(plain) == (TRAINED, True)
    assert text_part(placed) == (PLACEHOLDER + TRAINED, True)
    assert is_trained(text_part(plain)[0])
    assert is_trained(text_part(placed)[0])
    assert not is_trained("Write it down.")


def test_thinking_is_switched_on_with_room_for_it():
    changed = body()
    changed["messages"].insert(0, {"role": "system", "content": "/no_think"})
    thinking(changed)
    assert changed["chat_template_kwargs"] == {"enable_thinking": True}
    assert changed["max_tokens"] > 1000
    assert [it["role"] for it in changed["messages"]] == ["user"]


def test_a_call_is_recorded_even_if_the_server_tells_little():
    message = {"content": None, "reasoning_content": "Hm."}
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    full = {"choices": [{"message": message, "finish_reason": "length"}], "usage": usage}
    call = read_call(body(), json.dumps(full).encode(), 0.25)
    assert (call.content, call.reasoning, call.finish) == ("", "Hm.", "length")
    assert (call.prompt_tokens, call.completion_tokens, call.seconds) == (9, 2, 0.25)
    empty = read_call(body(), b"not JSON", 0.25)
    assert (empty.content, empty.finish, empty.prompt_tokens) == ("", None, None)


def test_keywords_are_rare_words_of_the_clip_and_never_said_where_they_are_unspoken(tmp_path):
    file = write_wav(tmp_path / "a.wav")
    texts = ["the common kitchen elephant", "the common kitchen building", "the common survey"]
    clips = [Clip(Utterance(file, text), 1.0) for text in texts]
    keywords = choose(clips)
    assert keywords.spoken[clips[0].id][0] == "elephant"
    for clip in clips:
        said = set(clip.utterance.text.split())
        assert set(keywords.spoken[clip.id]) <= said
        assert keywords.unspoken[clip.id]
        assert not said & set(keywords.unspoken[clip.id])


def test_a_plan_takes_as_many_clips_as_fit(tmp_path):
    file = write_wav(tmp_path / "a.wav")
    clips = [Clip(Utterance(file, f"hello {n}"), 10.0) for n in range(1000)]
    load = Load(1.0, (1,), (1,))
    estimate = Estimate(clips, 1000.0, 100.0, load, STEPS)
    everything = estimate.fitting(3600)
    assert everything.clip_seconds == 10_000
    assert everything.seconds <= 3600
    less = estimate.fitting(60)
    assert 400 < less.clip_seconds < 10_000
    assert less.seconds == pytest.approx(60, rel=0.01)
    assert "minutes" in str(less)


def test_a_plan_keeps_some_clips_however_slow_the_server_is(tmp_path):
    file = write_wav(tmp_path / "a.wav")
    clips = [Clip(Utterance(file, f"hello {n}"), 10.0) for n in range(1000)]
    slow = Estimate(clips, 2.0, 1.0, Load(), STEPS).fitting(60)
    assert slow.clip_seconds == pytest.approx(400)
    assert slow.speed_minutes == 0.5
    no_speed = Estimate(clips, 2.0, 1.0, Load(), ("hints",)).fitting(60)
    assert list(no_speed.steps) == ["hints"]


def test_samples_are_cut_into_sentences_with_the_times_of_their_words(tmp_path):
    samples = [0.0] * (6 * SAMPLE_RATE)
    soundfile.write(tmp_path / "talk.wav", samples, SAMPLE_RATE)
    said = [("One", 1.0, 1.4), ("two.", 1.5, 1.9), ("Three.", 3.0, 3.5), ("Four", 5.0, 5.5)]
    words = [{"text": text, "start": start, "end": end} for text, start, end in said]
    line = {"file": "talk.wav", "text": "One two. Three. Four", "category": "x", "words": words}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line))
    cut = sentences(tmp_path / "cut", tmp_path / "manifest.jsonl")
    assert [clip.utterance.text for clip in cut] == ["One two.", "Three.", "Four"]
    first = cut[0].utterance
    assert first.categories == ("x", "synthetic")
    assert [(it.start, it.end) for it in first.words] == [(0.3, 0.7), (0.8, 1.2)]
    assert [clip.seconds for clip in cut] == pytest.approx([1.5, 1.1, 1.05])
    assert {clip.id for clip in find_clips(tmp_path / "cut")} == {clip.id for clip in cut}


def test_long_recordings_differ_and_say_the_words_of_their_clips(tmp_path):
    clips = []
    for n, text in enumerate(("hello", "world"), 1):
        file = write_wav(tmp_path / f"{n}.wav", float(n))
        clips.append(Clip(Utterance(file, text), float(n)))
    first, second = long_recordings(clips, tmp_path / "long", 6.0, 2)
    assert first.seconds >= 6
    assert set(first.utterance.text.split()) == {"hello", "world"}
    assert first.utterance.file.read_bytes() != second.utterance.file.read_bytes()
    assert long_recordings(clips, tmp_path / "none", 1.0, 2) == []
