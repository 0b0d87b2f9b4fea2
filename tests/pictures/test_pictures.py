"""Pictures and clips: the written files are read back and checked."""

from __future__ import annotations

import json
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import soundfile

from asr import cli
from asr.audio.recording import Recording
from asr.errors import InvalidOption
from asr.evaluation import Report, Result, Utterance
from asr.pictures import plot as pictures
from asr.pictures.clips import ClipWriter
from asr.pictures.inspection import Inspection
from asr.pictures.plot import MAX_SECONDS, plot, plot_errors
from asr.types import SAMPLE_RATE, Audio, Chunk, Segment, SpeechRegion, Transcript, Word
from tests.support import makers
from tests.support.fakes import FakeEngine
from tests.support.paths import ROOT

SPANS = [(1, 5), (7, 12), (14, 22)]


def inspection(seconds=24.0, start=0.0, words=None, warnings=()):
    spoken = words or (
        Word("$5", 1, 1.5, 0.9, "aligned"),
        Word("x_{2}", 2, 4, None, "interpolated"),
    )
    segment = Segment(0, spoken[0].start, spoken[-1].end, "", tuple(spoken), warnings=warnings)
    transcript = Transcript((segment,), "en", seconds, 17, 7, "fake engine", "exact")
    regions = tuple(SpeechRegion(a * SAMPLE_RATE, b * SAMPLE_RATE) for a, b in SPANS)
    chunks = (
        Chunk(0, SAMPLE_RATE, 13 * SAMPLE_RATE),
        Chunk(1, 12 * SAMPLE_RATE, 22 * SAMPLE_RATE, SAMPLE_RATE),
    )
    audio = Audio(makers.bursts(seconds, SPANS))
    return Inspection(audio, start, regions, chunks, transcript)


def pixels(path):
    return matplotlib.image.imread(path)[:, :, :3]


def has_colour(image, red, green, blue, tolerance=0.06):
    return bool((np.abs(image - [red, green, blue]) < tolerance).all(axis=2).any())


