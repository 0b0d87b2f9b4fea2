"""What an engine is: one chunk of audio in, one hypothesis out.

An engine knows nothing of files, of other chunks, or of HTTP. Batching is its own affair: it says
how many chunks it wants in flight (`slots`) and the pipeline keeps that many there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asr.config import DecodeOptions
    from asr.types import Audio, Chunk, Hypothesis


class Engine(Protocol):
    """A recogniser.

    Attributes:
        name: engine and model, as every transcript states it.
        model: the id in ``/v1/models``.
        slots: chunks that it works on at once.
        language: ISO-639-1 code of what it recognises when the request names none.
        guarded: whether its answers are worth doubting: it may invent text, and asked again it may
            answer otherwise.
    """

    name: str
    model: str
    slots: int
    language: str
    guarded: bool

    def check(self, options: DecodeOptions) -> tuple[str, ...]:
        """Warnings about options that this engine ignores.

        Raises:
            InvalidOption: it cannot serve them, such as a language it does not know.
        """
        ...

    async def open(self) -> None:
        """Load; may be called again after a failure.

        Raises:
            EngineUnavailable: it cannot be used now.
        """
        ...

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise the samples of one chunk.

        Returns:
            A hypothesis whose times count from the start of the chunk, with no words when the
            engine has no times to give.

        Raises:
            EngineError: it failed.
        """
        ...

    async def close(self) -> None:
        """Free everything."""
        ...
