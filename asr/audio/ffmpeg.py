"""Decode with FFmpeg (through PyAV), packet by packet, in constant memory.

A file may have several audio tracks. `asr.audio.tracks` chooses among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from asr.audio.clock import Clock
from asr.audio.decoding import ACCEPTED, MIN_RATE, Decoding, check_layout, damaged
from asr.audio.disk import refuse_disk_errors
from asr.audio.silence import silence
from asr.errors import UnsupportedAudio
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import av

    from asr.audio.decoding import RatedBlocks, Readable

# Demuxers that read one file and nothing else: no hls, no concat, no playlists of any kind.
_FORMATS: Final = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,wav,w64,webm"
)
# For these FFmpeg guesses the length of a file from its size and the bitrate of its first frames.
_GUESSED: Final = ("mp3", "aac", "ac3", "caf")
# Key: codec. Value: the frame type of comfort noise (types from there on hold no speech), and the
# samples of a frame. FFmpeg's decoder rejects such frames.
_AMR: Final = {"amrnb": (8, 160), "amrwb": (9, 320)}
# FFmpeg counts the timestamps of these. They go wrong where the rate changes, and tell no gaps.
_UNTIMED: Final = ("aac", "mp3", "ac3", "flac", "amr", "wav", "aiff", "au", "w64", "caf")
_TAGS: Final = (b"ID3", b"TAG", b"APETAGEX")


def open_container(
    source: str | Readable, name: str, options: dict[str, str]
) -> av.container.InputContainer:
    """Open a file or a stream.

    Args:
        source: ``file:PATH``, or an object to read from.
        name: ``file:PATH`` if a failing disk can be told from a damaged recording, else "".
        options: of FFmpeg's demuxer.

    Raises:
        UnsupportedAudio: it is not audio in an accepted format.
    """
    # Imported here and in `_frames`: FFmpeg's libraries are large, and only decoders need them.
    import av
    import av.error

    guards = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    try:
        return av.open(source, "r", options=guards | options, metadata_errors="ignore")
    except MemoryError:  # must come first: PyAV's MemoryError is an FFmpegError too
        raise
    except (av.error.FFmpegError, ValueError, UnicodeError) as error:
        refuse_disk_errors(error, name)
        raise UnsupportedAudio(f"this is not audio that can be read. {ACCEPTED}.") from error


def decode_track(
    container: av.container.InputContainer, stream: av.AudioStream, name: str, decoding: Decoding
) -> RatedBlocks:
    """Return the blocks of one audio track. The container is closed at their end.

    Args:
        container: an open container, for this track only.
        stream: the track.
        name: as for `open_container`.
        decoding: receives the length in the header and, while iterating, warnings.

    Raises:
        UnsupportedAudio: the codec, the rate or the number of channels is not accepted.
        DamagedAudio: while iterating, decoding failed.
    """
    if getattr(stream, "codec_context", None) is None:  # then stream.rate does not exist either
        container.close()
        raise UnsupportedAudio(f"the codec of the audio is unknown. {ACCEPTED}.")
    check_layout(stream.rate or MIN_RATE, stream.channels or 1)
    _set_promise(container, stream, decoding)
    return _blocks(container, stream, name, decoding)


def _late(container: av.container.InputContainer, stream: av.AudioStream) -> float:
    """Return the seconds from the beginning of the container to the first sound."""
    start = float((stream.start_time or 0) * (stream.time_base or 0))
    return start - (container.start_time or 0) / 1e6


def _set_promise(
    container: av.container.InputContainer, stream: av.AudioStream, decoding: Decoding
) -> None:
    """Note the length that the header states.

    Matroska, flv and others state only the length of the container, perhaps of its picture.
    """
    decoding.promised_seconds = None
    if not container.duration or (container.format.name in _GUESSED and container.size > 0):
        return
    # Only Matroska counts its length from time 0 instead of from its first packet.
    counts_from_0 = "matroska" in container.format.name
    start = (container.start_time or 0) if counts_from_0 else 0
    seconds = max(container.duration - start, 0) / 1e6
    own = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    if own > 0:
        seconds = min(seconds, max(_late(container, stream), 0.0) + own)
    decoding.promised_seconds = seconds
    decoding.is_promise_exact = container.format.name == "flac"
    decoding.is_promise_of_audio = own > 0 or len(container.streams) == 1


def _blocks(
    container: av.container.InputContainer, stream: av.AudioStream, name: str, decoding: Decoding
) -> RatedBlocks:
    """Decode packet by packet, and insert silence where the timestamps jump ahead."""
    is_timed = container.format.name not in _UNTIMED
    clock = Clock((container.start_time or 0) / 1e6, _late(container, stream))
    with container:
        for frame in _frames(container, stream, decoding, name):
            rate, block = frame.sample_rate, _frame_samples(frame)
            check_layout(rate, block.shape[1])
            if frame.time is not None:
                decoding.last = frame.time + len(block) / rate
            time = frame.time if is_timed else None
            if n_silent := round(clock.gap(time, len(block) / rate) * rate):
                yield rate, silence(n_silent, block.shape[1])
            yield rate, block
    if clock.n_jumps or clock.jumps_back:
        decoding.promised_seconds = None  # it includes the jumps
    if clock.n_jumps:
        decoding.warnings.append(
            f"the clock of the recording jumps ahead by more than an hour, {clock.n_jumps} times, "
            f"first after {clock.first_jump:.1f} s of audio: no silence was inserted"
        )


def _frames(
    container: av.container.InputContainer,
    stream: av.AudioStream,
    decoding: Decoding,
    name: str = "",
) -> Iterator[av.AudioFrame]:
    """Yield the frames of a stream. Skip a few damaged packets, as players do."""
    import av.error

    n_good, n_bad, packet = 0, 0, None
    packets = container.demux(stream)
    decode = _decoder_of(stream)
    while True:
        try:
            packet = next(packets)
            yield from decode(packet)
            n_good += 1
            decoding.position = getattr(packet, "pos", None) or decoding.position
        except StopIteration:
            break
        except MemoryError:  # must come first: PyAV's MemoryError is an FFmpegError too
            raise
        except av.error.FFmpegError as error:
            refuse_disk_errors(error, name)
            n_bad += not bytes(packet or b"").startswith(_TAGS)
            if n_bad > 3 + n_good // 100:
                seconds = 0.0 if n_good == 0 else n_good * _packet_seconds(stream)
                raise damaged(seconds, error) from error
    if n_bad:
        decoding.is_damaged = True
        decoding.warnings.append(_skipped(n_bad))


def _skipped(n_packets: int) -> str:
    what = "packet of audio was" if n_packets == 1 else "packets of audio were"
    return f"{n_packets} damaged {what} skipped"


def _decoder_of(
    stream: av.AudioStream,
) -> Callable[[av.Packet[av.AudioStream]], list[av.AudioFrame]]:
    """Return a function that decodes a packet."""
    context = getattr(stream, "codec_context", None)
    amr = _AMR.get(context.codec.name if context else "")
    if amr is None:
        return lambda packet: packet.decode()
    first_silent, n_samples = amr

    def decode(packet: av.Packet[av.AudioStream]) -> list[av.AudioFrame]:
        head = bytes(memoryview(packet)[:1]) if packet.size else b""
        if head and head[0] >> 3 & 15 >= first_silent:
            return [_silent_frame(packet, stream, n_samples)]
        return packet.decode()

    return decode


def _silent_frame(
    packet: av.Packet[av.AudioStream], stream: av.AudioStream, n_samples: int
) -> av.AudioFrame:
    """Return silence in place of a packet of a pause."""
    import av  # see above

    frame = av.AudioFrame.from_ndarray(np.zeros((1, n_samples), np.float32), "fltp", "mono")
    frame.sample_rate = stream.rate
    frame.pts, frame.time_base = packet.pts, packet.time_base
    return frame


def _packet_seconds(stream: av.AudioStream) -> float:
    return (stream.codec_context.frame_size or 1024) / (stream.rate or SAMPLE_RATE)


_SCALE: Final = {"u8": 1 / 128, "s16": 1 / 32768, "s32": 1 / 2147483648}


def _frame_samples(frame: av.AudioFrame) -> np.ndarray:
    """Return the samples of a frame as float32, shape (n_frames, n_channels)."""
    try:
        array = frame.to_ndarray()
    except ValueError as error:  # PyAV cannot convert s64
        raise UnsupportedAudio(
            f"samples in the format {frame.format.name} are not supported"
        ) from error
    block = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    name = frame.format.name.removesuffix("p")
    if name == "u8":
        return (block.astype(np.float32) - 128) * np.float32(_SCALE[name])
    if name in _SCALE:
        return block.astype(np.float32) * np.float32(_SCALE[name])
    return block.astype(np.float32, copy=False)
