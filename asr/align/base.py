"""What every aligner does: give the words of a chunk their times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asr.types import Audio, Hypothesis


class Aligner(Protocol):
    """Finds where in a chunk each word of a known text was said.

    Attributes:
        name: aligner and model, as every transcript states it.
    """

    name: str

    async def open(self) -> None:
        """Load; may be called again after a failure.

        Raises:
            EngineUnavailable: it cannot be used now.
        """
        ...

    async def align(self, audio: Audio, hypothesis: Hypothesis) -> Hypothesis:
        """Time every word of ``hypothesis.text``, whatever words it had before.

        Returns:
            The same hypothesis with one `Word` for each token of ``text.split()``: as many, in
            order, inside the chunk, starts never running backwards. Each says by `timing` how it
            got its time, and has a confidence where the audio was witness to it, else that of
            ``hypothesis.word_confidences``, if there are any.
        """
        ...

    async def close(self) -> None:
        """Free everything."""
        ...
