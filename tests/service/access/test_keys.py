"""API keys, their scopes and their limits: as units, and over HTTP on an in-process service."""

import base64
import json
import subprocess
import sys

import openai
import pytest
import websockets.exceptions
from hypothesis import example, given, settings, strategies as st
from websockets.sync.client import connect

from asr.errors import InvalidOption
from asr.service.access.keys import DEFAULT, PREFIX, Key, Keyring, digest_of, new_key, parse_keys
from asr.service.access.limits import DAY_SECONDS, Meter, Meters
from asr.service.errors import LimitReached
from asr.service.http.problems import MAX_RETRY_SECONDS, problem_of
from asr.settings import Settings
from tests.support.inprocess import serving
from tests.support.makers import speech
from tests.support.paths import ROOT
from tests.support.serving import HTTP, PATH, clean_env, make_wav, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")

WAV = make_wav()
RAW = {"content-type": "audio/wav"}
ROUTES = [
    ("POST", PATH, "transcribe"),
    ("GET", "/v1/realtime/sessions/none", "realtime"),
    ("GET", "/v1/jobs", "jobs"),
    ("POST", "/v1/uploads", "uploads"),
    ("GET", "/metrics", "metrics"),
    ("GET", "/v1/models", None),
    ("GET", "/docs", None),
    ("GET", "/page", None),
    ("GET", "/no/such/route", None),
]


def key_of(**fields):
    return Key.model_validate({"name": "k", "key": "secret"} | fields)


# --- the file -----------------------------------------------------------------------------------


def test_a_new_key_matches_its_line():
    key, line = new_key("alice")
    assert key.startswith(PREFIX)
    assert len(key) > 40
    assert key not in line
    (parsed,) = parse_keys(f"# keys\n\n{line}\n", "file")
    assert (parsed.name, parsed.digest) == ("alice", digest_of(key.encode()))
    assert parsed.may("transcribe")
    assert not parsed.may("metrics")
    assert not parsed.may("admin")
    assert new_key("alice")[0] != key


def test_the_command_prints_a_key_once_and_its_line():
    command = [sys.executable, "-m", "asr", "keys", "new", "bob"]
    done = subprocess.run(command, env=clean_env({}), cwd=ROOT, capture_output=True, check=True)
    key = done.stderr.decode().split()[-1]
    (parsed,) = parse_keys(done.stdout.decode(), "stdout")
    assert (parsed.name, parsed.digest) == ("bob", digest_of(key.encode()))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2 is not JSON"),
        ('{"name": "a"}', "sha256: Field required"),
        ('{"name": "a", "key": "x", "sha256": "y"}', "sha256"),
        ('{"name": "a", "key": "x", "scope": []}', "scope"),
        ('{"name": "a", "key": "x", "scopes": ["everything"]}', "scopes"),
        ('{"name": "a b", "key": "x"}', "name"),
        ('{"name": "default", "key": "x"}', "name"),
        ('{"name": "first", "key": "x"}', "second key"),
        ('{"name": "a", "key": "x", "concurrency": 0}', "concurrency"),
        ("[]", "line 2"),
    ],
)
def test_a_wrong_line_is_named_and_its_key_is_not_shown(line, says):
    text = f'{{"name": "first", "key": "hidden-1"}}\n{line.replace("x", "hidden-2")}'
    with pytest.raises(InvalidOption, match=says) as error:
        parse_keys(text, "api_keys_file")
    assert error.value.name == "api_keys_file"
    assert "hidden" not in str(error.value)


def test_keys_of_all_sources_are_accepted(tmp_path):
    path = tmp_path / "keys"
    path.write_text('{"name": "filed", "key": "one"}\n')
    ring = Keyring(
        Settings(api_key="two", api_keys_file=str(path), api_keys='{"name": "env", "key": "three"}')
    )
    names = [ring.find([given]) for given in (b"one", b"two", b"three", b"four", b"")]
    assert [key and key.name for key in names] == ["filed", DEFAULT, "env", None, None]
    assert ring.find([b"four", b"one"]).name == "filed"
    assert ring.find([]) is None


