"""The command line in this process, with a fake engine."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from asr import cli
from asr.errors import EngineFailed
from asr.pipeline import transcriber as pipeline
from tests.support import makers
from tests.support.fakes import FakeEngine


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(pipeline, "load_engine", lambda _: FakeEngine(2))


@pytest.fixture
def call(tmp_path):
    sides = [makers.bursts(9, [(1, 3), (6, 8)]), makers.bursts(9, [(3.5, 5)])]
    return str(makers.write(tmp_path / "call.wav", np.stack(sides, axis=1)))


def run(capsys, *arguments):
    code = cli.main(arguments)
    return code, capsys.readouterr()


def test_subtitle_flags_shape_cues(capsys, call):
    code, said = run(
        capsys, "transcribe", call, "-f", "vtt", "--max-line-width", "10", "--max-line-count", "1",
        "--min-gap", "0.2", "--highlight-words",
    )  # fmt: skip
    assert code == 0
    assert "STYLE" in said.out
    lines = [line for line in said.out.splitlines() if "w" in line and "-->" not in line]
    assert lines
    code, said = run(capsys, "transcribe", call, "-f", "srt", "--max-line-width", "9")
    assert code == cli.USAGE_ERROR
    assert "max_line_width: must be 10 to 500" in said.err


def test_channels_apart(capsys, call):
    code, said = run(capsys, "transcribe", call, "-f", "json", "--channels", "split")
    assert code == 0
    segments = json.loads(said.out)["segments"]
    assert [s["speaker"] for s in segments] == ["channel 0", "channel 1", "channel 0"]
    _, said = run(capsys, "transcribe", call, "-f", "srt", "--channels", "split")
    assert "channel 1: c0w0" in said.out


def test_a_chunk_that_fails_ends_the_command_or_leaves_a_gap(capsys, call, monkeypatch):
    def answer(chunk):
        if chunk.index == 1:
            raise EngineFailed("it refuses")
        return FakeEngine()._speak(chunk)

    monkeypatch.setattr(pipeline, "load_engine", lambda _: FakeEngine(2, answer=answer))
    quiet = ("transcribe", call, "-q", "--channels", "split")
    code, said = run(capsys, *quiet)
    assert (code, said.out) == (1, "")
    assert "it refuses" in said.err
    code, said = run(capsys, *quiet, "--on-error", "gap")
    assert code == 0
    assert "[missing 0:0" in said.out
    assert "could not be transcribed" in said.err


def test_evaluate_without_its_extra_names_it(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("asr.evaluation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jiwer", None)
    code, said = run(capsys, "evaluate", "manifest.jsonl")
    assert code == cli.USAGE_ERROR
    assert "pip install 'asr-service[evaluation]'" in said.err


def test_help_imports_nothing_heavy():
    heavy = ["litserve", "fastapi", "pydantic", "sqlalchemy", "jiwer", "librosa", "torch", "vllm"]
    code = "import asr.cli, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert not set(done.stdout.decode().split()) & set(heavy)
