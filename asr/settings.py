"""The settings of the service, read once from ``ASR_*`` variables or the flags of ``asr serve``.

``make docs`` generates the table in docs/settings.md from the fields below. A test checks that the
table is current.
"""

from __future__ import annotations

import logging
import math
import os
import re
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin, get_type_hints
from urllib.parse import SplitResult, urlsplit

from asr.config import (
    INSTRUCTION_RULE,
    AudioLimits,
    VadKind,
    check,
    described,
    is_instruction,
)
from asr.errors import InvalidOption
from asr.signing import is_usable

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

ENV_PREFIX = "ASR_"

LogFormat = Literal["text", "json"]
DialectName = Literal["vllm", "sglang", "llamacpp", "ollama", "trtllm", "nim"]
AudioFormat = Literal["wav", "flac"]
Device = Literal["auto", "cpu", "cuda"]

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "engine": ("auto", "omni", "omni-local", "moonshine", "onnx"),
    "aligner": ("auto", "sphinx", "ctc", "none"),
    "vad": get_args(VadKind),
    "vllm_dialect": get_args(DialectName),
    "vllm_audio_format": get_args(AudioFormat),
    "ctc_device": get_args(Device),
    "onnx_device": get_args(Device),
    "host": ("127.0.0.1", "0.0.0.0", "::"),  # noqa: S104  # LitServe takes no others
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": get_args(LogFormat),
}
_REMOVED: Final = {
    "pocketsphinx": "; pocketsphinx was removed: unset ASR_ENGINE, or set it to moonshine"
}
"""What to do about a choice of earlier versions."""
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "port": (1024, 65535),
    "engine_slots": (0, 4096),
    "cpu_workers": (0, 4096),
    "max_waiting_requests": (0, math.inf),
    "max_followed": (0, math.inf),
    "live_max_sessions": (0, math.inf),
    "live_keep_seconds": (0, math.inf),
    "upload_ttl": (1, math.inf),
    "worker_timeout": (2, math.inf),
    "drain_seconds": (0, 3600),
    "shutdown_grace": (0, 3600),
}
_POSITIVE: Final = (
    "max_audio_seconds",
    "max_upload_bytes",
    "max_decoded_bytes",
    "max_active_requests",
    "upload_quota_bytes",
    "live_max_seconds",
    "live_idle_seconds",
)


