"""An engine that returns the reference text, to measure the aligner alone.

For each chunk it returns the words of the reference that are spoken there. Decoding, VAD and
chunking are real. A word that a cut splits belongs to the chunk that contains its middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.engines.base import Engine
from asr.types import Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.config import DecodeOptions
    from asr.types import Audio, Chunk, Word


class ReferenceEngine(Engine):
    """Returns the reference text of each chunk, without times.

    Attributes:
        words: the timed reference of the current recording; set it before each recording.
    """

    name = "reference text"
    model = "reference"
    language = "en"

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.words: Sequence[Word] = ()

    def check(self, options: DecodeOptions) -> tuple[str, ...]:  # noqa: ARG002
        """Ignores all options."""
        return ()

    async def open(self) -> None:
        """Does nothing: there is no model."""

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:  # noqa: ARG002
        """The reference text of this chunk."""
        heard = (word.text for word in self.words if chunk.start <= word.midpoint < chunk.end)
        return Hypothesis(chunk.index, " ".join(heard))

    async def close(self) -> None:
        """Does nothing."""
