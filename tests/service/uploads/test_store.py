"""The store of uploads: property tests of split, resume and crash; unit tests of its rules."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, strategies as st

from asr.errors import AsrError
from asr.service.errors import Damaged
from asr.service.http.problems import problem_of
from asr.service.uploads.parts import ALGORITHMS, Checksum
from asr.service.uploads.store import Uploads

ME, OTHER = "me", "other"


def make_store(folder, max_bytes=1000, quota=3000, ttl=3600):
    return Uploads(Path(folder) / "uploads", max_bytes, quota, ttl)


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)


def checksum_of(data, algorithm="sha1"):
    digest = base64.b64encode(hashlib.new(algorithm, data).digest()).decode()
    return Checksum.parse(f"{algorithm} {digest}")


def append(store, upload_id, data, checksum=None, owner=ME):
    with store.writing(upload_id, owner) as writer, writer.part(checksum) as part:
        part.write(data)
        part.finish()


def refused(call, *args):
    """The HTTP status of the error that the call raises."""
    with pytest.raises(AsrError) as caught:
        call(*args)
    return problem_of(caught.value).status


def age(path, seconds):
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def only_file(store, pattern):
    (found,) = store._folder.glob(f"*/{pattern}")
    return found


# --- invariants ---------------------------------------------------------------------------------

part_sizes = st.integers(0, 60)
# A part arrives completely, its client disconnects midway, the process is killed midway, or the
# bytes were damaged on the way.
fates = st.sampled_from(["whole", "left", "killed", "damaged"])
steps = st.lists(st.tuples(part_sizes, fates, st.booleans(), st.integers(0, 60)), max_size=12)


@pytest.fixture(scope="module")
def quick_disk():
    """Replace fsync, which is slow: no test can check that bytes survive a power loss."""
    with mock.patch("os.fsync"), mock.patch("os.fdatasync"):
        yield


@pytest.mark.usefixtures("quick_disk")
@given(data=st.binary(max_size=300), steps=steps)
def test_any_split_and_any_resume_give_the_same_bytes(data, steps):
    folder = tempfile.mkdtemp()
    try:
        store = make_store(folder)
        upload = store.create(ME, len(data))
        for n_bytes, fate, has_checksum, n_written in steps:
            before = store.status(upload.id, ME).offset
            part = data[before : before + n_bytes]
            send(store, upload.id, part, fate, has_checksum, n_written)
            after = store.status(upload.id, ME).offset
            assert before <= after <= before + len(part)
            assert only_file(store, "*.bin").read_bytes() == data[:after]
            if has_checksum and fate != "whole":
                assert after == before, "unverified bytes count"
        append(store, upload.id, data[store.status(upload.id, ME).offset :])
        assert store.open_finished(upload.id, ME).read_bytes() == data
    finally:
        shutil.rmtree(folder)


class KilledError(BaseException):
    """Simulates that the process is killed here; the kernel closes its files."""


def send(store, upload_id, data, fate, has_checksum, n_written):
    sent = data + b"x" if fate == "damaged" else data
    arrived = data if fate in ("whole", "damaged") else data[:n_written]
    expected = {"killed": KilledError, "damaged": Damaged if has_checksum else None}.get(fate)
    with pytest.raises(expected) if expected else contextlib.nullcontext() as caught:
        checksum = checksum_of(sent) if has_checksum else None
        with store.writing(upload_id, ME) as writer, writer.part(checksum) as part:
            for byte in arrived:
                part.write(bytes([byte]))
            end(part, fate)
    if expected is Damaged:
        assert problem_of(caught.value).status == 460


def end(part, fate):
    if fate == "killed":
        raise KilledError
    part.give_up() if fate == "left" else part.finish()


@pytest.mark.usefixtures("quick_disk")
@given(sizes=st.lists(st.tuples(st.integers(0, 900) | st.none(), st.booleans()), max_size=12))
def test_the_quota_is_never_exceeded_and_freed_by_removal(sizes):
    folder = tempfile.mkdtemp()
    try:
        store = make_store(folder)
        held = {}
        for size, also_remove in sizes:
            counted = 1000 if size is None else size
            if sum(held.values()) + counted > 3000:
                assert refused(store.create, ME, size) == 413
            else:
                held[store.create(ME, size).id] = counted
            if also_remove and held:
                store.remove(held.popitem()[0], ME)
        assert store.create(OTHER, 900).length == 900  # each owner has its own quota
    finally:
        shutil.rmtree(folder)


# --- one by one ---------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_accepts_and_refuses(store, algorithm):
    upload = store.create(ME, 10)
    append(store, upload.id, b"hello", checksum_of(b"hello", algorithm))
    assert refused(append, store, upload.id, b"world", checksum_of(b"w0rld", algorithm)) == 460
    assert store.status(upload.id, ME).offset == 5
    assert not list(store._folder.glob("*/*.part"))


@pytest.mark.parametrize("header", ["", "sha1", "crc7 AAAA", "sha1 ***", "sha1 AAA", "SHA1 AAAA"])
def test_invalid_checksum_headers(header):
    if header == "sha1":  # an empty digest is valid base64, and equals no digest
        assert Checksum.parse(header).digest == b""
    else:
        assert refused(Checksum.parse, header) == 400


def test_an_upload_belongs_to_its_owner(store):
    upload = store.create(ME, 5)
    append(store, upload.id, b"hello")
    for call in (store.status, store.remove, store.open_finished):
        assert refused(call, upload.id, OTHER) == 404
    assert refused(append, store, upload.id, b"", None, OTHER) == 404
    assert store.open_finished(upload.id, ME).read_bytes() == b"hello"


@pytest.mark.parametrize(
    "bad", ["", "../x", "A" * 32, "a" * 31, "a" * 33, "a" * 32 + "\n", "é" * 32]
)
def test_an_id_is_matched_before_the_disk_is_touched(store, bad, monkeypatch):
    monkeypatch.setattr(Path, "stat", lambda *_: pytest.fail("touched"))
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("touched"))
    assert refused(store.status, bad, ME) == 404


def test_one_writer_at_a_time(store):
    upload = store.create(ME, 5)
    with store.writing(upload.id, ME):
        assert refused(append, store, upload.id, b"hello") == 423
        assert refused(store.remove, upload.id, ME) == 423
    append(store, upload.id, b"hello")


def test_length_declared_later(store):
    upload = store.create(ME, None, "filename YS5tcDM=")
    append(store, upload.id, b"hello")
    with store.writing(upload.id, ME) as writer:
        assert refused(writer.declare, 4) == 400
        assert refused(writer.declare, 1001) == 413
        writer.declare(5)
        writer.declare(5)
        assert refused(writer.declare, 6) == 400
    found = store.status(upload.id, ME)
    assert (found.is_finished, found.metadata) == (True, "filename YS5tcDM=")


def test_an_unfinished_upload_is_not_read(store):
    upload = store.create(ME, 5)
    append(store, upload.id, b"hell")
    assert refused(store.open_finished, upload.id, ME) == 409


def test_a_link_outlives_the_upload(store, tmp_path):
    upload = store.create(ME, 5)
    append(store, upload.id, b"hello")
    store.link(upload.id, ME, tmp_path / "job")
    with store.held(upload.id, ME) as held:
        store.remove(upload.id, ME)
        assert held.read_bytes() == b"hello"
    assert not held.exists()
    assert (tmp_path / "job").read_bytes() == b"hello"
    assert refused(store.link, upload.id, ME, tmp_path / "late") == 404


def test_an_expired_upload_is_gone_and_later_unknown(store):
    upload = store.create(ME, 5)
    assert store.sweep() == 0
    age(only_file(store, "*.bin"), 3601)
    assert refused(store.status, upload.id, ME) == 410  # even before the sweep
    assert store.sweep() == 1
    assert refused(store.status, upload.id, ME) == 410
    assert not list(store._folder.glob("*/*.bin"))
    assert store.sweep() == 0
    age(only_file(store, "*.json"), 3601)
    store.sweep()
    assert refused(store.status, upload.id, ME) == 404
    assert not list(store._folder.glob("*/*"))


def test_an_upload_being_written_does_not_expire(store):
    upload = store.create(ME, 5)
    age(only_file(store, "*.json"), 3601)
    with store.writing(upload.id, ME):
        age(only_file(store, "*.bin"), 3601)
        assert store.sweep() == 0
    assert store.sweep() == 1


def test_the_sweep_removes_files_of_killed_processes(store):
    upload = store.create(ME, 5)
    home = only_file(store, "*.bin").parent
    left = [home / f"{'0' * 32}.bin", home / f"{upload.id}.part", home / f"{upload.id}.draft"]
    for path in left:
        path.write_bytes(b"x")
    store.sweep()
    assert all(path.exists() for path in left)
    for path in left:
        age(path, 3601)
    store.sweep()
    assert not any(path.exists() for path in left)
    assert store.status(upload.id, ME).offset == 0


@pytest.mark.parametrize("damage", [b"", b"\xff", b"[]", b'{"length": 5}'])
def test_a_damaged_info_costs_only_its_own_upload(store, damage):
    """It stopped the task that sweeps, and every new upload of its owner was answered 500."""
    damaged = store.create(ME, 5)
    info = only_file(store, "*.json")
    info.write_bytes(damage)
    store.recount()
    assert refused(store.status, damaged.id, ME) == 404
    store.create(ME, 5)
    age(info.with_suffix(".bin"), 3601)
    assert store.sweep() == 1
    assert not info.with_suffix(".bin").exists()


def test_what_cannot_be_removed_does_not_keep_the_uploads_of_others(store):
    for owner in ("a", "b", "c"):
        store.create(owner, 5)
    homes = sorted(path.parent for path in store._folder.glob("*/*.bin"))
    for home in homes:
        age(next(home.glob("*.bin")), 3601)
    homes[1].with_suffix(".usage").unlink()
    homes[1].with_suffix(".usage").mkdir()  # cannot be written, as on a disk that fails
    (store._folder / ("0" * 32)).touch()  # in the place of an owner's folder
    store.recount()
    store.sweep()
    assert [bool(list(home.glob("*.bin"))) for home in homes][::2] == [False, False]


def test_metadata_and_numbers_never_name_a_file(store):
    mark = uuid.uuid4().hex  # other tests have files near this one's
    store.create(ME, 5, f"filename {base64.b64encode(f'../../{mark}'.encode()).decode()}")
    assert not list(store._folder.parent.parent.rglob(f"*{mark}*"))
