"""What happens to unlucky users: paths that vanish, folders that are removed, hanging tasks."""

import io
import json
import os
import signal
import time
from concurrent.futures import Future

import pytest

from asr.batch import alone, progress, records, stall, worker
from asr.batch.faults import SourceError, fault_of
from asr.batch.index import NAME, Index
from asr.batch.manifest import Row, write_manifest
from asr.batch.progress import Progress
from asr.batch.results import ATTEMPTS
from asr.batch.signals import Signals, terminable, unchanged
from asr.batch.sources import list_sources
from asr.batch.store import LocalStore
from asr.batch.tasks import Job
from asr.config import KnownVoice, Options, SpeakerOptions
from asr.errors import InvalidOption
from asr.pipeline.transcriber import collect
from tests.batch.inline import Inline, job_for, run, talk
from tests.support import makers


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(worker, "PAUSES", (0.0, 0.0))


def rows(out):
    lines = (out / "manifest.jsonl").read_text().splitlines()
    return {row["path"].rpartition("/")[2]: row for row in map(json.loads, lines)}


@pytest.fixture
def speech(tmp_path):
    (tmp_path / "in").mkdir()
    return makers.write(tmp_path / "in" / "a.wav", talk(2.0, 1))


# --- paths ---------------------------------------------------------------------------------------


def test_a_copy_takes_the_place_of_a_path_that_vanished_and_a_moved_file_is_no_failure(
    speech, tmp_path
):
    out, copy = tmp_path / "out", speech.with_name("b.wav")
    copy.write_bytes(speech.read_bytes())

    def vanish(task):
        if task.kind == "file" and task.path == str(speech):
            speech.rename(tmp_path / "moved.wav")

    job = job_for(out, tmp_path)
    outcome = run(job, [speech.parent], Inline(vanish))
    assert (outcome.n_done, outcome.n_failed) == (1, 1)
    table = rows(out)
    assert (table["a.wav"]["status"], table["a.wav"]["fault"]) == ("failed", "path")
    assert "No such file" in table["a.wav"]["error"]
    assert table["b.wav"]["status"] == "done"
    assert run(job, [tmp_path / "moved.wav", copy], Inline()).n_done == 2
    assert len(list(out.glob("transcripts/*/*.json"))) == 1


def test_a_file_that_vanished_is_looked_at_again_under_any_name(speech, tmp_path):
    out, moved = tmp_path / "out", tmp_path / "moved.wav"
    twin = speech.with_name("x.wav")  # of the same size, so both are hashed first
    twin.write_bytes(bytes(speech.stat().st_size))

    def vanish(task):
        if task.kind == "file" and task.path == str(speech):
            speech.rename(moved)

    job = job_for(out, tmp_path)
    run(job, [speech.parent], Inline(vanish))
    assert rows(out)["a.wav"]["fault"] == "path"
    assert run(job, [moved], Inline()).n_done == 1


def test_a_file_that_changes_while_it_is_transcribed_gets_no_result(speech, tmp_path, monkeypatch):
    job, old = job_for(tmp_path / "out", tmp_path), speech.read_bytes()

    async def changed(events, on_event=None):
        transcript = await collect(events, on_event)
        speech.write_bytes(old + b"\0\0")
        return transcript

    monkeypatch.setattr(worker, "collect", changed)
    assert run(job, [speech]).n_failed == 1
    assert not list((tmp_path / "out").glob("transcripts/*/*"))
    assert rows(tmp_path / "out")["a.wav"]["fault"] == "path"
    monkeypatch.undo()
    assert run(job, [speech]).n_done == 1


def test_trouble_with_a_path_is_not_the_fault_of_the_recording():
    assert fault_of(SourceError("x")) == "path"


