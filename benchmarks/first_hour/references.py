"""Find the recordings with references: manifests, LibriSpeech's trees, or texts beside audio."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING

import soundfile

from asr.audio.resample import decode
from asr.config import AudioLimits, check
from asr.errors import AsrError
from asr.evaluation import Utterance, normalise, read_manifest
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4")
UNNAMED = "uncategorised"


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording with its reference.

    Attributes:
        id: hash of name, size and text, the same in every run.
        seconds: length of the audio.
    """

    utterance: Utterance
    seconds: float
    id: str = field(init=False)

    def __post_init__(self) -> None:
        file = self.utterance.file
        text = f"{file.name}\0{file.stat().st_size}\0{self.utterance.text}"
        object.__setattr__(self, "id", hashlib.sha256(text.encode()).hexdigest()[:16])

    @property
    def category(self) -> str:
        """The first category."""
        return next(iter(self.utterance.categories), UNNAMED)


def find_clips(place: Path) -> list[Clip]:
    """Return all clips of a manifest or a folder, those without words left out.

    Raises:
        InvalidOption: there are none, or a manifest is wrong.
    """
    found = [it for it in _utterances(place) if normalise(it.text)]
    told = (
        f"{place}: no manifest (*.jsonl), no LibriSpeech tree (*.trans.txt), and no audio with a "
        "text of the same name beside it"
    )
    check(bool(found), "references", told)
    clips = {clip.id: clip for clip in (Clip(it, _seconds(it)) for it in found)}
    return list(clips.values())


def _utterances(place: Path) -> Iterator[Utterance]:
    if place.is_file():
        yield from _named(read_manifest(place), place.stem)
        return
    manifests = sorted(place.rglob("*.jsonl"))
    for manifest in manifests:
        yield from _named(read_manifest(manifest), manifest.parent.name)
    if not manifests:
        yield from _librispeech(place)
        yield from _beside(place)


def _named(utterances: Iterable[Utterance], name: str) -> Iterator[Utterance]:
    """Give utterances without a category the name of their manifest's folder."""
    for each in utterances:
        yield each if each.categories else replace(each, categories=(name,))


def _librispeech(place: Path) -> Iterator[Utterance]:
    """``test-clean/61/70968/61-70968.trans.txt`` has lines with id and text."""
    for texts in sorted(place.rglob("*.trans.txt")):
        category = next(
            (part for part in texts.parts if part.endswith(("-clean", "-other"))), place.name
        )
        for line in texts.read_text("utf-8").splitlines():
            name, _, text = line.partition(" ")
            for file in (texts.with_name(name + ending) for ending in AUDIO):
                if file.exists():
                    yield Utterance(file, text, categories=(f"librispeech {category}",))


def _beside(place: Path) -> Iterator[Utterance]:
    for file in sorted(place.rglob("*")):
        text = file.with_suffix(".txt")
        if file.suffix.lower() in AUDIO and text.exists():
            category = file.parent.name or UNNAMED
            yield Utterance(file, text.read_text("utf-8"), categories=(category,))


def _seconds(utterance: Utterance) -> float:
    check(utterance.file.is_file(), "references", f"{utterance.file} does not exist")
    if utterance.duration is not None:
        return utterance.duration
    try:
        return float(soundfile.info(utterance.file).duration)
    except soundfile.SoundFileError:
        try:
            blocks = decode(utterance.file, AudioLimits()).blocks
            return sum(map(len, blocks)) / SAMPLE_RATE
        except AsrError:
            return 0.0  # it fails in the measurement, where failures are listed


def selection(clips: Iterable[Clip], seconds: float) -> list[Clip]:
    """Return clips of about `seconds` in total, taken from all categories in turn.

    The same clips are chosen in every run. A clip that does not fit is left out.
    """
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda it: it.id):
        groups[clip.category].append(clip)
    chosen: list[Clip] = []
    total = 0.0
    for turn in zip_longest(*groups.values()):
        for clip in filter(None, turn):
            if chosen and total + clip.seconds > seconds:
                continue
            chosen.append(clip)
            total += clip.seconds
    return chosen
