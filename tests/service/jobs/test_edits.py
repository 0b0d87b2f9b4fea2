"""Corrected transcripts in the database, on SQLite and on a real Postgres."""

import asyncio
import hashlib
import json
import uuid
from dataclasses import replace

import pytest
import sqlalchemy as sa

from asr.config import SubtitleOptions
from asr.output.formats import render
from asr.service.errors import Conflict, NotFound, TooLarge
from asr.service.jobs.database import now
from asr.service.jobs.edited import Edited, pack, text_of, unpack
from asr.service.jobs.edits import Edits, Outdated, Version
from asr.service.jobs.rows import NewJob
from asr.service.jobs.store import JobStore
from asr.service.jobs.tables import SUCCEEDED, edits, jobs
from asr.types import Transcript

WORD = {"word": "Hi", "start": 0.0, "end": 0.5, "confidence": 0.9, "timing": "edited"}
SEGMENT = {"id": 0, "start": 0.0, "end": 1.0, "text": "Hi", "speaker": "A", "channel": None}
LINE = SEGMENT | {"words": [WORD | {"doubtful": True}], "doubts": ["why"]}


def new(owner, **fields):
    identity = uuid.uuid4().hex
    return replace(NewJob(identity, owner, "{}", identity, "0" * 64, 100), **fields)


async def ended(database, owner="me", **fields):
    """The id of a job that has succeeded."""
    job, _ = await JobStore(database).create(new(owner, **fields))
    statement = sa.update(jobs).where(jobs.c.id == job.id)
    await database.run(lambda c: c.execute(statement.values(state=SUCCEEDED, finished=now())))
    return job.id


def content(text):
    data = pack(text_of([LINE | {"text": text}], {}))
    return hashlib.sha256(data).hexdigest(), data


def of(tag):
    return lambda version: version.tag == tag


def test_a_text_is_read_as_it_was_written():
    found = unpack(pack(text_of([LINE, LINE | {"id": 1}], {"A": "Zoë"})))
    assert len(found.lines) == 2
    assert found.speakers == {"A": "Zoë"}
    first = next(found.segments())
    assert (first.speaker, first.text, first.warnings) == ("Zoë", "Hi", ("why",))
    # Exports keep their schema: a person's time is an estimate there.
    assert (first.words[0].timing, first.words[0].confidence) == ("interpolated", 0.9)
    assert next(Edited(found.lines).segments()).speaker == "A"


def test_names_are_in_all_exports_and_words_keep_their_speaker():
    mixed = [LINE, LINE | {"id": 1, "start": 1.0, "end": 2.0, "speaker": "B"}]
    words = [WORD | {"doubtful": False, "start": 1.0, "end": 1.5}]
    mixed[1] |= {"words": words}
    for names, first in (({}, "A"), ({"A": "Zoë"}, "Zoë")):
        found = Transcript(
            tuple(unpack(pack(text_of(mixed, names))).segments()), "en", 2.0, 2.0, 0.0, "e"
        )
        assert [word.speaker for word in found.words] == [first, "B"]
        for kind in ("json", "verbose_json", "diarized_json"):
            told = json.loads(render(found, kind, SubtitleOptions()))["segments"]
            assert [it["speaker"] for it in told] == [first, "B"], kind
        assert [it["words"][0]["speaker"] for it in told] == [first, "B"]
        assert f"<v {first}>" in render(found, "vtt", SubtitleOptions())
        assert f" {first} <NA>" in render(found, "rttm", SubtitleOptions())
        asked = SubtitleOptions(speaker_labels=True)
        assert f"{first}: Hi" in render(found, "srt", asked)
        # Without being asked, only names that a person gave are shown.
        assert ("Zoë: Hi" in render(found, "srt", SubtitleOptions())) == (first == "Zoë")
        assert "A: Hi" not in render(found, "srt", SubtitleOptions())


def test_names_of_channels_are_in_all_exports():
    split = [
        LINE | {"channel": 0, "speaker": "channel 0"},
        LINE | {"id": 1, "channel": 1, "speaker": "track 1 (Microphone)"},
        LINE | {"id": 2, "channel": 1, "speaker": "channel 1 B"},
    ]
    for names, first in (({}, "A"), ({"channel 0": "Zoë"}, "Zoë")):
        edited = unpack(pack(text_of(split, names)))
        found = Transcript(tuple(edited.segments()), "en", 2.0, 2.0, 0.0, "e")
        told = json.loads(render(found, "diarized_json", SubtitleOptions()))["segments"]
        assert [it["speaker"] for it in told] == [first, "B", "channel 1 B"]
        verbose = json.loads(render(found, "verbose_json", SubtitleOptions()))["segments"]
        assert [it.get("speaker") for it in verbose] == [
            names.get("channel 0"), None, "channel 1 B",
        ]  # fmt: skip


