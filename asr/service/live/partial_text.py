"""The text of an item that the client has before the item is completed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asr.service.live.agreement import Agreed

CLOSING: Final = ".,;:!?\u2026\"'\u201d\u2019)]"
"""Punctuation that may follow a word. An engine writes it where the audio ends, and often takes it
back when the next words come. So the last word that is sent waits for its punctuation."""


@dataclass(slots=True)
class PartialText:
    """The partial results of one item.

    Attributes:
        words: the words that were sent, as the client sees them.
        is_exact: the item has exactly these words, and what the final hypothesis has after them
            belongs to the next item.
        final: all words of the item, once it is completed; () if it failed.
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

        The last word is sent without its closing punctuation; the next delta begins with it.
        """
        before = self.text
        if self.words:
            self.words[-1] = punctuated(self.words[-1], agreed.before)
        last = agreed.words[-1].rstrip(CLOSING) or agreed.words[-1]
        self.words += [*agreed.words[:-1], last]
        return self.text[len(before) :]


def punctuated(word: str, newest: str) -> str:
    """The word with the closing punctuation of another spelling, if nothing else differs."""
    is_closing = newest.startswith(word) and not newest[len(word) :].strip(CLOSING)
    return newest if is_closing else word
