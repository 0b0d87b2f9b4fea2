"""Measure transcripts against references: word errors, errors of word times, speed.

In reading order: `manifest` reads the references, `normalise` turns text into the tokens that are
scored, `scores` counts errors, `report` runs an evaluation and sums it up, `reference` is an engine
without errors, for measuring aligners. The package knows no real engine and no pipeline.

Counts are summed first and rates derived from the sums: a WER over files is all errors divided by
all words, RTFx is all seconds of audio divided by all seconds of work. A failed file stays in: its
words count as deletions, its wall time counts, and it is listed.
"""

from asr.evaluation.manifest import Utterance, read_manifest
from asr.evaluation.normalise import NORMALISER, normalise
from asr.evaluation.reference import ReferenceEngine
from asr.evaluation.report import Report, Result, evaluate
from asr.evaluation.scores import COLLAR, TimeScore, WordScore, score_times, score_words

__all__ = [
    "COLLAR",
    "NORMALISER",
    "ReferenceEngine",
    "Report",
    "Result",
    "TimeScore",
    "Utterance",
    "WordScore",
    "evaluate",
    "normalise",
    "read_manifest",
    "score_times",
    "score_words",
]
