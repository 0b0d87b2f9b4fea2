"""Speakers in the pipeline: labels, splits, checkpoints, failures."""

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from asr.config import Options, SpeakerOptions, VadOptions, read_speakers
from asr.errors import EngineUnavailable, InvalidOption, WorkerDied
from asr.pcm import to_bytes, to_int16
from asr.pipeline.checkpoint import Records, pack_chunk, unpack_chunk
from asr.pipeline.speakers import SpeakerMemory, SpeakerTracker
from asr.pipeline.transcriber import Transcriber, collect
from asr.speakers.diariser import Diariser, Provisional, SpokenWord, VoiceLog
from asr.speakers.packing import pack, unpack
from asr.types import Audio, Chunk, Hypothesis, Segment, Voices, Word
from tests.support.fakes import FakeEngine
from tests.support.voices import voice, write_model

OPTIONS = Options(vad=VadOptions(kind="off"), speakers=SpeakerOptions())


class FakeDiariser:
    """Says that the speaker changes at certain times.

    Args:
        changes: seconds.
        fails: the methods that raise an error.
    """

    obstacle = ""

    def __init__(self, changes=(), fails=(), error=None):
        self.changes = changes
        self.fails = fails
        self.error = error or WorkerDied("it died of /srv/x.onnx")
        self.n_embedded = 0

    def _check(self, name):
        if name in self.fails:
            raise self.error

    async def embed(self, audio, words, *, fine=False):
        self._check("embed")
        self.n_embedded += 1
        windows = tuple((word.start, word.end) for word in words)
        return Voices(windows, pack(np.ones((len(windows), 2))) if windows else "")

    async def snapshot(self, log, options, earlier):
        self._check("snapshot")
        return Provisional(np.eye(2, dtype=np.float32)[:1], (0,), (0,) * len(log.windows))

    async def label(self, log, words, options, refine=None):
        self._check("label")
        numbers = [sum(change <= word.start for change in self.changes) % 2 for word in words]
        return [SpokenWord("AB"[n], 0.9, overlapped=False) for n in numbers], ("told",)

    async def close(self):
        pass


def segment(index, start, text, channel=None, **more):
    words = tuple(
        Word(word, start + 0.5 * i, start + 0.5 * i + 0.4) for i, word in enumerate(text.split())
    )
    return Segment(index, start, words[-1].end, text, words, channel=channel, **more)


def finish(segments, diariser, labels=()):
    tracker = SpeakerTracker(diariser, SpeakerOptions(), labels)
    for channel in {it.channel or 0 for it in segments}:
        windows = tuple((word.start, word.end) for it in segments for word in it.words)
        tracker.add(channel, Chunk(0, 0, 16_000), Voices(windows, pack(np.ones((len(windows), 2)))))
    return asyncio.run(tracker.finish(segments)), tracker.warnings


def test_segments_are_split_where_the_speaker_changes():
    segments = [
        segment(0, 0.0, "one two three four.", warnings=("w",)),
        segment(1, 3.0, "five six."),
        Segment(2, 5.0, 5.5, "", (), warnings=("nothing",)),
    ]
    found, warnings = finish(segments, FakeDiariser(changes=(1.0, 3.5)))
    assert [(it.id, it.text, it.speaker) for it in found] == [
        (0, "one two", "A"),
        (1, "three four.", "B"),
        (2, "five", "B"),
        (3, "six.", "A"),
        (4, "", "A"),
    ]
    assert all(it.speaker_confidence == pytest.approx(0.9) for it in found)
    assert all(word.speaker == it.speaker for it in found for word in it.words)
    assert [it.warnings for it in found] == [("w",), (), (), (), ("nothing",)]
    said = " ".join(word.text for it in found for word in it.words)
    assert said == "one two three four. five six."
    assert warnings == ["told"]


