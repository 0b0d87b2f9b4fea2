"""A fake engine with configurable words, delays and errors."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from asr.config import check
from asr.engines.base import Engine
from asr.types import Hypothesis, Word

if TYPE_CHECKING:
    from collections.abc import Callable

    from asr.config import DecodeOptions
    from asr.settings import Settings
    from asr.types import Audio, Chunk

DELAY_VARIABLE = "FAKE_ENGINE_DELAY"


class FakeEngine(Engine):
    """Answers each chunk with evenly spaced words that name the chunk: "c0w0 c0w1 ...".

    Args:
        slots: number of chunks that it takes at once.
        delay: seconds per chunk, or a function of the chunk.
        words_per_second: 0 for an engine that returns no words.
        timed: whether its words have times; otherwise it returns only text.
        answer: a function of the chunk that returns the hypothesis instead, or raises an error.

    Attributes:
        chunks: the chunks that it received, in order.
        samples: number of samples of each chunk.
        running: number of chunks in progress now.
        max_running: the highest number of chunks in progress at once.
        opened: how often it was opened; `closed` likewise.
    """

    language = "en"
    model = "fake"

    def __init__(
        self,
        slots: int = 4,
        delay: float | Callable[[Chunk], float] = 0.0,
        words_per_second: float = 2.0,
        timed: bool = True,
        answer: Callable[[Chunk], Hypothesis] | None = None,
    ) -> None:
        self.name = "fake engine"
        self.slots = slots
        self.chunks: list[Chunk] = []
        self.samples: list[int] = []
        self.running = self.max_running = self.opened = self.closed = 0
        self._delay = delay
        self._words_per_second = words_per_second
        self._timed = timed
        self._answer = answer or self._speak

    def check(self, options: DecodeOptions) -> tuple[str, ...]:
        check(options.language in (None, "en"), "language", "the fake speaks English")
        return ("the fake ignores prompt",) if options.prompt is not None else ()

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        self.chunks.append(chunk)
        self.samples.append(len(audio.samples))
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await asyncio.sleep(self._delay(chunk) if callable(self._delay) else self._delay)
            return self._answer(chunk)
        finally:
            self.running -= 1

    def _speak(self, chunk: Chunk) -> Hypothesis:
        n_words = int(chunk.duration * self._words_per_second)
        step = chunk.duration / max(n_words, 1)
        words = tuple(
            Word(f"c{chunk.index}w{n}", n * step, (n + 0.9) * step, 0.5) for n in range(n_words)
        )
        text = " ".join(word.text for word in words)
        return Hypothesis(chunk.index, text, words if self._timed else ())


def instant_engine(settings: Settings) -> FakeEngine:
    """A replacement for ``load_engine`` whose engine answers at once."""
    return FakeEngine(settings.workers)


def slow_engine(settings: Settings) -> FakeEngine:
    """A replacement whose engine takes the delay that an environment variable sets."""
    return FakeEngine(settings.workers, float(os.environ.get(DELAY_VARIABLE, "0.5")))