def test_an_empty_key_file_is_not_the_same_as_no_keys(tmp_path):
    (tmp_path / "keys").write_text("# nobody\n")
    assert not Keyring(Settings())
    assert Keyring(Settings(api_keys_file=str(tmp_path / "keys")))
    with pytest.raises(InvalidOption, match="cannot be read"):
        Keyring(Settings(api_keys_file=str(tmp_path / "none")))


def test_the_settings_do_not_show_their_secrets():
    shown = repr(Settings(api_key="hidden", api_keys='{"name": "a", "key": "hidden"}'))
    assert "hidden" not in shown


# --- the limits ---------------------------------------------------------------------------------


class Clock:
    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def __call__(self):
        return self.seconds


def refused(meter):
    with pytest.raises(LimitReached) as problem, meter.request():
        pass
    assert problem_of(problem.value).status == 429
    return problem.value


def test_the_rate_is_a_bucket_that_fills_evenly():
    clock = Clock()
    meter = Meter(key_of(requests_per_minute=6), clock)
    for _ in range(6):
        with meter.request():
            pass
    problem = refused(meter)
    assert (problem.code, problem.retry_after) == ("rate_limit_exceeded", 10)
    clock.seconds = 9.9
    assert refused(meter).retry_after == 1
    clock.seconds = 10.1
    with meter.request():
        pass
    refused(meter)


@given(st.integers(1, 30), st.lists(st.floats(0, 20, allow_nan=False), min_size=1, max_size=80))
@example(1, [9.6, 0.0])  # a rounding error once denied the token after Retry-After
@settings(max_examples=60)
def test_no_minute_sees_more_than_twice_the_rate(rate, waits):
    clock, passed = Clock(), []
    meter = Meter(key_of(requests_per_minute=rate), clock)
    for wait in waits:
        clock.seconds += wait
        try:
            with meter.request():
                passed.append(clock.seconds)
        except LimitReached as problem:
            clock.seconds += problem.retry_after
            with meter.request():  # accepted after Retry-After
                passed.append(clock.seconds)
    for start in passed:
        assert sum(start <= moment < start + 60 for moment in passed) <= 2 * rate


def test_concurrency_counts_open_requests():
    meter = Meter(key_of(concurrency=2))
    with meter.request(), meter.request():
        assert refused(meter).code == "concurrency_limit_exceeded"
    with meter.request():
        pass


def test_a_request_that_fails_gives_its_place_back():
    meter = Meter(key_of(concurrency=1))
    with pytest.raises(KeyError), meter.request():
        raise KeyError
    with meter.request():
        pass


def test_the_daily_bytes_are_reset_at_midnight():
    now = Clock(10 * DAY_SECONDS + 86_000)
    meter = Meter(key_of(bytes_per_day=1000), Clock(), now)
    meter.add_bytes(1000)
    with pytest.raises(LimitReached) as problem:
        meter.add_bytes(1)
    assert (problem.value.code, problem.value.retry_after) == ("bytes_limit_exceeded", 400)
    assert problem_of(problem.value).response().headers["x-should-retry"] == "false"
    now.seconds += 400
    meter.add_bytes(1000)


def test_used_up_daily_hours_refuse_the_next_request_not_the_current_one():
    meters, key = Meters(), key_of(audio_hours_per_day=1)
    meter = meters.of(key)
    meters.add_audio("k", 3599)
    with meter.request():
        meters.add_audio("k", 3600)
    assert refused(meter).code == "audio_limit_exceeded"
    assert meters.of(key) is meter
    meters.add_audio("nobody", 1)


def test_the_daily_hours_are_reset_at_midnight():
    now = Clock(10 * DAY_SECONDS + 86_000)
    meter = Meter(key_of(audio_hours_per_day=1), Clock(), now)
    meter.add_audio(3599)
    assert meter.audio_wait() == 0
    meter.add_audio(1)
    assert meter.audio_wait() == refused(meter).retry_after == 400
    now.seconds += 400
    assert meter.audio_wait() == 0


# --- the service --------------------------------------------------------------------------------


KEYS = {
    "all": {"scopes": ["admin"]},
    "plain": {},
    "jobs": {"scopes": ["jobs", "uploads"]},
    "slow": {"requests_per_minute": 2},
    "narrow": {"concurrency": 1},
    "light": {"bytes_per_day": 100_000},
    "stream": {"bytes_per_day": 100_000},
    "short": {"audio_hours_per_day": 2.5 / 3600},
}


