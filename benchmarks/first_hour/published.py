"""Published word error rates of the model, to compare with. Percent.

NVIDIA's own run: huggingface/open_asr_leaderboard, pull request 152, 29 April 2026. Gate:
TensorRT-LLM, `AudioASREvaluator` and `voxpopuli.yaml`, VoxPopuli-en, 1,842 clips, FP8 and NVFP4.
The leaderboard normalises text with Whisper's English normaliser. It also expands contractions,
unifies spellings and drops fillers, which ours does not. So our figures are the higher ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Published:
    """A data set, the words that its categories contain, and NVIDIA's WER."""

    name: str
    signs: tuple[str, ...]
    wer: float


SETS: Final = (
    Published("AMI", ("ami",), 10.88),
    Published("Earnings22", ("earnings22", "earnings-22"), 11.26),
    Published("GigaSpeech", ("gigaspeech",), 9.76),
    Published("LibriSpeech clean", ("test-clean", "test.clean", "librispeech clean"), 1.58),
    Published("LibriSpeech other", ("test-other", "test.other", "librispeech other"), 2.99),
    Published("SPGI", ("spgi", "spgispeech"), 1.99),
    Published("TED-LIUM", ("tedlium", "ted-lium"), 3.36),
    Published("VoxPopuli", ("voxpopuli",), 5.63),
)
MEAN: Final = 5.93
GATE: Final = 6.2
GATE_SET: Final = "VoxPopuli"
SOURCE: Final = (
    "NVIDIA's WER: huggingface/open_asr_leaderboard, pull request 152, 29 April 2026 (mean of "
    "eight sets 5.93; RTFx 542.9 on an RTX 6000 Pro Max-Q). Gate: TensorRT-LLM, "
    "AudioASREvaluator and voxpopuli.yaml, 6.2 on 1,842 clips of VoxPopuli-en, for FP8 and NVFP4. "
    "The leaderboard uses Whisper's English normaliser, which also expands contractions, unifies "
    "spellings and drops fillers. Ours does not, so our figures are the higher ones, most of all "
    "on AMI, Earnings22 and GigaSpeech."
)


def set_of(category: str) -> Published | None:
    """The data set that a category belongs to."""
    spaced = category.lower().replace("_", "-")
    words = {*spaced.split(), *spaced.replace("-", " ").split()}
    return next((it for it in SETS if any(s in words or s == spaced for s in it.signs)), None)
