"""The command line in this process, with a fake engine."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from asr import cli
from asr.errors import EngineFailed
from asr.evaluation import read_manifest
from asr.pipeline import transcriber as pipeline
from asr.types import Hypothesis
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


def speaks(text):
    """A replacement for ``load_engine`` whose engine answers each chunk with `text`."""
    return lambda _: FakeEngine(2, answer=lambda chunk: Hypothesis(chunk.index, text))


@contextlib.contextmanager
def fed(pipe, data):
    """Write `data` to a pipe, as another process would."""
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    yield
    writer.join()


def test_named_pipes_are_read_as_files(capsys, call, tmp_path):
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    with fed(pipe, Path(call).read_bytes()):
        code, said = run(capsys, "transcribe", str(pipe), "-f", "json", "-o", str(tmp_path / "out"))
    assert code == 0, said.err
    assert json.loads((tmp_path / "out" / "pipe.json").read_text())["duration"] == 9.0


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_process_substitution_is_read(capsys, call, name):
    reading, writing = os.pipe()
    data = Path(call).read_bytes()
    with os.fdopen(writing, "wb") as target:
        writer = threading.Thread(target=lambda: (target.write(data), target.close()))
        writer.start()
        code, said = run(capsys, "transcribe", name.format(reading), "-f", "json")
        writer.join()
    os.close(reading)
    assert code == 0, said.err
    assert json.loads(said.out)["duration"] == 9.0


def test_dev_stdin_is_read(capsys, call):
    with Path(call).open("rb") as recording, os.fdopen(os.dup(0)) as before:
        os.dup2(recording.fileno(), 0)
        try:
            code, said = run(capsys, "transcribe", "/dev/stdin", "-f", "json")
        finally:
            os.dup2(before.fileno(), 0)
    assert code == 0, said.err
    assert json.loads(said.out)["duration"] == 9.0


def test_what_can_never_be_read_to_its_end_is_refused(capsys, tmp_path):
    code, said = run(capsys, "transcribe", "/dev/zero", str(tmp_path), "/dev/fd/999999")
    assert code == 1
    assert "/dev/zero: not a regular file" in said.err
    assert f"{tmp_path}: not a regular file" in said.err
    assert "Bad file descriptor" in said.err


def test_a_manifest_may_come_through_a_pipe(tmp_path):
    pipe = tmp_path / "manifest"
    os.mkfifo(pipe)
    with fed(pipe, b'{"file": "a.wav", "text": "a"}'):
        assert [it.file for it in read_manifest(pipe)] == [Path("a.wav")]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_a_stdout_of_another_encoding_gets_utf8(call, encoding, monkeypatch, tmp_path):
    monkeypatch.setenv("ASR_ALIGNER", "none")
    monkeypatch.setattr(pipeline, "load_engine", speaks("c\u2019est \u65e5\u672c"))
    piped = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", piped)
    assert cli.main(["transcribe", call, "-f", "srt", "--quiet"]) == 0
    piped.flush()
    assert "c\u2019est" in piped.buffer.getvalue().decode("utf-8")
    assert cli.main(["transcribe", call, "-o", str(tmp_path), "--quiet"]) == 0
    assert "c\u2019est" in (tmp_path / "call.txt").read_text("utf-8")


def test_a_terminal_of_another_encoding_gets_escapes(call, monkeypatch):
    monkeypatch.setenv("ASR_ALIGNER", "none")
    monkeypatch.setattr(pipeline, "load_engine", speaks("c\u2019est"))

    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    terminal = Terminal(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert cli.main(["transcribe", call, "--quiet"]) == 0
    terminal.flush()
    assert b"c\\u2019est" in terminal.buffer.getvalue()
