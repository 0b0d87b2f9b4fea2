"""The usage of an owner: equal to a count of its uploads, and never derived from a new count."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from asr.service.errors import LimitReached, TooLarge
from asr.service.threads import FairThreads
from asr.service.uploads import store as store_module
from asr.service.uploads.files import UploadFiles
from asr.service.uploads.routes import sweep_for_ever
from asr.service.uploads.store import Uploads
from asr.service.uploads.sweep import Sweep
from asr.service.uploads.usage import Ledger, Usage
from tests.service.uploads.test_store import age, append, make_store

ME, OTHER = "me", "other"


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)


def ledger_of(store, owner=ME):
    return Ledger(store._home(owner), store.max_bytes)


def count_reads(monkeypatch):
    """The paths of the infos that are read from now on."""
    read, original = [], UploadFiles.read_info
    monkeypatch.setattr(UploadFiles, "read_info", lambda it: read.append(it.id) or original(it))
    return read


steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "defer", "append", "declare", "remove", "expire"]),
        st.integers(0, 5),
    ),
    max_size=15,
)


@given(steps=steps)
def test_the_usage_equals_a_count_after_any_changes(tmp_path_factory, steps):
    store = make_store(tmp_path_factory.mktemp("store"), quota=10**6)
    made = [store.create(ME, 10).id]
    for kind, n in steps:
        upload = made[n % len(made)]
        change(store, made, kind, upload)
    kept = ledger_of(store).usage()
    assert kept == ledger_of(store).recount()


def change(store, made, kind, upload):
    if kind in ("create", "defer"):
        made.append(store.create(ME, 10 if kind == "create" else None).id)
        return
    try:
        found = store.status(upload, ME)
    except Exception:  # noqa: BLE001  # removed or expired by an earlier step
        return
    if kind == "append":
        append(store, upload, b"x" * (10 - found.offset))
    elif kind == "declare" and found.length is None:
        with store.writing(upload, ME) as writer:
            writer.declare(10)
    elif kind == "remove":
        store.remove(upload, ME)
    elif kind == "expire":
        age(UploadFiles(store._home(ME), upload).data, 3601)
        assert store.sweep() == 1


def test_creating_and_counting_read_no_other_uploads(store, monkeypatch):
    for _ in range(5):
        store.create(ME, 10)
    read = count_reads(monkeypatch)
    made = store.create(ME, 10)
    assert set(read) <= {made.id}
    read.clear()
    assert asyncio.run(store.counts()) == {"arriving": 6.0, "finished": 0.0}
    assert read == []


def test_uploads_of_an_older_service_are_counted_once(store, monkeypatch):
    made = store.create(ME, 1)
    append(store, made.id, b"x")
    store._home(ME).with_suffix(".usage").unlink()
    assert asyncio.run(store.counts()) == {"arriving": 0.0, "finished": 1.0}
    read = count_reads(monkeypatch)
    asyncio.run(store.counts())
    assert read == []


@pytest.mark.parametrize("damage", [b"", b"\xff\xff", b"1 2", b"one two three"])
def test_a_damaged_usage_is_counted_again(store, damage):
    store.create(ME, 10)
    store._home(ME).with_suffix(".usage").write_bytes(damage)
    assert ledger_of(store).usage() == Usage(1, 0, 10)


def test_wrong_numbers_refuse_no_upload(store):
    """A server that was killed between two files leaves the usage off by one upload."""
    store.create(ME, 10)
    ledger_of(store)._write(Usage(1, 0, 3000))
    store.create(ME, 10)
    assert ledger_of(store).usage() == Usage(2, 0, 20)


def test_a_server_counts_at_its_start(store):
    store.create(ME, 10)
    ledger_of(store)._write(Usage(7, 7, 7))

    async def start():
        task = asyncio.create_task(sweep_for_ever(store))
        while ledger_of(store).usage().n_uploads == 7:
            await asyncio.sleep(0.005)
        task.cancel()

    asyncio.run(start())
    assert ledger_of(store).usage() == Usage(1, 0, 10)


def test_refusals_count_the_uploads_once_a_minute(store, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_UPLOADS", 3)
    for _ in range(3):
        store.create(ME, 0)
    counted = []
    monkeypatch.setattr(Ledger, "recount", lambda it: counted.append(it))
    for _ in range(5):
        with pytest.raises(LimitReached):
            store.create(ME, 0)
    assert len(counted) == 1
    store.create(OTHER, 0)


def test_the_quota_holds_for_uploads_created_at_the_same_time(tmp_path):
    store, results = make_store(tmp_path, max_bytes=10, quota=50), []

    def create():
        try:
            results.append(store.create(ME, 10))
        except TooLarge:
            results.append(None)

    threads = [threading.Thread(target=create) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(it is not None for it in results) == 5


# --- clocks ---------------------------------------------------------------------------------------


def with_clock(tmp_path, wall):
    """A store whose wall clock is `wall.now`; its steady clock advances with `wall.steady`."""
    store = Uploads(Path(tmp_path) / "uploads", 1000, 3000, 3600)
    store._clock._wall = lambda: wall.now
    store._clock._steady = lambda: wall.steady
    return store


def test_a_step_ahead_destroys_no_upload(tmp_path):
    wall = SimpleNamespace(now=0.0, steady=0.0)
    store = with_clock(tmp_path, wall)
    made = store.create(ME, 10)
    wall.now = start = UploadFiles(store._home(ME), made.id).data.stat().st_mtime
    store.sweep()
    wall.now, wall.steady = start + 10**6, 600.0
    assert store.sweep() == 0
    assert store.status(made.id, ME).offset == 0
    wall.now, wall.steady = start + 10**6 + 3600, 4200.0  # the clock was right after all
    assert store.sweep() == 1


def test_an_upload_from_the_future_expires(tmp_path, store):
    made = store.create(ME, 10)
    data = UploadFiles(store._home(ME), made.id).data
    age(data, -(10**9))
    assert store.sweep() == 0
    assert data.stat().st_mtime < UploadFiles(store._home(ME), made.id).info.stat().st_mtime + 600
    age(data, 3601)
    assert store.sweep() == 1


# --- threads --------------------------------------------------------------------------------------


def test_one_owner_cannot_use_all_threads():
    async def run():
        threads, leave = FairThreads("test", 3, 2), threading.Event()
        slow = [asyncio.create_task(threads.run("a", leave.wait)) for _ in range(10)]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(60):
                assert await threads.run("b", lambda: "done") == "done"
        finally:
            leave.set()
        await asyncio.gather(*slow)
        assert not threads._places

    asyncio.run(run())


def test_work_ends_before_a_cancelled_caller_goes_on():
    async def run():
        threads, leave, ended = FairThreads("test", 1, 1), threading.Event(), []

        def work():
            leave.wait()
            ended.append(True)

        task = asyncio.create_task(threads.run("a", work))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended

    asyncio.run(run())


def test_the_lock_of_a_usage_holds_on_other_machines(store, monkeypatch):
    """On NFS the lock of a folder holds on one machine only, and that of its usage on all."""
    store.create(ME, 10)
    locked = []
    lock = fcntl.flock

    def flock(descriptor, operation):
        locked.append(Path(f"/proc/self/fd/{descriptor}").readlink().suffix)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    store.create(ME, 10)
    assert locked == [".usage"]
    assert ledger_of(store).usage() == Usage(2, 0, 20)


def test_the_offset_is_fresh_although_nfs_caches_the_status_of_files(store, monkeypatch):
    """Another server has appended. NFS shows its size when the file is opened, but not to stat."""
    upload = store.create(ME, 10)
    path, stat = store._files(upload.id, ME).data, Path.stat
    cached = path.stat()
    with path.open("ab") as file:
        file.write(b"12345")
    monkeypatch.setattr(Path, "stat", lambda it, **k: cached if it == path else stat(it, **k))
    assert store.status(upload.id, ME).offset == 5


def test_a_file_server_whose_clock_is_ahead_keeps_no_upload_for_ever(store):
    """Each sweep once set the time of the file server again, and so put off the end."""
    upload = store.create(ME, 10)
    files = store._files(upload.id, ME)
    behind = files.data.stat().st_mtime - 600
    assert sum(Sweep(100.0, behind).home(files.home, ledger_of(store))) == 0
    assert files.data.stat().st_mtime == pytest.approx(behind, abs=0.01)
    assert sum(Sweep(100.0, behind + 101).home(files.home, ledger_of(store))) == 1
    assert not files.data.exists()
