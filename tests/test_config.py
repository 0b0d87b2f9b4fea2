"""Settings from the environment, options, and the values that each refuses."""

import pytest

from asr.cli.settings import settings_table
from asr.config import ChunkOptions, DecodeOptions, SubtitleOptions, VadOptions
from asr.errors import InvalidOption
from asr.settings import Settings


def test_the_defaults_are_valid_and_take_moonshine() -> None:
    settings = Settings.from_env({})
    assert settings == Settings()
    assert settings.engine_name == "moonshine"
    assert settings.workers >= 1


def test_auto_takes_omni_when_a_vllm_server_is_named() -> None:
    settings = Settings.from_env({"ASR_VLLM_URL": "http://gpu:8000"})
    assert settings.engine_name == "omni"
    forced = Settings.from_env({"ASR_VLLM_URL": "http://gpu:8000", "ASR_ENGINE": "moonshine"})
    assert forced.engine_name == "moonshine"


def test_values_are_read_with_their_types() -> None:
    env = {"ASR_PORT": "9000", "ASR_WORKER_TIMEOUT": "2.5", "ASR_VAD": "off", "PATH": "/bin"}
    settings = Settings.from_env(env)
    assert (settings.port, settings.worker_timeout, settings.vad) == (9000, 2.5, "off")


def test_an_empty_variable_is_unset() -> None:
    assert Settings.from_env({"ASR_PORT": ""}).port == Settings().port


def test_the_limits_are_those_of_the_settings() -> None:
    limits = Settings(max_audio_seconds=60.0, max_upload_bytes=1000).limits
    assert (limits.max_seconds, limits.max_bytes) == (60.0, 1000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ASR_PORT", "80"),
        ("ASR_PORT", "many"),
        ("ASR_HOST", "example.org"),
        ("ASR_ENGINE", "whisper"),
        ("ASR_VAD", "magic"),
        ("ASR_MAX_ACTIVE_REQUESTS", "0"),
        ("ASR_MAX_WAITING_REQUESTS", "-1"),
        ("ASR_WORK_DIR", "/nowhere/at/all"),
        ("ASR_WORKER_TIMEOUT", "0.1"),
        ("ASR_SHUTDOWN_GRACE", "3601"),
        ("ASR_LOG_LEVEL", "loud"),
        ("ASR_CPU_WORKERS", "-1"),
        ("ASR_MAX_AUDIO_SECONDS", "nan"),
        ("ASR_VLLM_URL", "gpu:8000"),
        ("ASR_VLLM_URL", "http://a, ftp://b"),
        ("ASR_VLLM_DIALECT", "gpt"),
        ("ASR_VLLM_AUDIO_FORMAT", "mp3"),
        ("ASR_VLLM_CA_FILE", "/nowhere/at/all.pem"),
        ("ASR_ENGINE_SLOTS", "-1"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Settings.from_env({name: value})
    assert caught.value.name == name.removeprefix("ASR_").lower()


def test_the_engine_that_was_removed_names_the_one_that_replaced_it() -> None:
    with pytest.raises(InvalidOption, match="pocketsphinx was removed: unset ASR_ENGINE"):
        Settings.from_env({"ASR_ENGINE": "pocketsphinx"})
    with pytest.raises(InvalidOption, match=r"moonshine, onnx$"):
        Settings.from_env({"ASR_ENGINE": "whisper"})


def test_a_misspelt_variable_is_refused_and_the_right_ones_are_listed() -> None:
    with pytest.raises(InvalidOption, match="ASR_API_KEY") as caught:
        Settings.from_env({"ASR_APIKEY": "secret"})
    assert caught.value.name == "ASR_APIKEY"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (VadOptions, {"kind": "best"}),
        (VadOptions, {"aggressiveness": 4}),
        (VadOptions, {"threshold": 1.0}),
        (VadOptions, {"min_silence": 0.0}),
        (VadOptions, {"padding": -1.0}),
        (VadOptions, {"min_speech": float("nan")}),
        (ChunkOptions, {"max_seconds": 1.0}),
        (ChunkOptions, {"overlap": 7.0}),
        (ChunkOptions, {"max_gap": -0.1}),
        (ChunkOptions, {"preferred_seconds": 0.0}),
        (DecodeOptions, {"temperature": 1.5}),
        (DecodeOptions, {"keywords": ("two\nlines",)}),
        (DecodeOptions, {"keywords": ("<b>",)}),
        (SubtitleOptions, {"max_line_width": 3}),
        (SubtitleOptions, {"max_line_count": 0}),
        (SubtitleOptions, {"max_cue_duration": 0.0}),
    ],
)
def test_an_option_out_of_range_is_refused(kind: type, values: dict[str, object]) -> None:
    with pytest.raises(InvalidOption):
        kind(**values)