def test_channels_keep_their_names_and_overlaps_are_exact():
    segments = [
        segment(0, 0.0, "a b c", channel=0),
        segment(1, 0.95, "d e", channel=1),
        segment(2, 9.0, "f", channel=1),
    ]
    found, _ = finish(segments, FakeDiariser(), labels=("channel 0", "channel 1"))
    assert [it.speaker for it in found] == ["channel 0", "channel 1", "channel 1"]
    marked = {word.text: word.overlapped for it in found for word in it.words}
    assert marked == {"a": False, "b": False, "c": True, "d": True, "e": False, "f": False}
    two, _ = finish(segments, FakeDiariser(changes=(5.0,)), labels=("channel 0", "channel 1"))
    assert [it.speaker for it in two] == ["channel 0", "channel 1 A", "channel 1 B"]


def test_a_segment_without_words_stays_in_its_channel():
    """Channels are exact: silence in one of them does not get the speaker of the other one."""
    empty = Segment(1, 0.5, 0.9, "", (), channel=1, speaker="channel 1")
    segments = [segment(0, 0.0, "a b c", channel=0), empty]
    found, _ = finish(segments, FakeDiariser(), labels=("channel 0", "channel 1"))
    assert [it.speaker for it in found] == ["channel 0", "channel 1"]
    segments.append(segment(2, 9.0, "d e", channel=1))
    found, _ = finish(segments, FakeDiariser(changes=(9.4,)), labels=("channel 0", "channel 1"))
    assert [(it.text, it.speaker) for it in found if it.channel] == [
        ("", "channel 1 A"), ("d", "channel 1 A"), ("e", "channel 1 B"),
    ]  # fmt: skip


def turn_of_two(found=True):
    """A tracker of a live turn in which a second voice begins after 2 s."""
    memory = SpeakerMemory()
    tracker = SpeakerTracker(FakeDiariser(), SpeakerOptions(), memory=memory)
    windows = tuple((float(i), i + 1.0) for i in range(4))
    embeddings = np.eye(2)[[0, 0, 1, 1]]
    if found:
        tracker.add(0, Chunk(0, 0, 64_000), Voices(windows, pack(embeddings)))
        tracker._found[0] = Provisional(np.eye(2, dtype=np.float32), (0, 1), (0, 0, 1, 1))
    return tracker


def test_a_turn_of_two_speakers_is_split_when_it_is_told():
    tracker = turn_of_two()
    told = [
        *tracker.tell(segment(0, 0.0, "a b c d e f g h.")),
        *tracker.tell(Segment(1, 3.9, 3.95, "", ())),
    ]
    assert [(it.id, it.text, it.speaker) for it in told] == [
        (0, "a b c d", "A"), (1, "e f g h.", "B"), (2, "", "B"),
    ]  # fmt: skip
    assert all(it.is_provisional for it in told)
    assert asyncio.run(tracker.finish([])) == tuple(told)


def test_a_word_without_a_window_gets_a_letter_unless_something_failed():
    tracker = turn_of_two(found=False)
    (told,) = tracker.tell(segment(0, 0.0, "no"))
    assert (told.speaker, told.words[0].speaker, told.is_provisional) == ("A", "A", True)
    broken = SpeakerTracker(FakeDiariser(fails=("embed",)), SpeakerOptions())
    asyncio.run(broken.hear(None, Hypothesis(0, "a", (Word("a", 0, 1),))))
    (told,) = broken.tell(segment(0, 0.0, "no"))
    assert (told.speaker, told.words[0].speaker, told.is_provisional) == (None, None, False)


def test_one_failure_at_the_beginning_does_not_cost_all_speakers():
    """A chunk whose process was killed; no chunk is tried after three failures."""
    tracker = SpeakerTracker(diariser := FakeDiariser(fails=("embed",)), SpeakerOptions())
    heard = Hypothesis(0, "a", (Word("a", 0, 1),))
    asyncio.run(tracker.hear(None, heard))
    diariser.fails = ()
    assert asyncio.run(tracker.hear(None, heard)).voices is not None
    diariser.fails = ("embed",)
    for _ in range(2):
        asyncio.run(tracker.hear(None, heard))
    diariser.fails = ()
    assert asyncio.run(tracker.hear(None, heard)) is heard


