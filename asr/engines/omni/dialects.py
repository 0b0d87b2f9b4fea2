"""How servers for Omni differ in their chat completions.

They share OpenAI's ``/v1/chat/completions``. They differ in the form of the audio part, in the
fields that they accept beyond OpenAI's, and in how thinking is switched off. docs/servers.md gives
the source of each line in the table, and says what was tried against a real server.
"""

from __future__ import annotations

import base64
import io
import json
import wave
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import soundfile

from asr.engines.omni import prompt as omni
from asr.engines.omni.instruction import Question
from asr.errors import EngineFailed
from asr.pcm import to_int16
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asr.config import DecodeOptions
    from asr.settings import AudioFormat, DialectName
    from asr.types import Audio, Hypothesis

NO_THINKING: Final = {"chat_template_kwargs": {"enable_thinking": False}}
_AUDIO: Final = b"{audio}"
_QUESTION: Final = Question()


@dataclass(frozen=True, slots=True)
class Dialect:
    """The form of requests to one kind of server.

    Attributes:
        audio_part: type of the content part. "audio_url" holds a data: URL, "input_audio" bare
            base64 with a format.
        no_thinking: the fields that switch thinking off.
        takes_top_k: whether it accepts `top_k`, which OpenAI does not have.
        logprobs: the fields that ask for the log-probability of every token.
        system: a system message that goes first, if any.
        health: path that answers 200 while the server works.
        audio_formats: those of our formats that it decodes.
        any_name: whether it accepts any model name, because it serves only one model.
        shows_tokens: whether it has vLLM's route ``/tokenize``.
    """

    audio_part: Literal["audio_url", "input_audio"] = "audio_url"
    no_thinking: Mapping[str, Any] = field(default_factory=lambda: NO_THINKING)
    takes_top_k: bool = True
    logprobs: Mapping[str, Any] = field(default_factory=lambda: {"logprobs": True})
    system: str | None = None
    health: str = "/health"
    audio_formats: tuple[AudioFormat, ...] = ("wav", "flac")
    any_name: bool = False
    shows_tokens: bool = False


DIALECTS: Final[Mapping[DialectName, Dialect]] = {
    "vllm": Dialect(shows_tokens=True),
    "sglang": Dialect(any_name=True),
    "llamacpp": Dialect(
        any_name=True,
        audio_part="input_audio",
        logprobs={"logprobs": True, "top_logprobs": 1},  # by default it sorts 20 per token
        audio_formats=("wav",),
    ),
    "ollama": Dialect(
        audio_part="input_audio",
        no_thinking={"reasoning_effort": "none"},
        takes_top_k=False,
        health="/",
        audio_formats=("wav",),
    ),
    "trtllm": Dialect(),
    "nim": Dialect(system="/no_think", health="/v1/health/ready", audio_formats=("wav",)),
}


def request_body(
    model: str,
    audio: Audio,
    options: DecodeOptions,
    dialect: Dialect,
    audio_format: AudioFormat,
    question: Question = _QUESTION,
) -> bytes:
    """Return the JSON of a chat completion that transcribes one chunk.

    The audio is inserted after encoding. Base64 needs no escapes, and a JSON encoder that looks for
    them in a megabyte would hold the interpreter lock for too long.
    """
    drawn = omni.sampling(options, audio.duration)
    content = [
        _audio_part(dialect, audio_format),
        {"type": "text", "text": question.text(options)},
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if dialect.system is not None:
        messages.insert(0, {"role": "system", "content": dialect.system})
    body = {
        "messages": messages,
        "model": model,
        "temperature": drawn.temperature,
        "max_tokens": drawn.max_tokens,
        **({"top_k": drawn.top_k} if dialect.takes_top_k else {}),
        **dialect.logprobs,
        **dialect.no_thinking,
    }
    before, _, after = (
        json.dumps(body).encode().partition(_AUDIO)
    )  # the first match: user text comes later
    return b"".join((before, base64.b64encode(_ENCODERS[audio_format](audio)), after))


def _audio_part(dialect: Dialect, audio_format: AudioFormat) -> dict[str, Any]:
    """Return the content part with the placeholder `_AUDIO`."""
    data = _AUDIO.decode()
    if dialect.audio_part == "input_audio":
        return {"type": "input_audio", "input_audio": {"data": data, "format": audio_format}}
    url = f"data:audio/{audio_format};base64,{data}"
    return {"type": "audio_url", "audio_url": {"url": url}}


def to_wav(audio: Audio) -> bytes:
    """Encode as mono PCM16 WAV, the cheapest format for vLLM: no codec and no resampling."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(audio.pcm16())
    return buffer.getvalue()


def to_flac(audio: Audio) -> bytes:
    """Encode as FLAC: the same samples in about half the bytes, for slow links."""
    buffer = io.BytesIO()
    samples = to_int16(audio.samples)
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


_ENCODERS: Final = {"wav": to_wav, "flac": to_flac}


def was_aborted(body: Any) -> bool:
    """Return whether the server aborted its answer."""
    try:
        return body["choices"][0]["finish_reason"] in omni.ABORTED
    except (KeyError, IndexError, TypeError):
        return False


def read_answer(body: Any, chunk_index: int) -> Hypothesis:
    """Return the hypothesis in a chat completion.

    Raises:
        EngineFailed: the body is not a chat completion.
    """
    try:
        choice = body["choices"][0]
        content = choice["message"]["content"] or ""
        tokens = [_token(item) for item in (choice.get("logprobs") or {}).get("content") or ()]
        is_cut = choice.get("finish_reason") == "length"
        return omni.hypothesis(chunk_index, content, tokens, is_cut=is_cut)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        message = "the server's answer is not a chat completion"
        raise EngineFailed(message, chunk_index) from error


def _token(item: Mapping[str, Any]) -> omni.Token:
    data = item.get("bytes")
    encoded = item["token"].encode(errors="surrogatepass") if data is None else bytes(data)
    return omni.Token(encoded, float(item["logprob"]))
