"""Speakers of an aligned text."""

import asyncio

import numpy as np
import pytest

from asr.align.longform import Piece
from asr.config import Options, SpeakerOptions, VadOptions
from asr.errors import InvalidOption
from asr.pipeline.known_text import align_file
from asr.pipeline.script_speakers import NAMED, with_speakers
from asr.pipeline.transcriber import Transcriber, collect
from asr.speakers.diariser import Diariser, SpokenWord
from asr.speakers.packing import pack
from asr.types import Audio, Hypothesis, LineSegment, Segment, Transcript, Voices, Word
from tests.support.fakes import FakeEngine

WORDS = tuple(
    Word(text, at, at + 0.9) for at, text in enumerate(["Hello", "there.", "Who", "asks?"])
)
PIECES = [
    (Piece(0.0, 2.0, 0, 2), Hypothesis(0, "Hello there.", WORDS[:2])),
    (Piece(2.0, 4.0, 2, 4), Hypothesis(0, "Who asks?", WORDS[:2])),
]


class FakeDiariser:
    """The first half of the words is of A, the second of B."""

    obstacle = ""

    def __init__(self, error=None):
        self.error = error

    async def embed(self, audio, words, *, fine=False):
        if self.error:
            raise self.error
        return Voices(tuple((word.start, word.end) for word in words), pack(np.ones((2, 4))))

    async def label(self, log, words, options, refine=None):
        assert log.windows == [(0.0, 0.9), (1.0, 1.9), (2.0, 2.9), (3.0, 3.9)]
        return [SpokenWord("A" if word.start < 2 else "B", 0.9, False) for word in words], ()


class FakeRecording:
    def read(self, start, end):
        return Audio(np.zeros(end - start, np.float32))


def spoken(*segments, diariser=None):
    transcript = Transcript(segments, "en", 4.0, 4.0, 0.0, "given text")
    work = with_speakers(
        transcript, diariser or FakeDiariser(), SpeakerOptions(), FakeRecording(), PIECES
    )
    return asyncio.run(work)


def test_segments_are_split_and_lines_stay_whole():
    whole = Segment(0, 0.0, 4.0, "Hello there. Who asks?", WORDS)
    found = spoken(whole).segments
    assert [(it.speaker, it.text) for it in found] == [("A", "Hello there."), ("B", "Who asks?")]
    line = LineSegment(0, 0.0, 2.0, "Hello\nthere.", WORDS[:2])
    other = LineSegment(1, 2.0, 4.0, "Who asks?", WORDS[2:])
    found = spoken(line, other).segments
    assert [(it.speaker, it.text) for it in found] == [("A", "Hello\nthere."), ("B", "Who asks?")]
    assert all(isinstance(it, LineSegment) for it in found)


def test_the_names_of_the_text_are_kept():
    line = LineSegment(0, 0.0, 4.0, "Hello there. Who asks?", WORDS, speaker="Ann")
    found = spoken(line)
    assert (found.segments, found.warnings) == ((line,), (NAMED,))


def test_the_text_is_delivered_although_the_diariser_fails():
    whole = Segment(0, 0.0, 4.0, "Hello there. Who asks?", WORDS)
    found = spoken(whole, diariser=FakeDiariser(error=OSError("no disk")))
    assert found.segments == (whole,)
    assert found.warnings == ("the speakers could not be told apart: no disk",)


def test_a_missing_model_is_an_error_at_once(tmp_path):
    path = tmp_path / "a.wav"
    options = Options(vad=VadOptions("off"), speakers=SpeakerOptions())

    async def work(diariser):
        async with Transcriber(FakeEngine(), diariser=diariser) as transcriber:
            return await collect(align_file(transcriber, path, "Hello there", options))

    with pytest.raises(InvalidOption, match="correct ASR_SPEAKER_MODEL") as caught:
        asyncio.run(work(Diariser(1, str(tmp_path / "none.onnx"))))
    assert caught.value.name == "speakers"
