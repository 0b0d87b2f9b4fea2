"""Ephemeral keys: as units, and over HTTP and WebSockets on an in-process service."""

import base64
import json
import stat
import threading

import openai
import pytest
import websockets.exceptions
from hypothesis import given, settings, strategies as st
from openai.types.beta.realtime import TranscriptionSession
from openai.types.realtime import ClientSecretCreateResponse
from websockets.sync.client import connect

from asr.service.access import client_secrets
from asr.service.access.client_secrets import FILE, MAX_LENGTH, ClientSecrets
from asr.service.access.keys import ANONYMOUS, Keyring
from asr.service.errors import Expired, LimitReached, TooLarge
from asr.settings import Settings
from tests.service.access.test_keys import Clock, lines
from tests.support.inprocess import serving
from tests.support.serving import HTTP, PATH

ROUTE = "/v1/realtime/client_secrets"
BETA_ROUTES = ("/v1/realtime/transcription_sessions", "/v1/realtime/sessions")
SESSION = {"audio": {"input": {"transcription": {"language": "de", "prompt": "ein Anruf"}}}}


def ring(**keys):
    return Keyring(Settings(api_keys="".join(lines({n: {"key": k} for n, k in keys.items()}))))


def found(secrets, value):
    return secrets.find([value.encode()])


@pytest.fixture
def made(tmp_path):
    """Secrets of a service with the keys a and b, and the clock."""
    clock = Clock(1000.0)
    return ClientSecrets(ring(a="one", b="two"), tmp_path / FILE, clock), clock


# --- the token ------------------------------------------------------------------------------------


def test_a_key_holds_its_owner_its_settings_and_its_end(made):
    secrets, _ = made
    value, expires_at = secrets.make("a", SESSION, 60)
    assert value.startswith("ek_")
    assert expires_at == 1060
    grant = found(secrets, value)
    assert (grant.owner, grant.session, grant.expires_at) == ("a", SESSION, 1060)
    assert secrets.make("a", SESSION, 60)[0] != value
    assert "one" not in value
    assert secrets.find([b"sk-other", value.encode()]) == grant


def test_a_key_ends(made):
    secrets, clock = made
    value, expires_at = secrets.make("a", {}, 60)
    clock.seconds = expires_at - 0.1
    assert found(secrets, value)
    clock.seconds = expires_at
    with pytest.raises(Expired, match="expired"):
        found(secrets, value)


def test_other_processes_and_later_ones_accept_a_key(made, tmp_path):
    secrets, clock = made
    other = ClientSecrets(ring(a="one"), tmp_path / FILE, clock)
    assert other.find([b"ek_none"]) is None  # there is no secret yet
    value, _ = secrets.make("a", {}, 60)
    assert found(other, value).owner == "a"
    elsewhere = ClientSecrets(ring(a="one"), tmp_path / "other.key", clock)
    elsewhere.make("a", {}, 60)
    assert found(elsewhere, value) is None


@pytest.mark.parametrize("keys", [{"b": "one"}, {"a": "new"}, {}])
def test_a_key_ends_with_the_api_key_of_its_owner(made, tmp_path, keys):
    secrets, clock = made
    value, _ = secrets.make("a", {}, 60)
    assert found(ClientSecrets(ring(**keys), tmp_path / FILE, clock), value) is None


def test_without_api_keys_nobody_is_the_owner(tmp_path):
    secrets = ClientSecrets(ring(), tmp_path / FILE)
    value, _ = secrets.make(ANONYMOUS, SESSION, 60)
    assert found(secrets, value).session == SESSION
    assert found(ClientSecrets(ring(a="one"), tmp_path / FILE), value) is None


@given(st.data())
@settings(max_examples=60)
def test_a_changed_key_is_not_accepted(tmp_path_factory, data):
    secrets = ClientSecrets(ring(a="one", b="two"), tmp_path_factory.getbasetemp() / FILE)
    value = secrets.make("a", {"n": 1}, 60)[0].encode()
    raw = bytearray(base64.urlsafe_b64decode(value[3:] + b"=" * (-len(value[3:]) % 4)))
    position = data.draw(st.integers(0, 10**6)) % len(raw)  # the length varies
    raw[position] ^= data.draw(st.integers(1, 255))
    cut = len(raw) if data.draw(st.booleans()) else position
    changed = b"ek_" + base64.urlsafe_b64encode(bytes(raw[:cut])).rstrip(b"=")
    assert secrets.find([changed]) is None


@given(st.binary(max_size=80))
@settings(max_examples=60)
def test_other_bytes_are_not_accepted(tmp_path_factory, text):
    secrets = ClientSecrets(ring(a="one"), tmp_path_factory.getbasetemp() / FILE)
    secrets.make("a", {}, 60)
    assert secrets.find([b"ek_" + text, b"ek_" + base64.urlsafe_b64encode(text)]) is None


