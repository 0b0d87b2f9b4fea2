"""What may be heard in a chunk whose text is known: words in order, pauses, and other speech.

Nodes lie between the tokens of the text. Arcs lead from node to node along the states of a
pronunciation, or back to the same node: a pause, or speech that the text does not have. A token may
be passed over at a price. `asr.align.hmm.viterbi` finds the best way through.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from asr.align.hmm.acoustics import FILLERS, STATES, Phones, Senones

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE: Final = -1
OTHER: Final = -2
STRICT: Final = 1e6
"""The price of passing over a token when only the lack of frames shall make it happen."""


@dataclass(frozen=True, slots=True)
class Arc:
    """States [first, end) that lead from one node to another.

    Attributes:
        token: whose word it is; `PAUSE`, or `OTHER` for speech that no token accounts for.
        price: nats to enter it.
        leave: log-probability to go on from its last state.
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
    """Grown token by token.

    Attributes:
        phones: of the model.
        other_price: nats for each frame of speech outside the words.
        senones: of each state; the best of them counts, and none is speech outside the words.
        stay: log-probability to stay in each state.
        step: log-probability to come into each state from the one before it.
        junctions: the nodes between the tokens, one more than tokens.
        skips: nats to pass over each token.
    """

    phones: Phones
    other_price: float
    arcs: list[Arc] = field(default_factory=list)
    senones: list[tuple[int, ...]] = field(default_factory=list)
    stay: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    junctions: list[int] = field(default_factory=list)
    skips: list[float] = field(default_factory=list)
    n_nodes: int = 0

    def used(self) -> np.ndarray:
        """The numbers of its senones, each once."""
        return np.array(list({senone for group in self.senones for senone in group}), np.int64)

    def junction(self, skip_price: float = STRICT) -> int:
        """A node between two tokens, where one may pause.

        Args:
            skip_price: nats to pass over the token that leads here.
        """
        node = self.node()
        if self.junctions:
            self.skips.append(skip_price)
        self.junctions.append(node)
        return node

    def node(self) -> int:
        """A node between two words of one token, where one may pause too."""
        node = self.n_nodes
        self.n_nodes += 1
        fillers = [self.phones.alone(self.phones.index(name)) for name in FILLERS]
        self._append(Arc(node, node, len(self.senones), len(self.senones) + 1, PAUSE, 0.0, 0.0))
        self.senones.append(tuple(senone for three in fillers for senone in three))
        return node

    def word(
        self, source: int, target: int, token: int, phones: Sequence[tuple[int, Sequence[Senones]]]
    ) -> None:
        """Add a pronunciation: each phone with its senones in one or several contexts."""
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

    def other(self, source: int, target: int, token: int = OTHER, price: float = 0.0) -> None:
        """Add speech of unknown words, as long as one likes.

        Args:
            source: node.
            target: node.
            token: whose speech it is, if one knows no more of it than that.
            price: nats to begin it, besides those for each frame.
        """
        first = len(self.senones)
        self._append(Arc(source, target, first, first + 1, token, price, 0.0))
        self.senones.append(())

    def _append(self, arc: Arc) -> None:
        self.arcs.append(arc)
        self.stay.append(0.0)
        self.step.append(0.0)