@pytest.mark.parametrize("error", [KeyError("secret"), ValueError("bad answer"), MemoryError()])
def test_no_error_of_the_diariser_costs_the_text(error):
    said = [segment(0, 0.0, "one two")]
    found, warnings = finish(said, FakeDiariser(fails=("label", "snapshot"), error=error))
    assert found == tuple(said)
    assert len(warnings) == 1
    assert "secret" not in warnings[0]
    tracker = SpeakerTracker(
        FakeDiariser(fails=("embed", "snapshot"), error=error), SpeakerOptions()
    )
    heard = Hypothesis(0, "a", (Word("a", 0, 1),))
    assert asyncio.run(tracker.hear(None, heard)) is heard
    tracker.add(0, Chunk(0, 0, 16_000), Voices(((0.0, 1.0),), "damaged!"))
    asyncio.run(tracker.refresh(0))
    assert asyncio.run(tracker.finish(said)) == tuple(said)


@pytest.mark.parametrize("fails", [("label",), ("embed",)])
def test_the_text_is_delivered_although_the_diariser_fails(fails, tmp_path):
    (tmp_path / "a.pcm").write_bytes(to_bytes(to_int16(voice(300, 8))))

    async def work():  # without decoder processes, which raw samples do not need
        transcriber = Transcriber(FakeEngine(), diariser=FakeDiariser(fails=fails))
        return await collect(transcriber.transcribe_pcm(tmp_path / "a.pcm", OPTIONS))

    found = asyncio.run(work())
    assert found.text.startswith("c0w0")
    told = "the speakers could not be told apart: it died of (see the log)"  # not the folder
    assert found.warnings == (told,)
    assert all(it.speaker is None and not it.is_provisional for it in found.segments)
    assert all(word.speaker is None for word in found.words)


class RefiningDiariser(FakeDiariser):
    """Always wants fine windows. The speakers are told apart in them only."""

    async def embed(self, audio, words, *, fine=False):
        if fine:
            self._check("fine")
        return await super().embed(audio, words)

    async def label(self, log, words, options, refine=None):
        finer = refine and await refine()
        self.changes = (1.0,) if finer else ()
        self.n_windows = finer and len(finer.windows)
        return await super().label(log, words, options)


@pytest.mark.parametrize(
    ("fails", "has_audio", "expected"),
    [((), True, ["A", "B"]), (("fine",), True, ["A"]), ((), False, ["A"])],
)
def test_fine_windows_are_an_improvement_that_may_fail(fails, has_audio, expected):
    diariser = RefiningDiariser(fails=fails, error=OSError("no disk"))
    places = []

    async def read(channel, chunk):
        places.append((channel, chunk.index))

    tracker = SpeakerTracker(diariser, SpeakerOptions(), read=read if has_audio else None)
    whole = segment(0, 0.0, "a b c d")
    for index in range(6):
        words = whole.words if index % 2 else ()  # some chunks have no words
        tracker.add(0, Chunk(index, 0, 16_000), Voices(((0.0, 1.0),), pack(np.ones((1, 2)))), words)
    found = asyncio.run(tracker.finish([whole]))
    assert [it.speaker for it in found] == expected
    assert tracker.warnings == ["told"]
    assert places == [(0, 1), (0, 3), (0, 5)][: len(places)]
    assert diariser.n_windows == (12 if expected == ["A", "B"] else None)


