"""The HMM aligner with its real models, on sample recordings with right and wrong texts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import signal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from asr.align import load_aligner
from asr.align.hmm.acoustics import Scorer
from asr.align.hmm.aligner import SphinxAligner
from asr.align.hmm.forced import ForcedAligner
from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.errors import EngineUnavailable, WorkerDied
from asr.pcm import to_float32, to_int16
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Audio, Hypothesis, ordered
from asr.workers import call
from asr.workers.pool import ProcessPool
from tests.support import makers
from tests.support.burning import burn
from tests.support.paths import SAMPLES
from tests.support.strategies import NASTY_TEXTS


@pytest.fixture(scope="module")
def forced():
    return ForcedAligner()


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def aligner(runner):
    aligner = SphinxAligner(2)
    runner.run(aligner.open())
    yield aligner
    runner.run(aligner.close())


@functools.cache
def sample(name):
    """Read the samples and words of a sample recording."""
    (file,) = [file for file in SAMPLES.glob(f"{name}.*") if file.suffix != ".json"]
    about = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    blocks = list(decode(file, AudioLimits()).blocks)
    return np.concatenate(blocks), about["words"]


def stretch(name, seconds):
    """Return the audio and the words of a sample up to `seconds`."""
    samples, words = sample(name)
    some = [word for word in words if word["end"] < seconds]
    return Audio(samples[: round(some[-1]["end"] * SAMPLE_RATE) + 1600]), some


def texts(words):
    return [word["text"] for word in words]


def check_words(audio, tokens, words):
    assert [word.text for word in words] == list(tokens)
    ordered(words, 0.0, audio.duration)
    assert all(word.timing in ("aligned", "interpolated") for word in words)
    assert all(word.confidence is not None for word in words if word.timing == "aligned")


@pytest.mark.parametrize("name", ["meeting", "memo", "telephone"])
def test_words_are_where_they_were_said(forced, name):
    audio, truth = stretch(name, 9.0)
    found = forced.align(audio, texts(truth))
    check_words(audio, texts(truth), found.words)
    errors = [
        abs(word.start - known["start"]) for word, known in zip(found.words, truth, strict=True)
    ]
    assert np.median(errors) < 0.03
    assert max(errors) < 0.2
    assert found.unwritten == ()
    assert np.mean([word.confidence for word in found.words]) > 0.85


def test_a_sentence_that_nobody_said(forced):
    audio, truth = stretch("meeting", 9.0)
    invented = ["subscribe", "to", "our", "channel", "right", "now"]
    found = forced.align(audio, [*texts(truth)[:9], *invented, *texts(truth)[9:]])
    rest = found.words[:9] + found.words[15:]
    errors = [abs(word.start - known["start"]) for word, known in zip(rest, truth, strict=True)]
    assert np.quantile(errors, 0.9) < 0.1
    made_up = [word.confidence for word in found.words[9:15]]
    assert np.mean(made_up) < 0.4 < 0.8 < np.mean([word.confidence for word in rest])


def test_a_sentence_that_the_text_lacks(forced):
    audio, truth = stretch("meeting", 9.0)
    found = forced.align(audio, texts(truth[:9] + truth[15:]))
    ((start, end),) = found.unwritten
    assert start == pytest.approx(truth[9]["start"], abs=0.3)
    assert end == pytest.approx(truth[14]["end"], abs=0.3)
    assert found.words[9].start == pytest.approx(truth[15]["start"], abs=0.3)


@pytest.mark.parametrize("name", ["meeting", "lecture"])
def test_a_sentence_that_the_text_lacks_in_noise(forced, name):
    audio, truth = stretch(name, 9.0)
    loud = audio.samples[np.abs(audio.samples) > 0.01]
    noise = np.random.default_rng(3).normal(0, loud.std() / 10**0.5, len(audio.samples))
    noisy = Audio((audio.samples + noise).astype(np.float32))
    assert forced.align(noisy, texts(truth)).unwritten == ()
    spans = forced.align(noisy, texts(truth[:6] + truth[12:])).unwritten
    assert spans[0][0] == pytest.approx(truth[6]["start"], abs=0.3)
    assert spans[-1][1] < truth[12]["start"] + 0.3
    assert sum(end - start for start, end in spans) > 1.0


def test_music_between_sentences_is_no_speech(forced):
    audio, truth = stretch("meeting", 9.0)
    music = plucked(2.0) * audio.samples.std()
    found = forced.align(interrupted(audio, truth, music)[0], texts(truth))
    assert found.unwritten == ()


def test_another_speaker_between_sentences_is_speech(forced):
    audio, truth = stretch("meeting", 9.0)
    other = stretch("memo", 3.0)[0].samples
    both, at = interrupted(audio, truth, other * audio.samples.std() / other.std())
    ((start, end),) = forced.align(both, texts(truth)).unwritten
    assert at - 0.3 < start < end < at + len(other) / SAMPLE_RATE + 0.3
    assert end - start > 0.5 * len(other) / SAMPLE_RATE


def interrupted(audio, truth, sound):
    """Insert a sound into the longest pause; return the audio and the start of the sound."""
    gaps = [after["start"] - before["end"] for before, after in pairwise(truth)]
    place = int(np.argmax(gaps)) + 1
    at = round((truth[place - 1]["end"] + truth[place]["start"]) / 2 * SAMPLE_RATE)
    samples = np.concatenate((audio.samples[:at], sound, audio.samples[at:]))
    return Audio(samples.astype(np.float32)), at / SAMPLE_RATE


def plucked(seconds):
    """Make music of plucked strings, four chords per second, with a power of 1."""
    random = np.random.default_rng(5)
    music = np.zeros(round(seconds * SAMPLE_RATE))
    for start in range(0, len(music), SAMPLE_RATE // 4):
        time = np.arange(len(music) - start) / SAMPLE_RATE
        for pitch in 110.0 * 2 ** (random.choice(24, 3, replace=False) / 12):
            tones = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 9))
            music[start:] += np.exp(-3 * time) * tones
    return music / music.std()


def test_silent_tokens_lie_between_their_neighbours(forced):
    audio, truth = stretch("meeting", 3.5)
    tokens = ["\u2014", *texts(truth)[:4], "\U0001f600", *texts(truth)[4:], "日本語"]
    found = forced.align(audio, tokens)
    check_words(audio, tokens, found.words)
    silent = (found.words[0], found.words[5], found.words[-1])
    assert {(word.timing, word.confidence) for word in silent} == {("interpolated", None)}
    assert all(word.timing == "aligned" for word in (*found.words[1:5], *found.words[6:-1]))


def test_a_long_recording_is_searched_in_windows(forced, monkeypatch):
    monkeypatch.setattr("asr.align.hmm.forced.WINDOW_SECONDS", 8.0)
    monkeypatch.setattr("asr.align.hmm.forced.DOUBTED_SECONDS", 3.0)
    audio, truth = stretch("meeting", 19.0)
    found = forced.align(audio, texts(truth))
    check_words(audio, texts(truth), found.words)
    errors = [
        abs(word.start - known["start"]) for word, known in zip(found.words, truth, strict=True)
    ]
    assert np.median(errors) < 0.03
    assert max(errors) < 0.3


@pytest.mark.parametrize("n_samples", [0, 1, 409, 410, 1000, 16_000])
def test_audio_with_no_speech_in_it(forced, n_samples):
    for samples in (makers.silence(n_samples / SAMPLE_RATE), makers.noise(n_samples / SAMPLE_RATE)):
        audio = Audio(samples)
        found = forced.align(audio, ["hello", "there"])
        check_words(audio, ["hello", "there"], found.words)
        assert all(word.confidence < 0.5 for word in found.words)


def test_scores_leave_no_file_behind(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scorer = Scorer()
    pcm = stretch("meeting", 2.0)[0].pcm16()
    senones = scorer.phones.all_monophones
    first, again = scorer.score(pcm, senones), scorer.score(pcm, senones)
    assert len(first) == pytest.approx(len(pcm) / 320, abs=3)
    assert (first.values == again.values).all()  # no state is carried over
    assert first.values.std() > 1
    assert list(tmp_path.iterdir()) == []


def test_more_text_than_anyone_can_say(forced):
    audio, _ = stretch("meeting", 2.0)
    tokens = ["word"] * 3000
    found = forced.align(audio, tokens)
    check_words(audio, tokens, found.words)
    assert all(word.timing == "interpolated" for word in found.words)


TOKENS = st.sampled_from([*NASTY_TEXTS, "good", "morning", "$3.50", "x" * 500]).map(
    lambda text: "".join(text.split()) or "\u2014"
) | st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: text.split() == [text]
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(tokens=st.lists(TOKENS, max_size=9), start=st.integers(0, 9), n_tenths=st.integers(0, 12))
def test_any_tokens_give_as_many_words(forced, tokens, start, n_tenths):
    samples, _ = MEETING
    audio = Audio(samples[start * 8000 : start * 8000 + n_tenths * 1600])
    found = forced.align(audio, tokens)
    check_words(audio, tokens, found.words)
    assert all(0 <= begin < end <= audio.duration for begin, end in found.unwritten)
    assert all(before[1] <= after[0] for before, after in pairwise(found.unwritten))


MEETING = sample("meeting")


# --- in child processes ---------------------------------------------------------------------------


def hypothesis_of(words, **more):
    return Hypothesis(4, " ".join(texts(words)), **more)


def test_the_child_process_gives_the_same_result(runner, aligner, forced):
    audio, truth = stretch("meeting", 5.0)
    pcm = to_float32(to_int16(audio.samples))
    direct = forced.align(Audio(pcm), texts(truth))
    timed = runner.run(aligner.align(audio, hypothesis_of(truth, avg_logprob=-0.2)))
    assert timed.words == direct.words
    assert timed.unwritten == direct.unwritten
    assert (timed.chunk_index, timed.avg_logprob, timed.warnings) == (4, -0.2, ())


def test_nothing_to_align(runner, aligner):
    audio = Audio(makers.silence(1))
    timed = runner.run(aligner.align(audio, Hypothesis(0, "  ")))
    assert timed.words == ()


def test_words_without_evidence_keep_the_confidence_of_the_engine(runner, aligner):
    audio, truth = stretch("meeting", 3.0)
    words = [*texts(truth), "\u2014"]
    sure = (0.5,) * len(words)
    heard = Hypothesis(0, " ".join(words), word_confidences=sure)
    timed = runner.run(aligner.align(audio, heard))
    assert timed.words[-1].confidence == 0.5
    assert timed.words[0].confidence != 0.5


def test_text_is_kept_if_the_alignment_takes_too_long(runner, aligner, monkeypatch, caplog):
    asked = burn(aligner._pool, monkeypatch)
    audio, words = stretch("memo", 3)
    timed = runner.run(aligner.align(audio, hypothesis_of(words)))
    assert [limits.cpu_seconds for limits in asked] == [36]
    assert [word.text for word in timed.words] == texts(words)
    assert {word.timing for word in timed.words} == {"interpolated"}
    assert timed.warnings == ("the words could not be aligned; their times are estimates",)
    assert "alignment of chunk 4 failed" in caplog.text


def killed(pool, monkeypatch, n_kills, message):
    """Let the first `n_kills` children of a pool end by SIGKILL."""
    real, kills = pool.job, []

    @contextlib.asynccontextmanager
    async def job(*arguments):
        async with real(*arguments) as running:
            if len(kills) < n_kills:
                kills.append(arguments)
                raise WorkerDied(message, signal=signal.SIGKILL)
            yield running

    monkeypatch.setattr(pool, "job", job)
    monkeypatch.setattr(call, "PAUSE_SECONDS", 0.0)
    return kills


def test_words_keep_their_times_when_a_child_is_killed(runner, aligner, monkeypatch):
    audio, words = stretch("memo", 3)
    hypothesis = hypothesis_of(words)
    undisturbed = runner.run(aligner.align(audio, hypothesis))
    kills = killed(aligner._pool, monkeypatch, call.TRIES - 1, "killed")
    assert runner.run(aligner.align(audio, hypothesis)) == undisturbed
    assert len(kills) == call.TRIES - 1


def test_words_are_not_guessed_while_somebody_kills_the_children(runner, aligner, monkeypatch):
    """The job is repeated later. Guessed times would differ from those of a quiet run."""
    audio, words = stretch("memo", 3)
    kills = killed(aligner._pool, monkeypatch, call.TRIES, "killed")
    with pytest.raises(WorkerDied, match="killed"):
        runner.run(aligner.align(audio, hypothesis_of(words)))
    assert len(kills) == call.TRIES


def test_models_that_do_not_load(capfd):
    aligner = SphinxAligner(1)
    aligner._pool = ProcessPool(["tests.support.child_jobs:fail_to_load"], 1)

    async def run():
        with pytest.raises(EngineUnavailable, match="the aligner did not load"):
            await aligner.open()
        await aligner.close()

    asyncio.run(run())
    assert "this template does not load" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, SphinxAligner),  # pocketsphinx times what it recognises, but cannot time a known text
        ({"aligner": "sphinx"}, SphinxAligner),
        ({"vllm_url": "http://127.0.0.1:1"}, SphinxAligner),
        ({"aligner": "none"}, None),
    ],
)
def test_the_settings_select_the_aligner(values, kind):
    made = load_aligner(Settings(**values))
    assert made is None if kind is None else isinstance(made, kind)
