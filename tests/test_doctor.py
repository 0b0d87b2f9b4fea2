"""The checks of a setup, against a stand-in server that has one fault at a time."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from asr import doctor
from asr.cli import main
from asr.doctor import VllmCheckup, check_machine, check_service
from asr.engines.dialects import DIALECTS
from asr.settings import Settings
from tests.serving import free_port

MODEL = "nvidia/Nemotron-3-Nano-Omni"


class Standin:
    """Answers like vLLM with Omni, unless told otherwise."""

    def __init__(self, **faults):
        self.version = "0.20.1"
        self.models = [MODEL]
        self.tokens_per_second = 12.5
        self.content = "beep"
        self.reasoning = None
        self.logprobs = True
        self.max_seconds = 600
        self.metrics = 'vllm:cache_config_info{enable_prefix_caching="False"} 1.0\n'
        self.key = ""
        vars(self).update(faults)

    def __call__(self, request):
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return httpx.Response(401)
        path = request.url.path
        if path == "/v1/chat/completions":
            return self.chat(json.loads(request.content))
        models = {"data": [{"id": name} for name in self.models]}
        answers = {
            "/version": httpx.Response(200, json={"version": self.version}),
            "/v1/models": httpx.Response(200, json=models),
            "/metrics": httpx.Response(200, text=self.metrics),
        }
        return answers.get(path, httpx.Response(404))

    def chat(self, body):
        part = body["messages"][0]["content"][0]
        seconds = (len(part["audio_url"]["url"]) * 3 / 4 - 44) / 32000
        assert body["model"] in self.models
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
        if seconds > self.max_seconds:
            message = "is longer than the maximum model length"
            return httpx.Response(400, json={"error": {"message": message}})
        tokens = {"content": [{"token": "beep", "logprob": -0.1}]} if self.logprobs else None
        message = {"content": self.content, "reasoning": self.reasoning}
        return httpx.Response(
            200,
            json={
                "choices": [{"message": message, "logprobs": tokens, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 24 + round(seconds * self.tokens_per_second)},
            },
        )


def checkup(settings=None, **faults):
    transport = httpx.MockTransport(Standin(**faults))
    with httpx.Client(base_url="http://vllm:8000", transport=transport) as client:
        found = VllmCheckup(client, settings or Settings()).checks()
        return {check.name: check for check in found}


def test_a_good_server_passes_every_check():
    found = checkup()
    assert {check.level for check in found.values()} == {"ok"}
    expected = {"server", "version", "model", "audio", "thinking", "confidence", "sample rate"}
    assert set(found) == expected | {"longest chunk"}


@pytest.mark.parametrize(
    ("faults", "name", "level"),
    [
        ({"version": "0.19.2"}, "version", "fail"),
        ({"version": ""}, "version", "warn"),
        ({"models": []}, "model", "fail"),
        ({"models": ["llama"]}, "model", "warn"),
        ({"reasoning": "let me think"}, "thinking", "fail"),
        ({"content": "<think>hm</think> beep"}, "thinking", "fail"),
        ({"logprobs": False}, "confidence", "warn"),
        ({"logprobs": False, "content": ""}, "confidence", "ok"),
        ({"tokens_per_second": 25}, "sample rate", "warn"),
        ({"max_seconds": 20}, "longest chunk", "fail"),
        ({"max_seconds": 0}, "audio", "fail"),
        ({"key": "secret"}, "server", "fail"),
        (
            {"metrics": 'vllm:cache_config_info{enable_prefix_caching="True"} 1.0'},
            "prefix cache",
            "warn",
        ),
        ({"metrics": 'vllm:mm_cache_queries_total{engine="0"} 7.0'}, "audio cache", "warn"),
    ],
)
def test_each_fault_is_found_with_its_remedy(faults, name, level):
    check = checkup(**faults)[name]
    assert check.level == level, check
    assert check.level == "ok" or check.fix, "nothing says what to do"


def test_a_version_is_compared_by_numbers():
    assert checkup(version="0.100.0")["version"].level == "ok"
    assert checkup(version="1.0")["version"].level == "ok"


def test_the_model_that_is_asked_for_must_be_served():
    settings = Settings(vllm_model="other/omni")
    assert checkup(settings)["model"].level == "fail"
    assert checkup(settings, models=[MODEL, "other/omni"])["model"].found == "other/omni"


def test_a_server_that_is_away_is_asked_nothing_more():
    def refuse(request):
        raise httpx.ConnectError("refused")

    client = httpx.Client(base_url="http://vllm:8000", transport=httpx.MockTransport(refuse))
    with client:
        (only,) = VllmCheckup(client, Settings()).checks()
    assert (only.name, only.level) == ("server", "fail")


def test_the_machine_is_fit_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 0)
    found = list(check_machine(Settings(work_dir=str(tmp_path))))
    assert [check.level for check in found] == ["ok"] * 5
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_a_full_disk_and_a_missing_decoder_are_warnings(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 1 << 60)
    monkeypatch.setattr(doctor, "CODECS", ("aac", "no-such-codec"))
    found = {it.name: it for it in check_machine(Settings(work_dir=str(tmp_path)))}
    assert found["work dir"].level == "warn"
    assert "no-such-codec" in found["ffmpeg"].found


def test_a_service_that_runs_is_asked_whether_it_is_ready(server):
    port = int(server.url.rpartition(":")[2])
    assert check_service(Settings(port=port)).found.startswith("is ready")
    assert check_service(Settings(port=free_port())).found.startswith("does not run")


@contextmanager
def listening(standin):
    """The stand-in on a real socket."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("content-length", 0))
            url = f"http://vllm{self.path}"
            content = self.rfile.read(length)
            answer = standin(httpx.Request(self.command, url, content=content))
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join()


@pytest.mark.parametrize(("faults", "code"), [({}, 0), ({"models": ["x"]}, 0), ({"key": "k"}, 1)])
def test_the_command_prints_a_line_for_each_check_and_fails_with_any(
    faults, code, capsys, monkeypatch
):
    monkeypatch.setenv("ASR_PORT", str(free_port()))
    with listening(Standin(**faults)) as url:
        assert main(["doctor", "--vllm-url", url]) == code
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("ok", "warn", "fail") for line in lines)
    assert any(line.startswith("fail") for line in lines) == bool(code)
    assert any(url in line for line in lines)


def test_every_dialect_can_be_checked():
    for name in DIALECTS:
        assert list(doctor.examine(Settings(port=free_port(), vllm_dialect=name)))
