"""The checks of `asr doctor`, against a fake server that has one fault at a time."""

import functools
import json
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from asr import doctor
from asr.cli import main
from asr.doctor import (
    VllmCheckup,
    check_machine,
    check_server,
    check_service,
    check_settings,
    machine,
)
from asr.engines.moonshine.folder import TOKENIZER, find_folder
from asr.engines.omni.dialects import DIALECTS
from asr.settings import Settings
from tests.support import omni_template
from tests.support.serving import free_port

MODEL = "nvidia/Nemotron-3-Nano-Omni"


class Standin:
    """Answers like vLLM with Omni, unless told otherwise."""

    def __init__(self, **faults):
        self.version = "0.20.1"
        self.models = [MODEL]
        self.tokens_per_second = 12.5
        self.content = "beep"
        self.reasoning = None
        self.finish_reason = "stop"
        self.logprobs = True
        self.obeys = True
        self.has_tokenize = True
        self.always_adds = False
        self.refuses_from = 600
        self.refusal = (400, "is longer than the maximum model length")
        self.metrics = 'vllm:cache_config_info{enable_prefix_caching="False"} 1.0\n'
        self.key = ""
        self.drops = ()
        self.asked = []
        vars(self).update(faults)

    def __call__(self, request):
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return httpx.Response(401)
        path = request.url.path
        self.asked.append(path)
        if (path, self.asked.count(path)) in self.drops:
            raise httpx.RemoteProtocolError("the server hung up")
        if path == "/v1/chat/completions":
            return self.chat(json.loads(request.content))
        if self.has_tokenize and path in ("/tokenize", "/detokenize"):
            return self.tokens(path, json.loads(request.content))
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
        if seconds > self.refuses_from:
            status, message = self.refusal
            return httpx.Response(status, json={"error": {"message": message}})
        tokens = {"content": [{"token": "beep", "logprob": -0.1}]} if self.logprobs else None
        message = {"content": self.content, "reasoning": self.reasoning}
        choice = {"message": message, "logprobs": tokens, "finish_reason": self.finish_reason}
        return httpx.Response(
            200,
            json={
                "choices": [choice],
                "usage": {"prompt_tokens": 24 + round(seconds * self.tokens_per_second)},
            },
        )

    def tokens(self, path, body):
        """The prompt from a template like Omni's; each character is a token."""
        assert body["model"] in self.models
        if path == "/detokenize":
            return httpx.Response(200, json={"prompt": omni_template.decode(body["tokens"])})
        if "prompt" in body:
            return httpx.Response(200, json={"tokens": omni_template.encode(body["prompt"])})
        assert body["add_generation_prompt"] is True
        is_on = body["chat_template_kwargs"].get("enable_thinking", True) or not self.obeys
        earlier = {"role": "assistant", "content": "<think>earlier</think>"}
        prompt = omni_template.render(
            [*body["messages"], earlier], thinks=is_on, always_adds=self.always_adds
        )
        tokens = omni_template.encode(omni_template.with_audio(prompt))
        return httpx.Response(200, json={"tokens": tokens})


def checkup(settings=None, **faults):
    transport = httpx.MockTransport(Standin(**faults))
    with httpx.Client(base_url="http://vllm:8000", transport=transport) as client:
        found = VllmCheckup(client, settings or Settings()).checks()
        return {check.name: check for check in found}


@pytest.fixture(scope="module", autouse=True)
def _models_are_loaded_once():
    """Load pocketsphinx's models only once; each examination would take 0.3 s to load them."""
    with pytest.MonkeyPatch.context() as patch:
        sphinx = machine.pocketsphinx
        patch.setattr(sphinx, "Decoder", functools.cache(sphinx.Decoder))
        yield


def test_a_good_server_passes_every_check():
    found = checkup()
    assert {check.level for check in found.values()} == {"ok"}
    expected = {"server", "version", "model", "audio", "thinking", "confidence", "sample rate"}
    assert set(found) == expected | {"longest chunk", "instruction"}


