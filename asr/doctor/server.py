"""Checks of one server that recognises speech."""

from __future__ import annotations

import contextlib
import re
import ssl
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np

from asr.config import ChunkOptions, DecodeOptions
from asr.doctor.checks import QUICK_SECONDS, Check, as_object, body_of, is_this_service, said
from asr.doctor.instruction import check_instruction
from asr.engines.omni import prompt as omni
from asr.engines.omni.dialects import DIALECTS, request_body
from asr.types import SAMPLE_RATE, Audio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asr.settings import Settings

OLDEST_VLLM: Final = (0, 20)
TOKENS_PER_SECOND: Final = 12.5
"""Tokens of Omni's encoder per second of audio. vLLM counts them in the prompt."""
ANSWER_SECONDS: Final = 120.0
NO_ANSWER: Final = 599
LOOK: Final = "read the server's log"
REFUSALS: Final = (
    (
        "out of range float",
        "check the weights: random or damaged weights give log-probabilities that are not numbers",
    ),
    (r"model length|context length|max_model_len", "raise --max-model-len to 4096 or more"),
    ("duration", "raise the server's VLLM_MAX_AUDIO_DECODE_DURATION_S"),
    ("file ?size", "raise the server's VLLM_MAX_AUDIO_CLIP_FILESIZE_MB"),
)
"""Patterns in the message of a refusal (400), each with its fix."""


def check_server(url: str, settings: Settings) -> Iterator[Check]:
    """Run all checks of the server at an address."""
    try:
        client = _client(url, settings)
    except (OSError, ValueError, httpx.InvalidURL) as error:  # ssl.SSLError is an OSError
        fix = "correct ASR_VLLM_URL, ASR_VLLM_CA_FILE or ASR_VLLM_API_KEY"
        yield Check("server", "fail", f"{url} cannot be reached with these settings: {error}", fix)
        return
    with client:
        yield from VllmCheckup(client, settings).checks()


def _client(url: str, settings: Settings) -> httpx.Client:
    key = settings.vllm_api_key
    ca_file = settings.vllm_ca_file
    return httpx.Client(
        base_url=url,
        headers={"authorization": f"Bearer {key}"} if key else {},
        verify=ssl.create_default_context(cafile=ca_file) if ca_file else True,
        timeout=QUICK_SECONDS,
    )