def test_long_keys_are_not_read(made):
    secrets, _ = made
    secrets.make("a", {}, 60)
    assert secrets.find([b"ek_" + b"A" * MAX_LENGTH]) is None


def test_an_owner_has_a_limited_number_of_valid_keys(made, monkeypatch):
    monkeypatch.setattr(client_secrets, "MAX_VALID", 3)
    secrets, clock = made
    for seconds in (60, 20, 60):
        secrets.make("a", {}, seconds)
    with pytest.raises(LimitReached) as refused:
        secrets.make("a", {}, 60)
    assert refused.value.retry_after == 20
    secrets.make("b", {}, 60)
    clock.seconds += 20
    secrets.make("a", {}, 60)


def test_settings_that_do_not_fit_are_refused(made):
    secrets, _ = made
    keywords = [f"{n:x}" * 8 for n in range(10_000)]
    with pytest.raises(TooLarge) as refused:
        secrets.make("a", {"keywords": keywords}, 60)
    assert refused.value.param == "session"
    value, _ = secrets.make("a", {"prompt": "a common phrase " * 500}, 60)
    assert len(value) < MAX_LENGTH


def test_the_secret_is_private_and_a_damaged_one_is_replaced(made, tmp_path):
    secrets, _ = made
    path = tmp_path / FILE
    path.write_bytes(b"short")
    value, _ = secrets.make("a", {}, 60)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32
    assert [it.name for it in tmp_path.iterdir()] == [FILE]
    assert found(secrets, value)


def test_processes_that_begin_together_share_one_secret(tmp_path):
    everyone = [ClientSecrets(ring(a="one"), tmp_path / FILE) for _ in range(8)]
    values, barrier = [], threading.Barrier(len(everyone))

    def make(secrets):
        barrier.wait()
        values.append(secrets.make("a", {}, 60)[0])

    threads = [threading.Thread(target=make, args=[it]) for it in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found(secrets, value) for secrets in everyone for value in values)


# --- over HTTP and WebSockets ---------------------------------------------------------------------

KEYS = {"web": {}, "narrow": {"concurrency": 1}, "files": {"scopes": ["transcribe"]}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    path.write_text(lines(KEYS))
    with serving(ASR_API_KEYS_FILE=str(path)) as server:
        yield server


def ask(server, body, name="web", route=ROUTE, **options):
    headers = {"authorization": f"Bearer key-{name}"}
    return HTTP.post(server.url + route, json=body, headers=headers, **options)


def socket_of(server, value, query="model=gpt-realtime", header=False):
    url = f"{server.url.replace('http', 'ws')}/v1/realtime?{query}"
    if header:
        return connect(url, additional_headers={"authorization": f"Bearer {value}"})
    return connect(url, subprotocols=["realtime", f"openai-insecure-api-key.{value}"])


def refused(server, value):
    """The status and the error of a handshake."""
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        socket_of(server, value)
    return refused.value.response.status_code, json.loads(refused.value.response.body)["error"]


def test_openais_client_gets_a_key_and_a_browser_uses_it(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="key-web", max_retries=0)
    audio = {"input": {"transcription": {"model": "gpt-live-transcribe", "language": "de"}}}
    answer = client.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 120},
        session={"type": "transcription", "audio": audio},
    )
    ClientSecretCreateResponse.model_validate(answer.model_dump(), strict=True)
    assert answer.session.audio.input.transcription.language == "de"
    assert answer.session.audio.input.turn_detection is None
    for header in (False, True):
        with socket_of(server, answer.value, header=header) as raw:
            assert raw.subprotocol == (None if header else "realtime")
            created = json.loads(raw.recv())["session"]["audio"]["input"]
            assert created["transcription"] == {"model": "gpt-live-transcribe", "language": "de"}
            assert created["turn_detection"] is None
            change = {"audio": {"input": {"transcription": {"language": "fr"}}}}
            raw.send(json.dumps({"type": "session.update", "session": change}))
            updated = json.loads(raw.recv())["session"]["audio"]["input"]
            assert updated["transcription"]["language"] == "fr"


def test_the_defaults_are_openais(server):
    before = client_secrets.wall_time()
    answer = HTTP.post(server.url + ROUTE, headers={"authorization": "Bearer key-web"})
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {"value", "expires_at", "session", "warnings"}
    assert before + 595 < body["expires_at"] < before + 660
    assert body["session"]["type"] == "transcription"
    assert body["warnings"] == []


