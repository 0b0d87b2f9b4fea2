"""Which instruction, and which order of parts, gives the fewest word errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from asr.engines.guards import MAX_COMPRESSION, compression, has_run
from benchmarks.first_hour.arms import INSTRUCTIONS, PLACEHOLDER, SENT, TRAINED
from benchmarks.first_hour.bench import report_of
from benchmarks.first_hour.bootstrap import MIN_CLIPS, difference, wer_interval
from benchmarks.first_hour.section import Section, Table, Verdict, interval, number, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.first_hour.answers import Answer
    from benchmarks.first_hour.arms import Arm
    from benchmarks.first_hour.bench import Bench
    from benchmarks.first_hour.bootstrap import Difference
    from benchmarks.first_hour.references import Clip

    Answers = Mapping[str, Answer]

ALOUD: Final = re.compile(
    r"\bthe user (?:wants|asks|is asking|has asked|said|provided)\b"
    r"|\b(?:i|we) (?:need|have|should|am asked) to transcribe\b"
    r"|\blet (?:me|us|'s) (?:listen|transcribe|think)\b",
    re.IGNORECASE,
)
"""Reasoning aloud. People hardly say that in recordings; read the answers if this finds any."""
SHORT_SECONDS: Final = 3.0
LENGTHS: Final = ((0.0, SHORT_SECONDS), (SHORT_SECONDS, 10.0), (10.0, 20.0), (20.0, 30.0))
SHORT_FACTOR: Final = 3.0
SHORT_WER: Final = 0.2
"""Short clips are a problem above this WER and above this multiple of the other clips' WER."""


async def measure(bench: Bench, clips: Sequence[Clip]) -> Section:
    """Ask all clips with all instructions."""
    heard: dict[str, Answers] = {SENT.name: await bench.ask(SENT, clips)}
    is_trained = sends_trained(heard[SENT.name].values())
    for arm in INSTRUCTIONS:
        if arm.name == "trained" and is_trained:
            heard[arm.name] = heard[SENT.name]  # the same request: greedy answers are the same
        else:
            heard[arm.name] = await bench.ask(arm, clips)
    arms = (SENT, *INSTRUCTIONS)
    compared = {arm.name: _compare(heard[SENT.name], heard[arm.name], clips) for arm in arms}
    rows = [_row(arm, heard[arm.name], clips, compared[arm.name]) for arm in arms]
    titles = (
        *("instruction", "WER (95% interval)", "minus sent, points", "p"),
        *("failed", "aloud", "loops", "empty", "cut", "clips of WER 1 or more", "tokens per s"),
    )
    tables = (
        Table(f"Instructions, {len(clips)} clips, the model alone", [titles, *rows]),
        Table("WER as sent, by length of the clip", _by_length(heard[SENT.name], clips)),
    )
    verdicts = (
        _sent_verdict(is_trained, compared),
        _order_verdict(heard, clips),
        _aloud_verdict(heard[SENT.name]),
        _short_verdict(heard[SENT.name], clips),
    )
    return Section("instructions", "Instruction and order of parts", verdicts, tables, (_remark(),))


def _remark() -> str:
    return (
        "*Failed* clips have no answer, and their words count as errors. *Aloud* counts clips "
        "whose answer talks about the task (`The user wants ...`). *Loops* repeat themselves by "
        "the rules of the guards. *Cut* answers reached the token limit. The VAD, the guards and "
        "second attempts are off here; the scrubber is on for WER and off for *aloud*. Intervals "
        "and p come from resampling clips; p below 0.05 counts, from "
        f"{MIN_CLIPS} clips on."
    )


def sends_trained(answers: Any) -> bool:
    """Whether the service sends what the model was trained on, by its recorded requests."""
    calls = [call for answer in answers for call in answer.calls]
    return bool(calls) and all(is_trained(it.text_part) and it.is_audio_first for it in calls)


def is_trained(text: str) -> bool:
    """Whether a text is that of training. It may say itself where the audio goes."""
    return text.removeprefix(PLACEHOLDER) == TRAINED


def is_aloud(answer: Answer) -> bool:
    """Whether the model reasons aloud where the transcript should be."""
    return bool(ALOUD.search(answer.raw)) or "</think>" in answer.raw


def is_loop(answer: Answer) -> bool:
    """Whether the answer repeats itself."""
    return any(compression(c.content) > MAX_COMPRESSION or has_run(c.content.split())
               for c in answer.calls)  # fmt: skip


def _compare(first: Answers, second: Answers, clips: Sequence[Clip]) -> Difference | None:
    one, two = report_of(dict(first), clips), report_of(dict(second), clips)
    return difference([it.words for it in one.results], [it.words for it in two.results])


