"""A server to rehearse with: OpenAI's chat completions, answered with Moonshine's text.

    python -m benchmarks.first_hour.stand_in --port 8200 [--misbehave aloud loop ...]

It answers like vLLM with Omni, with usage, log-probabilities and thinking, but the words are those
of Moonshine tiny. So nothing that is measured with it says anything about Omni. On request it
misbehaves, to show that the report finds it:

- aloud: it reasons aloud if the text comes before the audio;
- loop: it repeats itself on clips under 3 s;
- think: it thinks in the text although thinking is off;
- insert: it writes the terms that it is offered, spoken or not;
- template: its chat template puts a line break after the audio, even if the text says where the
  audio goes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import io
import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import soundfile
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from asr.config import DecodeOptions
from asr.engines.moonshine.engine import MoonshineEngine
from asr.types import SAMPLE_RATE, Audio, Chunk
from benchmarks.first_hour.wire import text_part

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    from starlette.requests import Request

    from asr.engines.base import Engine

MODEL: Final = "moonshine-stand-in"
TRICKS: Final = ("aloud", "loop", "think", "insert", "template")
SHORT_SECONDS: Final = 3.0
TOKENS_PER_SECOND: Final = 12.5
AUDIO_TOKEN: Final = "<so_embedding>"
THOUGHT: Final = "The user wants me to transcribe the audio. Let me listen to it once more."
_PIECES: Final = re.compile(r"<[^<>\s]+>|\s|\w+|[^\w\s]")
_TERMS: Final = re.compile(r"\w{6,}(?:[;,] \w{6,})+")

Recognise = Callable[[Audio], Awaitable[tuple[str, tuple[float, ...]]]]
"""Returns a text, and a confidence for each of its words."""


class Vocabulary:
    """A tokenizer that gives each word and sign a number when it first sees it."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._pieces: list[str] = []

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return [self._id(piece) for piece in _PIECES.findall(text)]

    def _id(self, piece: str) -> int:
        if piece not in self._ids:
            self._ids[piece] = len(self._pieces)
            self._pieces.append(piece)
        return self._ids[piece]

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""
        return "".join(self._pieces[it] for it in ids)


