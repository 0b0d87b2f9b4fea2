"""Looks at a running setup and says what is wrong with it and how to mend it.

    asr doctor --vllm-url http://gpu:8000

The servers are asked what the engine asks them, in the same words, with a tone for audio. A tone
says nothing of how well the model recognises.
"""

from __future__ import annotations

import re
import shutil
import ssl
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import av
import av.codec
import httpx
import numpy as np
import pocketsphinx
import soundfile
import webrtcvad

from asr.config import ChunkOptions, DecodeOptions
from asr.engines import omni
from asr.engines.dialects import DIALECTS, request_body
from asr.types import SAMPLE_RATE, Audio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asr.settings import Settings

Level = Literal["ok", "warn", "fail"]

OLDEST_VLLM: Final = (0, 20)
TOKENS_PER_SECOND: Final = 12.5
"""What Omni's encoder makes of a second at 16 kHz; vLLM adds it to the prompt."""
QUICK_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 120.0
MIN_FREE_BYTES: Final = 5 << 30
CONTAINERS: Final = ("FLAC", "OGG", "MP3", "WAV")
CODECS: Final = ("aac", "alac", "amrnb", "mp3", "opus", "vorbis", "wmav2")


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and what was found; `fix` says what to do about it."""

    name: str
    level: Level
    found: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<4}  {self.name:<16}  {self.found}"
        return f"{line}; {self.fix}" if self.fix else line


def examine(settings: Settings) -> Iterator[Check]:
    """All checks that fit the settings, one after the other."""
    yield from check_machine(settings)
    yield check_service(settings)
    for url in settings.vllm_urls:
        with _client(url, settings) as client:
            yield from VllmCheckup(client, settings).checks()


# --- this machine -------------------------------------------------------------------------------


def check_machine(settings: Settings) -> Iterator[Check]:
    """What the service needs beside a recogniser."""
    known = soundfile.available_formats()
    missing = [name for name in CONTAINERS if name not in known]
    version = soundfile.__libsndfile_version__
    yield _decoders("libsndfile", version, missing, "update the package soundfile")
    missing = [name for name in CODECS if name not in av.codec.codecs_available]
    yield _decoders("ffmpeg", f"PyAV {av.__version__}", missing, "install av from its wheel")
    yield _webrtcvad()
    yield _pocketsphinx(settings)
    yield _work_dir(settings)


def _decoders(name: str, version: str, missing: list[str], fix: str) -> Check:
    if missing:
        return Check(name, "warn", f"{version} does not decode {', '.join(missing)}", fix)
    return Check(name, "ok", version)


def _webrtcvad() -> Check:
    frame = b"\0" * (SAMPLE_RATE // 100 * 2)
    hears_silence = webrtcvad.Vad(2).is_speech(frame, SAMPLE_RATE)
    if hears_silence:
        return Check("webrtcvad", "fail", "takes silence for speech", "reinstall webrtcvad-wheels")
    return Check("webrtcvad", "ok", "tells silence from speech")


def _pocketsphinx(settings: Settings) -> Check:
    try:
        pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
    except (RuntimeError, ValueError, OSError) as error:
        level: Level = "fail" if settings.engine_name == "pocketsphinx" else "warn"
        return Check("pocketsphinx", level, f"no model: {error}", "reinstall pocketsphinx")
    return Check("pocketsphinx", "ok", "the model of US English loads")


def _work_dir(settings: Settings) -> Check:
    folder = settings.work_dir
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        fix = "choose another with ASR_WORK_DIR"
        return Check("work dir", "fail", f"{folder} cannot be written: {error.strerror}", fix)
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        fix = "an hour of audio takes 115 MB beside its file"
        return Check("work dir", "warn", f"{folder} has {free / 1e9:.1f} GB left", fix)
    return Check("work dir", "ok", f"{folder} has {free / 1e9:.0f} GB left")


def check_service(settings: Settings) -> Check:
    """Our own service, if it runs."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    url = f"http://{host}:{settings.port}"
    try:
        answer = httpx.get(f"{url}/ready", timeout=QUICK_SECONDS)
    except httpx.ConnectError:
        return Check("service", "ok", f"does not run at {url}")
    except httpx.HTTPError as error:
        fix = "look at its log"
        return Check("service", "fail", f"{url}/ready: {type(error).__name__}", fix)
    if answer.is_success:
        return Check("service", "ok", f"is ready at {url}")
    return Check("service", "fail", f"is not ready at {url}: {_said(answer)}", "look at its log")


