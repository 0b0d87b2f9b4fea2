"""The committed sample recordings agree with their JSON, word times included, and the manifest."""

import functools
import json
import re
from itertools import pairwise

import av
import numpy as np
import pytest
import soundfile as sf

from tests.support.paths import SAMPLES

FILES = ("meeting.wav", "lecture.mp3", "telephone.wav", "memo.m4a", "pauses.ogg")
MANIFEST = [
    json.loads(line)
    for line in (SAMPLES / "manifest.jsonl").read_text(encoding="ascii").splitlines()
]
LONG_PAUSES = (12, 18, 25, 32, 40)
FRAME = 0.01

every_file = pytest.mark.parametrize("file", FILES)


@functools.cache
def read_facts(file):
    return json.loads((SAMPLES / file).with_suffix(".json").read_text(encoding="ascii"))


@functools.cache
def decode(file):
    """Return samples, shape (n_samples, n_channels), and the sample rate."""
    if not file.endswith(".m4a"):
        return sf.read(SAMPLES / file, always_2d=True)
    with av.open(str(SAMPLES / file)) as container:
        stream = container.streams.audio[0]
        frames = [frame.to_ndarray() for frame in container.decode(stream)]
        return np.concatenate(frames, axis=1).T, stream.rate


def measure_level(samples, sample_rate):
    """Return dB of full scale in frames of 10 ms; samples: shape (n_samples,)."""
    size = int(FRAME * sample_rate)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    return 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)


def between(level, start, end):
    return level[round(start / FRAME) : round(end / FRAME)]


@pytest.fixture(scope="module")
def pauses():
    samples, sample_rate = decode("pauses.ogg")
    return measure_level(samples[:, 0], sample_rate), read_facts("pauses.ogg")["words"]


@pytest.fixture(scope="module")
def long_gaps(pauses):
    """(last word before, first word after) of each long pause."""
    _, words = pauses
    return [
        (before, after) for before, after in pairwise(words) if after["start"] - before["end"] > 5
    ]


@every_file
def test_file_decodes_to_what_its_json_says(file):
    facts = read_facts(file)
    samples, sample_rate = decode(file)
    assert facts["file"] == file
    assert sample_rate == facts["sample_rate"]
    assert samples.shape[1] == facts["channels"]
    assert len(samples) / sample_rate == pytest.approx(facts["duration"], abs=0.05)


@every_file
def test_file_is_neither_clipped_nor_faint(file):
    samples, _ = decode(file)
    assert 0.3 < np.abs(samples).max() < 0.9


@every_file
def test_words_are_ordered_and_inside_the_recording(file):
    facts = read_facts(file)
    words = facts["words"]
    assert words[0]["start"] > 0
    assert all(word["start"] < word["end"] for word in words)
    assert all(a["end"] <= b["start"] for a, b in pairwise(words))
    assert words[-1]["end"] < facts["duration"]


@every_file
def test_text_is_the_words_of_the_source(file):
    facts = read_facts(file)
    source = (SAMPLES / "texts" / file).with_suffix(".txt").read_text(encoding="ascii")
    assert facts["text"].split() == [word["text"] for word in facts["words"]]
    assert facts["text"] == " ".join(source.split())


@every_file
def test_words_are_louder_than_the_silence_before_the_first(file):
    samples, sample_rate = decode(file)
    level = measure_level(samples[:, 0], sample_rate)
    words = read_facts(file)["words"]
    room = between(level, 0.1, words[0]["start"] - 0.1).max()
    loud = [between(level, word["start"], word["end"]).max() > room + 25 for word in words]
    assert all(loud)


def test_manifest_agrees_with_the_json_of_each_recording():
    assert [entry["file"] for entry in MANIFEST] == list(FILES)
    for entry in MANIFEST:
        facts = read_facts(entry["file"])
        shared = ("file", "text", "duration", "words")
        assert {key: entry[key] for key in shared} == {key: facts[key] for key in shared}
        assert set(entry) == {*shared, "category", "licence"}
        assert entry["licence"] == "CC0-1.0"


def test_only_the_memo_has_digits():
    with_digits = [entry["file"] for entry in MANIFEST if re.search(r"\d", entry["text"])]
    assert with_digits == ["memo.m4a"]
    assert [e["category"] for e in MANIFEST if e["file"] in with_digits] == ["numbers"]


def test_recordings_are_small():
    sizes = [(SAMPLES / file).stat().st_size for file in FILES]
    assert max(sizes) < 1_500_000
    assert sum(sizes) < 4_000_000


def test_long_pauses_have_the_planned_length(long_gaps):
    lengths = [after["start"] - before["end"] for before, after in long_gaps]
    # The voice adds up to half a second of its own at each end of a sentence.
    assert lengths == pytest.approx([pause + 0.4 for pause in LONG_PAUSES], abs=0.4)


def test_long_pauses_are_silent_beside_the_words(pauses, long_gaps):
    level, words = pauses
    quietest_word = min(between(level, word["start"], word["end"]).max() for word in words)
    for before, after in long_gaps:
        pause = between(level, before["end"] + 0.1, after["start"] - 0.1)
        assert pause.max() < quietest_word - 25


def test_speech_stops_and_starts_at_the_words_about_a_long_pause(pauses, long_gaps):
    level, _ = pauses
    for before, after in long_gaps:
        room = between(level, before["end"] + 1, after["start"] - 1).max()
        is_loud = between(level, before["start"], after["end"]) > room + 3
        loud = before["start"] + FRAME * np.flatnonzero(is_loud)
        middle = (before["end"] + after["start"]) / 2
        assert loud[loud < middle].max() + FRAME == pytest.approx(before["end"], abs=0.08)
        assert loud[loud > middle].min() == pytest.approx(after["start"], abs=0.08)