class StandIn:
    """The routes.

    Args:
        recognise: gives the words of some audio.
        tricks: names from `TRICKS`.
    """

    def __init__(self, recognise: Recognise, tricks: Collection[str] = ()) -> None:
        self._recognise = recognise
        self._tricks = frozenset(tricks)
        self._vocabulary = Vocabulary()
        self._heard: dict[str, tuple[str, tuple[float, ...]]] = {}
        self.n_asked = 0

    def app(self, lifespan: Any = None) -> Starlette:
        """The application."""
        routes = [
            Route("/health", self._health),
            Route("/v1/models", self._models),
            Route("/tokenize", self._tokenize, methods=["POST"]),
            Route("/detokenize", self._detokenize, methods=["POST"]),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
        ]
        return Starlette(routes=routes, lifespan=lifespan)

    async def _health(self, _: Request) -> JSONResponse:
        return JSONResponse({})

    async def _models(self, _: Request) -> JSONResponse:
        return JSONResponse({"data": [{"id": MODEL, "max_model_len": 8192}]})

    async def _tokenize(self, request: Request) -> JSONResponse:
        body = await request.json()
        text = self.template(body) if "messages" in body else body["prompt"]
        tokens = self._vocabulary.encode(text)
        return JSONResponse({"tokens": tokens, "count": len(tokens)})

    async def _detokenize(self, request: Request) -> JSONResponse:
        return JSONResponse({"prompt": self._vocabulary.decode((await request.json())["tokens"])})

    def template(self, body: dict[str, Any]) -> str:
        """The prompt of a chat, with one token for all audio."""
        lines = []
        for message in body["messages"]:
            parts = message["content"]
            if isinstance(parts, list):
                # Like NVIDIA's template: a line break after the audio, unless the text places it.
                text = "".join(part["text"] for part in parts if part["type"] == "text")
                is_placed = AUDIO_TOKEN in text and "template" not in self._tricks
                sound = "" if is_placed else f"{AUDIO_TOKEN}\n"
                parts = "".join(it["text"] if it["type"] == "text" else sound for it in parts)
            lines.append(f"<|im_start|>{message['role']}\n{parts}<|im_end|>\n")
        opening = "<think>\n" if self._thinks(body) else "<think></think>"
        return "".join([*lines, f"<|im_start|>assistant\n{opening}"])

    @staticmethod
    def _thinks(body: dict[str, Any]) -> bool:
        return bool((body.get("chat_template_kwargs") or {}).get("enable_thinking", True))

    async def _chat(self, request: Request) -> JSONResponse:
        body = await request.json()
        self.n_asked += 1
        try:
            audio = _audio_of(body)
        except (ValueError, LookupError, soundfile.SoundFileError) as error:
            told = {"error": {"message": f"no audio that can be decoded: {error}"}}
            return JSONResponse(told, 400)
        text, confidences = await self._words(audio)
        content = self._content(body, audio, text)
        if content != text:
            confidences = (1.0,) * len(content.split())
        reasoning = THOUGHT if self._thinks(body) else ""
        n_prompt = len(self._vocabulary.encode(self.template(body)))
        n_words = len(content.split()) + len(reasoning.split())
        is_cut = "loop" in self._tricks and audio.duration < SHORT_SECONDS
        message = {"role": "assistant", "content": content, "reasoning": reasoning or None}
        choice = {
            "message": message,
            "finish_reason": "length" if is_cut else "stop",
            "logprobs": {"content": _tokens(content, confidences)},
        }
        usage = {
            "prompt_tokens": n_prompt + round(TOKENS_PER_SECOND * audio.duration),
            "completion_tokens": round(1.4 * n_words) + 1,
        }
        return JSONResponse({"choices": [choice], "usage": usage, "model": MODEL})

    async def _words(self, audio: Audio) -> tuple[str, tuple[float, ...]]:
        """Recognise each audio once: the arms of an experiment send the same."""
        key = hashlib.sha256(audio.pcm16()).hexdigest()
        if key not in self._heard:
            self._heard[key] = await self._recognise(audio)
        return self._heard[key]

    def _content(self, body: dict[str, Any], audio: Audio, text: str) -> str:
        sent, is_audio_first = text_part(body)
        if "loop" in self._tricks and audio.duration < SHORT_SECONDS:
            text = " ".join([*text.split()[:2], "and", "so"] * 12)
        if "insert" in self._tricks:
            offered = [term for terms in _TERMS.findall(sent) for term in re.split("[;,] ", terms)]
            text = " ".join([text, *offered[:3]])
        if "aloud" in self._tricks and not is_audio_first:
            text = f"{THOUGHT} It says: {text}"
        if "think" in self._tricks and not self._thinks(body):
            text = f"{THOUGHT}\n</think>\n{text}"
        return text


def _audio_of(body: dict[str, Any]) -> Audio:
    part = next(it for it in body["messages"][-1]["content"] if it["type"] != "text")
    inner = part[part["type"]]
    data = inner["data"] if "data" in inner else inner["url"].partition(",")[2]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise ValueError(f"{rate} Hz, {samples.ndim} dimensions")
    return Audio(samples)


def _tokens(text: str, confidences: tuple[float, ...]) -> list[dict[str, Any]]:
    """One token for each word with the space before it."""
    found = list(re.finditer(r"\s*\S+", text))
    sure = confidences if len(confidences) == len(found) else (1.0,) * len(found)
    return [
        {"token": it[0], "logprob": math.log(max(p, 1e-6)), "bytes": list(it[0].encode())}
        for it, p in zip(found, sure, strict=True)
    ]


def recognise_with(engine: Engine) -> Recognise:
    """The words of an engine of this project, no more than its slots at once."""
    slots = asyncio.Semaphore(engine.slots)

    async def recognise(audio: Audio) -> tuple[str, tuple[float, ...]]:
        async with slots:
            chunk = Chunk(0, 0, len(audio.samples))
            found = await engine.transcribe(chunk, audio, DecodeOptions())
        return found.text, found.word_confidences or ()

    return recognise


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8200)
    parser.add_argument("--workers", type=int, default=2, help="processes of Moonshine (2)")
    parser.add_argument("--misbehave", nargs="*", choices=TRICKS, default=())
    options = parser.parse_args()
    engine = MoonshineEngine(options.workers)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        start = time.perf_counter()
        await engine.open()
        print(f"Moonshine loaded in {time.perf_counter() - start:.1f} s", flush=True)
        yield
        await engine.close()

    app = StandIn(recognise_with(engine), options.misbehave).app(lifespan)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
