"""The output text and audio markers of the tiny checkpoint; importable without torch."""

from typing import NamedTuple

SENTENCE = "hello world please transcribe the quick brown fox"
THOUGHT = "speech is today"
SPECIAL = (
    *("<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    *("<image>", "<img>", "</img>", "<video>", "<so_start>", "<so_end>", "<so_embedding>"),
)
"""Tokens in the order of their ids."""


class AudioTokens(NamedTuple):
    """Ids."""

    start: int
    end: int
    inside: int


AUDIO_TOKENS = AudioTokens(*(SPECIAL.index(f"<so_{it}>") for it in ("start", "end", "embedding")))
