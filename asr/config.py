"""Options of each stage, and the settings of the service. All frozen, all checked when made.

Options travel with a request; `Settings` are read once, from ``ASR_*`` environment variables or
the flags of ``asr serve``. The table in the README is generated from the fields below
(``python -m asr settings``), and a test keeps it current.
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin, get_type_hints

from asr.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Mapping

ENV_PREFIX = "ASR_"

LogFormat = Literal["text", "json"]
VadKind = Literal["webrtc", "silero", "off"]
DialectName = Literal["vllm", "sglang", "llamacpp", "ollama", "trtllm", "nim"]
AudioFormat = Literal["wav", "flac"]
CtcDevice = Literal["auto", "cpu", "cuda"]
Channels = Literal["mix", "split"]


def check(condition: bool, name: str, message: str) -> None:
    """Raise `InvalidOption` for `name` unless `condition` holds."""
    if not condition:
        raise InvalidOption(name, message)


def _setting(default: Any, doc: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class VadOptions:
    """How speech is told from the rest.

    Attributes:
        kind: "webrtc" costs 0.4 s per hour of audio; "silero" (extra) withstands music and noise;
            "off" takes the whole recording for speech.
        aggressiveness: webrtc only, 0 lets most through, 3 least.
        threshold: silero only, the probability above which a frame is speech.
        min_speech: seconds of voiced frames below which a region is dropped.
        min_silence: seconds without a voiced frame that end a region.
        padding: seconds added on both sides of a region.
    """

    kind: VadKind = "webrtc"
    aggressiveness: int = 2
    threshold: float = 0.5
    min_speech: float = 0.15
    min_silence: float = 0.45
    padding: float = 0.2

    def __post_init__(self) -> None:
        check(self.kind in ("webrtc", "silero", "off"), "vad", "must be webrtc, silero or off")
        check(self.aggressiveness in (0, 1, 2, 3), "vad_aggressiveness", "must be 0, 1, 2 or 3")
        check(0 < self.threshold < 1, "vad_threshold", "must lie between 0 and 1")
        check(0 <= self.min_speech <= 10, "vad_min_speech", "must be 0 to 10 seconds")
        check(0.03 <= self.min_silence <= 30, "vad_min_silence", "must be 0.03 to 30 seconds")
        check(0 <= self.padding <= 5, "vad_padding", "must be 0 to 5 seconds")


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """How speech regions are packed into chunks.

    Attributes:
        max_seconds: no chunk is longer; vLLM cuts Omni's audio hard at 30 s.
        max_gap: a longer pause starts a new chunk, since silence only costs and misleads.
        overlap: seconds that two chunks share where speech had to be cut.
        search: seconds before the limit in which the quietest place is looked for.
    """

    max_seconds: float = 30.0
    max_gap: float = 2.0
    overlap: float = 1.0
    search: float = 6.0

    def __post_init__(self) -> None:
        check(2 <= self.max_seconds <= 600, "chunk_max_seconds", "must be 2 to 600 seconds")
        check(self.max_gap >= 0, "chunk_max_gap", "must not be negative")
        check(self.overlap > 0, "chunk_overlap", "must be positive")
        fits = self.overlap < self.search and self.overlap + self.search <= self.max_seconds
        check(fits, "chunk_search", "overlap < search and overlap + search <= max_seconds")


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What the user tells the recogniser.

    Attributes:
        language: ISO-639-1 code, or None to leave it to the engine.
        prompt: context in the words of the user.
        keywords: names and terms that may occur.
        temperature: 0 to 1, or None for the engine's own.
    """

    language: str | None = None
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    temperature: float | None = None

    def __post_init__(self) -> None:
        in_range = self.temperature is None or 0 <= self.temperature <= 1
        check(in_range, "temperature", "must lie between 0 and 1")
        for keyword in self.keywords:
            clean = keyword.strip() and not any(sign in keyword for sign in "<>\r\n")
            check(bool(clean), "keywords", "each must be one line of text without < and >")