def _row(
    arm: Arm, heard: Answers, clips: Sequence[Clip], against: Difference | None
) -> tuple[str, ...]:
    report = report_of(dict(heard), clips)
    scores = [it.words for it in report.results]
    answers = [heard[clip.id] for clip in clips]
    n_tokens = sum(call.completion_tokens or 0 for it in answers for call in it.calls)
    wrong = sum(score.wer is not None and score.wer >= 1 for score in scores)
    points = "" if against is None or arm is SENT else _points(against)
    return (
        arm.title,
        interval(wer_interval(scores)),
        points,
        "" if not points or against is None else f"{against.p:.3f}",
        str(len(report.failures)),
        *(str(sum(map(count, answers))) for count in (is_aloud, is_loop, _is_empty, _is_cut)),
        str(wrong),
        number(n_tokens / max(1e-9, sum(clip.seconds for clip in clips)), 1),
    )


def _points(found: Difference) -> str:
    return f"{100 * found.value:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"


def _is_empty(answer: Answer) -> bool:
    return answer.error is None and not answer.text.strip()


def _is_cut(answer: Answer) -> bool:
    return any(call.finish == "length" for call in answer.calls)


def _sent_verdict(is_trained: bool, compared: Mapping[str, Difference | None]) -> Verdict:
    item = "instruction"
    better = {
        arm.title: found
        for arm in INSTRUCTIONS
        if (found := compared[arm.name]) and found.is_significant and found.value < 0
    }
    sent = "sent as trained" if is_trained else "not sent as trained"
    if better:
        names = "; ".join(f"{title}: {_points(found)}" for title, found in better.items())
        todo = "run again with ASR_OMNI_INSTRUCTION set to the best one; keep it if this repeats"
        return Verdict(item, "look here", f"{sent}, and another one is better: {names}", todo)
    if not is_trained:
        todo = (
            "see Tokens for what the server makes of it; unset ASR_OMNI_INSTRUCTION, unless the "
            "table shows that yours is better"
        )
        return Verdict(item, "look here", f"{sent}, and no other one is significantly better", todo)
    n_clips = next((found.n_clips for found in compared.values() if found), 0)
    if n_clips < MIN_CLIPS:
        return Verdict(item, "not measurable", f"{n_clips} clips", f"give {MIN_CLIPS} or more")
    return Verdict(item, "pass", f"{sent}, and no other one is significantly better")


def _order_verdict(heard: Mapping[str, Answers], clips: Sequence[Clip]) -> Verdict:
    trained = next(arm for arm in INSTRUCTIONS if arm.name == "trained")
    found = _compare(heard[trained.name], heard["text_first"], clips)
    item = "order of parts"
    n_aloud = sum(map(is_aloud, heard["text_first"].values()))
    if found is None or found.n_clips < MIN_CLIPS:
        told = f"{0 if found is None else found.n_clips} clips"
        return Verdict(item, "not measurable", told, f"give {MIN_CLIPS} or more")
    told = f"text first: {_points(found)} points, {n_aloud} clips with reasoning aloud"
    if found.is_significant and found.value < 0:
        return Verdict(item, "look here", told, "the text should go first: ask the developers")
    return Verdict(item, "pass", f"{told}; the service sends the audio first")


def _aloud_verdict(heard: Answers) -> Verdict:
    n_aloud, n_loops = sum(map(is_aloud, heard.values())), sum(map(is_loop, heard.values()))
    told = f"as sent, {n_aloud} of {len(heard)} answers reason aloud and {n_loops} are loops"
    is_fine = not n_aloud and n_loops <= 0.01 * len(heard)
    todo = "read them in answers/sent.jsonl (content); the guards should catch them, see below"
    item = "reasoning aloud and loops"
    return Verdict(item, "pass", told) if is_fine else Verdict(item, "look here", told, todo)


def _by_length(heard: Answers, clips: Sequence[Clip]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("seconds", "clips", "WER (95% interval)", "loops", "aloud")]
    for low, high in (*LENGTHS, (30.0, float("inf"))):
        some = [clip for clip in clips if low <= clip.seconds < high]
        if some:
            scores = [it.words for it in report_of(dict(heard), some).results]
            answers = [heard[clip.id] for clip in some]
            name = f"{low:g} to {high:g}" if high < float("inf") else f"{low:g} or more"
            counts = (sum(map(is_loop, answers)), sum(map(is_aloud, answers)))
            rows.append((name, str(len(some)), interval(wer_interval(scores)), *map(str, counts)))
    return rows


def _short_verdict(heard: Answers, clips: Sequence[Clip]) -> Verdict:
    item = f"clips under {SHORT_SECONDS:g} s"
    short = [clip for clip in clips if clip.seconds < SHORT_SECONDS]
    long = [clip for clip in clips if clip.seconds >= SHORT_SECONDS]
    if len(short) < MIN_CLIPS or not long:
        told = f"{len(short)} of {len(clips)} clips are that short"
        return Verdict(item, "not measurable", told, f"give {MIN_CLIPS} or more, and longer ones")
    wer, other = (report_of(dict(heard), some).words.wer or 0.0 for some in (short, long))
    told = f"WER {percent(wer)}, of longer clips {percent(other)}"
    if wer > SHORT_WER and wer > SHORT_FACTOR * other:
        todo = (
            "the model fails on them, as others reported; the service must never send such a chunk "
            "alone: read the histogram of chunk lengths below"
        )
        return Verdict(item, "look here", told, todo)
    return Verdict(item, "pass", told)
