"""Loading the CTC aligner when the extra ``[ctc]`` is not installed."""

from __future__ import annotations

import sys

import pytest

from asr.align import ctc_aligner
from asr.errors import EngineUnavailable, InvalidOption
from asr.settings import Settings


def test_the_aligner_needs_a_model_and_the_extra(monkeypatch):
    with pytest.raises(EngineUnavailable, match="ASR_CTC_MODEL"):
        ctc_aligner(Settings())
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "asr.align.ctc.aligner", raising=False)
    with pytest.raises(EngineUnavailable, match=r"asr-service\[ctc\]"):
        ctc_aligner(Settings(ctc_model="models/some"))
    with pytest.raises(InvalidOption, match="auto, cpu, cuda"):
        Settings(ctc_device="tpu")