def test_addresses_are_taken_one_by_one() -> None:
    settings = Settings(vllm_url=" http://a:8000/v1/ ,https://b,, http://a:8000")
    assert settings.vllm_urls == ("http://a:8000", "https://b")


@pytest.mark.parametrize("url", ["gpu:8000", "ftp://gpu", "http://", "http://gpu:abc", "http://["])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Settings(vllm_url=f"http://good:8000,{url}")
    assert caught.value.name == "vllm_url"


def test_space_around_a_value_does_not_count() -> None:
    """Secrets that are mounted as files end with a newline."""
    env = {"ASR_WEBHOOK_SECRET": "whsec_a2V5a2V5a2V5\n", "ASR_PORT": " 9000 ", "ASR_API_KEY": " "}
    settings = Settings.from_env(env)
    assert (settings.webhook_secret, settings.port) == ("whsec_a2V5a2V5a2V5", 9000)
    assert settings.api_key == ""


def test_the_table_has_a_row_for_every_setting() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(Settings.__dataclass_fields__)
    assert all(row.startswith("| `ASR_") and row.count("|") == 5 for row in rows)


def test_the_variables_of_kubernetes_services_are_ignored_with_a_hint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    links = {
        "ASR_PORT": "tcp://10.0.0.1:8000",
        "ASR_SERVICE_HOST": "10.0.0.1",
        "ASR_SERVICE_PORT": "8000",
        "ASR_SERVICE_PORT_HTTP": "8000",
        "ASR_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "ASR_PORT_8000_TCP_PROTO": "tcp",
        "ASR_PORT_8000_TCP_PORT": "8000",
        "ASR_PORT_8000_TCP_ADDR": "10.0.0.1",
        "ASR_API_PORT": "tcp://[fd00::1]:80",  # of a service that is called asr-api
        "ASR_API_SERVICE_HOST": "fd00::1",
        "ASR_DNS_PORT_53_UDP": "udp://10.0.0.1:53",
    }
    settings = Settings.from_env(links | {"ASR_CPU_WORKERS": "3"})
    assert (settings.port, settings.cpu_workers) == (8000, 3)
    assert "enableServiceLinks: false" in caplog.text
    assert all(name in caplog.text for name in links)
    for name in ("ASR_SERVICE_HOSTS", "ASR_PORTS", "ASR_PORT_TCP"):
        with pytest.raises(InvalidOption, match="no such setting"):
            Settings.from_env({name: "10.0.0.1"})
    with pytest.raises(InvalidOption, match="must be int"):
        Settings.from_env({"ASR_PORT": "http://10.0.0.1:8000"})


def test_browser_origins_are_written_as_browsers_send_them() -> None:
    text = "https://App.Example.com/ , http://localhost:3000//,HTTPS://a:443,http://b:8443/,"
    settings = Settings(cors_origins=text + "null,chrome-extension://abc, http://[::1]:80")
    assert settings.origins == (
        "https://app.example.com",
        "http://localhost:3000",
        "https://a",
        "http://b:8443",
        "null",
        "chrome-extension://abc",
        "http://[::1]",
    )
    assert Settings(cors_origins=" * ").origins == ("*",)


@pytest.mark.parametrize(
    "origin", ["app.example.com", "https://a/app", "https://", "https://a?b", "https://u@a", "//a"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Settings(cors_origins=f"https://good,{origin}")
    assert caught.value.name == "cors_origins"


@pytest.mark.parametrize(
    ("path", "prefix"), [("", ""), ("/", ""), ("//", ""), ("a", "/a"), ("/a/b/", "/a/b")]
)
def test_the_prefix_begins_with_a_slash_and_does_not_end_with_one(path: str, prefix: str) -> None:
    assert Settings(root_path=path).prefix == prefix


@pytest.mark.parametrize("path", ["/a//b", "/a/../b", "/a b", "http://a", "/a?b", "/<b>"])
def test_what_is_no_prefix_is_refused(path: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Settings(root_path=path)
    assert caught.value.name == "root_path"