@pytest.mark.parametrize(
    ("faults", "name", "level"),
    [
        ({"version": "0.19.2"}, "version", "fail"),
        ({"version": ""}, "version", "warn"),
        ({"models": []}, "model", "fail"),
        ({"models": ["llama"]}, "model", "warn"),
        ({"reasoning": "let me think"}, "thinking", "fail"),
        ({"content": "<think>hm</think> beep"}, "thinking", "fail"),
        ({"content": "hm</think> beep"}, "thinking", "fail"),
        ({"obeys": False}, "thinking", "fail"),
        ({"obeys": False, "has_tokenize": False}, "thinking", "ok"),
        ({"content": "<think>hm", "has_tokenize": False}, "thinking", "fail"),
        ({"finish_reason": "length"}, "thinking", "warn"),
        ({"has_tokenize": False}, "instruction", "warn"),
        ({"always_adds": True}, "instruction", "warn"),
        ({"logprobs": False}, "confidence", "warn"),
        ({"logprobs": False, "content": ""}, "confidence", "ok"),
        ({"tokens_per_second": 25}, "sample rate", "warn"),
        ({"tokens_per_second": 0}, "sample rate", "fail"),
        ({"refuses_from": 2}, "sample rate", "fail"),
        ({"refuses_from": 20}, "longest chunk", "fail"),
        ({"refuses_from": 0}, "audio", "fail"),
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


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (400, "longer than the maximum model length of 256", "--max-model-len"),
        (400, "exceeds model's maximum context length (256)", "--max-model-len"),
        (400, "Audio exceeds maximum allowed duration of 20s", "VLLM_MAX_AUDIO_DECODE_DURATION_S"),
        (400, "Maximum file size exceeded", "VLLM_MAX_AUDIO_CLIP_FILESIZE_MB"),
        (400, "Out of range float values are not JSON compliant", "damaged weights"),
        (413, "Request Entity Too Large", "client_max_body_size"),
        (413, "Request Entity Too Large", "ASR_VLLM_AUDIO_FORMAT=flac"),
        (500, "EngineCore died", "log"),
        (502, "exceeds the model length", "log"),
    ],
)
@pytest.mark.parametrize(("refuses_from", "name"), [(0, "audio"), (20, "longest chunk")])
def test_a_refusal_has_the_remedy_of_what_happened(refuses_from, name, status, message, remedy):
    check = checkup(refuses_from=refuses_from, refusal=(status, message))[name]
    assert check.level == "fail"
    assert str(status) in check.found
    assert message in check.found
    assert remedy in check.fix


def test_a_refusal_that_says_nothing_known_has_the_usual_remedy():
    refusal = (400, "no")
    assert "vllm[audio]" in checkup(refuses_from=0, refusal=refusal)["audio"].fix
    assert "--max-model-len" in checkup(refuses_from=20, refusal=refusal)["longest chunk"].fix


@pytest.mark.parametrize(
    ("drops", "name"),
    [
        (("/version", 1), "version"),
        (("/v1/models", 2), "model"),
        (("/tokenize", 1), "thinking"),
        (("/detokenize", 1), "thinking"),
        (("/v1/chat/completions", 1), "audio"),
        (("/v1/chat/completions", 2), "sample rate"),
        (("/v1/chat/completions", 3), "longest chunk"),
        (("/metrics", 1), "metrics"),
    ],
)
def test_a_server_that_hangs_up_fails_the_check_that_it_left(drops, name):
    found = checkup(drops=[drops])
    assert {it.name for it in found.values() if it.level == "fail"} == {name}
    assert "no answer" in found[name].found
    assert "log" in found[name].fix


def test_thinking_is_told_from_the_prompt_by_what_the_template_is_given():
    with httpx.Client(base_url="http://vllm", transport=httpx.MockTransport(Standin())) as client:
        server = VllmCheckup(client, Settings(vllm_model=MODEL))
        assert server.thinks({"enable_thinking": True})
        assert not server.thinks({"enable_thinking": False})


def test_only_vllm_is_asked_for_its_prompt():
    standin = Standin(obeys=False)
    with httpx.Client(base_url="http://it", transport=httpx.MockTransport(standin)) as client:
        list(VllmCheckup(client, Settings(vllm_dialect="sglang")).checks())
    assert "/v1/chat/completions" in standin.asked
    assert "/tokenize" not in standin.asked


@pytest.mark.parametrize(
    "answer",
    [[], {"data": 3}, {"data": ["x"]}, {"choices": 3, "usage": 3}, {"choices": [{"message": 3}]}],
)
def test_answers_of_another_shape_are_findings(answer):
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    with httpx.Client(base_url="http://it", transport=transport) as client:
        found = list(VllmCheckup(client, Settings()).checks())
    assert any(check.level == "fail" for check in found)


def test_a_version_is_compared_by_numbers():
    assert checkup(version="0.100.0")["version"].level == "ok"
    assert checkup(version="1.0")["version"].level == "ok"