def test_each_change_has_the_next_revision(database):
    async def run():
        job, store = await ended(database), Edits(database)
        assert await store.read(job) == (Version(), None)
        first = await store.save("me", job, of("0-original"), *content("a"))
        assert (first.revision, first.is_edited) == (1, True)
        assert await store.read(job) == (first, content("a")[1])
        second = await store.save("me", job, of(first.tag), *content("b"))
        assert second.revision == 2
        forgotten = await store.save("me", job, of(second.tag))
        assert await store.read(job) == (Version(3), None) == (forgotten, None)
        again = await store.save("me", job, of(forgotten.tag), *content("a"))
        assert again.revision == 4
        assert again.tag != first.tag

    asyncio.run(run())


def test_who_saves_second_is_told_the_current_version(database):
    async def run():
        job, store = await ended(database), Edits(database)
        first = await store.save("me", job, of("0-original"), *content("a"))
        with pytest.raises(Outdated) as refused:
            await store.save("me", job, of("0-original"), *content("b"))
        assert refused.value.current == first
        with pytest.raises(Outdated):
            await store.save("me", job, of("0-original"))
        assert (await store.read(job))[0] == first

    asyncio.run(run())


def test_the_same_content_again_changes_nothing(database):
    """The client repeats its request, because the first answer was lost."""

    async def run():
        job, store = await ended(database), Edits(database)
        first = await store.save("me", job, of("0-original"), *content("a"))
        assert await store.save("me", job, of("0-original"), *content("a")) == first
        forgotten = await store.save("me", job, of(first.tag))
        assert await store.save("me", job, of(first.tag)) == forgotten

    asyncio.run(run())


def test_of_several_clients_that_save_at_once_one_succeeds(database):
    async def run():
        job, store = await ended(database), Edits(database)
        for tag in ("0-original", None):
            known = of(tag or (await store.version(job)).tag)
            saves = [store.save("me", job, known, *content(f"{tag} {n}")) for n in range(6)]
            found = await asyncio.gather(*saves, return_exceptions=True)
            won = [it for it in found if isinstance(it, Version)]
            assert len(won) == 1
            assert [it.current for it in found if isinstance(it, Outdated)] == won * 5

    asyncio.run(run())


def test_only_ended_jobs_of_the_owner_are_corrected(database):
    async def run():
        store = Edits(database)
        queued, _ = await JobStore(database).create(new("me"))
        with pytest.raises(Conflict) as conflict:
            await store.save("me", queued.id, of("0-original"), *content("a"))
        assert conflict.value.code == "job_not_finished"
        job = await ended(database)
        for owner, name in (("other", job), ("me", "0" * 32)):
            with pytest.raises(NotFound):
                await store.save(owner, name, of("0-original"), *content("a"))

    asyncio.run(run())


def test_a_deleted_job_loses_its_corrections(database):
    async def run():
        job, store = await ended(database), Edits(database)
        await store.save("me", job, of("0-original"), *content("a"))
        assert await JobStore(database).delete("me", job)
        assert await store.read(job) == (Version(), None)
        with pytest.raises(NotFound):
            await store.save("me", job, of("1-x"), *content("b"))

    asyncio.run(run())


@pytest.mark.parametrize(("age", "is_kept"), [(50, True), (500, False), (-1000, True)])
def test_a_correction_extends_the_life_of_its_job(database, age, is_kept):
    """A time in the future was written while the clock was ahead."""

    async def run():
        job, other = [await ended(database, uuid.uuid4().hex) for _ in range(2)]
        await Edits(database).save(
            (await JobStore(database).read_many({job: 0}))[job][0].owner,
            job,
            of("0-original"),
            *content("a"),
        )
        old = sa.update(jobs).where(jobs.c.id.in_([job, other])).values(finished=now() - 1000)
        await database.run(lambda c: c.execute(old))
        saved = sa.update(edits).where(edits.c.job == job).values(saved=now() - age)
        await database.run(lambda c: c.execute(saved))
        expired = await JobStore(database).expire(100)
        assert other in expired
        assert (job not in expired) is is_kept
        ages = sa.select(now() - edits.c.saved).where(edits.c.job == job)
        assert all(age >= 0 for age in await database.read(lambda c: list(c.scalars(ages))))

    asyncio.run(run())


def test_kept_recordings_have_a_quota(database):
    async def run():
        store, owner = JobStore(database), uuid.uuid4().hex
        first, _ = await store.create(new(owner, kept_bytes=100), max_kept=250)
        await store.create(new(owner), max_kept=0)  # this one is not kept
        await store.create(new(uuid.uuid4().hex, kept_bytes=200), max_kept=250)
        await store.set_kept_bytes(first.id, 160)
        assert await store.kept_bytes(owner) == 160
        refused = new(owner, kept_bytes=100)
        with pytest.raises(TooLarge) as error:
            await store.create(refused, max_kept=250)
        assert error.value.param == "keep_recording"
        assert await store.find(owner, refused.id) is None
        assert await store.delete(owner, first.id)
        await store.create(refused, max_kept=250)
        assert await store.keeping([first.id, refused.id]) == {refused.id}

    asyncio.run(run())
