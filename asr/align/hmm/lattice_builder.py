"""Build the lattice of a text from the spoken forms of its tokens.

A phone sounds different next to different phones. Inside a word its neighbours are known. At the
edge of a word the neighbour is a phone of the next word or, at a pause, silence. The lattice offers
the senones of all these contexts, and in each frame the best one counts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.align.hmm.acoustics import BEGIN, END, INTERNAL, SILENCE, SINGLE
from asr.align.hmm.lattice import Lattice
from asr.text.spoken import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asr.align.hmm.acoustics import Phones, Senones
    from asr.align.hmm.pronounce import Lexicon, Pronunciation
    from asr.text.spoken import Slot

MAX_NEIGHBOURS: Final = 3
"""How many phones of the adjacent word are considered as context at a word's edge."""


@dataclass(frozen=True, slots=True)
class Prices:
    """The costs of deviating from the text, in nats.

    Attributes:
        skip: to skip a token.
        skip_phone: in addition, for each phone of a skipped token.
        filler: to begin a filler, that is, speech that belongs to no token.
        filler_frame: in addition, for each frame of a filler.
    """

    skip: float
    skip_phone: float
    filler: float
    filler_frame: float


class LatticeBuilder:
    """Builds lattices for one acoustic model and one dictionary."""

    def __init__(self, phones: Phones, lexicon: Lexicon) -> None:
        self._phones = phones
        self._lexicon = lexicon
        self._silence = phones.index(SILENCE)

    def build(self, spoken: Sequence[tuple[Slot, ...]], prices: Prices) -> Lattice:
        """Build the lattice of a text.

        Args:
            spoken: the slots of each token, from `asr.text.spoken.spoken`.
            prices: what deviating from the text costs.
        """
        lattice = Lattice(self._phones, prices.filler_frame)
        edges = self._edges(spoken)
        here = lattice.add_junction()
        lattice.add_filler(here, here, price=prices.filler)
        for token, slots in enumerate(spoken):
            start = here
            here = lattice.add_junction(self._skip_price(slots, prices))
            lattice.add_filler(here, here, price=prices.filler)
            if slots is UNREADABLE:
                lattice.add_filler(start, here, token)
                continue
            left, right = edges[token][0], edges[token + 1][1]
            self._add_token(lattice, (start, here, token), slots, (left, right))
        return lattice

    def n_phones(self, slots: tuple[Slot, ...]) -> int:
        """Count the phones of a token in its shortest reading; 0 if it may be silent or unknown."""
        if slots is UNREADABLE or not slots or () in slots[0]:
            return 0
        return sum(min(map(self._n_phones, slot)) for slot in slots)

    def _skip_price(self, slots: tuple[Slot, ...], prices: Prices) -> float:
        n_phones = self.n_phones(slots)
        return prices.skip + prices.skip_phone * n_phones if n_phones else 0.0

    def _n_phones(self, reading: Iterable[str]) -> int:
        return sum(min(map(len, self._lexicon.pronounce(word))) for word in reading)

    def _edges(self, spoken: Sequence[tuple[Slot, ...]]) -> list[tuple[list[int], list[int]]]:
        """List for each junction the phones that may come just before and just after it."""
        before = [[], *(self._outer(slots, -1) for slots in spoken)]
        after = [*(self._outer(slots, 0) for slots in spoken), []]
        return list(zip(before, after, strict=True))

    def _outer(self, slots: tuple[Slot, ...], place: int) -> list[int]:
        """List the phones that a token may begin (place 0) or end (place -1) with."""
        readings = slots[place] if slots else ()
        words = (reading[place] for reading in readings if reading)
        phones = (said[place] for word in words for said in self._lexicon.pronounce(word))
        return [self._phones.index(name) for name in dict.fromkeys(phones)][:MAX_NEIGHBOURS]

    def _add_token(
        self,
        lattice: Lattice,
        place: tuple[int, int, int],
        slots: tuple[Slot, ...],
        around: tuple[list[int], list[int]],
    ) -> None:
        start, end, token = place
        for number, slot in enumerate(slots):
            target = end if number == len(slots) - 1 else lattice.add_node()
            left = around[0] if number == 0 else self._outer(slots[number - 1 : number], -1)
            is_last = number == len(slots) - 1
            right = around[1] if is_last else self._outer(slots[number + 1 : number + 2], 0)
            for reading in filter(None, slot):
                self._add_reading(lattice, (start, target, token), reading, (left, right))
            start = target

    def _add_reading(
        self,
        lattice: Lattice,
        place: tuple[int, int, int],
        reading: tuple[str, ...],
        around: tuple[list[int], list[int]],
    ) -> None:
        start, end, token = place
        said = [self._lexicon.pronounce(word) for word in reading]
        lefts = [around[0], *(self._ends(each, -1) for each in said[:-1])]
        rights = [*(self._ends(each, 0) for each in said[1:]), around[1]]
        for number, (each, left, right) in enumerate(zip(said, lefts, rights, strict=True)):
            target = end if number == len(said) - 1 else lattice.add_node()
            for pronunciation in each:
                lattice.add_word(start, target, token, self._contexts(pronunciation, left, right))
            start = target

    def _ends(self, said: Iterable[Pronunciation], place: int) -> list[int]:
        names = dict.fromkeys(phones[place] for phones in said)
        return [self._phones.index(name) for name in names][:MAX_NEIGHBOURS]

    def _contexts(
        self, said: Pronunciation, left: list[int], right: list[int]
    ) -> list[tuple[int, list[Senones]]]:
        """Pair each phone of a word with its senones in all contexts that it may have."""
        phones = [self._phones.index(name) for name in said]
        sides = [[self._silence, *left], *([phone] for phone in phones)]
        sides.append([self._silence, *right])
        found = []
        for place, phone in enumerate(phones):
            position = _position(place, len(phones))
            # sides[0] is the left context of phone 0, so sides[place] is that of phone `place`.
            pairs = itertools.product(sides[place], sides[place + 2])
            found.append((phone, [self._phones.triphone(phone, *pair, position) for pair in pairs]))
        return found


def _position(place: int, n_phones: int) -> int:
    if n_phones == 1:
        return SINGLE
    if place == 0:
        return BEGIN
    return END if place == n_phones - 1 else INTERNAL