class VllmCheckup:
    """The checks of one server, in the order of `checks`."""

    def __init__(self, client: httpx.Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._dialect = DIALECTS[settings.vllm_dialect]
        self._model = settings.vllm_model

    def checks(self) -> Iterator[Check]:
        """Run the checks. Stop if the server cannot be used or does not serve the model."""
        first = self.reachable()
        yield first
        if first.level == "fail":
            return
        if self._settings.vllm_dialect == "vllm":
            yield _answered("version", self.version)
        model = _answered("model", self.model)
        yield model
        if model.level == "fail":
            return
        tone_answer = self._send_tone(1.0)
        yield self.audio(tone_answer)
        if tone_answer.is_success:
            yield _answered("thinking", lambda: self.thinking(tone_answer))
            if self._dialect.shows_tokens:
                yield _answered("instruction", self.instruction)
            yield self.logprobs(tone_answer)
            yield self.rate(tone_answer)
            yield self.longest_chunk()
        yield from self.caches()

    def reachable(self) -> Check:
        """Check that the server answers, accepts our key, and is not our own service."""
        where = str(self._client.base_url).rstrip("/")
        try:
            answer = self._client.get("/v1/models")
        except httpx.HTTPError as error:
            fix = "start it, or correct ASR_VLLM_URL; it answers only after minutes of loading"
            return Check("server", "fail", f"{where} does not answer: {error}", fix)
        if self._is_ourselves():
            fix = "set ASR_VLLM_URL to the recogniser, or move this service with ASR_PORT"
            found = f"{where} is this service itself, not its recogniser"
            return Check("server", "fail", found, fix)
        if answer.status_code in (401, 403):
            return Check("server", "fail", f"{where} refuses our key", "set ASR_VLLM_API_KEY")
        if not answer.is_success:
            fix = "use a server with OpenAI's routes"
            return Check("server", "fail", f"{where}/v1/models: {answer.status_code}", fix)
        return Check("server", "ok", f"{where} answers")

    def _is_ourselves(self) -> bool:
        """Ask the one route that only our service has; it needs no key."""
        with contextlib.suppress(httpx.HTTPError):
            return is_this_service(self._client.get("/ready"))
        return False

    def version(self) -> Check:
        """Check that the version of vLLM supports the model."""
        answer = self._client.get("/version")
        given = body_of(answer).get("version", "") if answer.is_success else ""
        numbers = re.match(r"(\d+)\.(\d+)", str(given))
        if numbers is None:
            fix = "set ASR_VLLM_DIALECT if this is another kind of server"
            return Check("version", "warn", "does not tell its version of vLLM", fix)
        if (int(numbers[1]), int(numbers[2])) < OLDEST_VLLM:
            return Check("version", "fail", f"vLLM {given}", "Omni's audio needs 0.20 or newer")
        return Check("version", "ok", f"vLLM {given}")

    def model(self) -> Check:
        """Check that it serves the model that the settings name, and that this is Omni."""
        listed = body_of(self._client.get("/v1/models")).get("data")
        items = map(as_object, listed if isinstance(listed, list) else ())
        served = {str(item["id"]): item for item in items if item.get("id")}
        if not served:
            return Check("model", "fail", "the server lists no model", "start it with the model")
        if self._model and self._model not in served:
            fix = f"ASR_VLLM_MODEL is {self._model}: correct it, or serve that model"
            # Ollama adds ":latest" by itself.
            is_found = self._dialect.any_name or f"{self._model}:latest" in served
            return Check(
                "model", "warn" if is_found else "fail", f"serves {', '.join(served)}", fix
            )
        self._model = self._model or next(iter(served))
        names = f"{self._model} {served[self._model].get('root', '')}".lower()
        if "omni" not in names:
            fix = "serve Nemotron-3-Nano-Omni: the prompt and the limits are made for it"
            return Check("model", "warn", f"{self._model} is not called Omni", fix)
        return Check("model", "ok", self._model)

    def audio(self, tone_answer: httpx.Response) -> Check:
        """Check that it accepts audio in our format."""
        what = f"1 s of {self._settings.vllm_audio_format} as {self._dialect.audio_part}"
        if tone_answer.is_success:
            return Check("audio", "ok", f"{what} is accepted")
        fix = _remedy(
            tone_answer, "install vllm[audio]; --limit-mm-per-prompt must allow one audio"
        )
        return Check("audio", "fail", f"{what}: {_refused(tone_answer)}", fix)

    def thinking(self, tone_answer: httpx.Response) -> Check:
        """Check that the model does not think before it answers.

        The chat template puts <think> into the prompt, so an answer may show no sign of thinking.
        If the server can show the prompt, the prompt is checked too.
        """
        message = as_object(_choice(tone_answer).get("message"))
        content = str(message.get("content") or "")
        thought = message.get("reasoning") or message.get("reasoning_content")
        is_seen = bool(thought) or "<think>" in content or "</think>" in content
        if is_seen or self.thinks(self._dialect.no_thinking.get("chat_template_kwargs", {})):
            fix = (
                "its chat template must obey enable_thinking=false; do not replace the model's own"
            )
            return Check("thinking", "fail", "is on, although we switch it off", fix)
        if _choice(tone_answer).get("finish_reason") == "length":
            found = (
                "the answer to 1 s of audio reached its token limit: it may think or repeat itself"
            )
            return Check("thinking", "warn", found, "send it real speech and read the answer")
        return Check("thinking", "ok", "is off")

    def thinks(self, kwargs: Mapping[str, Any]) -> bool:
        """Return whether the chat template with these arguments ends inside <think>.

        Uses routes of vLLM; False for servers without them.
        """
        if self._settings.vllm_dialect != "vllm":
            return False
        chat = {
            "model": self._model,
            "messages": [{"role": "user", "content": "hi"}],
            "add_generation_prompt": True,
            "chat_template_kwargs": kwargs,
        }
        tokens = body_of(self._client.post("/tokenize", json=chat)).get("tokens")
        if not tokens:
            return False
        given = {"model": self._model, "tokens": tokens}
        prompt = str(body_of(self._client.post("/detokenize", json=given)).get("prompt") or "")
        return prompt.rfind("<think>") > prompt.rfind("</think>")

    def instruction(self) -> Check:
        """Check that the model gets the prompt that it was trained on."""
        return check_instruction(self._client, self._model, self._dialect)

    def logprobs(self, tone_answer: httpx.Response) -> Check:
        """Check that answers carry log-probabilities, which become the words' confidences."""
        if as_object(_choice(tone_answer).get("logprobs")).get("content"):
            return Check("confidence", "ok", "log-probabilities come with every token")
        if not as_object(_choice(tone_answer).get("message")).get("content"):
            return Check("confidence", "ok", "unknown: the answer to the tone is empty")
        fix = "use a server that gives them, such as vLLM; else words have no confidence"
        return Check("confidence", "warn", "the server gives no log-probabilities", fix)

    def rate(self, tone_answer: httpx.Response) -> Check:
        """Check that it reads audio at 16 kHz, by the tokens that an additional second costs."""
        longer = self._send_tone(3.0)
        if not longer.is_success:
            return Check("sample rate", "fail", f"3 s: {_refused(longer)}", _remedy(longer, LOOK))
        one, two = _prompt_tokens(tone_answer), _prompt_tokens(longer)
        if one is None or two is None:
            return Check(
                "sample rate", "warn", "the server does not count tokens", "check a known recording"
            )
        if two <= one:
            found = "the server ignores the audio: 2 more seconds add no token"
            fix = "set ASR_VLLM_DIALECT to this kind of server, or serve a model that accepts audio"
            return Check("sample rate", "fail", found, fix)
        per_second = (two - one) / 2
        if abs(per_second - TOKENS_PER_SECOND) > 1:
            fix = f"serve Omni at 16 kHz, which has {TOKENS_PER_SECOND}"
            return Check("sample rate", "warn", f"{per_second} tokens per second", fix)
        return Check("sample rate", "ok", f"{per_second} tokens per second, as Omni has at 16 kHz")

    def longest_chunk(self) -> Check:
        """Check that the longest chunk with its longest answer fits the server's limits."""
        seconds = ChunkOptions().max_seconds
        limit = omni.sampling(DecodeOptions(), seconds).max_tokens
        answer = self._send_tone(seconds)
        if answer.is_success:
            found = f"{seconds:.0f} s, with an answer of up to {limit} tokens, are accepted"
            return Check("longest chunk", "ok", found)
        fix = _remedy(answer, "raise --max-model-len to 4096 or more")
        return Check("longest chunk", "fail", _refused(answer), fix)

    def caches(self) -> Iterator[Check]:
        """Warn of caches in vLLM's metrics: our audio is always new, so they only cost memory."""
        try:
            answer = self._client.get("/metrics")
        except httpx.HTTPError as error:
            yield Check("metrics", "fail", f"no answer: {type(error).__name__}", LOOK)
            return
        text = answer.text if answer.is_success else ""
        if re.search(r'vllm:cache_config_info\{.*enable_prefix_caching="True"', text):
            fix = "start vLLM with --no-enable-prefix-caching: there is nothing to reuse"
            yield Check("prefix cache", "warn", "is on", fix)
        if re.search(r"^vllm:mm_cache_queries_total\{.*\} (?!0)", text, re.MULTILINE):
            fix = "start vLLM with --mm-processor-cache-gb 0: no chunk comes twice"
            yield Check("audio cache", "warn", "is on", fix)

    def _send_tone(self, seconds: float) -> httpx.Response:
        at = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        audio = Audio((0.2 * np.sin(2 * np.pi * 440 * at)).astype(np.float32))
        body = request_body(
            self._model, audio, DecodeOptions(), self._dialect, self._settings.vllm_audio_format
        )
        headers = {"content-type": "application/json"}
        path = "/v1/chat/completions"
        try:
            return self._client.post(path, content=body, headers=headers, timeout=ANSWER_SECONDS)
        except httpx.HTTPError as error:
            return httpx.Response(NO_ANSWER, text=type(error).__name__)


def _answered(name: str, check: Callable[[], Check]) -> Check:
    """Run the check; a failed request is a failed check."""
    try:
        return check()
    except httpx.HTTPError as error:
        return Check(name, "fail", f"no answer: {type(error).__name__}", LOOK)


def _remedy(answer: httpx.Response, otherwise: str) -> str:
    """Return the fix for a failed request with audio, `otherwise` if its cause is unknown."""
    if answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        return (
            "raise the limit on request bodies of the proxy before the server (nginx: "
            "client_max_body_size), or set ASR_VLLM_AUDIO_FORMAT=flac"
        )
    if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        return LOOK
    if answer.status_code != httpx.codes.BAD_REQUEST:
        return otherwise
    told = (fix for sign, fix in REFUSALS if re.search(sign, said(answer), re.IGNORECASE))
    return next(told, otherwise)


def _refused(answer: httpx.Response) -> str:
    status = "no answer:" if answer.status_code == NO_ANSWER else str(answer.status_code)
    return f"{status} {said(answer)}".rstrip()


def _choice(answer: httpx.Response) -> dict[str, Any]:
    choices = body_of(answer).get("choices")
    return as_object(choices[0]) if isinstance(choices, list) and choices else {}


def _prompt_tokens(answer: httpx.Response) -> int | None:
    count = as_object(body_of(answer).get("usage")).get("prompt_tokens")
    return count if isinstance(count, int) else None
