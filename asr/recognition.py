"""One chunk from samples to timed words: the engine hears it, an aligner times it.

The engine's slots are held only while it works on the chunk; alignment has its own processes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asr.align.interpolate import interpolate

if TYPE_CHECKING:
    from collections.abc import Callable

    from asr.align.base import Aligner
    from asr.config import DecodeOptions
    from asr.engines.base import Engine
    from asr.types import Audio, Chunk, Hypothesis


class Recogniser:
    """An engine and what times its words.

    Args:
        engine: recognises.
        aligner: times the words of an engine that gives no times; without one they are spread
            over the speech.
    """

    def __init__(self, engine: Engine, aligner: Aligner | None = None) -> None:
        self._engine = engine
        self._aligner = aligner
        self._slots = asyncio.Semaphore(engine.slots)

    async def recognise(
        self, chunk: Chunk, read: Callable[[int, int], Audio], options: DecodeOptions
    ) -> Hypothesis:
        """Recognise one chunk.

        Args:
            chunk: which samples.
            read: gives them; called when a slot is free, so that waiting chunks cost no memory.
            options: what the user tells the recogniser.

        Raises:
            EngineError: it failed.
        """
        async with self._slots:
            audio = await asyncio.to_thread(read, chunk.start_sample, chunk.end_sample)
            hypothesis = await self._engine.transcribe(chunk, audio, options)
        if hypothesis.words or not hypothesis.text.strip():
            return hypothesis
        if self._aligner is None:
            return interpolate(audio, hypothesis)
        return await self._aligner.align(audio, hypothesis)
