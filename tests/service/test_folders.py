"""Folders of requests and of servers: they are private, and removed when nobody uses them."""

import asyncio
import fcntl
import multiprocessing
import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from asr.service.files import (
    _DRAFT_PREFIX,
    LOCK_PREFIX,
    RUN_PREFIX,
    _close_to_others,
    locked_file,
    locked_folder,
    make_private,
    restore_run_directory,
    run_directory,
    temporary_folder,
)
from tests.support.serving import FAKE, make_wav, serving


def test_cancelling_while_threads_are_busy_leaves_no_folder(tmp_path):
    free, entered, leave = threading.Event(), asyncio.Event(), asyncio.Event()

    async def work():
        async with temporary_folder(tmp_path) as folder:
            (folder / "recording").write_bytes(b"private")
            entered.set()
            await leave.wait()

    async def run():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        task = asyncio.create_task(work())
        await entered.wait()
        loop.run_in_executor(None, free.wait)  # the removal has to wait for this thread
        leave.set()
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        assert list(tmp_path.iterdir())
        free.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert not list(tmp_path.iterdir())


def test_an_error_in_the_block_leaves_no_folder(tmp_path):
    async def run():
        async with temporary_folder(tmp_path) as folder:
            (folder / "recording").write_bytes(b"private")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # the one raised above
        asyncio.run(run())
    assert not list(tmp_path.iterdir())


# --- folders of servers ---------------------------------------------------------------------------


def start_servers(parent, n_rounds, barrier, lost):
    for _ in range(n_rounds):
        barrier.wait()
        with run_directory(parent) as folder:
            barrier.wait()
            lost.value += not folder.is_dir()
            barrier.wait()


def test_servers_that_start_together_keep_their_folders(tmp_path):
    """One removed another's folder between its creation and its lock, in 26 of 300 rounds."""
    context = multiprocessing.get_context("fork")
    barrier, lost = context.Barrier(3), context.Value("i", 0)
    args = (tmp_path, 40, barrier, lost)
    servers = [context.Process(target=start_servers, args=args) for _ in range(3)]
    for server in servers:
        server.start()
    for server in servers:
        server.join()
        assert server.exitcode == 0
    assert lost.value == 0
    assert not list(tmp_path.iterdir())


def test_a_folder_has_its_name_only_while_it_is_locked(tmp_path, monkeypatch):
    """The cleaner of another server runs at the worst moment: before the lock."""
    seen = []

    def lock(folder, *, wait):
        if not seen:
            seen.append(folder)
            with run_directory(tmp_path):
                assert folder.is_dir()
        return locked_folder(folder, wait=wait)

    monkeypatch.setattr("asr.service.files.locked_folder", lock)
    with run_directory(tmp_path) as folder:
        assert folder.is_dir()
        assert folder.name.startswith(RUN_PREFIX)


def test_folders_of_dead_servers_are_removed(tmp_path):
    for name, age in ((RUN_PREFIX, 0), (_DRAFT_PREFIX, 7200), (f"{_DRAFT_PREFIX}new", 0)):
        (tmp_path / f"{name}x").mkdir()
        then = (tmp_path / f"{name}x").stat().st_mtime - age
        os.utime(tmp_path / f"{name}x", (then, then))
    with run_directory(tmp_path) as folder:
        assert {path.name for path in tmp_path.iterdir()} == {
            folder.name,
            folder.name.replace(RUN_PREFIX, LOCK_PREFIX),
            f"{_DRAFT_PREFIX}newx",
        }


# --- who may read ---------------------------------------------------------------------------------


def readable_by_others(folder):
    found = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return [path for path in found if path.stat().st_mode & 0o077]


def test_existing_files_become_private_and_those_of_others_stay(tmp_path):
    tmp_path.chmod(0o755)
    target = tmp_path / "of-somebody"
    target.write_bytes(b"")
    for name in ("uploads/a", "recordings"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("uploads/a/b.bin", "recordings/c", "jobs.db", "jobs.db-wal"):
        (tmp_path / name).write_bytes(b"private")
        (tmp_path / name).chmod(0o664)
    (tmp_path / "uploads" / "link").symlink_to(target)
    target.chmod(0o644)
    make_private(tmp_path)
    assert readable_by_others(tmp_path) == [target]


def test_a_server_starts_while_another_removes_its_folders(tmp_path, monkeypatch):
    """The folder of a request vanished during the walk, and the second server refused to start."""
    home = tmp_path / f"{RUN_PREFIX}x"
    for name in "abc":
        (home / name / "inner").mkdir(parents=True)

    def close(path):
        if path.name == "inner":
            for other in home.iterdir():
                if other != path.parent:
                    shutil.rmtree(other)
        _close_to_others(path)

    monkeypatch.setattr("asr.service.files._close_to_others", close)
    make_private(tmp_path)
    assert len(list(home.iterdir())) == 1
    assert not readable_by_others(tmp_path)


def test_a_shared_folder_stays_shared(tmp_path):
    tmp_path.chmod(0o1777)
    make_private(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777


def test_no_file_of_the_service_can_be_read_by_others():
    previous = os.umask(0o000)
    try:
        with serving(*FAKE) as server, server.client() as client:
            raw = {"content-type": "audio/wav"}
            answer = client.post("/v1/jobs", content=make_wav(2.0), headers=raw)
            assert answer.status_code == 202
            tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "5"}
            assert client.post("/v1/uploads", headers=tus).status_code == 201
            data = server.work_dir.parent / "data"
            assert {"jobs.db", "uploads", "recordings"} <= {path.name for path in data.iterdir()}
            assert readable_by_others(data) == []
            for folder in server.work_dir.iterdir():
                assert readable_by_others(folder) == []
    finally:
        os.umask(previous)


# --- folders on NFS -------------------------------------------------------------------------------


@pytest.fixture
def nfs(monkeypatch):
    """As between two machines on NFS: only the lock of a file that is open for writing holds."""
    lock = fcntl.flock

    def flock(descriptor, operation):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        assert mode == os.O_RDWR, "NFS gives EBADF"
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("nfs")
def test_a_server_on_another_machine_keeps_its_folder(tmp_path):
    with run_directory(tmp_path) as first:
        (first / "body").write_bytes(b"arriving")
        with run_directory(tmp_path):
            assert (first / "body").read_bytes() == b"arriving"
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nfs")
def test_a_folder_that_was_made_again_is_kept_on_another_machine(tmp_path):
    with run_directory(tmp_path) as first:
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        restore_run_directory(first)
        with run_directory(tmp_path):
            assert first.is_dir()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nfs")
def test_the_folder_of_a_dead_server_on_another_machine_is_removed(tmp_path):
    dead = tmp_path / f"{RUN_PREFIX}dead"
    dead.mkdir()
    (tmp_path / f"{LOCK_PREFIX}dead").touch()
    with run_directory(tmp_path):
        assert not dead.exists()
        assert not (tmp_path / f"{LOCK_PREFIX}dead").exists()


def test_a_lock_on_a_file_that_was_removed_is_not_taken(tmp_path):
    """A waiting process would hold the lock of a file that nobody else can find any more."""
    path, inside = tmp_path / "lock", threading.Event()

    def hold():
        with locked_file(path, wait=True):
            inside.set()
            holding.wait()
            path.unlink()

    holding = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    with pytest.raises(BlockingIOError), locked_file(path, wait=False):
        pass
    threading.Timer(0.01, holding.set).start()
    with locked_file(path, wait=True) as descriptor:
        assert os.path.samestat(os.fstat(descriptor), path.stat())
        with pytest.raises(BlockingIOError), locked_file(path, wait=False):
            pass
    thread.join()