def test_names_that_are_not_utf_8(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.wav\n")
    found = list_sources([str(tmp_path / "list.txt")]).sources
    assert [(source.path, source.error) for source in found] == [(str(tmp_path / name), "")]
    store = LocalStore(tmp_path)
    write_manifest(store, [Row(name, error=f"no {name}", warnings=(name,))])
    row = json.loads((tmp_path / "manifest.jsonl").read_text())
    assert (row["error"], row["warnings"]) == ("no caf\\udce9.wav", ["caf\\udce9.wav"])


def test_a_folder_that_cannot_be_listed_says_why(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.wav").write_bytes(b"x")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = {source.path: source.error for source in list_sources([str(tmp_path)]).sources}
    assert found == {
        str(tmp_path / "a.wav"): "",
        str(tmp_path / "locked"): "cannot be listed: Permission denied",
    }


# --- the output folder ----------------------------------------------------------------------------


def test_the_manifest_can_be_read_while_the_run_goes_on(speech, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(records, "SHARE", 0.0)
    makers.write(speech.with_name("b.wav"), talk(3.0, 2))
    out, seen = tmp_path / "out", []

    def look(_):
        seen.append(sorted(row["status"] for row in rows(out).values()))

    run(job_for(out, tmp_path), [speech.parent], Inline(look))
    assert seen == [["pending", "pending"], ["done", "pending"]]


def test_an_output_folder_that_is_removed_ends_the_run_with_an_error(speech, tmp_path):
    out = tmp_path / "out"

    def remove(_):
        out.rename(tmp_path / "gone")

    outcome = run(job_for(out, tmp_path), [speech], Inline(remove))
    assert "removed or replaced" in outcome.trouble


def test_a_disk_that_is_full_ends_the_run_with_an_error(speech, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "write_manifest", full)
    outcome = run(job_for(tmp_path / "out", tmp_path), [speech])
    assert "No space" in outcome.trouble
    assert outcome.n_pending == 1


def test_damaged_notes_cost_no_more_than_work(speech, tmp_path):
    out = tmp_path / "out"
    job = job_for(out, tmp_path)
    run(job, [speech])
    index = out / NAME
    index.write_bytes(b'\xff{\n[1]\n[["a"], 1, "s", "c"]\n' + index.read_bytes() + b'\n["half')
    for note in out.glob(".batch/done/*/*.json"):
        note.write_text('{"content"')
    assert Index(LocalStore(out)).get(list_sources([str(speech)]).sources[0]) is not None
    executor = Inline()
    assert run(job, [speech], executor).n_done == 1
    assert executor.kinds == ["file"]


# --- ends ----------------------------------------------------------------------------------------


def test_the_first_signal_interrupts_the_second_waits_and_the_third_interrupts():
    told = Signals()
    told.check()
    with pytest.raises(KeyboardInterrupt):
        told(signal.SIGINT, None)
    told(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        told(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        told.check()


def test_a_closed_terminal_ends_a_run_unless_nohup_ignores_it():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminable():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with pytest.raises(KeyboardInterrupt), terminable():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_counts_signals_with_the_command_around_it():
    with terminable() as outer:
        with pytest.raises(KeyboardInterrupt), terminable() as inner:
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # while Ray ends, say; it is ignored
        assert inner is outer
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_handler_of_ray_is_replaced_by_ours():
    def end(status, _):
        raise SystemExit(status)

    def start():
        signal.signal(signal.SIGTERM, end)
        os.kill(os.getpid(), signal.SIGTERM)

    with terminable() as ours:
        with pytest.raises(KeyboardInterrupt), unchanged():
            start()
        assert signal.getsignal(signal.SIGTERM) is ours


def test_ctrl_c_makes_no_task_suspect(speech, tmp_path):
    out = tmp_path / "out"
    (out / ATTEMPTS).mkdir(parents=True)

    def interrupt(_):
        (out / ATTEMPTS / "running").touch()
        os.kill(os.getpid(), signal.SIGINT)

    assert run(job_for(out, tmp_path), [speech], Inline(interrupt)).is_interrupted
    assert not list((out / ATTEMPTS).iterdir())


def test_an_interrupt_that_python_lost_is_noticed_at_the_next_answer(speech, tmp_path):
    makers.write(speech.with_name("b.wav"), talk(3.0, 2))

    def lost(_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pthread_sigmask(signal.SIG_BLOCK, [])  # Python handles signals here at latest
        except KeyboardInterrupt:
            pass

    executor = Inline(lost)
    assert run(job_for(tmp_path / "out", tmp_path), [speech.parent], executor).is_interrupted
    assert len(executor.tasks) == 1


def test_a_task_without_progress_ends_its_process(monkeypatch):
    class Ended(BaseException):
        pass

    def end(status):
        raise Ended(status)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(stall, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(stall, "STALL_SECONDS", 0.0)
    with pytest.raises(Ended):
        stall.wait(Future(), stall.Beat())
    assert alone._named(stall.STATUS) == "it made no progress for an hour"
    assert alone._named(3) == "exit status 3"


def test_a_task_with_progress_may_take_any_time(monkeypatch):
    future, clock = Future(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    beat = stall.Beat()

    def poll(futures, _):
        clock[0] += stall.STALL_SECONDS
        beat()
        if clock[0] > 5 * stall.STALL_SECONDS:
            future.set_result("done")
        return type("Waited", (), {"done": {it for it in futures if it.done()}})

    monkeypatch.setattr(stall, "wait_for", poll)
    assert stall.wait(future, beat) == "done"


def test_a_line_appears_although_no_answer_comes(monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.001)
    stream = io.StringIO()
    bar = Progress(hidden=False, stream=stream)
    with bar.ticking():
        while stream.getvalue().count("\n") < 2:
            time.sleep(0.001)
    assert "files, RTFx" in stream.getvalue()


def test_a_terminal_that_was_closed_does_not_end_the_run():
    class Closed(io.StringIO):
        def write(self, _):
            raise OSError(5, "Input/output error")

    bar = Progress(hidden=False, stream=Closed())
    bar.draw()
    assert not bar.is_due


# --- speakers ------------------------------------------------------------------------------------


def test_a_job_with_speakers_survives_its_way_and_has_its_own_name(tmp_path, monkeypatch):
    monkeypatch.setattr("asr.batch.run.obstacle", lambda _: "")
    monkeypatch.setattr("asr.batch.identity.model_id", lambda name: name or "installed")
    voices = (KnownVoice("Ann", "AAAA", 12.0),)
    options = Options(speakers=SpeakerOptions(2, 5, voices))
    job = job_for(tmp_path, tmp_path, options=options)
    assert Job.unpack(job.pack()) == job
    others = [
        job_for(tmp_path, tmp_path),
        job_for(tmp_path, tmp_path, options=Options(speakers=SpeakerOptions(2, 5))),
        job_for(tmp_path, tmp_path, options=options, speaker_model="other.onnx"),
    ]
    assert len({it.fingerprint for it in (job, *others)}) == 4


def test_a_speaker_model_that_is_missing_is_an_error_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("asr.batch.run.obstacle", lambda _: "run asr speakers install")
    with pytest.raises(InvalidOption, match="speakers install"):
        job_for(tmp_path, tmp_path, options=Options(speakers=SpeakerOptions()))
