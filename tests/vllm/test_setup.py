"""`asr doctor` against a real vLLM server."""

import httpx
import pytest

from asr.cli import main
from asr.doctor import VllmCheckup, examine
from asr.settings import Settings
from tests.support.serving import free_port
from tests.vllm.servers import MODEL

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def test_a_server_that_is_fit_passes(parsing, plain):
    for server in (parsing, plain):
        found = {it.name: it for it in examine(Settings(vllm_url=server.url, port=free_port()))}
        assert not [str(it) for it in found.values() if it.level == "fail"]
        wanted = ("server", "version", "model", "audio", "thinking", "confidence", "sample rate")
        assert {found[name].level for name in (*wanted, "longest chunk")} == {"ok"}
        assert "0.32" in found["version"].found
        assert "prefix cache" not in found, "it was switched off"
        assert found["audio cache"].level == "warn", "vLLM's own default keeps one"


def test_thinking_is_read_from_the_prompt_that_vllm_makes(parsing, plain):
    for server in (parsing, plain):
        with httpx.Client(base_url=server.url, timeout=60) as client:
            checkup = VllmCheckup(client, Settings(vllm_model=MODEL))
            assert checkup.thinks({"enable_thinking": True})
            assert not checkup.thinks({"enable_thinking": False})


def test_flac_and_bare_base64_pass_too(parsing):
    for changes in ({"vllm_audio_format": "flac"}, {"vllm_dialect": "llamacpp"}):
        settings = Settings(vllm_url=parsing.url, port=free_port(), **changes)
        assert not [str(it) for it in examine(settings) if it.level == "fail"]


def test_an_address_without_a_server_fails(capsys, monkeypatch):
    monkeypatch.setenv("ASR_PORT", str(free_port()))
    assert main(["doctor", "--vllm-url", f"http://127.0.0.1:{free_port()}"]) == 1
    assert "does not answer" in capsys.readouterr().out
