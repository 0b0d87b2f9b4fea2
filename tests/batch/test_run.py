"""Whole runs with an executor in this process: exactly once, resume, failures, duplicates."""

import hashlib
import json
import os
import signal
from dataclasses import replace

import pytest

from asr.batch import alone, pieces, worker
from asr.batch.campaign import TRIES, split_seconds
from asr.batch.results import ATTEMPTS
from asr.batch.run import ExecutorLost
from asr.batch.store import LocalStore, Lost
from asr.batch.tasks import Answer, Job, Task
from asr.config import DecodeOptions, Options, SubtitleOptions
from asr.errors import EngineUnavailable
from tests.batch.inline import Inline, campaign_for, job_for, run, talk
from tests.support import makers


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Two recordings, a copy of one, a long one, and two that cannot be used."""
    folder = tmp_path_factory.mktemp("archive")
    makers.write(folder / "a.wav", talk(4.0, 1))
    makers.write(folder / "b.wav", talk(4.0, 2))
    (folder / "copy.wav").write_bytes((folder / "a.wav").read_bytes())
    makers.write(folder / "long.wav", talk(25.0, 3))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_bytes(b"no audio" * 1000)
    return folder


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(worker, "PAUSES", (0.0, 0.0))


def rows(out):
    lines = (out / "manifest.jsonl").read_text().splitlines()
    found = {}
    for line in lines:
        row = json.loads(line)
        found[row["path"].rpartition("/")[2]] = row
    return found


def transcripts(out):
    return {path.name: path.read_bytes() for path in out.glob("transcripts/*/*")}


def test_each_content_is_transcribed_once_and_failures_are_rows(archive, tmp_path):
    out = tmp_path / "out"
    job, executor = job_for(out, tmp_path), Inline()
    outcome = run(job, [archive], executor)
    assert (outcome.n_done, outcome.n_failed, outcome.n_pending) == (4, 2, 0)
    table = rows(out)
    assert {name: row["status"] for name, row in table.items()} == {
        "a.wav": "done",
        "b.wav": "done",
        "copy.wav": "done",
        "long.wav": "done",
        "empty.wav": "failed",
        "text.wav": "failed",
    }
    assert table["copy.wav"]["id"] == table["a.wav"]["id"] != table["b.wav"]["id"]
    assert table["copy.wav"]["duplicate_of"].endswith("/a.wav")
    assert table["empty.wav"]["error"] == "the file is empty"
    assert table["a.wav"]["seconds"] == pytest.approx(4.0)
    assert table["a.wav"]["rtfx"] > 0
    assert set(transcripts(out)) == {
        f"{table[name]['id']}.{kind}"
        for name in ("a.wav", "b.wav", "long.wav")
        for kind in ("json", "srt")
    }
    assert all((out / name).is_file() for name in table["a.wav"]["outputs"])
    assert executor.kinds.count("file") == 5  # not the copy
    assert not list((out / ATTEMPTS).iterdir())
    again = Inline()
    assert run(job, [archive], again) == outcome
    assert again.tasks == []
    assert (executor.n_starts, again.n_starts) == (1, 0)
    assert rows(out) == table


def test_pieces_give_the_same_files_as_one_task(archive, tmp_path):
    run(job_for(tmp_path / "whole", tmp_path), [archive])
    executor = Inline()
    run(job_for(tmp_path / "pieces", tmp_path), [archive], executor, longest=10.0)
    assert executor.kinds.count("piece") >= 3
    assert transcripts(tmp_path / "pieces") == transcripts(tmp_path / "whole")
    assert not list((tmp_path / "pieces/.batch/work").iterdir())


def test_an_interrupted_run_continues(archive, tmp_path):
    out = tmp_path / "out"
    job = job_for(out, tmp_path)

    def interrupt(task):
        if task.kind == "piece" and task.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    outcome = run(job, [archive], Inline(interrupt), longest=10.0)
    assert outcome.is_interrupted
    assert (outcome.n_done, outcome.n_pending) == (3, 1)
    assert rows(out)["long.wav"]["status"] == "pending"
    executor = Inline()
    assert run(job, [archive], executor, longest=10.0).n_done == 4
    pieces = [task.number for task in executor.tasks if task.kind == "piece"]
    assert executor.kinds[0] == "file"
    assert pieces == sorted(pieces)
    assert run(job, [archive], Inline()).n_pending == 0


@pytest.fixture(scope="module")
def whole(archive, tmp_path_factory):
    """The transcript of the long recording, without pieces."""
    folder = tmp_path_factory.mktemp("whole")
    run(job_for(folder, folder), [archive / "long.wav"])
    return transcripts(folder)


def _no_samples(work):
    (work / "audio.pcm").unlink()


def _short_samples(work):
    os.truncate(work / "audio.pcm", 1000)


def _no_plan(work):
    (work / "plan.json").unlink()


@pytest.mark.parametrize("damage", [_no_samples, _short_samples, _no_plan])
def test_a_recording_whose_pieces_were_damaged_begins_again(archive, whole, tmp_path, damage):
    out = tmp_path / "out"
    job, path = job_for(out, tmp_path), archive / "long.wav"

    def hurt(task):
        if task.kind == "piece" and task.number == 1 and not damaged:
            damaged.append(task)
            (work,) = out.glob(".batch/work/*")
            damage(work)

    damaged = []
    outcome = run(job, [path], Inline(hurt), longest=10.0)
    assert (outcome.n_done, outcome.trouble, len(damaged)) == (1, "", 1)
    assert transcripts(out) == whole


def test_pieces_that_are_always_lost_fail_the_recording(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(worker.Worker, "_pieced", _lose)
    job = job_for(tmp_path / "out", tmp_path)
    assert run(job, [archive / "long.wav"], longest=10.0).n_failed == 1
    assert "lost" in rows(tmp_path / "out")["long.wav"]["error"]


@pytest.mark.timeout(30)
def test_the_only_piece_of_a_recording_is_not_tried_for_ever(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "cut", lambda places, _: (tuple(places),))
    monkeypatch.setattr(worker.Worker, "_pieced", _lose)
    tasks = []
    job = job_for(tmp_path / "out", tmp_path)
    assert run(job, [archive / "long.wav"], Inline(tasks.append), longest=10.0).n_failed == 1
    assert len(tasks) == TRIES
    assert "lost" in rows(tmp_path / "out")["long.wav"]["error"]


def test_trouble_before_a_loss_does_not_count_as_a_loss(archive, tmp_path):
    campaign = campaign_for(job_for(tmp_path / "out", tmp_path), [archive / "long.wav"])
    (task,) = campaign.tasks()
    planned = Answer(task, "planned", "row", "content", 25.0, pieces=4)
    campaign.take(planned)
    piece = campaign.tasks()[0]
    for _ in range(TRIES):
        campaign.take(Answer(piece, "failed", "row", "content", error="away", fault="service"))
    campaign.take(Answer(piece, "lost", "row", "content"))
    assert [it.kind for it in campaign.tasks()] == ["file"]
    campaign.take(Answer(task, "failed", "row", "content", error="away", fault="service"))
    assert [it.kind for it in campaign.tasks()] == ["file"]
    for _ in range(TRIES - 1):
        campaign.take(planned)
        campaign.take(Answer(piece, "lost", "row", "content"))
    assert campaign.tasks() == []


def _lose(*_):
    raise Lost("gone")


def test_two_workers_that_stitch_at_once_are_no_failure(archive, tmp_path, monkeypatch):
    real = worker.Worker._stitch

    def late(self, *rest):
        real(self, *rest)  # another worker was faster, and cleared up
        return real(self, *rest)

    monkeypatch.setattr(worker.Worker, "_stitch", late)
    out = tmp_path / "out"
    assert run(job_for(out, tmp_path), [archive / "long.wav"], longest=10.0).n_done == 1
    assert not list(out.glob(".batch/failed/*/*"))


def test_a_late_piece_leaves_nothing_behind(archive, tmp_path, monkeypatch):
    """As when Ray repeats a task although the first one lives."""
    out, path = tmp_path / "out", archive / "long.wav"
    job, real = job_for(out, tmp_path), worker.Worker._recognise
    content = hashlib.sha256(path.read_bytes()).hexdigest()

    def late(self, plan, number, row):
        real(self, plan, number, row)
        if number == len(plan.pieces) - 1:
            self._pieced(Task("piece", str(path), content, number), row, content)  # and stitches
            self._store.write(worker._piece_name(row, number), b"late")

    monkeypatch.setattr(worker.Worker, "_recognise", late)
    assert run(job, [path], longest=10.0).n_done == 1
    assert not list((out / ".batch/work").iterdir())


def test_moved_and_renamed_files_are_recognised(archive, tmp_path):
    out, folder = tmp_path / "out", tmp_path / "in"
    folder.mkdir()
    (folder / "x.wav").write_bytes((archive / "b.wav").read_bytes())
    job = job_for(out, tmp_path)
    run(job, [folder])
    written = transcripts(out)
    (folder / "sub").mkdir()
    (folder / "x.wav").rename(folder / "sub" / "y.wav")
    executor = Inline()
    outcome = run(job, [folder], executor)
    assert outcome.n_done == 1
    assert transcripts(out) == written
    assert rows(out)["y.wav"]["status"] == "done"


def test_a_file_that_changed_in_place_is_transcribed_again(tmp_path):
    out, path = tmp_path / "out", tmp_path / "x.wav"
    makers.write(path, talk(4.0, 1))
    job = job_for(out, tmp_path)
    run(job, [path])
    before, times = rows(out)["x.wav"], path.stat()
    makers.write(path, talk(4.0, 2))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as some tools do
    run(job, [path])
    assert rows(out)["x.wav"]["id"] != before["id"]


def test_settings_that_matter_change_the_id_and_others_do_not(tmp_path):
    prints = [
        job_for(tmp_path, tmp_path).fingerprint,
        job_for(tmp_path, tmp_path, options=Options(channels="split")).fingerprint,
        job_for(tmp_path, tmp_path, options=Options(decode=DecodeOptions("en"))).fingerprint,
        job_for(tmp_path, tmp_path, moonshine_model="base").fingerprint,
    ]
    assert len(set(prints)) == 4
    same = job_for(tmp_path / "b", tmp_path, formats=("vtt",), vllm_api_key="k", port=9000)
    assert same.fingerprint == prints[0]


def test_a_new_format_is_written_from_the_transcript(archive, tmp_path):
    out = tmp_path / "out"
    run(job_for(out, tmp_path), [archive / "a.wav"])
    table = rows(out)["a.wav"]
    job = job_for(out, tmp_path, formats=("srt", "vtt"))
    (out / table["outputs"][1]).unlink()
    executor = Inline()
    run(job, [archive / "a.wav"], executor)
    assert [path.rpartition(".")[2] for path in rows(out)["a.wav"]["outputs"]] == [
        "json",
        "srt",
        "vtt",
    ]
    assert all((out / path).is_file() for path in rows(out)["a.wav"]["outputs"])
    assert rows(out)["a.wav"]["rtfx"] == table["rtfx"]  # it was not transcribed again


def test_failed_recordings_are_tried_again_only_on_request(archive, tmp_path):
    job, path = job_for(tmp_path / "out", tmp_path), archive / "text.wav"
    assert run(job, [path]).n_failed == 1
    executor = Inline()
    assert run(job, [path], executor).n_failed == 1
    assert executor.tasks == []
    assert run(job, [path], executor, retry_failed=True).n_failed == 1
    assert executor.kinds == ["file"]


def test_trouble_of_the_service_is_not_blamed_on_the_recording(archive, tmp_path, monkeypatch):
    job, path = job_for(tmp_path / "out", tmp_path), archive / "a.wav"
    real = worker.make_transcriber

    def broken(*_):
        raise EngineUnavailable("no server")

    monkeypatch.setattr(worker, "make_transcriber", broken)
    outcome = run(job, [path])
    assert outcome.n_failed == 1
    assert rows(tmp_path / "out")["a.wav"]["fault"] == "service"
    monkeypatch.setattr(worker, "make_transcriber", real)
    assert run(job, [path]).n_done == 1


def test_a_run_ends_early_if_every_task_meets_trouble(archive, tmp_path, monkeypatch):
    for number in range(12):
        (tmp_path / f"{number}.wav").write_bytes(b"x" * (number + 1))

    def broken(*_):
        raise EngineUnavailable("no server")

    monkeypatch.setattr(worker, "make_transcriber", broken)
    outcome = run(job_for(tmp_path / "out", tmp_path), sorted(tmp_path.glob("*.wav")))
    assert "no server" in outcome.trouble
    assert outcome.n_pending == 12


def handled(job, task):
    it = worker.Worker(job)
    try:
        return it.handle(task)
    finally:
        it.close()


class Dying(Inline):
    """Leaves the mark of one task as if the process had died, and runs suspects "alone".

    Args:
        poison: name of the recording.
        answer: of the child for it; None if it dies.
    """

    def __init__(self, poison, answer):
        super().__init__()
        self._poison = poison
        self._answer = answer

    def run(self, job, tasks):
        for task in tasks:
            self.tasks.append(task)
            if task.alone:
                yield self._answer(job, task)
            elif task.path.endswith(self._poison):
                it = worker.Worker(job)
                it._tried = self._vanish
                for _ in range(worker.SUSPECT):
                    with pytest.raises(SystemExit):
                        it.handle(task)
                yield it.handle(task)
                it.close()
            else:
                yield from super().run(job, [task])

    @staticmethod
    def _vanish(_):
        raise SystemExit


@pytest.fixture
def _marks_stay(monkeypatch):
    monkeypatch.setattr(LocalStore, "remove", lambda *_: None)


@pytest.mark.usefixtures("_marks_stay")
def test_a_recording_that_kills_its_process_alone_fails(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(alone, "_child", lambda *_: ("", -11))
    out = tmp_path / "out"
    executor = Dying("a.wav", lambda job, task: alone.run_alone(job, task, tmp_path))
    outcome = run(job_for(out, tmp_path), [archive / "a.wav", archive / "b.wav"], executor)
    assert (outcome.n_done, outcome.n_failed) == (1, 1)
    assert "died: signal 11" in rows(out)["a.wav"]["error"]
    assert executor.tasks[-1].alone
    assert run(job_for(out, tmp_path), [archive / "a.wav"], Inline()).n_failed == 1


@pytest.mark.usefixtures("_marks_stay")
def test_a_recording_beside_a_death_is_innocent(archive, tmp_path):
    out = tmp_path / "out"
    executor = Dying("a.wav", handled)
    outcome = run(job_for(out, tmp_path), [archive / "a.wav"], executor)
    assert (outcome.n_done, outcome.n_failed) == (1, 0)


class Silent(Inline):
    """Gives no answers."""

    def run(self, job, tasks):
        self.tasks += tasks
        return iter(())


class Unusable(Inline):
    """Cannot be started, as a cluster that does not answer."""

    def start(self):
        raise ExecutorLost("no cluster answers")


def test_a_run_ends_if_its_executor_cannot_start(archive, tmp_path):
    outcome = run(job_for(tmp_path / "out", tmp_path), [archive / "a.wav"], Unusable())
    assert (outcome.trouble, outcome.n_pending) == ("no cluster answers", 1)


def test_a_run_ends_if_the_workers_give_no_answers(archive, tmp_path):
    outcome = run(job_for(tmp_path / "out", tmp_path), [archive / "a.wav"], Silent())
    assert "no answers" in outcome.trouble
    assert outcome.n_pending == 1


def test_only_one_run_uses_a_folder(archive, tmp_path):
    job = job_for(tmp_path / "out", tmp_path)

    def another(_):
        with pytest.raises(BlockingIOError, match="another run"):
            run(job, [archive / "b.wav"])

    assert run(job, [archive / "a.wav"], Inline(another)).n_done == 1


def test_a_node_without_the_folder_says_so(archive, tmp_path):
    job = replace(job_for(tmp_path / "out", tmp_path), token="of another folder")
    answer = handled(job, Task("file", str(archive / "a.wav")))
    assert (answer.status, answer.fault) == ("failed", "service")
    assert "must be shared" in answer.error


def test_the_longest_recordings_come_first(archive, tmp_path):
    campaign = campaign_for(job_for(tmp_path / "out", tmp_path), [archive])
    assert campaign.tasks()[0].path.endswith("long.wav")


@pytest.mark.parametrize(
    ("hours", "workers", "minutes"), [(10, 2, 75), (1, 8, 10), (100_000, 64, 240), (0, 1, 10)]
)
def test_no_recording_takes_more_than_a_quarter_of_the_share_of_a_worker(hours, workers, minutes):
    assert split_seconds(3600.0 * hours, workers, None) == pytest.approx(60 * minutes)


def test_jobs_tasks_and_answers_survive_their_way(tmp_path):
    job = job_for(tmp_path, tmp_path, options=Options(decode=DecodeOptions(keywords=("a",))))
    job = replace(job, subtitles=SubtitleOptions(max_line_width=30))
    task = Task("piece", "x.wav", "c", 3)
    answer = Answer(task, "piece", "id", "c", 2.5)
    assert Job.unpack(job.pack()) == job
    assert Task.unpack(task.pack()) == task
    assert Answer.unpack(answer.pack()) == answer
