"""The store of live transcripts: reading while other threads write, and unusual characters."""

import asyncio
import threading

from asr.errors import EngineTimeout
from asr.service.live.items import Items
from asr.service.live.session_config import SessionConfig
from asr.service.live.transcripts import Transcripts
from asr.service.live.turns import Turn
from asr.types import SAMPLE_RATE, Gap, Segment, Transcript, Word


def transcript(text, n_words=1):
    words = tuple(Word(text, n, n + 1) for n in range(n_words))
    segment = Segment(0, 0, n_words, text, words)
    return Transcript((segment,), "en", 30.0, 30.0, 0.0, "fake", None)


def test_only_complete_lines_are_read(tmp_path):
    kept = Transcripts(1.0)
    kept.begin("a", "owner", tmp_path)
    long = transcript("word", 200)  # longer than a file buffer
    read = []

    def write(start):
        for n in range(start, start + 50):
            turn = Turn(f"item{n}", n * SAMPLE_RATE, (n + 1) * SAMPLE_RATE, tmp_path / "x")
            kept.add("a", turn, long)

    writers = [threading.Thread(target=write, args=[start]) for start in (0, 50)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        read.append(len(kept.read("a", "owner")["items"]))
    for writer in writers:
        writer.join()
    assert read == sorted(read)
    assert [item["start"] for item in kept.read("a", "owner")["items"]] == list(range(100))


def test_a_turn_that_failed_is_kept_as_a_gap(tmp_path):
    turn, sent, kept = Turn("item", SAMPLE_RATE, 3 * SAMPLE_RATE, tmp_path / "x"), [], []

    class Broken:
        async def transcribe(self, *_):
            raise EngineTimeout("late")
            yield

        def keep(self, turn, transcript):
            kept.append(transcript)

    async def run():
        async def send(body):
            sent.append(body["type"].rpartition(".")[2])

        items = Items(Broken(), send)
        await items.add(turn, SessionConfig("webrtc"), None)
        await items.finish()

    asyncio.run(run())
    assert sent[-1] == "failed"
    assert [transcript.gaps for transcript in kept] == [(Gap(1.0, 3.0, "engine_timeout"),)]
    store = Transcripts(1.0)
    store.begin("a", "owner", tmp_path)
    store.add("a", turn, kept[0])
    (item,) = store.read("a", "owner")["items"]
    assert (item["transcript"], item["segments"]) == ("", [])
    assert (item["gaps"][0]["start"], item["gaps"][0]["reason"]) == (1.0, "engine_timeout")


def test_a_word_may_contain_line_separators_of_unicode(tmp_path):
    kept = Transcripts(1.0)
    kept.begin("a", "owner", tmp_path)
    kept.add("a", Turn("item", 0, SAMPLE_RATE, tmp_path / "x"), transcript("one\u2028two\x85"))
    (item,) = kept.read("a", "owner")["items"]
    assert item["transcript"] == "one\u2028two\x85"


def test_a_deleted_item_is_not_stored_whenever_its_transcript_comes(tmp_path):
    kept = Transcripts(1.0)
    kept.begin("a", "owner", tmp_path)
    turns = [Turn(f"item{n}", n * SAMPLE_RATE, (n + 1) * SAMPLE_RATE, tmp_path) for n in range(3)]
    kept.add("a", turns[0], transcript("first"))
    assert kept.text_of("a", "item0") == "first"
    assert kept.text_of("a", "item1") is None
    kept.delete("a", "item0")
    kept.delete("a", "item1")
    for turn, text in zip(turns[1:], ("second", "third"), strict=True):
        kept.add("a", turn, transcript(text))
    assert [item["transcript"] for item in kept.read("a", "owner")["items"]] == ["third"]
    assert kept.text_of("a", "item0") is None
    assert "first" not in "".join(path.read_text() for path in tmp_path.iterdir())