def test_a_picture_shows_confidence_and_flags(tmp_path):
    plot(inspection(warnings=("spoken by nobody",)), tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    assert image.shape[1] == round(pictures.WIDTH_INCHES * pictures.DPI)
    assert has_colour(image, 0.84, 0.15, 0.16)  # flagged
    assert has_colour(image, 0.8, 0.8, 0.8)  # confidence unknown
    plot(inspection(), tmp_path / "b.png")
    assert (pixels(tmp_path / "b.png") != image).any()


def test_a_picture_grows_with_its_stretch(tmp_path):
    heights = []
    for seconds in (1.0, 15.0, 24.0):
        plot(inspection(max(seconds, 24.0)) if seconds > 20 else short(seconds), tmp_path / "a.png")
        heights.append(pixels(tmp_path / "a.png").shape[0])
    assert heights[0] == heights[1] < heights[2]


def short(seconds):
    made = inspection()
    return Inspection(
        Audio(made.audio.samples[: round(seconds * SAMPLE_RATE)]), 0.0, made.regions, made.chunks,
        made.transcript,
    )  # fmt: skip


def test_odd_recordings_can_be_drawn(tmp_path):
    silent = Transcript((), "en", 0.5, 0, 0.5, "fake")
    plot(Inspection(Audio(makers.silence(0.5)), 0.0, (), (), silent), tmp_path / "a.png")
    late = inspection(start=100.0)
    plot(late, tmp_path / "b.png")
    assert pixels(tmp_path / "b.png").size


def test_a_picture_has_its_limit(tmp_path):
    with pytest.raises(InvalidOption, match="300 seconds at most"):
        plot(inspection(MAX_SECONDS + 1), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def report_of(tmp_path, *late):
    """An evaluation in which each word is late by the given seconds."""
    words = tuple(Word(f"w{i}", 1.0 + i, 1.5 + i) for i in range(len(late)))
    heard = tuple(Word(w.text, w.start + s, w.end + s) for w, s in zip(words, late, strict=True))
    text = " ".join(word.text for word in words) or "never heard"
    segment = Segment(0, 0.0, 999.0, text, heard)
    transcript = Transcript((segment,), "en", 99, 99, 0, "fake")
    utterance = Utterance(tmp_path / "a_$1.wav", text, words=words)
    return Report((Result(utterance, transcript if late else None, 1.0),))


@pytest.mark.parametrize("late", [(), (0.01, -0.02, 0.5, 0.03)])
def test_errors_of_an_evaluation(tmp_path, late):
    paths = plot_errors(report_of(tmp_path, *late), tmp_path / "new", 0.2)
    assert [path.name for path in paths] == ["times.png", "files.png"]
    assert all(pixels(path).std() > 0.01 for path in paths)


@pytest.mark.parametrize(("module", "option"), [("matplotlib", "plot"), ("pydub", "clips")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module, option):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidOption, match=rf"pip install 'asr-service\[{option}\]'"):
        plot(inspection(), tmp_path / "a.png") if option == "plot" else ClipWriter(tmp_path, 0)


def test_nothing_of_the_extras_is_imported_without_need():
    code = "import asr, asr.cli, asr.service, sys; print([m for m in sys.modules if m in NAMES])"
    code = code.replace("NAMES", "('librosa', 'matplotlib', 'pydub')")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- clips --------------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "audio.pcm"
    samples = makers.tone(10, 300)
    path.write_bytes(Audio(samples).pcm16())
    return Recording(path), samples


def test_a_clip_is_its_stretch_with_soft_edges(tmp_path, recording):
    file, samples = recording
    writer = ClipWriter(tmp_path / "clips", 0.1)
    path = writer.write(Segment(4, 2.0, 3.5, "A tone.", (), channel=1), file, len(samples))
    assert path.name == "00005.wav"
    clip, rate = soundfile.read(path, dtype="float32")
    assert (rate, len(clip)) == (SAMPLE_RATE, round(1.7 * SAMPLE_RATE))
    source = samples[round(1.9 * SAMPLE_RATE) : round(3.6 * SAMPLE_RATE)]
    middle = slice(400, -400)
    assert np.abs(clip[middle] - source[middle]).max() < 1e-3
    assert np.abs(clip[:20]).max() < 0.1
    (line,) = (tmp_path / "clips" / "clips.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "file": "00005.wav", "start": 1.9, "end": 3.6, "text": "A tone.", "channel": 1,
    }  # fmt: skip


def test_clips_stay_inside_the_recording(tmp_path, recording):
    file, samples = recording
    writer = ClipWriter(tmp_path / "clips", 5)
    path = writer.write(Segment(0, 1.0, 9.0, "", ()), file, len(samples))
    assert soundfile.info(path).frames == len(samples)
    with pytest.raises(InvalidOption):
        ClipWriter(tmp_path, -1)


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.002])
def test_a_clip_too_short_for_fades(tmp_path, recording, seconds):
    file, samples = recording
    writer = ClipWriter(tmp_path / "clips", 0)
    path = writer.write(Segment(0, 1.0, 1.0 + seconds, "", ()), file, len(samples))
    assert soundfile.info(path).frames == round(seconds * SAMPLE_RATE)


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture
def audio(tmp_path, monkeypatch):
    for command in (cli.clips, cli.plot):
        monkeypatch.setattr(command, "load_engine", lambda _: FakeEngine(2))
    return str(makers.write(tmp_path / "talk.wav", makers.bursts(24, SPANS)))


def test_plot_on_the_command_line(audio, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plot", audio, "--start", "3", "--end", "9"]) == 0
    assert capsys.readouterr().out == "talk.png\n"
    assert pixels(tmp_path / "talk.png").std() > 0.05
    for wrong in (["--start", "30"], ["--start", "5", "--end", "4"], ["--end", "9999"]):
        assert cli.main(["plot", audio, *wrong]) == cli.USAGE_ERROR


def test_clips_on_the_command_line(audio, tmp_path):
    assert cli.main(["clips", audio, "-o", str(tmp_path / "clips"), "--padding", "0"]) == 0
    lines = (tmp_path / "clips" / "clips.jsonl").read_text().splitlines()
    files = sorted(path.name for path in (tmp_path / "clips").glob("*.wav"))
    assert [json.loads(line)["file"] for line in lines] == files
    assert len(files) >= 2
    assert soundfile.info(tmp_path / "clips" / files[0]).samplerate == SAMPLE_RATE
