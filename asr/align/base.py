"""The interface of every aligner: give the words of a chunk their times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asr.types import Audio, Hypothesis


class Aligner(Protocol):
    """Finds where in a chunk each word of a known text was said."""

    @property
    def name(self) -> str:
        """Aligner and model, as every transcript states them."""
        ...

    @property
    def language(self) -> str | None:
        """The only language that it can align, such as "en"; None if it can align any."""
        ...

    async def open(self) -> None:
        """Load the models. May be called again after a failure.

        Raises:
            EngineUnavailable: it cannot be used now.
        """
        ...

    async def align(self, audio: Audio, hypothesis: Hypothesis) -> Hypothesis:
        """Time every word of ``hypothesis.text``. The new words replace ``hypothesis.words``.

        Returns:
            The same hypothesis with one `Word` for each token of ``text.split()``, in order and
            inside the chunk; no word starts before its predecessor. `Word.timing` says how the
            word got its time. Its confidence is measured in the audio where that is possible;
            otherwise it comes from ``hypothesis.word_confidences``, if there are any.
        """
        ...

    async def close(self) -> None:
        """Free the models and end all processes and threads."""
        ...
