"""The text of an item that was sent before the item is completed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asr.service.live.agreement import Agreed

CLOSING: Final = ".,;:!?\u2026\"'\u201d\u2019)]"
"""Punctuation after a word. An engine writes it at the end of the audio, and often changes it when
more words follow. So the last word is sent without it."""


@dataclass(slots=True)
class PartialText:
    """The partial results of one item.

    Attributes:
        words: the sent words.
        is_exact: the item has exactly these words. Words after them in the final hypothesis belong
            to the next item.
        final: all words of the item; None until the item is transcribed, () if it failed.
    """

    item_id: str
    words: list[str] = field(default_factory=list)
    is_exact: bool = False
    final: tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        """All deltas, concatenated."""
        return " ".join(self.words)

    def extend(self, agreed: Agreed) -> str:
        """Append words; return the delta.

        The last word is sent without its closing punctuation. The next delta begins with that
        punctuation.
        """
        before = self.text
        if self.words:
            self.words[-1] = punctuated(self.words[-1], agreed.before)
        last = agreed.words[-1].rstrip(CLOSING) or agreed.words[-1]
        self.words += [*agreed.words[:-1], last]
        return self.text[len(before) :]


def punctuated(word: str, newest: str) -> str:
    """Return `newest` if it is `word` plus closing punctuation, otherwise `word`."""
    is_closing = newest.startswith(word) and not newest[len(word) :].strip(CLOSING)
    return newest if is_closing else word
