"""Whether a prompt and keywords help or hurt, and whether unspoken keywords appear in the text."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.config import DecodeOptions
from asr.evaluation import normalise
from benchmarks.first_hour.arms import SENT, Arm
from benchmarks.first_hour.bench import report_of
from benchmarks.first_hour.bootstrap import MIN_CLIPS, difference, wer_interval
from benchmarks.first_hour.section import Section, Table, Verdict, interval, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.first_hour.answers import Answer
    from benchmarks.first_hour.bench import Bench
    from benchmarks.first_hour.bootstrap import Difference
    from benchmarks.first_hour.references import Clip

N_SPOKEN: Final = 5
N_UNSPOKEN: Final = 10
MIN_LETTERS: Final = 6
MAX_INSERTED: Final = 0.005
"""The largest share of unspoken keywords that may appear in the text."""


@dataclass(frozen=True)
class Keywords:
    """For each clip, by id: rare words that are said in it, and rare words of other clips."""

    spoken: Mapping[str, tuple[str, ...]]
    unspoken: Mapping[str, tuple[str, ...]]


def choose(clips: Sequence[Clip]) -> Keywords:
    """Choose the rarest long words of each clip, and as many that other clips have."""
    said = {clip.id: set(normalise(clip.utterance.text)) for clip in clips}
    counts = Counter(word for words in said.values() for word in words if _is_term(word))
    spoken = {}
    for clip in clips:
        terms = sorted(said[clip.id] & counts.keys(), key=lambda word: (counts[word], word))
        spoken[clip.id] = tuple(terms[:N_SPOKEN])
    every = sorted(counts)
    unspoken = {}
    for clip in clips:
        others = [term for term in every if term not in said[clip.id]]
        drawn = random.Random(clip.id).sample(others, min(N_UNSPOKEN, len(others)))
        unspoken[clip.id] = tuple(drawn)
    return Keywords(spoken, unspoken)


def _is_term(word: str) -> bool:
    return len(word) >= MIN_LETTERS and word.isalpha()


def arms(keywords: Keywords) -> tuple[Arm, ...]:
    """The arms with hints."""

    def about(clip: Clip) -> DecodeOptions:
        words = ", ".join(keywords.spoken[clip.id])
        return DecodeOptions(prompt=f"A recording about {words}." if words else "A recording.")

    def right(clip: Clip) -> DecodeOptions:
        both = [*keywords.spoken[clip.id], *keywords.unspoken[clip.id][:N_SPOKEN]]
        return DecodeOptions(keywords=tuple(sorted(both)))

    def wrong(clip: Clip) -> DecodeOptions:
        return DecodeOptions(keywords=keywords.unspoken[clip.id])

    return (
        Arm("prompt", "a prompt that names its rare words", options=about),
        Arm("keywords", "its rare words and as many of other clips", options=right),
        Arm("wrong_keywords", "rare words of other clips only", options=wrong),
    )


async def measure(bench: Bench, clips: Sequence[Clip]) -> Section:
    """Ask the clips with and without hints."""
    keywords = choose(clips)
    with_hints = arms(keywords)
    heard = {arm.name: await bench.ask(arm, clips) for arm in (SENT, *with_hints)}
    scores = {
        name: [it.words for it in report_of(answers, clips).results]
        for name, answers in heard.items()
    }
    compared = {name: difference(scores[SENT.name], some) for name, some in scores.items()}
    rows = []
    for arm in (SENT, *with_hints):
        against = compared[arm.name]
        answers = heard[arm.name]
        rows.append(
            (
                "none" if arm is SENT else arm.title,
                interval(wer_interval(scores[arm.name])),
                "" if arm is SENT or against is None else f"{100 * against.value:+.2f}",
                "" if arm is SENT or against is None else f"{against.p:.3f}",
                percent(found(answers, keywords.spoken, clips)),
                percent(found(answers, keywords.unspoken, clips)),
            )
        )
    titles = (
        *("hint", "WER (95% interval)", "minus none, points", "p"),
        *("rare words found", "unspoken words inserted"),
    )
    table = Table(f"Hints, {len(clips)} clips, the model alone", [titles, *rows])
    verdicts = (
        *(
            _verdict(arm, compared[arm.name], found(heard[arm.name], keywords.spoken, clips))
            for arm in with_hints
        ),
        _inserted(heard, keywords, clips),
    )
    return Section("hints", "Prompt and keywords", verdicts, (table,))


def found(
    answers: Mapping[str, Answer], words: Mapping[str, tuple[str, ...]], clips: Sequence[Clip]
) -> float | None:
    """The share of the clips' words that their texts contain."""
    n_found = n_all = 0
    for clip in clips:
        text = set(normalise(answers[clip.id].text))
        n_all += len(words[clip.id])
        n_found += sum(word in text for word in words[clip.id])
    return n_found / n_all if n_all else None


def _verdict(arm: Arm, against: Difference | None, rare: float | None) -> Verdict:
    item = f"hint: {arm.title}"
    if against is None or against.n_clips < MIN_CLIPS:
        return Verdict(item, "not measurable", "too few clips", f"give {MIN_CLIPS} or more")
    told = (
        f"{100 * against.value:+.2f} points of WER, p {against.p:.3f}; {percent(rare)} of the rare "
        "words found"
    )
    if against.is_significant and against.value > 0:
        todo = "hints hurt: tell users, or move them in the prompt, and measure again"
        return Verdict(item, "look here", told, todo)
    if against.is_unclear:
        return Verdict(item, "not measurable", told, "give more clips: this may be chance")
    return Verdict(item, "pass", told)


def _inserted(
    heard: Mapping[str, Mapping[str, Answer]], keywords: Keywords, clips: Sequence[Clip]
) -> Verdict:
    item = "unspoken keywords stay out of the text"
    share = found(heard["wrong_keywords"], keywords.unspoken, clips)
    without = found(heard[SENT.name], keywords.unspoken, clips)
    if share is None or without is None:
        return Verdict(item, "not measurable", "no keywords", "give clips with long words")
    told = f"{percent(share)} appear, without keywords {percent(without)}"
    if share - without > MAX_INSERTED:
        todo = "the model writes what it is offered: warn users, and keep the witness on"
        return Verdict(item, "look here", told, todo)
    return Verdict(item, "pass", told)