def test_the_model_that_is_asked_for_must_be_served():
    settings = Settings(vllm_model="other/omni")
    assert checkup(settings)["model"].level == "fail"
    assert checkup(settings, models=[MODEL, "other/omni"])["model"].found == "other/omni"


@pytest.mark.parametrize(
    ("dialect", "served"), [("ollama", "omni:latest"), ("llamacpp", "/models/omni.gguf")]
)
def test_a_name_that_the_server_completes_or_ignores_ends_no_check(dialect, served):
    settings = Settings(vllm_model="omni", vllm_dialect=dialect)
    client = httpx.Client(
        base_url="http://vllm:8000",
        transport=httpx.MockTransport(
            lambda _: httpx.Response(200, json={"data": [{"id": served}]})
        ),
    )
    with client:
        names = [check.name for check in VllmCheckup(client, settings).checks()]
        assert VllmCheckup(client, settings).model().level == "warn"
    assert "audio" in names


def test_a_server_that_is_away_is_asked_nothing_more():
    def refuse(request):
        raise httpx.ConnectError("refused")

    client = httpx.Client(base_url="http://vllm:8000", transport=httpx.MockTransport(refuse))
    with client:
        (only,) = VllmCheckup(client, Settings()).checks()
    assert (only.name, only.level) == ("server", "fail")


def test_the_machine_is_fit_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "MIN_FREE_BYTES", 0)
    found = list(check_machine(Settings(work_dir=str(tmp_path))))
    assert [check.level for check in found] == ["ok"] * 3
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_a_full_disk_and_a_missing_decoder_are_warnings(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "MIN_FREE_BYTES", 1 << 60)
    monkeypatch.setattr(machine, "CODECS", ("aac", "no-such-codec"))
    found = {it.name: it for it in check_machine(Settings(work_dir=str(tmp_path)))}
    assert found["work dir"].level == "warn"
    assert "no-such-codec" in found["ffmpeg"].found


def test_a_service_that_runs_is_asked_whether_it_is_ready(server):
    port = int(server.url.rpartition(":")[2])
    assert check_service(Settings(port=port)).found.startswith("is ready")
    assert check_service(Settings(port=free_port())).found.startswith("does not run")


def test_our_own_service_is_not_taken_for_its_recogniser(server):
    found = [it for it in doctor.examine(Settings(vllm_url=server.url)) if it.name == "server"]
    assert [it.level for it in found] == ["fail"]
    assert "this service itself" in found[0].found


def test_our_own_service_is_known_without_its_key():
    def answer(request):
        if request.url.path == "/ready":
            return httpx.Response(503, json={"status": "loading", "engine": "omni", "reason": "-"})
        return httpx.Response(401)

    transport = httpx.MockTransport(answer)
    with httpx.Client(base_url="http://it", transport=transport) as client:
        (only,) = VllmCheckup(client, Settings()).checks()
    assert "this service itself" in only.found


def test_another_server_on_our_port_is_a_warning():
    with listening(Standin()) as url:
        check = check_service(Settings(port=int(url.rpartition(":")[2])))
    assert (check.level, "ASR_PORT" in check.fix) == ("warn", True)


def test_a_server_that_is_ready_in_other_words_is_not_our_service():
    with listening(lambda _: httpx.Response(200, json={"status": "UP"})) as url:
        assert check_service(Settings(port=int(url.rpartition(":")[2]))).level == "warn"


def test_a_service_that_still_loads_fails():
    loading = {"status": "loading", "engine": "omni", "reason": "no server answers"}
    with listening(lambda _: httpx.Response(503, json=loading)) as url:
        check = check_service(Settings(port=int(url.rpartition(":")[2])))
    assert check.level == "fail"
    assert "no server answers" in check.found


def settings_check(name, **settings):
    return {check.name: check for check in check_settings(Settings(**settings))}[name]


def pretend_installed(monkeypatch, *packages):
    monkeypatch.setattr(machine, "_lacks", lambda package: package not in packages)


def test_settings_that_serve_pass(tmp_path, monkeypatch):
    pretend_installed(monkeypatch, "vllm", "torch", "transformers")
    folder, data = str(tmp_path), str(tmp_path / "data" / "more")
    for settings in (
        {},
        {"vllm_url": "http://a"},
        {"engine": "omni-local", "vllm_model": "nvidia/omni"},
        {"engine": "omni-local", "vllm_model": folder, "aligner": "ctc", "ctc_model": folder},
        {"aligner": "ctc", "ctc_model": "facebook/wav2vec2"},
    ):
        found = list(check_settings(Settings(data_dir=data, **settings)))
        assert [(it.name, it.level) for it in found] == [
            *(("engine", "ok"), ("aligner", "ok"), ("speakers", "ok")),
            *(("data dir", "ok"), ("database", "ok")),
        ]
    assert not list(tmp_path.iterdir()), "something was left behind"


