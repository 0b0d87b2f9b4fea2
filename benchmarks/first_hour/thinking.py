"""Whether thinking is off, compared with the same requests where it is on."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.first_hour.arms import SENT, THINKING
from benchmarks.first_hour.bench import report_of
from benchmarks.first_hour.section import Section, Table, Verdict, number, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.first_hour.answers import Call
    from benchmarks.first_hour.arms import Arm
    from benchmarks.first_hour.bench import Bench
    from benchmarks.first_hour.references import Clip

MAX_TOKENS_PER_WORD: Final = 4.0
"""Real text has 1.2 to 2 tokens a word; an answer with many more holds text that is not shown."""


async def measure(bench: Bench, clips: Sequence[Clip]) -> Section:
    """Ask the clips with thinking off and on."""
    rows, calls = [], {}
    for arm in (SENT, THINKING):
        heard = await bench.ask(arm, clips)
        calls[arm.name] = [call for clip in clips for call in heard[clip.id].calls]
        wer = report_of(heard, clips).words.wer
        rows.append(_row(arm, calls[arm.name], percent(wer)))
    titles = (
        *("thinking", "calls", "with a reasoning field", "with think tags in the text"),
        *("tokens per answer", "tokens per word", "median s", "cut", "WER"),
    )
    verdicts = (_off(calls[SENT.name]), _contrast(calls[SENT.name], calls[THINKING.name]))
    table = Table(f"The same {len(clips)} clips", [titles, *rows])
    return Section("thinking", "Thinking", verdicts, (table,))


def is_tagged(call: Call) -> bool:
    """Whether the text holds a tag of thinking."""
    return "<think" in call.content or "</think" in call.content


def tokens_per_word(calls: Sequence[Call]) -> float | None:
    """Generated tokens per word of the text, or None if the server does not count tokens."""
    n_tokens = sum(call.completion_tokens or 0 for call in calls)
    n_words = sum(len(call.content.split()) for call in calls)
    return n_tokens / n_words if n_tokens and n_words else None


def _row(arm: Arm, calls: Sequence[Call], wer: str) -> tuple[str, ...]:
    n_tokens = [call.completion_tokens for call in calls if call.completion_tokens is not None]
    return (
        "on" if arm is THINKING else "off, as sent",
        str(len(calls)),
        str(sum(bool(call.reasoning.strip()) for call in calls)),
        str(sum(map(is_tagged, calls))),
        number(sum(n_tokens) / len(n_tokens) if n_tokens else None, 1),
        number(tokens_per_word(calls)),
        number(median(call.seconds for call in calls) if calls else None, 3),
        str(sum(call.finish == "length" for call in calls)),
        wer,
    )


def _off(calls: Sequence[Call]) -> Verdict:
    item = "thinking is off"
    if not calls:
        return Verdict(item, "not measurable", "no answer", "see the failures")
    reasons = sum(bool(call.reasoning.strip()) for call in calls)
    tags = sum(map(is_tagged, calls))
    ratio = tokens_per_word(calls)
    told = f"{reasons} of {len(calls)} answers have reasoning, {tags} have tags in the text"
    if ratio is not None:
        told += f", {ratio:.1f} tokens per word"
    if reasons or tags or (ratio is not None and ratio > MAX_TOKENS_PER_WORD):
        todo = (
            "see the prompt under Tokens: it must end with a closed thought; use the model's own "
            "chat template, and set ASR_VLLM_DIALECT to the kind of server"
        )
        return Verdict(item, "look here", told, todo)
    return Verdict(item, "pass", told)


def _contrast(off: Sequence[Call], on: Sequence[Call]) -> Verdict:
    """Without a difference, "off" could also mean that nothing here shows thinking."""
    item = "thinking on looks different"
    reasons = sum(bool(call.reasoning.strip()) or is_tagged(call) for call in on)
    told = f"with thinking on, {reasons} of {len(on)} answers show it"
    if reasons:
        return Verdict(item, "pass", told)
    n_off, n_on = (sum(call.completion_tokens or 0 for call in calls) for calls in (off, on))
    if n_on > 1.5 * n_off:
        return Verdict(item, "pass", f"{told}, but they take {n_on} tokens and not {n_off}")
    todo = "so the item above proves little: see the prompt under Tokens instead"
    return Verdict(item, "not measurable", told, todo)
