"""How good a transcript is: word errors, word-time errors, speed. Knows no engine and no pipeline.

Counts are pooled, rates are derived: a WER over files is the sum of errors over the sum of words,
RTFx is audio seconds over wall seconds, never a mean of ratios. A file that fails is not left out:
its words count as deletions, its wall time counts, and it is listed.
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
