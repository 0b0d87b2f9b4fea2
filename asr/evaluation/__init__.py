"""Measure transcripts against references: word errors, errors of word times, speed.

In reading order: `manifest` reads the references, `normalise` turns text into the tokens that are
scored, `scores` counts errors, `diarisation` those of who speaks when (`rttm` reads its reference),
`report` runs an evaluation and sums it up, `reference` is an engine without errors, for measuring
aligners. The package knows no real engine and no pipeline.

Counts are summed first and rates derived from the sums: a WER over files is all errors divided by
all words, RTFx is all seconds of audio divided by all seconds of work. A failed file stays in: its
words count as deletions, its wall time counts, and it is listed.
"""

from asr.evaluation.diarisation import (
    DiarisationScore,
    SpeakerScore,
    score_speakers,
    score_turns,
)
from asr.evaluation.manifest import Utterance, read_manifest
from asr.evaluation.normalise import NORMALISER, normalise
from asr.evaluation.reference import ReferenceEngine
from asr.evaluation.report import Report, Result, evaluate
from asr.evaluation.rttm import read_rttm
from asr.evaluation.scores import COLLAR, TimeScore, WordScore, score_times, score_words

__all__ = [
    "COLLAR",
    "NORMALISER",
    "DiarisationScore",
    "ReferenceEngine",
    "Report",
    "Result",
    "SpeakerScore",
    "TimeScore",
    "Utterance",
    "WordScore",
    "evaluate",
    "normalise",
    "read_manifest",
    "read_rttm",
    "score_speakers",
    "score_times",
    "score_turns",
    "score_words",
]