LOCAL = {"engine": "omni-local"}
CTC = {"aligner": "ctc"}


@pytest.mark.parametrize(
    ("installed", "settings", "name", "remedy"),
    [
        ("", {"engine": "omni"}, "engine", "ASR_VLLM_URL"),
        ("", {"moonshine_model": "/no/base"}, "engine", "ASR_MOONSHINE_MODEL"),
        ("vllm", LOCAL, "engine", "ASR_VLLM_MODEL"),
        ("vllm", LOCAL | {"vllm_model": "/no/omni"}, "engine", "ASR_VLLM_MODEL"),
        ("vllm", LOCAL | {"vllm_model": "./no-omni"}, "engine", "ASR_VLLM_MODEL"),
        ("vllm", LOCAL | {"vllm_model": "a/b", "vllm_args": "fp8"}, "engine", "ASR_VLLM_ARGS"),
        ("torch", LOCAL | {"vllm_model": "a/b"}, "engine", "asr-service[vllm]"),
        ("torch transformers", CTC, "aligner", "ASR_CTC_MODEL"),
        ("torch transformers", CTC | {"ctc_model": "/no/ctc"}, "aligner", "ASR_CTC_MODEL"),
        ("torch", CTC | {"ctc_model": "a/b"}, "aligner", "asr-service[ctc]"),
        ("transformers", CTC | {"ctc_model": "a/b"}, "aligner", "asr-service[ctc]"),
    ],
)
def test_settings_that_cannot_serve_fail(installed, settings, name, remedy, monkeypatch):
    pretend_installed(monkeypatch, *installed.split())
    check = settings_check(name, **settings)
    assert check.level == "fail"
    assert remedy in check.fix


def test_a_damaged_model_of_moonshine_fails(tmp_path):
    shutil.copytree(find_folder(""), tmp_path / "base")
    (tmp_path / "base" / TOKENIZER).write_bytes(b"")
    check = settings_check("engine", moonshine_model=str(tmp_path / "base"))
    assert check.level == "fail"
    assert "belongs to another model" in check.found
    assert check.fix == "correct ASR_MOONSHINE_MODEL"


def test_a_file_instead_of_a_folder_for_onnx_fails(tmp_path):
    (tmp_path / "model.onnx").touch()
    check = settings_check("engine", engine="onnx", onnx_model=str(tmp_path / "model.onnx"))
    assert check.level == "fail"
    assert "is a file" in check.found
    assert check.fix == "correct ASR_ONNX_MODEL"


def test_a_missing_folder_in_the_home_folder_fails():
    check = settings_check("engine", engine="onnx", onnx_model="~/no-such-model")
    assert check.level == "fail"
    assert check.fix == "correct ASR_ONNX_MODEL"


def test_what_is_not_installed_is_found_out():
    assert machine._lacks("no_such_package")
    assert not machine._lacks("pytest")


def test_a_data_dir_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").touch()
    check = settings_check("data dir", data_dir=str(tmp_path / "file" / "data"))
    assert check.level == "fail"
    assert "ASR_DATA_DIR" in check.fix


def test_a_server_that_cannot_be_asked_fails(tmp_path):
    bad = tmp_path / "ca.pem"
    bad.write_text("no certificate")
    for url, settings in (
        ("https://vllm", Settings(vllm_ca_file=str(bad))),
        ("http://vllm:port", Settings()),
        ("http://vllm", Settings(vllm_api_key="no ASCII: \u20ac")),
    ):
        (only,) = check_server(url, settings)
        assert (only.name, only.level) == ("server", "fail")
        assert "ASR_VLLM_CA_FILE" in only.fix


@contextmanager
def listening(standin):
    """The fake server on a real socket."""

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


def test_a_speaker_model_that_is_missing_or_broken(tmp_path):
    """Without one everything else works, but one that was chosen must load."""
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    missing = machine._speakers(Settings(speaker_model=str(tmp_path / "none.onnx")))
    assert (missing.level, missing.fix) == ("fail", "correct ASR_SPEAKER_MODEL")
    assert machine._speakers(Settings(speaker_model=str(broken))).level == "fail"
