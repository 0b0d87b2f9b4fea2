"""An engine that makes no mistakes, so that what times the words is measured and nothing else.

It hears in a chunk the words of the reference that are said there. Decoding, VAD and chunks are
the real ones: a word that a cut goes through belongs to the chunk that has its middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.types import Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.config import DecodeOptions
    from asr.types import Audio, Chunk, Word


class ReferenceEngine:
    """Gives the reference's text for each chunk, and no times.

    Attributes:
        words: the reference of the recording in work, with its times; to be set before it.
    """

    name = "reference text"
    model = "reference"
    language = "en"
    guarded = False

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.words: Sequence[Word] = ()

    def check(self, options: DecodeOptions) -> tuple[str, ...]:  # noqa: ARG002
        """Takes no notice of any option."""
        return ()

    async def open(self) -> None:
        """Nothing to load."""

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:  # noqa: ARG002
        """The text of the reference in this chunk."""
        heard = (word.text for word in self.words if chunk.start <= word.midpoint < chunk.end)
        return Hypothesis(chunk.index, " ".join(heard))

    async def close(self) -> None:
        """Nothing to free."""