# --- a server -----------------------------------------------------------------------------------


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
    """The checks of one server."""

    def __init__(self, client: httpx.Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._dialect = DIALECTS[settings.vllm_dialect]
        self._model = settings.vllm_model

    def checks(self) -> Iterator[Check]:
        """One after the other; a server that does not answer is asked nothing more."""
        first = self.reachable()
        yield first
        if first.level == "fail":
            return
        if self._settings.vllm_dialect == "vllm":
            yield self.version()
        model = self.model()
        yield model
        if model.level == "fail":
            return
        heard = self._hear(1.0)
        yield self.audio(heard)
        if heard.is_success:
            yield self.thinking(heard)
            yield self.logprobs(heard)
            yield self.rate(heard)
            yield self.longest_chunk()
        yield from self.caches()

    def reachable(self) -> Check:
        """Whether it answers, and takes our key."""
        where = str(self._client.base_url).rstrip("/")
        try:
            answer = self._client.get("/v1/models")
        except httpx.HTTPError as error:
            fix = "start it, or mend ASR_VLLM_URL; while it loads, which takes minutes, it is deaf"
            return Check("server", "fail", f"{where} does not answer: {error}", fix)
        if answer.status_code in (401, 403):
            return Check("server", "fail", f"{where} refuses our key", "set ASR_VLLM_API_KEY")
        if not answer.is_success:
            fix = "is it a server with OpenAI's routes?"
            return Check("server", "fail", f"{where}/v1/models: {answer.status_code}", fix)
        return Check("server", "ok", f"{where} answers")

    def version(self) -> Check:
        """Whether its vLLM knows the model."""
        answer = self._client.get("/version")
        given = _json(answer).get("version", "") if answer.is_success else ""
        numbers = re.match(r"(\d+)\.(\d+)", str(given))
        if numbers is None:
            fix = "set ASR_VLLM_DIALECT if this is another kind of server"
            return Check("version", "warn", "does not say which vLLM it is", fix)
        if (int(numbers[1]), int(numbers[2])) < OLDEST_VLLM:
            return Check("version", "fail", f"vLLM {given}", "Omni's audio needs 0.20 or newer")
        return Check("version", "ok", f"vLLM {given}")

    def model(self) -> Check:
        """Which model it serves, and whether that is the one we ask for."""
        served = _json(self._client.get("/v1/models")).get("data") or []
        ids = [str(item.get("id")) for item in served]
        if not ids:
            return Check("model", "fail", "serves none", "start it with the model")
        if self._model and self._model not in ids:
            fix = f"ASR_VLLM_MODEL is {self._model}"
            return Check("model", "fail", f"serves {', '.join(ids)}", fix)
        self._model = self._model or ids[0]
        names = f"{self._model} {served[0].get('root', '')}".lower()
        if "omni" not in names:
            fix = "the prompt and the limits here are Nemotron-3-Nano-Omni's"
            return Check("model", "warn", f"{self._model} is not called Omni", fix)
        return Check("model", "ok", self._model)

    def audio(self, heard: httpx.Response) -> Check:
        """Whether it takes audio as we send it."""
        what = f"1 s of {self._settings.vllm_audio_format} as {self._dialect.audio_part}"
        if heard.is_success:
            return Check("audio", "ok", f"{what} is heard")
        fix = "install vllm[audio]; --limit-mm-per-prompt must allow one audio"
        return Check("audio", "fail", f"{what}: {heard.status_code} {_said(heard)}", fix)

    def thinking(self, heard: httpx.Response) -> Check:
        """Whether the model answers at once, as we ask it to."""
        message = _choice(heard).get("message") or {}
        thought = message.get("reasoning") or message.get("reasoning_content") or ""
        if thought or "<think>" in (message.get("content") or ""):
            fix = (
                "its chat template must obey enable_thinking=false; do not replace the model's own"
            )
            return Check("thinking", "fail", "goes on though it is switched off", fix)
        return Check("thinking", "ok", "is off")

    def logprobs(self, heard: httpx.Response) -> Check:
        """Whether words get a confidence."""
        if (_choice(heard).get("logprobs") or {}).get("content"):
            return Check("confidence", "ok", "log-probabilities come with every token")
        if not (_choice(heard).get("message") or {}).get("content"):
            return Check("confidence", "ok", "nothing was said on the tone, so nothing to tell")
        fix = "words will have no confidence"
        return Check("confidence", "warn", "the server gives no log-probabilities", fix)

    def rate(self, heard: httpx.Response) -> Check:
        """Whether it takes our 16 kHz for 16 kHz: by the tokens that one second more costs."""
        one, two = _prompt_tokens(heard), _prompt_tokens(self._hear(3.0))
        if one is None or two is None:
            return Check("sample rate", "warn", "the server does not count tokens")
        per_second = (two - one) / 2
        if abs(per_second - TOKENS_PER_SECOND) > 1:
            fix = f"Omni has {TOKENS_PER_SECOND}: another model, or it resamples"
            return Check("sample rate", "warn", f"{per_second} tokens for a second", fix)
        return Check(
            "sample rate", "ok", f"{per_second} tokens for a second, as Omni has at 16 kHz"
        )

    def longest_chunk(self) -> Check:
        """Whether the longest chunk and the longest answer to it fit the server's limits."""
        seconds = ChunkOptions().max_seconds
        limit = omni.sampling(DecodeOptions(), seconds).max_tokens
        answer = self._hear(seconds)
        if answer.is_success:
            found = f"{seconds:.0f} s with an answer of up to {limit} tokens"
            return Check("longest chunk", "ok", f"{found}; limits such as 600 s are far")
        fix = "raise --max-model-len to 4096 or more"
        return Check("longest chunk", "fail", f"{answer.status_code} {_said(answer)}", fix)

    def caches(self) -> Iterator[Check]:
        """Hints about caches, from vLLM's metrics: our audio is new each time."""
        answer = self._client.get("/metrics")
        text = answer.text if answer.is_success else ""
        if re.search(r'vllm:cache_config_info\{.*enable_prefix_caching="True"', text):
            fix = "--no-enable-prefix-caching: there is nothing to reuse"
            yield Check("prefix cache", "warn", "is on", fix)
        if re.search(r"^vllm:mm_cache_queries_total\{.*\} (?!0)", text, re.MULTILINE):
            fix = "--mm-processor-cache-gb 0: no chunk comes twice"
            yield Check("audio cache", "warn", "is on", fix)

    def _hear(self, seconds: float) -> httpx.Response:
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
            return httpx.Response(599, text=f"no answer: {type(error).__name__}")


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _choice(answer: httpx.Response) -> dict[str, Any]:
    choices = _json(answer).get("choices") or [{}]
    return choices[0] if isinstance(choices[0], dict) else {}


def _prompt_tokens(answer: httpx.Response) -> int | None:
    usage = _json(answer).get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _said(answer: httpx.Response) -> str:
    """The message of an error, in one line."""
    error = _json(answer).get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(message or answer.text).split())[:200]
