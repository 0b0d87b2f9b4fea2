"""Known speakers: stored voices, references of a request, the fields of a form."""

import asyncio
import base64
import hashlib
import json
import stat
from dataclasses import asdict

import numpy as np
import pytest

from asr.config import AudioLimits, KnownVoice, Options, SpeakerOptions
from asr.errors import DamagedAudio, EngineUnavailable, InvalidOption, SpeakersUnavailable
from asr.service.errors import NotFound
from asr.service.http.fields import MAX_REFERENCES, check_fields
from asr.service.http.json_body import read_json
from asr.service.http.middleware import RequestLog
from asr.service.http.multipart import MultipartForm
from asr.service.http.problems import Problem
from asr.service.jobs.request import JobRequest
from asr.service.observability.metrics import ApiMetrics
from asr.service.speakers import store as store_module
from asr.service.speakers.known import KnownSpeakers
from asr.service.speakers.store import VoiceStore, check_name
from asr.service.transcriptions.form import AlignmentForm, JobForm, TranscriptionForm, parse_fields
from asr.settings import Settings
from asr.speakers.folder import model_id
from asr.speakers.packing import pack

VECTOR = pack(np.ones(4))
URL = "data:audio/wav;base64," + base64.b64encode(b"a recording").decode()
SPEAKERS = Options(speakers=SpeakerOptions())


def voice(name):
    return KnownVoice(name, VECTOR, 4.0)


class FakeClient:
    """Embeds everything, or fails."""

    def __init__(self, error=None):
        self.error = error
        self.received = []

    async def embed_voice(self, command):
        self.received.append((command.source.read_bytes(), command.length))
        if self.error:
            raise self.error
        return voice(command.name)


@pytest.fixture
def store(tmp_path):
    return VoiceStore(tmp_path / "voices")


def test_voices_are_stored_per_key_and_deleted(store, tmp_path):
    assert store.put("alice", voice("Ann"), "m")[1]
    assert not store.put("alice", voice("ann"), "m")[1]  # the same name
    assert store.put("bob", voice("Ben"), "m")[1]
    assert [it.voice.name for it in store.all("alice")] == ["ann"]
    assert store.get("alice", "ANN").voice == voice("ann")
    for owner, name in (("bob", "Ann"), ("", "Ann"), ("alice", "Ben")):
        with pytest.raises(NotFound):
            store.get(owner, name)
    store.delete("alice", "Ann")
    assert store.all("alice") == []
    with pytest.raises(NotFound):
        store.delete("alice", "Ann")
    store.delete("bob", "Ben")
    assert list((tmp_path / "voices").rglob("*")) == []  # nothing is left behind


def test_only_the_owner_may_read_a_voice_and_names_are_no_paths(store, tmp_path):
    store.put("../../up", voice("../../etc/passwd"), "m")
    files = [it for it in (tmp_path / "voices").rglob("*") if it.is_file()]
    assert len(files) == 1
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
    assert "passwd" not in str(files[0])
    assert "audio" not in files[0].read_text()


def test_a_damaged_voice_counts_as_missing(store, tmp_path):
    store.put("", voice("Ann"), "m")
    path = next((tmp_path / "voices").rglob("*.json"))
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"embedding": "damaged"}))
    assert store.all("") == []
    path.write_text("{")
    assert store.all("") == []
    with pytest.raises(NotFound):
        store.get("", "Ann")


@pytest.mark.parametrize("name", [".", "..", "a/b", "a\\b", "", "a\nb", "\ufffd"])
def test_names_that_no_client_could_delete_are_not_stored(name):
    with pytest.raises(InvalidOption) as caught:
        check_name(name)
    assert caught.value.name == "name"


@pytest.mark.parametrize("name", ["Ann Müller", "क्\u200dष", "می\u200cنم", "x" * 100])
def test_names_of_all_scripts(name):
    check_name(name)
    assert voice(name).name == name


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "a\nb", "a\x00", "x" * 101, "\u200d", "\u202ea", "\u200b"]
)
def test_names_that_are_refused(store, name):
    with pytest.raises(InvalidOption):
        store.get("", name)
    with pytest.raises(InvalidOption):
        voice(name)


def resolve(store, folder, names, references=(), client=None, options=SPEAKERS):
    known = KnownSpeakers(client or FakeClient(), store, Settings(speaker_model="/m/x.onnx"))
    return asyncio.run(known.resolve(options, names, references, "key", folder))


def test_references_become_embeddings_and_nothing_is_kept(store, tmp_path):
    client = FakeClient()
    found = resolve(store, tmp_path, ["Ann", "Ben"], [URL, URL], client)
    assert [it.name for it in found.speakers.known] == ["Ann", "Ben"]
    assert client.received == [(b"a recording", (2.0, 10.0))] * 2
    assert list(tmp_path.glob("*.reference")) == []
    assert resolve(store, tmp_path, ["Ann"], [URL], options=Options()).speakers is None


