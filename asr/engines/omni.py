"""What to ask Nemotron-3-Nano-Omni, and how to read its answer. Pure functions.

The audio part goes before the text part: however vLLM joins the two, they then stay in that order
(facts/vllm.md 4). Thinking is switched off in every request. The sampling is the model card's
instruct mode.
"""

from __future__ import annotations

import base64
import io
import re
import wave
from typing import TYPE_CHECKING, Any, Final

from asr.errors import EngineFailed
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from asr.config import DecodeOptions
    from asr.types import Audio

INSTRUCTION: Final = (
    "Transcribe the speech in this audio word for word, in the language that is spoken. "
    "Write only the transcript. If nobody speaks, write nothing."
)
TEMPERATURE: Final = 0.2
TOP_K: Final = 1
TOKENS_BASE: Final = 32
TOKENS_PER_SECOND: Final = 12
"""Fast speech is 5 words a second, at about 1.4 tokens each; the rest is headroom."""

_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)


def to_wav(audio: Audio) -> bytes:
    """Mono PCM16 WAV, which vLLM decodes cheapest: no codec, no resampling."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(audio.pcm16())
    return buffer.getvalue()


def chat_request(model: str, audio: Audio, options: DecodeOptions) -> dict[str, Any]:
    """The body of a chat completion that transcribes one chunk."""
    url = "data:audio/wav;base64," + base64.b64encode(to_wav(audio)).decode()
    temperature = TEMPERATURE if options.temperature is None else options.temperature
    return {
        "model": model,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "audio_url", "audio_url": {"url": url}},
                    {"type": "text", "text": instruction(options)},
                ],
            }
        ],
        "temperature": temperature,
        "top_k": TOP_K,
        "max_tokens": TOKENS_BASE + round(TOKENS_PER_SECOND * audio.duration),
        "chat_template_kwargs": {"enable_thinking": False},
    }


def instruction(options: DecodeOptions) -> str:
    """The text part: what to do, and what the user says about the recording."""
    parts = [INSTRUCTION]
    if options.language:
        parts.append(f"The language is {options.language}.")
    if options.keywords:
        parts.append(f"These terms may occur: {', '.join(options.keywords)}.")
    if options.prompt:
        parts.append(f"Context of the recording: {options.prompt}")
    return "\n".join(parts)


def read_answer(body: Any, chunk_index: int) -> tuple[str, tuple[str, ...]]:
    """The transcript in a chat completion, and warnings.

    Raises:
        EngineFailed: the body is not a chat completion.
    """
    try:
        choice = body["choices"][0]
        content = choice["message"]["content"] or ""
        is_cut = choice.get("finish_reason") == "length"
        text = " ".join(_THINKING.sub("", content).split())
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        message = "the answer of the vLLM server is no chat completion"
        raise EngineFailed(message, chunk_index) from error
    return text, ("the transcript of a chunk was cut at its token limit",) if is_cut else ()
