"""Known speakers on the command line, with a tiny model."""

import numpy as np
import pytest
import soundfile

from asr import cli
from asr.pipeline import transcriber as pipeline
from tests.support.fakes import FakeEngine
from tests.support.voices import voice, write_model


@pytest.fixture(autouse=True)
def fake(monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline, "load_engine", lambda _: FakeEngine(2))
    monkeypatch.setenv("ASR_SPEAKER_MODEL", str(write_model(tmp_path / "tiny.onnx")))
    monkeypatch.setenv("ASR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ASR_VAD", "off")
    monkeypatch.chdir(tmp_path)
    soundfile.write("ann.wav", voice(3000, 6), 16_000)
    soundfile.write("short.wav", voice(3000, 0.5), 16_000)
    soundfile.write("talk.wav", np.concatenate((voice(300, 6), voice(3000, 6, seed=1))), 16_000)


def run(capsys, *arguments):
    code = cli.main(arguments)
    return code, capsys.readouterr()


def test_a_voice_is_enrolled_used_and_forgotten(capsys):
    assert run(capsys, "speakers", "enrol", "Ann", "ann.wav")[0] == 0
    assert run(capsys, "speakers", "list")[1].out == "Ann\n"
    code, output = run(
        capsys, "transcribe", "-q", "-f", "rttm", "--known-speaker", "Ann", "talk.wav"
    )
    assert (code, {line.split()[7] for line in output.out.splitlines()}) == (0, {"A", "Ann"})
    assert run(capsys, "speakers", "forget", "ann")[0] == 0
    assert run(capsys, "speakers", "list")[1].out == ""


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("Bob", "'Bob' is no stored voice: write NAME=FILE"),
        ("Bob=none.wav", "none.wav: no such file"),
        ("Bob=short.wav", "short.wav has 0.5 s of speech"),
        ("Bob=talk.wav", "talk.wav has several voices"),
    ],
)
def test_a_known_speaker_that_cannot_be_used_is_named(capsys, known, said):
    code, output = run(capsys, "transcribe", "-q", "--known-speaker", known, "talk.wav")
    assert code != 0
    assert said in output.err
