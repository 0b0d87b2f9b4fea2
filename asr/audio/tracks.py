"""Choose among the audio tracks of a container.

A screen recorder writes the sound of the computer and the microphone to a track each, and a film
has a track for each language. By default the track that players choose is transcribed, unless it
is silent. A warning names the others. With ``channels=split`` each track is one channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.audio.decoding import ACCEPTED, Decoding
from asr.audio.ffmpeg import decode_track, open_container
from asr.audio.silence import is_silence
from asr.errors import DamagedAudio, InvalidOption, UnsupportedAudio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import av

    from asr.audio.decoding import RatedBlocks, Readable

    Join = Callable[[list[RatedBlocks]], RatedBlocks]

SILENT_PEAK: Final = 1e-3
"""A track that never exceeds -60 dB of full scale is silent. Speech is at least 20 dB louder."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which audio tracks to decode.

    Attributes:
        number: the only one, counted from 0; None lets the program choose.
        join: makes one channel of each track; None decodes a single track.
    """

    number: int | None = None
    join: Join | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A recording that can be opened several times, once for each track.

    Attributes:
        open: returns ``file:PATH``, or a new object that reads from the beginning.
        name: ``file:PATH`` if a failing disk can be told from a damaged recording, else "".
        options: of FFmpeg's demuxer.
    """

    open: Callable[[], str | Readable]
    name: str
    options: dict[str, str]

    def container(self) -> av.container.InputContainer:
        """Open it."""
        return open_container(self.open(), self.name, self.options)

    def track(self, number: int, decoding: Decoding) -> RatedBlocks:
        """Open it, and return the blocks of one track."""
        container = self.container()
        return decode_track(container, container.streams.audio[number], self.name, decoding)


def open_tracks(source: Source, decoding: Decoding, choice: Choice) -> RatedBlocks:
    """Return the blocks of the chosen track, or of all tracks together.

    Raises:
        InvalidOption: there is no track of the chosen number.
        UnsupportedAudio: there is no audio track, or its codec is unknown.
    """
    container = source.container()
    tracks = container.streams.audio
    best = container.streams.best("audio")
    if not tracks or best is None:
        container.close()
        raise UnsupportedAudio(f"the file has no audio track. {ACCEPTED}.")
    if choice.number is not None:
        check_track(choice.number, len(tracks))
    if choice.number is not None or len(tracks) == 1:
        stream = tracks[choice.number or 0]
        return decode_track(container, stream, source.name, decoding)
    names = [_describe(number, stream) for number, stream in enumerate(tracks)]
    order = sorted(range(len(tracks)), key=lambda number: tracks[number].index != best.index)
    container.close()
    if choice.join is not None:
        return _together(source, names, decoding, choice.join)
    decoding.promised_seconds = None
    return _one_with_sound(source, names, order, decoding)


def check_track(number: int, n_tracks: int) -> None:
    """Check that a track exists.

    Raises:
        InvalidOption: it does not.
    """
    if not 0 <= number < n_tracks:
        last = f"0 to {n_tracks - 1}" if n_tracks > 1 else "only 0"
        raise InvalidOption("track", f"the recording has no track {number}: send {last}")


def _describe(number: int, stream: av.AudioStream) -> str:
    """Return a name of a track, with its language and its title if it has them."""
    language = stream.metadata.get("language", "und")
    title = " ".join(stream.metadata.get("title", "").split())[:60]
    details = [detail for detail in (language, title) if detail and detail != "und"]
    return f"track {number}" + (f" ({', '.join(details)})" if details else "")


def _together(source: Source, names: list[str], decoding: Decoding, join: Join) -> RatedBlocks:
    """Decode all tracks at the same time, each from its own container."""
    apart = [Decoding() for _ in names]
    opened = [source.track(number, own) for number, own in enumerate(apart)]
    promises = [own.promised_seconds or 0.0 for own in apart]
    decoding.promised_seconds = max(promises) or None
    decoding.is_promise_of_audio = all(own.is_promise_of_audio for own in apart)
    decoding.labels = names
    return _noting(join(opened), names, apart, decoding)


def _noting(
    blocks: RatedBlocks, names: Sequence[str], apart: Sequence[Decoding], decoding: Decoding
) -> RatedBlocks:
    """Collect the warnings of several tracks at the end of their blocks."""
    yield from blocks
    for name, own in zip(names, apart, strict=True):
        decoding.warnings += [f"{name}: {warning}" for warning in own.warnings]
    if any(own.promised_seconds is None for own in apart):
        decoding.promised_seconds = None


def _one_with_sound(
    source: Source, names: Sequence[str], order: Sequence[int], decoding: Decoding
) -> RatedBlocks:
    """Decode the first track that is not silent."""
    silent: list[int] = []
    for number in order:
        if _has_sound(source, number):
            chosen = number
            break
        silent.append(number)
    else:
        chosen = order[0]
    decoding.warnings.append(_choice_warning(names, chosen, silent))
    yield from source.track(chosen, decoding)


def _has_sound(source: Source, number: int) -> bool:
    """Return whether a track can be decoded and is not silent."""
    try:
        blocks = source.track(number, Decoding())
        return any(not is_silence(block) and _peak(block) > SILENT_PEAK for _, block in blocks)
    except (DamagedAudio, UnsupportedAudio):
        return False


def _peak(block: np.ndarray) -> float:
    return float(np.abs(block).max(initial=0.0))


def _choice_warning(names: Sequence[str], chosen: int, silent: Sequence[int]) -> str:
    others = [
        f"{name}, which is silent" if number in silent else name
        for number, name in enumerate(names)
        if number != chosen
    ]
    used = f"{names[chosen]} was transcribed" if len(silent) < len(names) else "all are silent"
    message = f"the recording has {len(names)} audio tracks: {used}, but not {'; '.join(others)}"
    return f"{message}. Send track=N to choose one, or channels=split to transcribe all"
