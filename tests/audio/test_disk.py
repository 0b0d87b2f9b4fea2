"""A disk that fails is not a damaged recording, and a damaged recording is no disk that fails."""

import errno
import os

import av.error
import pytest

from asr.audio import disk
from asr.audio.decoding import Decoding
from asr.audio.readers import open_file
from asr.errors import AudioError
from tests.support.makers import noise, wav_bytes


def decoded(path):
    return sum(len(block) for _, block in open_file(path, Decoding()))


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(noise(1.0)))
    return path


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOENT])
def test_the_system_fails_in_ffmpeg(tmp_path, monkeypatch, number):
    path = tmp_path / "a.mka"
    path.write_bytes(b"\x1a\x45\xdf\xa3" * 100)

    def fails(*_, **__):
        av.error.err_check(-number)

    monkeypatch.setattr(av, "open", fails)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        decoded(path)
    assert caught.value.errno == number
    assert not isinstance(caught.value, av.error.FFmpegError)


def fail_to_read(*_):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("disk_fails", [True, False])
def test_an_error_of_the_disk_in_ffmpeg_is_checked(tmp_path, monkeypatch, disk_fails):
    path = tmp_path / "a.mka"
    path.write_bytes(b"\x1a\x45\xdf\xa3" * 100)

    def fails(*_, **__):
        av.error.err_check(-errno.EIO)

    monkeypatch.setattr(av, "open", fails)
    if disk_fails:
        monkeypatch.setattr(disk.os, "pread", fail_to_read)
    with pytest.raises(OSError if disk_fails else AudioError) as caught:
        decoded(path)
    assert not disk_fails or caught.value.errno == errno.EIO


def test_a_whole_file_is_read(recording):
    descriptor = os.open(recording, os.O_RDONLY)
    disk.check_readable(descriptor)
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
    os.close(descriptor)
