"""The command line as a user runs it: files, exit codes, standard output and error."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import runpy
import signal
import struct
import subprocess
import sys
import termios
from types import SimpleNamespace

import pytest
import soundfile
import srt

from asr.cli import INTERRUPTED, main
from asr.cli.settings import settings_table
from asr.service.transcriptions.bodies import TranscriptBody
from tests.support.paths import ROOT, SAMPLES
from tests.support.serving import clean_env, make_wav, wait_for

MEETING = str(SAMPLES / "meeting.wav")
SILENCE = make_wav(1.0, amplitude=0)
UNALIGNED = {"ASR_ALIGNER": "none"}  # silence has no words; loading the aligner's models is slow


def run_process(*arguments, env=(), check=None, **options):
    """Run `asr` in a new process, which takes a second."""
    done = subprocess.run(
        [sys.executable, "-m", "asr", *arguments],
        **({"capture_output": True} | options),
        cwd=ROOT,
        env=clean_env(dict(env)),
        timeout=60,
        check=False,
    )
    assert done.returncode == check, done.stderr
    return done


@pytest.fixture
def run(monkeypatch, capfdbinary):
    """Run `asr` in this process."""

    def run(*arguments, data=b"", env=(), check=None):
        variables = clean_env(dict(env))
        for name in set(os.environ) - set(variables):
            monkeypatch.delenv(name)
        for name in env:
            monkeypatch.setenv(name, variables[name])
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        try:
            code = main(arguments)
        except SystemExit as end:  # raised by argparse
            code = end.code
        said = capfdbinary.readouterr()
        assert code == check, said.err.decode()
        return SimpleNamespace(stdout=said.out, stderr=said.err)

    return run


@pytest.fixture(scope="module")
def greeting(tmp_path_factory):
    """The first sentence of the meeting, which takes a quarter of the time."""
    samples, rate = soundfile.read(MEETING, frames=int(3.6 * 16_000))
    path = tmp_path_factory.mktemp("greeting") / "greeting.wav"
    soundfile.write(path, samples, rate)
    return str(path)


def test_srt_of_a_recording_to_standard_output(greeting):
    done = run_process("transcribe", greeting, "-f", "srt", check=0)
    cues = list(srt.parse(done.stdout.decode()))
    assert "Good morning, everyone" in cues[0].content
    assert 0.4 < cues[0].start.total_seconds() < 0.8
    assert done.stderr == b""  # no progress bar without a terminal


def test_one_failing_file_does_not_stop_the_others(run, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no audio at all")
    (tmp_path / "silence.wav").write_bytes(SILENCE)
    names = [str(tmp_path / name) for name in ("bad.wav", "missing.wav", "silence.wav")]
    done = run(
        "transcribe", *names, "-f", "json", "-o", str(tmp_path / "out"), env=UNALIGNED, check=1
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["silence.json"]
    message = done.stderr.decode()
    assert "bad.wav: this is not audio that can be read" in message
    assert "missing.wav: no such file\n" in message
    assert "Traceback" not in message
    body = json.loads((tmp_path / "out" / "silence.json").read_text())
    assert TranscriptBody.model_validate(body).duration == 1.0


def test_standard_input(run):
    done = run("transcribe", "-", "-f", "json", data=SILENCE, env=UNALIGNED, check=0)
    assert json.loads(done.stdout)["text"] == ""
    reason = "nothing was recognised: the recording is silent, all samples are zero"
    assert f"asr: -: warning: {reason}\n" in done.stderr.decode()


def test_files_of_the_same_stem_do_not_overwrite_each_other(run, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "x.wav").write_bytes(SILENCE)
    (tmp_path / "x.flac").write_bytes(SILENCE)  # the wrong extension on purpose
    out = tmp_path / "out"
    run(
        "transcribe",
        str(tmp_path / "x.wav"),
        str(tmp_path / "x.flac"),
        "-o",
        str(out),
        env=UNALIGNED,
        check=0,
    )
    assert sorted(path.name for path in out.iterdir()) == ["x.flac.txt", "x.wav.txt"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["transcribe"], "FILE"),
        (["transcribe", "x.wav", "-f", "docx"], "docx"),
        (["transcribe", "x.wav", "--max-line-width", "2"], "max_line_width"),
        (["transcribe", "x.wav", "--engine", "whisper"], "engine"),
        (["transcribe", "x.wav", "--language", "de"], "language"),
        (["serve", "--port", "80"], "port"),
        (["serve", "--port", "many"], "port"),
        (["evaluate", "missing.jsonl"], "manifest"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_exits_2_and_names_what_is_wrong(run, arguments, named, tmp_path):
    (tmp_path / "x.wav").write_bytes(SILENCE)
    arguments = [str(tmp_path / a) if a == "x.wav" else a for a in arguments]
    assert named in run(*arguments, env=UNALIGNED, check=2).stderr.decode()


@pytest.mark.parametrize("command", [["plot"], ["clips", "-o", "out"], ["align", "TEXT"]])
@pytest.mark.parametrize(
    ("name", "why"), [("none.wav", "no such file"), (".", "not a regular file")]
)
def test_a_recording_that_is_none_is_named(run, command, name, why, tmp_path):
    (tmp_path / "text.txt").write_text("two words")
    places = {"out": tmp_path / "out", "TEXT": tmp_path / "text.txt"}
    command = [str(places.get(word, word)) for word in command]
    recording = str(tmp_path / name)
    arguments = [command[0], recording, *command[1:]]
    done = run(*arguments, env=UNALIGNED, check=1)
    assert done.stderr.decode() == f"asr: {recording}: {why}\n"


def test_misspelt_setting_is_told():
    done = run_process("transcribe", MEETING, env={"ASR_ENGIN": "omni"}, check=2)
    assert "ASR_ENGIN: no such setting" in done.stderr.decode()


def test_server_py_takes_the_flags_of_serve_and_names_a_misspelt_variable(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["server.py", "--port", "9000"])
    monkeypatch.setenv("ASR_PROT", "9000")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "server.py"), run_name="__main__")
    assert ended.value.code == 2
    assert "ASR_PROT: no such setting" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["server.py", "--prot", "9000"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "server.py"), run_name="__main__")
    assert "unrecognized arguments: --prot 9000" in capsys.readouterr().err


def test_every_setting_is_a_flag_of_serve(run):
    text = run("serve", "--help", check=0).stdout.decode()
    for row in settings_table().splitlines()[2:]:
        assert row.split("`")[3] in text


def test_evaluation_of_a_manifest(run, tmp_path):
    report = tmp_path / "report.json"
    (tmp_path / "quiet.wav").write_bytes(SILENCE)
    line = {"file": "quiet.wav", "text": "two words", "category": "quiet"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    done = run("evaluate", str(tmp_path / "m.jsonl"), "--json", str(report), env=UNALIGNED, check=0)
    overall = json.loads(report.read_text())["overall"]
    assert (overall["deletions"], overall["hits"], overall["wer"]) == (2, 0, 1.0)
    assert "| quiet | 1 | 0 | 100.00% |" in done.stdout.decode()


def test_bar_on_a_terminal_shows_seconds_and_rtfx(tmp_path):
    (tmp_path / "greeting.wav").write_bytes(make_wav(3.6, amplitude=0))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    arguments = ["transcribe", str(tmp_path / "greeting.wav"), "-o", str(tmp_path)]
    try:
        run_process(*arguments, env=UNALIGNED, check=0, capture_output=False, stderr=theirs)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "greeting.wav: 100%" in shown
    assert "4/4 s of audio" in shown
    assert "RTFx" in shown


def test_ctrl_c_ends_with_130_and_leaves_nothing_half_written(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "asr", "transcribe", str(SAMPLES / "pauses.ogg"), "-o", tmp_path],
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=clean_env({"TMPDIR": str(tmp_path)} | UNALIGNED),
        # A shell's background jobs, which may run the tests, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # tempfile tries the folder with a file of another name, before the command starts.
    wait_for(lambda: list(tmp_path.glob("asr-*")), 60, "a folder of work")
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == INTERRUPTED
    assert list(tmp_path.iterdir()) == []