@pytest.mark.parametrize(
    ("is_loose", "n_windows", "fails"),
    [(True, 1, False), (False, 1, False), (True, 4801, False), (True, 1, True)],
)
def test_fine_windows_only_where_they_are_worth_it(monkeypatch, is_loose, n_windows, fails):
    diariser, asked = Diariser(1), []

    async def answer(job, request, payload, limits):
        if fails and request["fine"]:
            raise WorkerDied("too much memory")
        asked.append(request["fine"])
        names = ["B"] if request["fine"] else ["A"]
        found = {"names": names, "voices": [0], "confidences": [1.0], "overlapped": [False]}
        return {**found, "warnings": [], "is_loose": is_loose}

    async def refine():
        return VoiceLog()

    monkeypatch.setattr(diariser, "_call", answer)
    log = VoiceLog()
    log.windows = [(0.0, 1.0)] * n_windows
    work = diariser.label(log, [Word("a", 0, 1)], SpeakerOptions(), refine)
    (spoken,), _ = asyncio.run(work)
    is_refined = is_loose and n_windows == 1 and not fails
    assert (spoken.speaker, asked) == (("B", [False, True]) if is_refined else ("A", [False]))


def test_a_chosen_model_is_identified_by_its_content(tmp_path):
    path = write_model(tmp_path / "tiny.onnx")
    first = Diariser(1, str(path)).other_model()
    assert first
    path.write_bytes(b"another")
    assert Diariser(1, str(path)).other_model() not in ("", first)
    path.with_suffix(".json").write_text("{")
    assert Diariser(1, str(path)).other_model() == ""
    assert Diariser(1).other_model() == ""


def test_a_model_that_does_not_load_is_tried_once():
    diariser = FakeDiariser(fails=("embed",), error=EngineUnavailable("no model"))
    tracker = SpeakerTracker(diariser, SpeakerOptions())
    heard = Hypothesis(0, "a", (Word("a", 0, 1),))
    assert asyncio.run(tracker.hear(None, heard)) is heard
    diariser.fails = ()
    assert asyncio.run(tracker.hear(None, heard)) is heard
    assert diariser.n_embedded == 0


@pytest.mark.parametrize("seconds", [1, 60])
def test_the_reason_why_a_model_does_not_load(tmp_path, seconds):
    """Also if the audio does not fit into the socket, so that the parent is still sending it."""
    path = tmp_path / "mine.onnx"
    path.write_text("no model")

    async def work():
        diariser = Diariser(1, str(path))
        try:
            await diariser.embed(Audio(np.zeros(seconds * 16_000, np.float32)), [Word("a", 0, 1)])
        finally:
            await diariser.close()

    with pytest.raises(EngineUnavailable, match="did not load"):
        asyncio.run(work())


def test_a_request_without_a_model_names_the_command(tmp_path):
    async def work():
        diariser = Diariser(1, str(tmp_path / "none.onnx"))
        async with Transcriber(FakeEngine(), diariser=diariser) as transcriber:
            return await collect(transcriber.transcribe_file(tmp_path / "a.wav", OPTIONS))

    with pytest.raises(InvalidOption, match="ASR_SPEAKER_MODEL") as caught:
        asyncio.run(work())
    assert caught.value.name == "speakers"


def test_the_turns_of_a_live_session_share_their_speakers(tmp_path):
    """A speaker keeps the letter from turn to turn, and the letters stay provisional."""
    model = write_model(tmp_path / "tiny.onnx")
    turns = [(300, 1), (3000, 2), (300, 3), (3000, 4)]
    for number, (hertz, seed) in enumerate(turns):
        (tmp_path / f"{number}.pcm").write_bytes(to_bytes(to_int16(voice(hertz, 6, seed=seed))))

    async def work():
        memory, found = SpeakerMemory(), []
        transcriber = Transcriber(FakeEngine(), diariser=Diariser(1, str(model)))
        try:  # without decoder processes, which raw samples do not need
            for number in range(len(turns)):
                source = tmp_path / f"{number}.pcm"
                events = transcriber.transcribe_pcm(source, OPTIONS, memory=memory)
                found.append(await collect(events))
        finally:
            await transcriber.diariser.close()
        return found

    found = asyncio.run(work())
    assert [{it.speaker for it in turn.segments} for turn in found] == [{"A"}, {"B"}, {"A"}, {"B"}]
    assert all(it.is_provisional for turn in found for it in turn.segments)
    assert all(turn.warnings == () for turn in found)


