"""placeholder"""

from __future__ import annotations


def witness(audio, hypothesis, start=0.0):
    return ()
