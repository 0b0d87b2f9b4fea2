"""Where recordings and results lie: beside the user's files, elsewhere, or nowhere just now."""

import json
import os
from dataclasses import replace

import pytest

from asr.batch import worker
from asr.batch.faults import SourceAway
from asr.batch.progress import Progress
from asr.batch.run import prepare, run_batch
from asr.batch.scratch import Scratch
from asr.batch.sources import Source, look_at
from asr.engines.moonshine.engine import MoonshineEngine
from asr.errors import EngineUnavailable, InvalidOption
from asr.settings import Settings
from tests.batch.inline import Inline, job_for, run, talk
from tests.support import makers


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(worker, "PAUSES", (0.0,))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    makers.write(tmp_path / "in/a.wav", talk(3.0, 1))
    return tmp_path / "in"


def rows(out):
    lines = (out / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_results_beside_the_recordings_leave_the_users_files_alone(folder, tmp_path):
    kept = ["talk.part-1.wav", "transcripts/ab/b.part-2.wav", ".batch/x.part-3", "c.part-4/d.wav"]
    for name in kept:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    job = job_for(folder, tmp_path)
    for _ in range(2):
        run(job, [folder])
        assert [name for name in kept if not (folder / name).is_file()] == []


def test_a_folder_that_is_named_like_ours_is_not_removed(tmp_path):
    (tmp_path / "asr-batch-out").mkdir()
    (tmp_path / "asr-batch-out/a.srt").write_text("mine")
    Scratch(tmp_path).close()
    assert (tmp_path / "asr-batch-out/a.srt").read_text() == "mine"


def test_workers_with_another_current_folder_find_relative_paths(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = job_for("out", ".")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    executor = Inline(lambda _: os.chdir(elsewhere))
    assert run(job, ["in"], executor).n_done == 1
    (row,) = rows(tmp_path / "out")
    assert row["path"] == "in/a.wav"
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", ["in/a.wav", "in/a.wav/out", "sftp://host/out", "https://host/"])
def test_an_output_folder_that_cannot_be_used_is_an_error_at_once(folder, tmp_path, name):
    out = name if "://" in name else tmp_path / name
    with pytest.raises(InvalidOption) as told:
        job_for(out, tmp_path)
    assert told.value.name == "out"
    assert folder.is_dir()


def test_an_output_folder_without_permission_is_an_error_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InvalidOption, match="cannot be written to"):
        job_for(tmp_path / "out", tmp_path)


def test_an_engine_that_cannot_work_here_is_an_error_at_once(tmp_path):
    with pytest.raises(EngineUnavailable, match="Moonshine has no"):
        job_for(tmp_path, tmp_path, engine="", moonshine_model=str(tmp_path))


def test_an_aligner_that_cannot_work_here_is_an_error_at_once(tmp_path):
    job = replace(job_for(tmp_path, tmp_path), settings=Settings(aligner="ctc"))
    with pytest.raises(EngineUnavailable, match="ASR_CTC_MODEL"):
        prepare(job)
    assert prepare(job, is_here=False).fingerprint  # workers of a cluster may have it


def test_an_engine_that_works_here_has_the_same_name_on_a_cluster(tmp_path, monkeypatch):
    async def opened(engine):
        engine.closes = True

    monkeypatch.setattr(MoonshineEngine, "open", opened)
    job = replace(job_for(tmp_path, tmp_path), engine="")
    assert prepare(job) == prepare(job, is_here=False)


def test_a_recording_that_failed_and_was_renamed_is_not_tried_again(folder, tmp_path):
    (folder / "bad.wav").write_bytes(b"no audio" * 1000)
    job, asked = job_for(tmp_path / "out", tmp_path), []
    assert run(job, [folder]).n_failed == 1
    (folder / "bad.wav").rename(folder / "renamed.wav")

    class Counting(Inline):
        def run(self, job, tasks):
            for answer in super().run(job, tasks):
                asked.append(self._worker._transcriber)
                yield answer

    outcome = run(job, [folder], Counting())
    assert (outcome.n_failed, asked) == (1, [None])  # it was hashed, and nothing else
    assert rows(tmp_path / "out")[1]["fault"] == "recording"
    makers.write(folder / "renamed.wav", talk(3.0, 2))
    assert run(job, [folder], retry_failed=True).n_done == 2


def test_a_failure_under_another_name_is_tried_again_on_request(folder, tmp_path, monkeypatch):
    job, path = job_for(tmp_path / "out", tmp_path), folder / "a.wav"
    with monkeypatch.context() as patch:
        patch.setattr(worker.Worker, "_is_long", lambda *_: 1 / 0)
        assert run(job, [path]).n_failed == 1
    path = path.rename(folder / "b.wav")
    assert run(job, [path]).n_failed == 1
    path = path.rename(folder / "c.wav")
    assert run(job, [path], retry_failed=True).n_done == 1


# --- servers of recordings that do not answer -----------------------------------------------------


@pytest.fixture
def _dead_servers(monkeypatch):
    real = worker.fetched

    def fetched(name, *rest):
        if "://dead" in name:
            raise SourceAway(f"nobody at {name}")
        return real(name, *rest)

    monkeypatch.setattr(worker, "fetched", fetched)


def run_urls(job, urls, paths=()):
    """Recordings at URLs whose sizes are unknown, and local ones."""
    sources = [*map(Source, urls), *map(look_at, paths)]
    executor = Inline()
    try:
        return run_batch(job, sources, executor, Progress(hidden=True)), executor
    finally:
        executor.close()


@pytest.mark.usefixtures("_dead_servers")
def test_servers_of_recordings_that_are_away_do_not_end_the_run(folder, tmp_path):
    job = job_for(tmp_path / "out", tmp_path)
    urls = [f"http://dead{number}/a.wav" for number in range(30)]
    outcome, _ = run_urls(job, urls, [str(folder / "a.wav")])
    assert outcome.n_done == 1
    found = {row["status"] for row in rows(tmp_path / "out") if "dead" in row["path"]}
    assert found == {"failed"}
    assert {row["fault"] for row in rows(tmp_path / "out")[:-1]} == {"service"}


@pytest.mark.usefixtures("_dead_servers")
def test_a_server_of_all_recordings_that_is_away_ends_the_run(tmp_path):
    job = job_for(tmp_path / "out", tmp_path)
    urls = [f"http://dead/{number}.wav" for number in range(30)]
    outcome, executor = run_urls(job, urls)
    assert "tasks in a row failed: nobody at http://dead/" in outcome.trouble
    n_tried = executor.kinds.count("file")
    assert (outcome.n_failed, outcome.n_pending) == (n_tried, 30 - n_tried)
    assert n_tried < 30