@dataclass(frozen=True, slots=True)
class SubtitleOptions:
    """How cues are shaped for reading; `asr.subtitles` says which rule yields to which.

    Fields of a request and, as ``--max-line-width``, flags of the command line.
    """

    max_line_width: int = _setting(42, "characters in a line")
    max_line_count: int = _setting(2, "lines in a cue")
    max_cue_duration: float = _setting(7.0, "seconds that a cue stays, at the most")
    min_cue_duration: float = _setting(0.833, "seconds that a cue stays, if the next one lets it")
    max_cps: float = _setting(20.0, "characters to read in a second, if the next cue lets it")
    min_gap: float = _setting(0.083, "seconds between cues: 2 frames of 24 a second")
    highlight_words: bool = _setting(False, "vtt: a time before each word, to light it up")

    def __post_init__(self) -> None:
        check(10 <= self.max_line_width <= 500, "max_line_width", "must be 10 to 500")
        check(1 <= self.max_line_count <= 10, "max_line_count", "must be 1 to 10")
        check(0.5 <= self.max_cue_duration <= 60, "max_cue_duration", "must be 0.5 to 60 seconds")
        check(0 <= self.min_cue_duration <= 10, "min_cue_duration", "must be 0 to 10 seconds")
        check(1 <= self.max_cps <= 1000, "max_cps", "must be 1 to 1000 characters a second")
        check(0 <= self.min_gap <= 1, "min_gap", "must be 0 to 1 second")


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """What decoding one recording may cost.

    Attributes:
        max_seconds: of decoded audio, counted while decoding; headers are not trusted.
        max_bytes: of the file.
        max_cpu_seconds: RLIMIT_CPU of the decoding process.
        max_memory_bytes: RLIMIT_AS of the decoding process.
    """

    max_seconds: float = 12 * 3600.0
    max_bytes: int = 8 << 30
    max_cpu_seconds: int = 1800
    max_memory_bytes: int = 4 << 30


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that one request may choose.

    Attributes:
        channels: "mix" hears all channels as one; "split" transcribes each by itself, as for a
            call with one speaker in each, and orders what was said by time.
    """

    vad: VadOptions = VadOptions()
    chunk: ChunkOptions = ChunkOptions()
    decode: DecodeOptions = DecodeOptions()
    limits: AudioLimits = AudioLimits()
    channels: Channels = "mix"

    def __post_init__(self) -> None:
        check(self.channels in ("mix", "split"), "channels", "must be mix or split")


_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "engine": ("auto", "omni", "omni-local", "pocketsphinx"),
    "aligner": ("auto", "sphinx", "ctc", "none"),
    "vad": get_args(VadKind),
    "vllm_dialect": get_args(DialectName),
    "vllm_audio_format": get_args(AudioFormat),
    "ctc_device": get_args(CtcDevice),
    "host": ("127.0.0.1", "0.0.0.0", "::"),  # noqa: S104  # LitServe takes no others
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": get_args(LogFormat),
}
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
    "shutdown_grace": (0, 8),
}
_POSITIVE: Final = (
    "max_audio_seconds",
    "max_upload_bytes",
    "max_active_requests",
    "upload_quota_bytes",
    "live_max_seconds",
    "live_idle_seconds",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service reads at its start. Field `x_y` is ``ASR_X_Y`` and ``--x-y``."""

    engine: str = _setting(
        "auto",
        "auto, omni, omni-local or pocketsphinx; auto takes omni when ASR_VLLM_URL is set",
    )
    vllm_url: str = _setting("", "addresses of the servers that serve Omni, separated by commas")
    vllm_model: str = _setting(
        "", "model to ask for; when unset, the first in /v1/models; for omni-local its folder or id"
    )
    vllm_args: str = _setting("", "engine arguments of vLLM as a JSON object, for omni-local")
    vllm_api_key: str = _setting("", "sent to these servers as Bearer token", secret=True)
    vllm_ca_file: str = _setting("", "PEM file of the authorities to trust instead of the usual")
    vllm_dialect: DialectName = _setting(
        "vllm", "kind of server: vllm, sglang, llamacpp, ollama, trtllm or nim (docs/servers.md)"
    )
    vllm_audio_format: AudioFormat = _setting("wav", "wav, or flac for slow links")
    aligner: str = _setting(
        "auto", "auto, sphinx, ctc or none, for words without times of their own; auto is sphinx"
    )
    engine_slots: int = _setting(0, "chunks in flight at Omni; 0 means 64 for each server")
    host: str = _setting("127.0.0.1", "127.0.0.1, 0.0.0.0 or ::")
    port: int = _setting(8000, "1024 to 65535")
    api_key: str = _setting(
        "", "when set, every route but /health and /ready asks for it", secret=True
    )
    api_keys_file: str = _setting("", "file of keys with scopes and limits (docs/operations.md)")
    api_keys: str = _setting("", "the lines of such a file themselves", secret=True)
    max_audio_seconds: float = _setting(43_200.0, "longest recording, in decoded seconds")
    max_upload_bytes: int = _setting(8 << 30, "largest request body")
    max_active_requests: int = _setting(16, "recordings in work at once")
    max_waiting_requests: int = _setting(32, "recordings waiting; more are answered 429")
    cpu_workers: int = _setting(0, "recogniser processes; 0 means one per core")
    decode_cpu_seconds: int = _setting(1800, "CPU time to decode one recording")
    decode_memory_bytes: int = _setting(4 << 30, "address space to decode one recording")
    vad: VadKind = _setting("webrtc", "webrtc, silero or off, for requests that do not choose")
    live_max_sessions: int = _setting(32, "live sessions open at once; more are answered 429")
    live_max_seconds: float = _setting(14_400.0, "audio that one live session takes")
    live_idle_seconds: float = _setting(60.0, "seconds without a message that end a live session")
    live_keep_seconds: float = _setting(3600.0, "how long the transcript of one stays after it")
    ctc_model: str = _setting("", "folder or hub id of the CTC model (docs/aligners.md)")
    ctc_device: CtcDevice = _setting("auto", "auto, cpu or cuda, where the CTC model runs")
    work_dir: str = _setting(tempfile.gettempdir(), "where files lie while they are in work")
    data_dir: str = _setting("", "where jobs and uploads are kept; none means ~/.local/state/asr")
    database_url: str = _setting(
        "",
        "postgresql://... for the jobs of several servers; by default SQLite in the data_dir",
        secret=True,
    )
    max_active_jobs: int = _setting(4, "jobs in work at once, beside the requests")
    max_waiting_jobs: int = _setting(1000, "jobs waiting; more are answered 429")
    job_ttl: float = _setting(604_800.0, "seconds after its end when a job is forgotten")
    job_lease: float = _setting(15.0, "seconds after which the jobs of a dead server are taken up")
    webhook_secret: str = _setting(
        "", "signs callbacks; without it callback_url is refused", secret=True
    )
    webhook_allow_private: bool = _setting(False, "callbacks may go to private addresses")
    upload_quota_bytes: int = _setting(64 << 30, "resumable uploads that one key may have, in all")
    upload_ttl: float = _setting(86_400.0, "seconds after its last byte that an upload is kept")
    max_followed: int = _setting(16, "uploads transcribed while they arrive; more are answered 429")
    cors_origins: str = _setting("", "browser origins allowed, with commas between, or *")
    worker_timeout: float = _setting(10.0, "seconds of silence after which a worker counts as dead")
    shutdown_grace: float = _setting(5.0, "seconds that requests get to finish on SIGTERM")
    log_level: str = _setting("info", "debug, info, warning or error")
    log_format: LogFormat = _setting("text", "text or json")

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            check(getattr(self, name) in choices, name, f"must be one of {', '.join(choices)}")
        for name, (low, high) in _RANGES.items():
            told = f"must be {low:g} to {high:g}" if high < math.inf else f"must be {low:g} or more"
            check(low <= getattr(self, name) <= high, name, told)
        for name in _POSITIVE:
            check(getattr(self, name) > 0, name, "must be positive")
        check(Path(self.work_dir).is_dir(), "work_dir", f"{self.work_dir} is no directory")
        self._check_vllm()
        self._check_jobs()

    def _check_vllm(self) -> None:
        are_web = all(url.startswith(("http://", "https://")) for url in self.vllm_urls)
        check(are_web, "vllm_url", "must be http:// or https:// addresses, separated by commas")
        has_ca = not self.vllm_ca_file or Path(self.vllm_ca_file).is_file()
        check(has_ca, "vllm_ca_file", f"{self.vllm_ca_file} is no file")

    def _check_times(self) -> None:
        check(self.worker_timeout >= 2, "worker_timeout", "must be at least 2 seconds")
        check(0 <= self.shutdown_grace <= 8, "shutdown_grace", "must be 0 to 8 seconds")

    def _check_jobs(self) -> None:
        schemes = ("postgresql://", "postgres://", "sqlite:///")
        is_known = not self.database_url or self.database_url.startswith(schemes)
        check(is_known, "database_url", "must begin with postgresql:// or sqlite:///")
        check(self.max_active_jobs >= 0, "max_active_jobs", "must not be negative")
        check(self.max_waiting_jobs > 0, "max_waiting_jobs", "must be positive")
        check(self.job_ttl > 0, "job_ttl", "must be positive")
        check(1 <= self.job_lease <= 600, "job_lease", "must be 1 to 600 seconds")

    @property
    def vllm_urls(self) -> tuple[str, ...]:
        """The servers one by one, without ``/v1``."""
        urls = (url.strip().rstrip("/").removesuffix("/v1") for url in self.vllm_url.split(","))
        return tuple(dict.fromkeys(url for url in urls if url))

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read ``ASR_*`` variables; an empty one counts as unset.

        Raises:
            InvalidOption: a value has the wrong type or range, or a name is misspelt.
        """
        source = os.environ if env is None else env
        given = {key: value for key, value in source.items() if key.startswith(ENV_PREFIX)}
        known = {ENV_PREFIX + f.name.upper(): f.name for f in fields(cls)}
        for key in given:
            check(key in known, key, f"no such setting; there are {', '.join(sorted(known))}")
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
        """The engine after ``auto`` is settled."""
        if self.engine != "auto":
            return self.engine
        return "omni" if self.vllm_url else "pocketsphinx"

    @property
    def aligner_name(self) -> str:
        """The aligner after ``auto`` is settled."""
        return "sphinx" if self.aligner == "auto" else self.aligner

    @property
    def data_path(self) -> Path:
        """Where jobs and uploads are kept."""
        if self.data_dir:
            return Path(self.data_dir)
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "asr"

    @property
    def database(self) -> str:
        """The address of the database of jobs."""
        return self.database_url or f"sqlite:///{self.data_path.absolute()}/jobs.db"

    @property
    def origins(self) -> tuple[str, ...]:
        """The browser origins of `cors_origins`."""
        return tuple(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())

    @property
    def workers(self) -> int:
        """Recogniser processes."""
        return self.cpu_workers or len(os.sched_getaffinity(0))

    @property
    def limits(self) -> AudioLimits:
        """The limits of decoding."""
        return AudioLimits(
            max_seconds=self.max_audio_seconds,
            max_bytes=self.max_upload_bytes,
            max_cpu_seconds=self.decode_cpu_seconds,
            max_memory_bytes=self.decode_memory_bytes,
        )


_BOOLS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


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


def settings_table() -> str:
    """The README's table of settings, in Markdown."""
    rows = ["| variable | flag | default | meaning |", "| --- | --- | --- | --- |"]
    for item in fields(Settings):
        flag = "--" + item.name.replace("_", "-")
        default = "the system's" if item.name == "work_dir" else item.default
        if isinstance(default, bool):
            default = str(default).lower()
        shown = f"`{default}`" if default != "" else "none"
        row = (f"`{ENV_PREFIX}{item.name.upper()}`", f"`{flag}`", shown, item.metadata["doc"])
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows)