def test_records_keep_the_voices():
    embeddings = np.random.default_rng(0).normal(size=(2, 8))
    voices = Voices(((0.0, 1.5), (0.75, 2.25)), pack(embeddings))
    heard = Hypothesis(0, "a", (Word("a", 0, 1),), voices=voices)
    place = 0, Chunk(0, 0, 16_000)
    assert unpack_chunk(pack_chunk(place, heard, "e")) == (place, heard, "e")
    assert voices.embeddings not in repr(heard)  # personal data, which no log may have
    assert unpack(voices.embeddings, 2) == pytest.approx(embeddings, abs=0.01)
    for n in (0, 3, 7):
        with pytest.raises(ValueError, match="embeddings"):
            unpack(voices.embeddings, n)


@pytest.fixture(scope="module")
def conversation(tmp_path_factory):
    """Two voices that take turns of 9 s, two each."""
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    turns = [voice((300, 3000)[i % 2], 9, seed=i) for i in range(4)]
    soundfile.write(path, np.concatenate(turns), 16_000)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("loose", [0.0, 1.0])
def test_a_conversation_and_its_continuation(conversation, tmp_path, loose):
    """With a real model in real processes. A resumed attempt gives the same transcript.

    With `loose` 1 all recordings get fine windows.
    """
    model = write_model(tmp_path / "tiny.onnx")
    model.with_suffix(".json").write_text(json.dumps({"thresholds": {"loose": loose}}))
    new = []

    async def work(records):
        diariser = Diariser(2, str(model))
        async with Transcriber(FakeEngine(), diariser=diariser) as transcriber:
            kept = Records(records, "fake engine", lambda *found: new.append(found[-1]))
            events, told = transcriber.transcribe_file(conversation, OPTIONS, checkpoint=kept), []
            found = await collect(events, told.append)
            soundfile.write(tmp_path / "ann.wav", voice(300, 9), 16_000)
            known = await transcriber.embed_voice(tmp_path / "ann.wav", "Ann")
            with pytest.raises(InvalidOption, match="several voices"):
                await transcriber.embed_voice(conversation, "Ben")
            return found, told, known

    found, told, known = asyncio.run(work([]))
    assert (known.name, known.seconds > 1) == ("Ann", True)
    for word in found.words:
        expected = "AB"[int(word.midpoint // 9) % 2]
        edge = min(abs(word.midpoint - at) for at in range(9, 36, 9))
        assert word.speaker == expected or edge < 0.8
    assert {it.speaker for it in found.segments} == {"A", "B"}
    early = [it for it in told if isinstance(it, Segment)]
    assert early
    assert all(it.is_provisional and it.speaker for it in early)
    assert not any(it.is_provisional for it in found.segments)
    records, new[:] = list(new), []
    again, _, _ = asyncio.run(work(records[1:]))
    assert again == found
    assert len(new) == 1
    # Records of an attempt that did not tell speakers apart lack the voices.
    new[:] = []
    bare = [
        pack_chunk(place, replace(heard, voices=None), "fake engine")
        for place, heard, _ in map(unpack_chunk, records)
    ]
    third, _, _ = asyncio.run(work(bare))
    assert third == found
    assert sorted(new) == sorted(records)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("off", None),
        ("auto", (1, None)),
        ("3", (3, 3)),
        ("2-5", (2, 5)),
        ("20", (20, 20)),
        (" AUTO ", (1, None)),
        ("Off", None),
        (" 2 - 5 ", (2, 5)),
        ("4-4", (4, 4)),
    ],
)
def test_the_number_of_speakers(text, expected):
    found = read_speakers(text)
    assert (found and (found.fewest, found.most)) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "21", "5-2", "2-", "-3", "two", "1-2-3", "٣", "1e1", "9" * 99]
)
def test_a_wrong_number_of_speakers(text):
    with pytest.raises(InvalidOption, match="off, auto"):
        read_speakers(text)
