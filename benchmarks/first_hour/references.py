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
from asr.errors import AsrError, InvalidOption
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
        id: hash of folder, name, size and text, the same in every run.
        seconds: length of the audio.
    """

    utterance: Utterance
    seconds: float
    id: str = field(init=False)

    def __post_init__(self) -> None:
        file = self.utterance.file
        # Speakers who read the same words may have files of equal names and sizes.
        name = f"{file.resolve().parent.name}/{file.name}"
        text = f"{name}\0{file.stat().st_size}\0{self.utterance.text}"
        object.__setattr__(self, "id", hashlib.sha256(text.encode()).hexdigest()[:16])

    @property
    def category(self) -> str:
        """The first category."""
        return next(iter(self.utterance.categories), UNNAMED)


def find_clips(place: Path) -> list[Clip]:
    """Return all clips of a manifest or a folder, those without words left out.

    Raises:
        InvalidOption: there are none, or a file of references is wrong.
    """
    check(place.exists(), "references", f"{place} does not exist")
    found = [it for it in _utterances(place) if normalise(it.text)]
    told = (
        f"{place}: no manifest (*.jsonl), no LibriSpeech tree (*.trans.txt), and no audio with a "
        "text of the same name beside it"
    )
    check(bool(found), "references", told)
    clips = {clip.id: clip for clip in (Clip(it, _seconds(it)) for it in found)}
    return list(clips.values())


def _utterances(place: Path) -> Iterator[Utterance]:
    """Yield the references of a folder. What a manifest names is not read in another way, too."""
    if place.is_file():
        yield from _named(read_manifest(place), place.stem)
        return
    files = _files(place)
    named: set[Path] = set()
    for manifest in (file for file in files if file.suffix == ".jsonl"):
        for each in _named(read_manifest(manifest), manifest.resolve().parent.name):
            named.add(each.file.resolve())
            yield each
    for each in (*_librispeech(place, files), *_beside(files)):
        if each.file.resolve() not in named:
            yield each


def _files(place: Path) -> list[Path]:
    """Return the files in a folder. Hidden ones, and those of an earlier run, do not count."""
    runs = {it.parent for it in place.rglob("run.json") if (it.parent / "answers").is_dir()}
    return [
        file
        for file in sorted(place.rglob("*"))
        if not file.name.startswith(".") and runs.isdisjoint(file.parents) and file.is_file()
    ]


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption("references", f"cannot read {file}: {error}") from error


def _named(utterances: Iterable[Utterance], name: str) -> Iterator[Utterance]:
    """Give utterances without a category the name of their manifest's folder."""
    for each in utterances:
        yield each if each.categories else replace(each, categories=(name,))


def _librispeech(place: Path, files: Iterable[Path]) -> Iterator[Utterance]:
    """``test-clean/61/70968/61-70968.trans.txt`` has lines with id and text."""
    for texts in (file for file in files if file.name.endswith(".trans.txt")):
        category = next(
            (part for part in texts.parts if part.endswith(("-clean", "-other"))), place.name
        )
        for line in _read(texts).splitlines():
            name, _, text = line.partition(" ")
            for file in (texts.with_name(name + ending) for ending in AUDIO):
                if file.is_file():
                    yield Utterance(file, text, categories=(f"librispeech {category}",))


def _beside(files: Iterable[Path]) -> Iterator[Utterance]:
    for file in files:
        text = file.with_suffix(".txt")
        if file.suffix.lower() in AUDIO and text.is_file():
            category = file.resolve().parent.name or UNNAMED
            yield Utterance(file, _read(text), categories=(category,))


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
