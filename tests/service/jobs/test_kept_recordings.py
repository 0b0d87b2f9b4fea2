"""Kept recordings survive sweeps and restarts, and go with their jobs."""

import asyncio
import os
import time
from dataclasses import replace

import sqlalchemy as sa

from asr.service.jobs.database import now
from asr.service.jobs.recordings import ORPHAN_SECONDS
from asr.service.jobs.tables import SUCCEEDED, jobs as table
from tests.service.jobs.test_troubles import jobs_of, new_job


def test_the_sweep_leaves_kept_recordings_until_their_job_is_gone(tmp_path):
    async def run():
        jobs = jobs_of(tmp_path)
        jobs.recordings.open()
        await jobs.store.open()
        kept, other = replace(new_job(), kept_bytes=1), new_job()
        for job in (kept, other):
            await jobs.store.create(job)
            jobs.recordings.path(job.id).write_bytes(b"x")
            jobs.recordings.made(job.id).mkdir()
        ended = sa.update(table).values(state=SUCCEEDED, finished=now())
        await jobs.store._database.run(lambda c: c.execute(ended))
        await jobs._sweep_recordings(time.time())
        names = {path.name for path in (tmp_path / "recordings").iterdir()}
        assert names == {kept.id, f"{kept.id}.made"}
        assert await jobs.delete("me", kept.id)
        assert not list((tmp_path / "recordings").iterdir())
        await jobs.store.close()

    asyncio.run(run())


def test_files_made_from_a_recording_that_is_gone_are_orphans(tmp_path):
    async def run():
        jobs = jobs_of(tmp_path)
        jobs.recordings.open()
        await jobs.store.open()
        folder = jobs.recordings.made("a" * 32)
        folder.mkdir()
        await jobs._sweep_recordings(time.time())
        assert folder.exists()  # a job may just be written
        old = time.time() - ORPHAN_SECONDS - 10
        os.utime(folder, (old, old))
        await jobs._sweep_recordings(time.time())
        assert not folder.exists()
        await jobs.store.close()

    asyncio.run(run())
