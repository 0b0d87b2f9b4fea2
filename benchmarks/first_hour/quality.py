"""The whole service on all references: WER by category, word times, doubts about right texts."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from asr.evaluation import Report
from benchmarks.first_hour import published
from benchmarks.first_hour.arms import SENT, SERVICE
from benchmarks.first_hour.bench import report_of
from benchmarks.first_hour.bootstrap import difference, wer_interval
from benchmarks.first_hour.recordings import SYNTHETIC, sentences
from benchmarks.first_hour.section import Section, Table, Verdict, interval, number, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.evaluation import Result
    from benchmarks.first_hour.answers import Answer
    from benchmarks.first_hour.bench import Bench
    from benchmarks.first_hour.references import Clip

MIN_WORDS: Final = 500
"""A data set with fewer reference words is not compared with a published figure."""
MEDIAN_SECONDS: Final = 0.03
WITHIN: Final = 0.95
MIN_TIMED: Final = 50
MATCHED: Final = 0.8
MIN_RIGHT: Final = 20
MAX_DOUBTED: Final = 0.02
WRONG: Final = 0.5
"""The WER from which a text counts as wrong."""
WORSE: Final = (
    "first read the errors (answers/service.jsonl): contractions, spellings and fillers count "
    "here and not there; then compare with the model alone, then with BF16 weights"
)
DOUBT: Final = "the text is in doubt"
REPLACED: Final = "replaced an answer in doubt"


async def categories(bench: Bench, clips: Sequence[Clip]) -> Section:
    """WER by category, compared with the published figures, and with the model alone."""
    heard = await bench.ask(SERVICE, clips)
    report = report_of(heard, clips)
    rows = [_category_row(name, part) for name, part in report.categories.items()]
    rows.append(_category_row("**all**", report))
    titles = ("category", "files", "failed", "words", "WER (95% interval)", "NVIDIA")
    tables = (Table("The whole service", [titles, *rows]),)
    verdicts = (
        _failures(report),
        *_set_verdicts(report),
        _mean_verdict(report),
        await _pipeline_verdict(bench, clips, report),
    )
    remarks = (published.SOURCE, *_listed_failures(report))
    return Section("categories", "WER by category", verdicts, tables, remarks)


def _category_row(name: str, report: Report) -> tuple[str, ...]:
    known = published.set_of(name)
    scores = [it.words for it in report.results]
    return (
        name,
        str(len(report.results)),
        str(len(report.failures)),
        str(report.words.n_reference),
        interval(wer_interval(scores)),
        f"{known.wer:.2f}%" if known else "",
    )


def _failures(report: Report) -> Verdict:
    n_failed = len(report.failures)
    told = f"{n_failed} of {len(report.results)} files failed"
    todo = "read the errors below, then the server's log" if n_failed else ""
    return Verdict("no failures", "look here" if n_failed else "pass", told, todo)


def _listed_failures(report: Report) -> list[str]:
    return [f"- {it.utterance.file.name}: {it.error}" for it in report.failures[:20]]


def _by_set(report: Report) -> dict[str, Report]:
    found: dict[str, list[Result]] = {}
    for name, part in report.categories.items():
        known = published.set_of(name)
        if known:
            found.setdefault(known.name, []).extend(part.results)
    return {name: Report(tuple(dict.fromkeys(results))) for name, results in found.items()}


def _set_verdicts(report: Report) -> list[Verdict]:
    by_set = _by_set(report)
    verdicts = []
    for known in published.SETS:
        part = by_set.get(known.name, Report(()))
        if part.words.n_reference >= MIN_WORDS:
            verdicts.append(_set_verdict(known, part))
        if known.name == published.GATE_SET:
            verdicts.append(_gate_verdict(known, part))
    return verdicts


def _set_verdict(known: published.Published, part: Report) -> Verdict:
    wer = wer_interval([it.words for it in part.results])
    is_near = wer is not None and 100 * wer.low <= known.wer
    told = f"{interval(wer)}, NVIDIA {known.wer:.2f}%"
    item = f"WER on {known.name}"
    return Verdict(item, "pass", told) if is_near else Verdict(item, "look here", told, WORSE)


def _gate_verdict(known: published.Published, part: Report) -> Verdict:
    item = f"gate {published.GATE} on {known.name}"
    wer = part.words.wer
    if wer is None or part.words.n_reference < MIN_WORDS:
        told = f"fewer than {MIN_WORDS} words of {known.name} among the references"
        todo = f"add {known.name}-en to the references, with its name as the category"
        return Verdict(item, "not measurable", told, todo)
    is_met = 100 * wer <= published.GATE
    return Verdict(item, "pass" if is_met else "look here", percent(wer), "" if is_met else WORSE)


def _mean_verdict(report: Report) -> Verdict:
    item = f"mean of eight sets, NVIDIA {published.MEAN}"
    by_set = _by_set(report)
    ours = {name: part.words.wer for name, part in by_set.items() if part.words.wer is not None}
    if len(ours) < len(published.SETS):
        missing = [known.name for known in published.SETS if known.name not in ours]
        todo = "add them to the references, each with its name as the category"
        return Verdict(item, "not measurable", f"missing: {', '.join(missing)}", todo)
    mean = 100 * sum(ours.values()) / len(ours)
    is_near = mean <= 1.1 * published.MEAN
    todo = "" if is_near else "look at the sets that are worse, above"
    return Verdict(item, "pass" if is_near else "look here", f"{mean:.2f}", todo)


async def _pipeline_verdict(bench: Bench, clips: Sequence[Clip], report: Report) -> Verdict:
    """Compare the service with the model alone, on the clips that both heard."""
    item = "the service loses nothing against the model alone"
    store = bench.store(SENT)
    both = [clip for clip in clips if store.has(clip)]
    if not both:
        return Verdict(item, "not measurable", "no clip was asked both ways")
    alone = report_of(store.answers, both)
    of = {it.utterance.file: it.words for it in report.results}
    against = difference(
        [it.words for it in alone.results], [of[clip.utterance.file] for clip in both]
    )
    if against is None:
        return Verdict(item, "not measurable", "no reference words")
    told = f"{100 * against.value:+.2f} points on {len(both)} clips, p {against.p:.3f}"
    if against.is_significant and against.value > 0:
        todo = "compare answers/sent.jsonl and answers/service.jsonl: VAD, cuts, or second attempts"
        return Verdict(item, "look here", told, todo)
    if against.is_unclear:
        return Verdict(item, "not measurable", told, "give more clips: this may be chance")
    return Verdict(item, "pass", told)


async def times(bench: Bench, clips: Sequence[Clip]) -> Section:
    """Word times of references with times, and of synthetic sentences with exact times."""
    timed = [clip for clip in clips if clip.utterance.words]
    made = sentences(bench.folder / "audio" / "sentences")
    known = {clip.id for clip in timed}
    everything = [*timed, *(clip for clip in made if clip.id not in known)]
    report = report_of(await bench.ask(SERVICE, everything), everything)
    rows = [_time_row(name, part) for name, part in report.categories.items()]
    titles = ("category", "timed words", "matched", "start median s", "p95 s", "within 0.2 s")
    table = Table("Word times of the service", [titles, *rows])
    return Section("times", "Word times", (_time_verdict(report.categories[SYNTHETIC]),), (table,))


def _time_row(name: str, report: Report) -> tuple[str, ...]:
    found = report.times
    return (
        name,
        str(found.n_reference),
        percent(found.matched_share, 1),
        number(found.start_median, 3),
        number(found.start_p95, 3),
        percent(found.within()[0], 1),
    )


def _time_verdict(report: Report) -> Verdict:
    item = "word times"
    found = report.times
    if found.matched < MIN_TIMED:
        told = f"only {found.matched} words were recognised and timed"
        return Verdict(item, "not measurable", told, "see the WER of the category synthetic first")
    within = found.within()[0] or 0.0
    told = (
        f"synthetic speech: median error {number(found.start_median, 3)} s, {percent(within, 1)} "
        f"within 0.2 s, {percent(found.matched_share, 1)} of the words matched"
    )
    is_good = (found.start_median or 0.0) <= MEDIAN_SECONDS and within >= WITHIN
    if is_good and (found.matched_share or 0.0) >= MATCHED:
        return Verdict(item, "pass", told)
    todo = "compare with docs/alignment.md; many wrong words also make times wrong"
    return Verdict(item, "look here", told, todo)


async def doubts(bench: Bench, clips: Sequence[Clip]) -> Section:
    """How many right texts the witness and the guards doubt, and how many wrong ones."""
    heard = await bench.ask(SERVICE, clips)
    report = report_of(heard, clips)
    scores = {it.utterance.file: it.words for it in report.results}
    groups: dict[str, list[Answer]] = {"right": [], "some errors": [], "wrong": []}
    for clip in clips:
        answer, wer = heard[clip.id], scores[clip.utterance.file].wer
        if answer.error is None and wer is not None:
            groups[_group(wer)].append(answer)
    rows = [_doubt_row(name, answers) for name, answers in groups.items()]
    titles = ("text", "clips", "doubted", "share", "asked again", "replaced")
    tables = (
        Table("Doubts of guards and witness", [titles, *rows]),
        Table("Reasons for doubts about right texts", _reasons(groups["right"])),
    )
    verdicts = (_doubt_verdict(groups["right"]), _trust_verdict(groups["wrong"]))
    remark = (
        "*Right* texts have no word error, *wrong* ones a WER of 50% or more. *Asked again* counts "
        "clips with more than one request for a chunk: that costs time, even if the first answer "
        "stays."
    )
    return Section("doubts", "False alarms of witness and guards", verdicts, tables, (remark,))


def _group(wer: float) -> str:
    if wer == 0:
        return "right"
    return "wrong" if wer >= WRONG else "some errors"


def is_doubted(answer: Answer) -> bool:
    """Whether a text stays in doubt in the end."""
    return any(DOUBT in warning for warning in answer.warnings)


def _doubt_row(name: str, answers: Sequence[Answer]) -> tuple[str, ...]:
    n_doubted = sum(map(is_doubted, answers))
    return (
        name,
        str(len(answers)),
        str(n_doubted),
        percent(n_doubted / len(answers) if answers else None, 1),
        str(sum(len(it.calls) > len(it.chunks) for it in answers)),
        str(sum(any(REPLACED in warning for warning in it.warnings) for it in answers)),
    )


def _reasons(answers: Sequence[Answer]) -> list[tuple[str, ...]]:
    counts: Counter[str] = Counter()
    for answer in answers:
        for warning in answer.warnings:
            if DOUBT in warning:
                says = warning.partition(": ")[2]
                counts[re.sub(r"\d+(?:\.\d+)?", "N", re.sub(r"[\"'].*?[\"']", "...", says))] += 1
    return [("reason", "clips"), *((says, str(n)) for says, n in counts.most_common(10))]


def _doubt_verdict(right: Sequence[Answer]) -> Verdict:
    item = "false alarms"
    if len(right) < MIN_RIGHT:
        told = f"only {len(right)} texts without any error"
        return Verdict(item, "not measurable", told, f"{MIN_RIGHT} or more are needed")
    n_doubted = sum(map(is_doubted, right))
    share = percent(n_doubted / len(right), 1)
    told = f"{n_doubted} of {len(right)} right texts are doubted ({share})"
    if n_doubted > MAX_DOUBTED * len(right):
        todo = "see the reasons below; listen to three of these clips"
        return Verdict(item, "look here", told, todo)
    return Verdict(item, "pass", told)


def _trust_verdict(wrong: Sequence[Answer]) -> Verdict:
    item = "wrong texts are doubted"
    if not wrong:
        return Verdict(item, "not measurable", "no text has a WER of 50% or more")
    n_doubted = sum(map(is_doubted, wrong))
    told = f"{n_doubted} of {len(wrong)} texts with a WER of 50% or more are doubted"
    if n_doubted < len(wrong) / 2:
        todo = "read these texts: wrong words that sound alike are no alarm, invented text is"
        return Verdict(item, "look here", told, todo)
    return Verdict(item, "pass", told)
