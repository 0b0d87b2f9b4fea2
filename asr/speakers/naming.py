"""Names for voices: those of known voices, otherwise letters in order of appearance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from asr.speakers.letters import letter_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.speakers.thresholds import Thresholds


@dataclass(frozen=True, slots=True)
class Known:
    """A voice with a name.

    Attributes:
        name: of the speaker.
        embedding: a unit vector.
        seconds: of speech from which it was made.
    """

    name: str
    embedding: np.ndarray
    seconds: float


def name_voices(
    order: Sequence[int], centres: np.ndarray, known: Sequence[Known], thresholds: Thresholds
) -> dict[int, str]:
    """The name of each voice: that of a known voice, otherwise a letter in order of appearance."""
    names = _known_names(centres, known, thresholds)
    letters = (letter for i in range(len(order) + len(known)) if (letter := letter_of(i)))
    taken = {person.name for person in known}
    free = (letter for letter in letters if letter not in taken)
    return {voice: names.get(voice) or next(free) for voice in order}


def _known_names(
    centres: np.ndarray, known: Sequence[Known], thresholds: Thresholds
) -> dict[int, str]:
    """The voices that certainly are known ones. Each known voice names at most one."""
    if not known:
        return {}
    cosines = centres @ np.array([person.embedding for person in known]).T
    voices, people = linear_sum_assignment(-cosines)
    pairs = [(int(voice), int(person)) for voice, person in zip(voices, people, strict=True)]
    return {
        voice: known[person].name
        for voice, person in pairs
        if _is_certain(cosines, voice, person, known[person].seconds, thresholds)
    }


def why_letters(
    centres: np.ndarray, known: Sequence[Known], names: dict[int, str], thresholds: Thresholds
) -> tuple[str, ...]:
    """Warnings about voices that are near to a known one and yet got a letter."""
    if not known:
        return ()
    cosines = centres @ np.array([person.embedding for person in known]).T
    near = cosines >= [_least(person.seconds, thresholds) for person in known]
    near[[voice for voice, name in names.items() if name in {it.name for it in known}]] = False
    warnings = []
    for voice in map(int, np.flatnonzero(near.sum(axis=1) > 1)):
        alike = " and ".join(repr(known[int(it)].name) for it in np.flatnonzero(near[voice]))
        warnings.append(f"{names[voice]} sounds like {alike}, so it got no name")
    for person in map(int, np.flatnonzero(near.sum(axis=0) > 1)):
        alike = " and ".join(sorted(names[int(it)] for it in np.flatnonzero(near[:, person])))
        name = known[person].name
        if name not in names.values():
            warnings.append(f"{alike} sound like {name!r}, so neither got the name")
    return tuple(warnings)


def _least(seconds: float, thresholds: Thresholds) -> float:
    """The least cosine of a voice and a known voice with so many seconds of speech."""
    is_long = seconds >= thresholds.long_reference
    return thresholds.known_long if is_long else thresholds.known_short


def _is_certain(
    cosines: np.ndarray, voice: int, person: int, seconds: float, thresholds: Thresholds
) -> bool:
    """Whether a known voice is near enough, and nearer than any other pair with one of the two."""
    least = _least(seconds, thresholds)
    others = np.append(np.delete(cosines[voice], person), np.delete(cosines[:, person], voice))
    second = others.max(initial=-1.0)
    found = cosines[voice, person]
    return bool(found >= least and found - second >= thresholds.known_margin)