def lines(keys):
    return "".join(json.dumps({"name": n, "key": f"key-{n}"} | k) + "\n" for n, k in keys.items())


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    path.write_text(lines(KEYS))
    return path


@pytest.fixture(scope="module")
def server(key_file):
    keys = {"ASR_API_KEYS_FILE": str(key_file), "ASR_API_KEY": "sesame"}
    with serving(**keys, ASR_CORS_ORIGINS="*") as server:
        yield server


def ask(server, name, method="POST", path=PATH, **options):
    headers = {"authorization": f"Bearer key-{name}"} | RAW
    if method == "POST":
        options = {"content": WAV} | options
    return HTTP.request(method, server.url + path, headers=headers, timeout=20, **options)


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_every_route_asks_for_a_key_and_its_scope(server, method, path, scope):
    bare = HTTP.request(method, server.url + path, content=WAV if method == "POST" else None)
    assert error_of(bare, 401)["type"] == "authentication_error"
    assert error_of(ask(server, "nobody", method, path), 401)["code"] == "invalid_api_key"
    assert ask(server, "all", method, path).status_code not in (401, 403)
    for name, scopes in (("jobs", {"jobs", "uploads"}), ("plain", {"transcribe", "realtime"})):
        answer = ask(server, name, method, path)
        if scope is None or scope in scopes or (name == "plain" and scope != "metrics"):
            assert answer.status_code not in (401, 403)
        else:
            assert error_of(answer, 403)["type"] == "permission_error"


def test_probes_need_no_key(server):
    for path in ("/health", "/ready"):
        assert HTTP.get(server.url + path).status_code == 200


def test_the_key_of_the_old_setting_is_accepted(server):
    answer = HTTP.post(server.url + PATH, content=WAV, headers=RAW | {"x-api-key": "sesame"})
    assert answer.status_code == 200


def test_a_key_in_the_query_is_ignored(server):
    answer = HTTP.get(f"{server.url}/v1/models?api_key=key-all")
    assert answer.status_code == 401


def test_no_upload_is_written_without_the_key(server):
    def stored():
        return sorted(server.log_path.parent.glob("data/uploads/*/*"))

    http, before = server.client(), stored()
    headers = {"tus-resumable": "1.0.0", "upload-length": "5"}
    headers["content-type"] = "application/offset+octet-stream"
    assert http.post("/v1/uploads", content=b"hello", headers=headers).status_code == 401
    assert stored() == before
    asks = {"origin": "https://app.example", "access-control-request-method": "POST"}
    assert (
        http.options("/v1/uploads", headers=asks).status_code == 200
    )  # browsers send no key in a preflight
    headers["authorization"] = "Bearer sesame"
    assert http.post("/v1/uploads", content=b"hello", headers=headers).status_code == 201
    assert len(stored()) > len(before)


def test_openais_client_sees_the_errors_it_knows(server):
    def transcribe(name):
        with openai.OpenAI(
            base_url=f"{server.url}/v1", api_key=f"key-{name}", max_retries=0
        ) as client:
            return client.audio.transcriptions.create(model="m", file=("a.wav", WAV))

    assert transcribe("plain").text
    with pytest.raises(openai.PermissionDeniedError):
        transcribe("jobs")
    with pytest.raises(openai.AuthenticationError):
        transcribe("nobody")