def test_a_speaker_model_that_does_not_load_costs_the_names_only(store, tmp_path):
    """The text is delivered all the same, with a warning of the diariser."""
    client = FakeClient(SpeakersUnavailable("it did not load"))
    assert resolve(store, tmp_path, ["Ann"], [URL], client) == SPEAKERS
    assert list(tmp_path.glob("*.reference")) == []


def test_an_engine_that_is_not_loaded_yet_costs_no_names(store, tmp_path):
    """Otherwise a job that is sent while the server starts would have letters and no warning."""
    client = FakeClient(EngineUnavailable("no server answers"))
    with pytest.raises(EngineUnavailable):
        resolve(store, tmp_path, ["Ann"], [URL], client)


@pytest.mark.parametrize(
    "url",
    ["DATA:;BASE64,-_-_", " data:text/plain;charset=x;base64,+/+/", "data:audio/wav;base64,+/\n+/"],
)
def test_data_urls_as_clients_write_them(store, tmp_path, url):
    """Any media type, because the bytes tell the format; the URL-safe alphabet; line breaks."""
    client = FakeClient()
    resolve(store, tmp_path, ["Ann"], [url], client)
    assert client.received[0][0] == base64.b64decode("+/+/")


def test_a_voice_is_stored_although_its_folder_has_just_been_removed(store, tmp_path, monkeypatch):
    """Somebody deletes the last voice of the key at the same time."""
    written, folder = [], tmp_path / "voices"

    def write(path, stored, inner=store_module._write):
        if not written:
            written.append(path.parent.rmdir())
        inner(path, stored)

    monkeypatch.setattr(store_module, "_write", write)
    store.put("a", voice("Ann"), "m")
    assert store.get("a", "Ann").voice == voice("Ann")
    assert folder.is_dir()


def test_another_file_of_the_same_name_is_another_model(tmp_path):
    """Without a description, the file itself identifies the model."""
    path = tmp_path / "own.onnx"
    found = []
    for content in (b"one", b"other"):
        path.write_bytes(content)
        found.append(model_id(str(path)))
    assert found == [hashlib.sha256(content).hexdigest() for content in (b"one", b"other")]


def test_stored_voices_are_found_by_name(store, tmp_path):
    store.put("key", voice("Ann"), "x.onnx")
    assert resolve(store, tmp_path, ["ann"]).speakers.known == (voice("Ann"),)
    store.put("key", voice("Old"), "another model")
    with pytest.raises(InvalidOption, match="another speaker model"):
        resolve(store, tmp_path, ["Old"])


@pytest.mark.parametrize(
    ("names", "references", "error", "named"),
    [
        (["Ann"], [], None, "known_speaker_names"),
        (["Ann", "Ben"], [URL], None, "known_speaker_references"),
        ([], [URL], None, "known_speaker_references"),
        (["Ann"], ["https://example.com/a.wav"], None, "known_speaker_references"),
        (["Ann"], ["data:audio/wav;base64,%%%"], None, "known_speaker_references"),
        (["Ann"], [URL], DamagedAudio("broken"), "known_speaker_references"),
        (["Ann"], [URL], InvalidOption("x", "has 30 s"), "known_speaker_references"),
        (["Ann", "Ann"], [URL, URL], None, "known_speaker_names"),
        ([" "], [URL], None, "known_speaker_names"),
        (["a"] * 21, [URL] * 21, None, "known_speaker_names"),
    ],
)
def test_a_wrong_reference_names_the_field(store, tmp_path, names, references, error, named):
    with pytest.raises((Problem, InvalidOption)) as caught:
        resolve(store, tmp_path, names, references, FakeClient(error))
    assert getattr(caught.value, "param", getattr(caught.value, "name", "")) == named
    assert list(tmp_path.glob("*.reference")) == []


# --- the form -----------------------------------------------------------------------------------


def parsed(*fields, kind=TranscriptionForm, no_speakers=""):
    return parse_fields(fields, "webrtc", AudioLimits(), kind, no_speakers)


def test_openais_fields_ask_for_speakers_where_there_is_a_model():
    diarized = ("response_format", "diarized_json")
    assert parsed(diarized).options.speakers == SpeakerOptions()
    assert parsed(diarized).warnings == ()
    assert parsed(diarized, ("channels", "split")).options.speakers is None
    assert parsed(diarized, ("speakers", "off")).options.speakers is None
    assert parsed().options.speakers is None
    asked = parsed(("known_speaker_names[]", "Ann"), ("known_speaker_references[]", URL))
    assert (asked.known_names, asked.references) == (("Ann",), (URL,))
    assert URL not in repr(asked)
    without = parsed(diarized, ("known_speaker_names[]", "Ann"), no_speakers="no model")
    assert (without.options.speakers, without.known_names) == (None, ())
    assert len(without.warnings) == 2