@pytest.mark.parametrize("route", BETA_ROUTES)
def test_the_beta_routes_take_a_flat_session(server, route):
    flat = {
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "whisper-1", "language": "de"},
        "turn_detection": None,
        "modalities": ["text"],
        "client_secret": {"expires_at": {"anchor": "created_at", "seconds": 30}},
    }
    body = ask(server, flat, route=route).json()
    TranscriptionSession.model_validate(body, strict=True)
    assert body["input_audio_format"] == "g711_ulaw"
    ignored, refused = body["warnings"]
    assert ignored == "session.modalities has no effect"
    assert refused.endswith("language: the engine recognises en, so each turn will fail")
    secret = body["client_secret"]
    assert secret["expires_at"] < client_secrets.wall_time() + 31
    with socket_of(server, secret["value"]) as raw:
        created = json.loads(raw.recv())["session"]["audio"]["input"]
    assert created["format"] == {"type": "audio/pcmu"}
    assert created["transcription"]["language"] == "de"
    assert created["turn_detection"] is None


@pytest.mark.parametrize(
    ("route", "body", "status", "param"),
    [
        (ROUTE, {"expires_after": {"seconds": 9}}, 400, "expires_after.seconds"),
        (ROUTE, {"expires_after": {"seconds": 7201}}, 400, "expires_after.seconds"),
        (ROUTE, {"expires_after": {"anchor": "now"}}, 400, "expires_after.anchor"),
        (ROUTE, {"session": {"type": "realtime"}}, 400, "session.type"),
        (
            ROUTE,
            {"session": {"audio": {"input": {"format": {"type": "mp3"}}}}},
            400,
            "session.audio.input.format.type",
        ),
        (BETA_ROUTES[0], {"input_audio_format": "mp3"}, 400, "input_audio_format.type"),
        (BETA_ROUTES[0], {"client_secret": {"expires_after": {"seconds": 1}}}, 400, None),
        (ROUTE, [], 400, None),
        (ROUTE, "x", 400, None),
        (ROUTE, {"session": {"x": "y" * (256 << 10)}}, 413, None),
    ],
)
def test_wrong_requests_name_the_field(server, route, body, status, param):
    answer = ask(server, body, route=route)
    assert answer.status_code == status
    if param:
        assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("content", [b"{", b"\xff", b'"\\ud800"', b"[" * 1000])
def test_a_body_that_is_not_json_is_refused(server, content):
    headers = {"authorization": "Bearer key-web"}
    answer = HTTP.post(server.url + ROUTE, content=content, headers=headers)
    assert answer.status_code == 400


def test_only_a_key_with_the_scope_gets_one(server):
    assert ask(server, {}, "files").status_code == 403
    assert ask(server, {}, "nobody").status_code == 401


def test_an_ephemeral_key_opens_nothing_but_live_sessions(server):
    value = ask(server, {}).json()["value"]
    headers = {"authorization": f"Bearer {value}"}
    routes = [
        ("POST", ROUTE),
        ("GET", "/v1/realtime/sessions/sess_x"),
        ("POST", PATH),
        ("GET", "/v1/jobs"),
        ("POST", "/v1/uploads"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("GET", "/docs"),
    ]
    for method, path in routes:
        answer = HTTP.request(method, server.url + path, headers=headers)
        assert answer.status_code == 403, path
        assert answer.json()["error"]["code"] == "insufficient_scope"


def test_wrong_and_expired_keys_are_refused(server, monkeypatch):
    value = ask(server, {"expires_after": {"seconds": 10}}).json()["value"]
    assert refused(server, value[:-4])[0] == 401
    assert refused(server, "ek_1234")[0] == 401
    later = client_secrets.wall_time() + 11
    monkeypatch.setattr(server._application.client_secrets, "_now", lambda: later)
    status, error = refused(server, value)
    assert (status, error["code"]) == (401, "client_secret_expired")


def test_a_session_counts_for_the_owner(server):
    value = ask(server, {}, "narrow").json()["value"]
    with socket_of(server, value) as raw:
        raw.recv()
        status, error = refused(server, value)
        assert (status, error["code"]) == (429, "concurrency_limit_exceeded")
        assert ask(server, {}, "narrow").status_code == 429
        assert ask(server, {}).status_code == 200


def test_a_session_goes_on_after_its_key_has_ended(server, monkeypatch):
    value = ask(server, {"expires_after": {"seconds": 10}}).json()["value"]
    with socket_of(server, value) as raw:
        raw.recv()
        later = client_secrets.wall_time() + 11
        monkeypatch.setattr(server._application.client_secrets, "_now", lambda: later)
        raw.send('{"type": "input_audio_buffer.clear"}')
        assert json.loads(raw.recv())["type"] == "input_audio_buffer.cleared"


def test_a_service_without_keys_gives_keys_with_settings():
    with serving() as open_server:
        value = HTTP.post(open_server.url + ROUTE, json={"session": SESSION}).json()["value"]
        with socket_of(open_server, value) as raw:
            created = json.loads(raw.recv())["session"]["audio"]["input"]["transcription"]
            assert created["language"] == "de"
        open_server._application.client_secrets._now = lambda: client_secrets.wall_time() + 601
        assert refused(open_server, value)[0] == 401
