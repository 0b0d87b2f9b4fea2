"""The lattice of a chunk: the words of the text in order, pauses, and fillers.

Nodes lie between the tokens of the text, and between the words of a token. An arc that leads from
one node to the next is a word: it holds the states of a pronunciation. If the pronunciation is
unknown, this arc is a filler, which any speech fits. An arc that leads from a node back to itself
is a pause or a filler for speech that the text lacks. A token can be skipped at a price.
`asr.align.hmm.viterbi` searches the lattice for the best path.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.align.hmm.acoustics import PAUSE_PHONES, STATES, Phones, Senones

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE: Final = -1
FILLER: Final = -2
STRICT: Final = 1e6
"""A price so high that a token is skipped only if the audio has too few frames for it."""


@dataclass(frozen=True, slots=True)
class Arc:
    """States [first, end) that lead from one node to another.

    Attributes:
        token: index of the token that is said here, or `PAUSE`, or `FILLER`.
        price: nats for entering it.
        leave: log-probability of leaving its last state.
    """

    source: int
    target: int
    first: int
    end: int
    token: int
    price: float
    leave: float


@dataclass(slots=True)
class Lattice:
    """States and arcs, added token by token.

    Attributes:
        phones: of the model.
        filler_price: nats for each frame of a filler.
        senones: the senones of each state. In each frame the best of them counts. The state of a
            filler has none.
        stay: log-probability of staying in each state.
        step: log-probability of entering each state from the one before it.
        junctions: the nodes between tokens, one more than there are tokens.
        skips: nats for skipping each token.
    """

    phones: Phones
    filler_price: float
    arcs: list[Arc] = field(default_factory=list)
    senones: list[tuple[int, ...]] = field(default_factory=list)
    stay: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    junctions: list[int] = field(default_factory=list)
    skips: list[float] = field(default_factory=list)
    n_nodes: int = 0

    def used_senones(self) -> np.ndarray:
        """Return the numbers of all senones in the lattice, without duplicates."""
        return np.array(list({senone for group in self.senones for senone in group}), np.int64)

    def add_junction(self, skip_price: float = STRICT) -> int:
        """Add a node between two tokens, where a pause is possible.

        Args:
            skip_price: nats for skipping the token that ends at this node.
        """
        node = self.add_node()
        if self.junctions:
            self.skips.append(skip_price)
        self.junctions.append(node)
        return node

    def add_node(self) -> int:
        """Add a node between two words of one token, where a pause is possible too."""
        node = self.n_nodes
        self.n_nodes += 1
        pauses = [self.phones.monophone(self.phones.index(name)) for name in PAUSE_PHONES]
        self._append(Arc(node, node, len(self.senones), len(self.senones) + 1, PAUSE, 0.0, 0.0))
        self.senones.append(tuple(senone for senones in pauses for senone in senones))
        return node

    def add_word(
        self, source: int, target: int, token: int, phones: Sequence[tuple[int, Sequence[Senones]]]
    ) -> None:
        """Add one pronunciation of a word.

        Args:
            source: node.
            target: node.
            token: the token that the word belongs to.
            phones: each phone with its senones in each possible context.
        """
        first = len(self.senones)
        numbers = [phone for phone, _ in phones]
        stay = self.phones.stay[numbers].ravel().tolist()
        leave = self.phones.leave[numbers].ravel().tolist()
        end = first + len(stay)
        self.arcs.append(Arc(source, target, first, end, token, 0.0, leave[-1]))
        self.stay += stay
        self.step += [0.0, *leave[:-1]]
        for _, contexts in phones:
            states = ({senones[state] for senones in contexts} for state in range(STATES))
            self.senones += [tuple(sorted(state)) for state in states]

    def add_filler(self, source: int, target: int, token: int = FILLER, price: float = 0.0) -> None:
        """Add speech of unknown words and of any length.

        Args:
            source: node.
            target: node.
            token: the token that is said here, if its pronunciation is unknown; else `FILLER`.
            price: nats for entering it, in addition to `filler_price` for each frame.
        """
        first = len(self.senones)
        self._append(Arc(source, target, first, first + 1, token, price, 0.0))
        self.senones.append(())

    def _append(self, arc: Arc) -> None:
        self.arcs.append(arc)
        self.stay.append(0.0)
        self.step.append(0.0)
