"""Detecting several recordings concatenated in one file; `test_resample.py` decodes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from asr.audio.concatenated import extent, next_recording
from asr.audio.mpeg import frame_bytes, is_counted as counts_its_frames

if TYPE_CHECKING:
    from pathlib import Path

    from asr.audio.containers import Peek

PAGE = b"OggS" + bytes(22) + b"\x01" + b"\x03" + b"abc"
FIRST_PAGE = PAGE[:5] + b"\x02" + PAGE[6:]
FRAME = b"\xff\xfb\x90\x00" + bytes(32) + b"Xing" + b"\x00\x00\x00\x02" + b"\x00\x00\x01\xa1"
MP3 = FRAME + bytes(0x1A1 - len(FRAME))
assert frame_bytes(MP3) == len(MP3)
COUNTED_MP3 = FRAME[:43] + b"\x01" + FRAME[44:] + bytes(40)
TAGGED_MP3 = b"ID3\x04\x00\x00\x00\x00\x00\x08" + bytes(8) + MP3
ID3V1 = b"TAG" + bytes(125)
APE = b"APETAGEX\xd0\x07\0\0" + b"\x28\0\0\0" + bytes(16) + bytes(40)

PIECES = st.sampled_from([PAGE, FIRST_PAGE, MP3, TAGGED_MP3, ID3V1, APE]) | st.binary(max_size=40)


def peek_of(path: Path) -> Peek:
    data = path.read_bytes()
    return lambda at, n_bytes: data[at : at + n_bytes]


def is_concatenated(path: Path) -> bool:
    """Whether another recording follows the first one."""
    peek, size = peek_of(path), path.stat().st_size
    end = extent(peek, 0, complete=True).end
    return end is not None and next_recording(peek, 0, end, size)[0] is not None


def is_counted(path: Path) -> bool:
    return counts_its_frames(peek_of(path), 0, path.stat().st_size)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("joined") / "file"


@pytest.mark.parametrize(
    ("data", "joined"),
    [
        (FIRST_PAGE + PAGE, False),
        (FIRST_PAGE + PAGE + FIRST_PAGE, True),
        (FIRST_PAGE + FIRST_PAGE + PAGE, False),  # two streams of one recording
        (MP3, False),
        (MP3 + MP3, True),
        (MP3 + TAGGED_MP3, True),
        (TAGGED_MP3 + MP3, True),
        (MP3 + ID3V1, False),  # old players append this tag to a recording
        (MP3 + ID3V1 + MP3, True),
        (MP3 + ID3V1 + TAGGED_MP3, True),
        (MP3 + APE + ID3V1, False),
        (MP3 + APE + ID3V1 + MP3, True),
    ],
)
def test_headers_tell(file: Path, data: bytes, joined: bool) -> None:
    file.write_bytes(data)
    assert is_concatenated(file) is joined


@pytest.mark.parametrize(
    ("data", "counted"),
    [
        (COUNTED_MP3, True),
        (TAGGED_MP3[: -len(MP3)] + COUNTED_MP3, True),
        (COUNTED_MP3[:44], False),
        (COUNTED_MP3[:44] + bytes(40), False),  # the encoder was interrupted
        (MP3, False),
        (ID3V1, False),
        (b"", False),
    ],
)
def test_an_mp3_says_how_many_frames_it_has_or_not(file: Path, data: bytes, counted: bool) -> None:
    file.write_bytes(data)
    assert is_counted(file) is counted


@pytest.mark.parametrize(
    "data", [FIRST_PAGE + PAGE + FIRST_PAGE, TAGGED_MP3 + MP3, MP3 + APE + ID3V1 + MP3]
)
def test_a_file_may_end_anywhere(file: Path, data: bytes) -> None:
    found = []
    for length in range(len(data)):
        file.write_bytes(data[:length])
        found.append(is_concatenated(file))
    assert found == sorted(found)  # a longer prefix never tells less


@given(pieces=st.lists(PIECES, max_size=6))
def test_any_bytes_are_joined_or_not(file: Path, pieces: list[bytes]) -> None:
    file.write_bytes(b"".join(pieces))
    assert is_concatenated(file) in {True, False}
    assert is_counted(file) in {True, False}
