"""The store, the sources, the index, the manifest and the progress line."""

import io
import json
import os

import pytest

from asr.batch.faults import SourceError, fault_of
from asr.batch.fetch import fetched
from asr.batch.index import Index
from asr.batch.manifest import Row, write_manifest
from asr.batch.progress import Progress, Rates
from asr.batch.scratch import MARK, Scratch
from asr.batch.sources import Listing, _expand, list_sources, look_at
from asr.batch.store import DRAFT, LocalStore
from asr.config import AudioLimits
from asr.errors import EngineFailed, EngineUnavailable, InvalidOption, UnsupportedAudio, WorkerDied

# --- store --------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    store = LocalStore(tmp_path)
    store.write("a/b", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.write("a/b", b"new")
    assert store.read("a/b") == b"old"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_drafts_of_killed_processes_are_no_files_and_are_removed(tmp_path):
    store = LocalStore(tmp_path)
    store.write("a/b", b"x")
    (tmp_path / "a" / f"c{DRAFT}{'0' * 32}").write_bytes(b"half")
    assert store.names("a") == {"b"}
    store.tidy("a/*")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_what_does_not_exist(tmp_path):
    store = LocalStore(tmp_path)
    assert store.read("no") is None
    assert store.names("no") == set()
    store.remove(["no"])
    store.remove_folder("no")


def test_folders_of_dead_workers_are_removed_and_those_of_living_ones_are_not(tmp_path):
    dead = tmp_path / "asr-batch-dead"
    dead.mkdir()
    (dead / MARK).touch()
    first = Scratch(tmp_path)
    (first.path / "audio").write_bytes(b"x")
    second = Scratch(tmp_path)
    assert not dead.exists()
    assert (first.path / "audio").exists()
    first.close()
    second.close()
    assert list(tmp_path.iterdir()) == []


# --- sources ------------------------------------------------------------------------------------


def names_of(*arguments):
    return [source.path for source in list_sources(map(str, arguments)).sources]


def test_a_folder_gives_its_recordings_once_whatever_its_links(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.wav", "sub/a.wav", "B.MP3", "notes.txt", ".hidden.wav"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "linked.wav").symlink_to(tmp_path / "a.wav")
    (tmp_path / "broken.wav").symlink_to(tmp_path / "no.wav")
    listing = list_sources([str(tmp_path)])
    found = {source.path.removeprefix(f"{tmp_path}/"): source for source in listing.sources}
    assert set(found) == {"a.wav", "sub/a.wav", "B.MP3", "linked.wav", "broken.wav"}
    assert "No such file" in found["broken.wav"].error
    assert listing.n_skipped == 2


def test_manifests_name_files_beside_them(tmp_path):
    (tmp_path / "list.txt").write_text("a b.wav\n# no\n\nhttps://example.com/x.mp3\n/abs.wav\n")
    (tmp_path / "list.jsonl").write_text('{"path": "a.wav", "x": 1}\n{"audio_filepath": "b.wav"}')
    assert list(_expand(str(tmp_path / "list.txt"), Listing())) == [
        f"{tmp_path}/a b.wav",
        "https://example.com/x.mp3",
        "/abs.wav",
    ]
    assert names_of(tmp_path / "list.jsonl") == [f"{tmp_path}/a.wav", f"{tmp_path}/b.wav"]


@pytest.mark.parametrize("line", ['{"path": 3}', "{not json", '{"name": "a"}'])
def test_a_wrong_line_of_a_manifest_is_named(tmp_path, line):
    (tmp_path / "list.jsonl").write_text('{"path": "a.wav"}\n' + line)
    with pytest.raises(InvalidOption, match="line 2"):
        names_of(tmp_path / "list.jsonl")


def test_a_glob_matches_or_is_an_error(tmp_path):
    for name in ("a.wav", "b.wav", "[c].wav"):
        (tmp_path / name).write_bytes(b"x")
    assert len(names_of(tmp_path / "*.wav")) == 3
    assert names_of(tmp_path / "[c].wav") == [f"{tmp_path}/[c].wav"]
    with pytest.raises(InvalidOption, match="nothing matches"):
        names_of(tmp_path / "*.mp3")


def test_the_same_path_twice_is_one_source(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"x")
    assert len(names_of(tmp_path / "a.wav", tmp_path)) == 1


def test_what_is_no_file_has_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert look_at(str(tmp_path / "pipe.wav")).error == "not a regular file"
    assert "null" in look_at("a\0b").error


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(InvalidOption, match="s3://"):
        list_sources(["gopher://x/a.wav"])


# --- fetching -----------------------------------------------------------------------------------


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    with fetched(str(path), AudioLimits(), tmp_path) as source:
        assert source.size == 1
        source.verify()
        path.write_bytes(b"xy")
        with pytest.raises(SourceError, match="changed"):
            source.verify()


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"xyz")
    with (
        pytest.raises(SourceError, match="more than 2 bytes"),
        fetched(str(path), AudioLimits(max_bytes=2), tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (UnsupportedAudio("x"), "recording"),
        (EngineFailed("x"), "recording"),
        (EngineUnavailable("x"), "service"),
        (OSError(28, "full"), "service"),
        (MemoryError(), "service"),
        (WorkerDied("x", signal=9), "service"),
        (WorkerDied("x", signal=11), "recording"),
        (RuntimeError("can't start new thread"), "service"),
        (RuntimeError("a bug"), "recording"),
    ],
)
def test_who_is_at_fault(error, fault):
    assert fault_of(error) == fault


# --- index, manifest, progress ------------------------------------------------------------------


def test_the_index_trusts_a_path_until_it_changes(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    store = LocalStore(tmp_path / "out")
    index = Index(store)
    index.add(look_at(str(path)), "hash", 2.0)
    index.save()
    source = look_at(str(path))
    assert Index(store).get(source).content == "hash"
    assert Index(store, is_trusted=False).get(source) is None
    path.write_bytes(b"y")
    assert Index(store).get(look_at(str(path))) is None


def test_a_name_that_is_not_utf_8_can_be_written(tmp_path):
    store = LocalStore(tmp_path)
    write_manifest(store, [Row(os.fsdecode(b"caf\xe9.wav"), warnings=("w",))])
    row = json.loads((tmp_path / "manifest.jsonl").read_text())
    assert row["path"] == "caf\\udce9.wav"
    assert row["warnings"] == ["w"]


def test_finished_recordings_improve_the_estimate():
    rates = Rates()
    assumed = rates.seconds("a.mp3", 16_000_000)
    rates.learn("b.MP3", 80_000_000, 10_000.0)
    assert assumed == pytest.approx(1000.0)
    assert rates.seconds("a.mp3", 16_000_000) > 1.5 * assumed


def test_the_line_has_hours_speed_time_left_and_failures():
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(hidden=False, stream=stream, clock=lambda: now[0])
    progress.start(kept=3600.0)
    progress.done, progress.found = 2 * 3600.0, 5 * 3600.0
    progress.n_done, progress.n_found, progress.n_failed = 2, 5, 1
    now[0] = 360.0
    assert progress.is_due
    progress.draw()
    assert stream.getvalue() == "2.00 of 5.00 h, 2 of 5 files, RTFx 10.0, ETA 0:18:00, 1 failed\n"
    assert not progress.is_due