@pytest.mark.parametrize(
    ("fields", "warns"),
    [
        ([("response_format", "text")], True),
        ([("response_format", "tsv")], True),
        ([], True),  # json
        ([("stream", "true")], False),
        ([("timestamp_granularities[]", "word")], False),
        ([("response_format", "srt")], False),
        ([("response_format", "rttm")], False),
        ([("response_format", "text"), ("speakers", "off")], False),
    ],
)
def test_a_format_without_speakers_is_named(fields, warns):
    chosen = fields if dict(fields).get("speakers") else [*fields, ("speakers", "2")]
    found = parsed(*chosen).warnings
    assert [it for it in found if it.startswith("speakers has no effect")] == list(found)
    assert bool(found) == warns
    assert not [it for it in parsed(*chosen, kind=JobForm).warnings if it.startswith("speakers")]


def test_speakers_without_a_model_are_an_error():
    with pytest.raises(InvalidOption, match="run it") as caught:
        parsed(("speakers", "auto"), no_speakers="no model: run it")
    assert caught.value.name == "speakers"
    assert parsed(("speakers", "off"), no_speakers="no model").options.speakers is None


def test_an_alignment_may_ask_for_speakers():
    asked = parsed(("speakers", "2"), ("text", "hello"), kind=AlignmentForm)
    assert asked.options.speakers == SpeakerOptions(2, 2)
    assert asked.warnings == ()
    assert parsed(("text", "hello"), kind=AlignmentForm).options.speakers is None
    with pytest.raises(InvalidOption, match="off, auto"):
        parsed(("speakers", "zz"), ("text", "hello"), kind=AlignmentForm)


def test_a_job_keeps_speakers_and_old_digests():
    plain = JobRequest.of(parsed(kind=JobForm))
    asked = JobRequest.of(parsed(("speakers", "2-5"), ("speaker_labels", "true"), kind=JobForm))
    options = SpeakerOptions(2, 5, (voice("Ann"),))
    asked = JobRequest(*(options if it == SpeakerOptions(2, 5) else it for it in astuple(asked)))
    assert JobRequest.unpack(asked.pack()) == asked
    assert JobRequest.unpack(plain.pack()).speakers is None
    assert plain.fingerprint("o", "s", "e") != asked.fingerprint("o", "s", "e")
    assert asked.with_limits(AudioLimits()).speakers == options


def astuple(request):
    return [getattr(request, name) for name in JobRequest.__dataclass_fields__]


def test_an_earlier_version_computed_the_same_digest():
    plain = JobRequest.of(parsed(kind=JobForm))
    options = {
        name: value
        for name, value in asdict(plain).items()
        if name in ("vad", "chunk", "decode", "subtitles", "channels")
    }
    del options["subtitles"]["speaker_labels"]
    text = json.dumps(["o", "s", "e", options], sort_keys=True)
    assert plain.fingerprint("o", "s", "e") == hashlib.sha256(text.encode()).hexdigest()


# --- the limits of references -------------------------------------------------------------------


def form_of(*values):
    form = MultipartForm(b"b", lambda _: None, 65536)
    for value in values:
        head = b'--b\r\nContent-Disposition: form-data; name="known_speaker_references[]"\r\n\r\n'
        form.feed(head + value.encode() + b"\r\n")
    form.feed(b"--b--\r\n")
    form.finish()
    return form.fields


def test_references_are_read_whole_and_are_limited():
    long = "data:audio/wav;base64," + "A" * 2_400_000
    assert form_of(long)[0][1] == long
    check_fields([("known_speaker_references[]", long)])
    with pytest.raises(Problem, match="known_speaker_references"):
        form_of("A" * (4 << 20) + "A")
    with pytest.raises(Problem, match="at most"):
        form_of(*["x"] * (MAX_REFERENCES + 1))
    many = json.dumps({"known_speaker_references": ["x"] * (MAX_REFERENCES + 1)})
    with pytest.raises(Problem, match="at most"):
        read_json(many.encode(), 1000)


def test_the_log_does_not_name_the_people(caplog):
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ignore(_):
        pass

    scope = {"type": "http", "method": "PUT", "path": "/v1/speakers/Ann", "headers": [],
             "query_string": b"", "root_path": ""}  # fmt: skip
    with caplog.at_level("DEBUG"):
        asyncio.run(RequestLog(answer, ApiMetrics())(scope, None, ignore))
    assert "PUT" in caplog.text
    assert "Ann" not in caplog.text