_SERVICE_LINK: Final = re.compile(
    r"ASR(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|"
    r"PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""Variables that Kubernetes sets in every pod for a service named ``asr`` or ``asr-...``."""
_LINK_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://\S+")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Field ``x_y`` is the variable ``ASR_X_Y`` and the flag ``--x-y``."""

    engine: str = described(
        "auto",
        "auto, omni, omni-local, moonshine or onnx; auto is omni with ASR_VLLM_URL, else moonshine",
    )
    vllm_url: str = described("", "URLs of the servers that run Omni, separated by commas")
    vllm_model: str = described(
        "",
        "name of the model; if unset, the first in /v1/models; for omni-local a folder or hub id",
    )
    vllm_args: str = described("", "for omni-local: vLLM engine arguments as a JSON object")
    vllm_api_key: str = described("", "Bearer token for these servers", secret=True)
    vllm_ca_file: str = described(
        "", "PEM file of the authorities to trust instead of the system's"
    )
    vllm_dialect: DialectName = described(
        "vllm", "kind of server: vllm, sglang, llamacpp, ollama, trtllm or nim (docs/servers.md)"
    )
    vllm_audio_format: AudioFormat = described("wav", "wav, or flac for slow networks")
    omni_instruction: str = described(
        "", "replaces the instruction from Omni's training; {language} is the language's name"
    )
    moonshine_model: str = described(
        "", "folder of another Moonshine model, such as base; none means the installed tiny one"
    )
    speaker_model: str = described(
        "", "ONNX file of another speaker model (docs/speakers.md); none means the installed CAM++"
    )
    aligner: str = described(
        "auto",
        "auto, sphinx, ctc or none; times words if the engine gives no times; auto is sphinx",
    )
    engine_slots: int = described(
        0, "chunks sent to Omni at once; 0 means 64 for each server; for onnx on a GPU, 0 means 16"
    )
    onnx_model: str = described(
        "", "for onnx: folder of the model, or a name that onnx-asr downloads (docs/onnx.md)"
    )
    onnx_type: str = described(
        "", "for onnx: type of a model whose config.json does not name it, such as gigaam-v3-ctc"
    )
    onnx_quantization: str = described("", "for onnx: suffix of the model's files, such as int8")
    onnx_language: str = described(
        "en", "for onnx: languages of the model, separated by commas; the first is the default"
    )
    onnx_device: Device = described(
        "auto", "for onnx: auto, cpu or cuda; auto is cuda if onnxruntime-gpu and a GPU are there"
    )
    host: str = described("127.0.0.1", "127.0.0.1, 0.0.0.0 or ::")
    port: int = described(8000, "1024 to 65535")
    root_path: str = described(
        "", "path under which a proxy publishes the service, such as /speech (docs/operations.md)"
    )
    api_key: str = described(
        "", "one key that may do everything; if set, requests need a key", secret=True
    )
    api_keys_file: str = described(
        "", "file of API keys with scopes and limits (docs/operations.md)"
    )
    api_keys: str = described("", "the content of such a file", secret=True)
    max_audio_seconds: float = described(43_200.0, "longest recording, in seconds of decoded audio")
    max_upload_bytes: int = described(8 << 30, "largest request body, in bytes")
    max_active_requests: int = described(16, "recordings transcribed at once")
    max_waiting_requests: int = described(32, "recordings that may wait; further ones get 429")
    cpu_workers: int = described(
        0, "processes for each of recogniser, aligner and speakers; 0 means one per core"
    )
    decode_cpu_seconds: int = described(1800, "seconds of CPU time to decode one recording")
    decode_memory_bytes: int = described(4 << 30, "bytes of address space to decode one recording")
    max_decoded_bytes: int = described(
        4 << 30, "bytes of disk for one decoded recording; an hour of one channel takes 115 MB"
    )
    vad: VadKind = described("webrtc", "webrtc, silero or off, if the request does not choose")
    live_max_sessions: int = described(32, "live sessions open at once; further ones get 429")
    live_max_seconds: float = described(14_400.0, "seconds of audio that one live session accepts")
    live_idle_seconds: float = described(
        60.0, "seconds without a message after which a live session ends"
    )
    live_keep_seconds: float = described(
        3600.0, "seconds to keep the transcript of a live session after its end"
    )
    live_partials: bool = described(
        True, "send the text of a live turn while it is spoken (docs/realtime.md)"
    )
    ctc_model: str = described("", "folder or hub id of the CTC model (docs/alignment.md)")
    ctc_device: Device = described("auto", "device of the CTC model: auto, cpu or cuda")
    work_dir: str = described(tempfile.gettempdir(), "folder for temporary files")
    data_dir: str = described("", "folder of jobs and uploads; none means ~/.local/state/asr")
    database_url: str = described(
        "",
        "postgresql://... for jobs on several servers; the default is SQLite in the data_dir",
        secret=True,
    )
    max_active_jobs: int = described(4, "jobs transcribed at once, in addition to requests")
    max_waiting_jobs: int = described(
        1000,
        "jobs that may wait; further ones get 429, but each key may have a twentieth",
    )
    job_ttl: float = described(604_800.0, "seconds after its end until a job is deleted")
    job_lease: float = described(
        15.0, "seconds until other servers take over the jobs of a dead server"
    )
    webhook_secret: str = described(
        "", "signs callbacks; if unset, callback_url is rejected", secret=True
    )
    webhook_allow_private: bool = described(False, "allow callbacks to private addresses")
    upload_quota_bytes: int = described(
        64 << 30,
        "bytes of resumable uploads for one API key, and as many of recordings that its jobs keep",
    )
    upload_ttl: float = described(86_400.0, "seconds to keep an upload after its last byte")
    max_followed: int = described(16, "uploads transcribed while they arrive; further ones get 429")
    cors_origins: str = described("", "allowed browser origins, separated by commas, or *")
    worker_timeout: float = described(
        10.0, "seconds without a sign of life after which a worker counts as dead"
    )
    drain_seconds: float = described(
        0.0, "seconds after SIGTERM in which /ready says 503 and requests are still answered"
    )
    shutdown_grace: float = described(
        5.0, "seconds for running requests to finish after SIGTERM, at most 3600"
    )
    page: bool = described(True, "serve the web page at / (docs/api.md#the-web-page)")
    log_level: str = described("info", "debug, info, warning or error")
    log_format: LogFormat = described("text", "text or json")

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            told = f"must be one of {', '.join(choices)}{_REMOVED.get(getattr(self, name), '')}"
            check(getattr(self, name) in choices, name, told)
        for name, (low, high) in _RANGES.items():
            told = f"must be {low:g} to {high:g}" if high < math.inf else f"must be {low:g} or more"
            check(low <= getattr(self, name) <= high, name, told)
        for name in _POSITIVE:
            check(getattr(self, name) > 0, name, "must be positive")
        check(Path(self.work_dir).is_dir(), "work_dir", f"{self.work_dir} is not a directory")
        told = "must be a path such as /speech, of letters, digits and -._~"
        check(not self.prefix or is_prefix(self.prefix), "root_path", told)
        told = "must be *, or origins such as https://app.example.com, separated by commas"
        check(all(map(_is_origin, _items(self.cors_origins))), "cors_origins", told)
        self._check_vllm()
        self._check_jobs()

    def _check_vllm(self) -> None:
        are_web = all(_is_web(url) for url in self.vllm_urls)
        check(are_web, "vllm_url", "must be http:// or https:// addresses, separated by commas")
        is_fine = not self.omni_instruction or is_instruction(self.omni_instruction)
        check(is_fine, "omni_instruction", INSTRUCTION_RULE)
        has_ca = not self.vllm_ca_file or Path(self.vllm_ca_file).is_file()
        check(has_ca, "vllm_ca_file", f"{self.vllm_ca_file} is not a file")

    def _check_jobs(self) -> None:
        schemes = ("postgresql://", "postgres://", "sqlite:///")
        is_known = not self.database_url or self.database_url.startswith(schemes)
        check(is_known, "database_url", "must begin with postgresql:// or sqlite:///")
        check(self.max_active_jobs >= 0, "max_active_jobs", "must not be negative")
        check(self.max_waiting_jobs > 0, "max_waiting_jobs", "must be positive")
        check(self.job_ttl > 0, "job_ttl", "must be positive")
        check(1 <= self.job_lease <= 600, "job_lease", "must be 1 to 600 seconds")
        told = "must be UTF-8, and base64 after whsec_"  # the value itself must not be in a log
        is_valid = not self.webhook_secret or is_usable(self.webhook_secret)
        check(is_valid, "webhook_secret", told)

    @property
    def vllm_urls(self) -> tuple[str, ...]:
        """The URL of each server, without ``/v1``."""
        urls = (url.rstrip("/").removesuffix("/v1") for url in _items(self.vllm_url))
        return tuple(dict.fromkeys(url for url in urls if url))

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the ``ASR_*`` variables. An empty one counts as unset.

        White space around a value is removed, because mounted secrets end with a line break. The
        variables that Kubernetes sets for a service named ``asr`` are ignored.

        Args:
            env: read these instead of the environment.

        Raises:
            InvalidOption: a value has the wrong type or range, or no setting has that name.
        """
        source = os.environ if env is None else env
        ours = ((key, value) for key, value in source.items() if key.startswith(ENV_PREFIX))
        given = _without_service_links({key: value.strip() for key, value in ours})
        known = {ENV_PREFIX + f.name.upper(): f.name for f in fields(cls)}
        told = f"no such setting; the settings are {', '.join(sorted(known))}"
        for key in given:
            check(key in known, key, told)
        return cls.from_text({known[key]: value for key, value in given.items() if value})

    @classmethod
    def from_text(cls, values: Mapping[str, str]) -> Settings:
        """Make settings from field names and their values as text.

        Raises:
            InvalidOption: a value has the wrong type or range.
        """
        hints = get_type_hints(cls)
        return cls(**{name: _parse(hints[name], name, text) for name, text in values.items()})

    @property
    def engine_name(self) -> str:
        """The engine, with ``auto`` resolved."""
        if self.engine != "auto":
            return self.engine
        return "omni" if self.vllm_url else "moonshine"

    @property
    def aligner_name(self) -> str:
        """The aligner, with ``auto`` resolved."""
        return "sphinx" if self.aligner == "auto" else self.aligner

    @property
    def data_path(self) -> Path:
        """The folder of jobs and uploads."""
        if self.data_dir:
            return Path(self.data_dir)
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "asr"

    @property
    def database(self) -> str:
        """The URL of the database of jobs."""
        return self.database_url or f"sqlite:///{self.data_path.absolute()}/jobs.db"

    @property
    def origins(self) -> tuple[str, ...]:
        """The browser origins of `cors_origins`."""
        return tuple(map(_origin, _items(self.cors_origins)))

    @property
    def prefix(self) -> str:
        """`root_path` with a slash at its start and none at its end; "" for the root."""
        path = self.root_path.strip("/")
        return f"/{path}" if path else ""

    @property
    def workers(self) -> int:
        """Number of processes for each of recogniser, aligner and speakers."""
        return self.cpu_workers or len(os.sched_getaffinity(0))

    @property
    def limits(self) -> AudioLimits:
        """The limits for decoding one recording."""
        return AudioLimits(
            max_seconds=self.max_audio_seconds,
            max_bytes=self.max_upload_bytes,
            max_cpu_seconds=self.decode_cpu_seconds,
            max_memory_bytes=self.decode_memory_bytes,
            max_decoded_bytes=self.max_decoded_bytes,
        )


def is_prefix(path: str) -> bool:
    """Whether `path` is a path without dots as segments, which is safe in URLs and in HTML."""
    segments = path.split("/")
    is_plain = re.fullmatch(r"(/[A-Za-z0-9._~-]+){1,16}", path) is not None
    return is_plain and len(path) <= 256 and not {".", ".."} & set(segments)


def _without_service_links(given: dict[str, str]) -> dict[str, str]:
    """Drop the variables of Kubernetes' services, and say so in the log."""
    links = [key for key, value in given.items() if _is_service_link(key, value)]
    if links:
        hint = "set enableServiceLinks: false in the pod, or rename the service"
        logger.warning("ignoring %s: Kubernetes sets them (%s)", ", ".join(sorted(links)), hint)
    return {key: value for key, value in given.items() if key not in links}


def _is_service_link(key: str, value: str) -> bool:
    if key.endswith("_PORT") and _LINK_ADDRESS.fullmatch(value):
        return True
    return _SERVICE_LINK.fullmatch(key) is not None


def _items(text: str) -> list[str]:
    """The items of a list that is separated by commas, without white space and empty items."""
    return [item.strip() for item in text.split(",") if item.strip()]


def _split_origin(text: str) -> SplitResult | None:
    """The parts of a browser origin, or None if `text` is none."""
    try:
        parts = urlsplit(text)
        is_valid = parts.port != 0 and parts.scheme and parts.hostname and "@" not in parts.netloc
    except ValueError:
        return None
    return (
        parts if is_valid and parts.path.strip("/") + parts.query + parts.fragment == "" else None
    )


def _is_origin(text: str) -> bool:
    return text in ("*", "null") or _split_origin(text) is not None


def _origin(text: str) -> str:
    """An origin as browsers write it: in lower case, without slash and without a default port."""
    parts = _split_origin(text)
    if parts is None:
        return text
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    host = parts.netloc.rpartition(":")[0] if parts.port is not None else parts.netloc.rstrip(":")
    return f"{parts.scheme}://{host.lower()}{port}"


_BOOLS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _is_web(url: str) -> bool:
    """Whether this is an http or https URL with a host and, if it has a port, a valid one."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _parse(kind: type, name: str, text: str) -> Any:
    if get_origin(kind) is Literal:
        return text  # checked with the other values
    if kind is bool:
        check(text.lower() in _BOOLS, name, f"must be one of {', '.join(_BOOLS)}, not {text!r}")
        return _BOOLS[text.lower()]
    try:
        return kind(text)
    except ValueError:
        raise InvalidOption(name, f"must be {kind.__name__}, not {text!r}") from None