def test_too_many_requests_get_a_retry_after(server):
    answers = [ask(server, "slow") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert error_of(answers[-1], 429)["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 30
    assert answers[-1].headers["x-should-retry"] == "true"
    assert ask(server, "slow", "GET", "/v1/models").status_code == 200  # GETs are not counted
    assert ask(server, "plain").status_code == 200  # other keys are not affected


@pytest.mark.parametrize("chunked", [False, True])
def test_too_many_bytes_are_refused_while_they_arrive(server, chunked):
    body = make_wav(5)  # 160 kB

    def pieces():
        for start in range(0, len(body), 8000):
            yield body[start : start + 8000]

    answer = ask(server, "light", content=pieces() if chunked else body)
    assert error_of(answer, 429)["code"] == "bytes_limit_exceeded"
    seconds = int(answer.headers["retry-after"])  # until midnight UTC, when the bytes count anew
    assert answer.headers["x-should-retry"] == ("true" if seconds <= MAX_RETRY_SECONDS else "false")


def test_the_audio_of_a_key_is_counted(server):
    statuses = [ask(server, "short").status_code for _ in range(3)]  # of 2 s each
    assert statuses == [200, 200, 429]


def test_the_file_is_read_again_and_a_broken_one_changes_nothing(server, key_file):
    def status(name):
        return ask(server, name, "GET", "/v1/models").status_code

    key_file.write_text(lines(KEYS | {"guest": {}}))
    wait_for(lambda: status("guest") == 200, 60, "the new key")
    key_file.write_text("{ this is broken\n")
    wait_for(lambda: status("guest") and "left as it was" in server.log, 60, "the warning")
    assert status("guest") == 200
    key_file.write_text(lines(KEYS))
    wait_for(lambda: status("guest") == 401, 60, "the end of the key")
    assert status("plain") == 200


# --- sockets ------------------------------------------------------------------------------------


def socket_of(server, *, query="", **options):
    url = server.url.replace("http", "ws") + "/v1/realtime?intent=transcription" + query
    return connect(url, **options)


@pytest.mark.parametrize("query", ["", "&api_key=key-plain"])
def test_a_socket_without_a_key_is_refused_in_the_handshake(server, query):
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        socket_of(server, query=query)
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body)["error"]["code"] == "invalid_api_key"
    assert "key-plain" not in server.log


def test_a_socket_needs_the_scope(server):
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        socket_of(server, additional_headers={"authorization": "Bearer key-jobs"})
    assert refused.value.response.status_code == 403


def test_a_handshake_offers_few_keys(server):
    """Each is compared with every valid key, so a client without a key could cause much work."""
    wrong = [f"openai-insecure-api-key.{n}" for n in range(4)]
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        socket_of(server, subprotocols=[*wrong, "openai-insecure-api-key.key-plain"])
    assert refused.value.response.status_code == 401


def test_a_browser_sends_its_key_as_a_subprotocol(server):
    offered = ["realtime", "openai-insecure-api-key.key-plain"]
    with socket_of(server, subprotocols=offered) as raw:
        assert raw.subprotocol == "realtime"  # never the key
        assert json.loads(raw.recv())["type"] == "session.created"


def test_an_open_session_is_a_request_of_its_key(server):
    options = {"additional_headers": {"x-api-key": "key-narrow"}}
    with socket_of(server, **options) as raw:
        raw.recv()
        assert error_of(ask(server, "narrow"), 429)["code"] == "concurrency_limit_exceeded"
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            socket_of(server, **options)
        assert refused.value.response.status_code == 429
    wait_for(lambda: ask(server, "narrow").status_code == 200, 60, "the end of the session")


def test_a_session_beyond_the_byte_limit_of_its_key_ends_with_its_last_turn(server):
    second = base64.b64encode((speech(1.0, 24_000) * 32767).astype("<i2").tobytes()).decode()
    with socket_of(server, additional_headers={"x-api-key": "key-stream"}) as raw:
        for _ in range(3):
            raw.send(json.dumps({"type": "input_audio_buffer.append", "audio": second}))
        events = [json.loads(message) for message in raw]
    assert events[-1]["error"]["code"] == "bytes_limit_exceeded"
    (completed,) = [event for event in events if event["type"].endswith("completed")]
    assert completed["usage"]["seconds"] == pytest.approx(2, abs=0.1)


def test_no_key_sees_the_session_of_another(server):
    with socket_of(server, additional_headers={"x-api-key": "key-plain"}) as raw:
        session_id = json.loads(raw.recv())["session"]["id"]
        path = f"/v1/realtime/sessions/{session_id}"
        assert ask(server, "plain", "GET", path).status_code == 200
        assert ask(server, "all", "GET", path).status_code == 404


def test_the_weight_of_a_name_is_that_of_its_current_key(tmp_path):
    path = tmp_path / "keys"
    path.write_text(json.dumps({"name": "a", "key": "x", "scopes": ["jobs"], "weight": 4}))
    ring = Keyring(Settings(api_keys_file=str(path)))
    assert (ring.weight_of("a"), ring.weight_of("gone")) == (4, 1)
    assert (ring.named("a").weight, ring.named("gone")) == (4, None)
