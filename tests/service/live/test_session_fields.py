"""The settings of a session: OpenAI's fields in both forms, without a server."""

import json

import pytest
from hypothesis import given, strategies as st
from openai.types.beta import realtime as beta
from openai.types.beta.realtime.session_update_event import Session as BetaSession
from openai.types.beta.realtime.transcription_session_update import Session as BetaTranscription
from openai.types.realtime import (
    AudioTranscription,
    RealtimeSessionCreateRequest,
    RealtimeTranscriptionSessionAudio,
    RealtimeTranscriptionSessionAudioInput,
    RealtimeTranscriptionSessionCreateRequest,
)
from openai.types.realtime.realtime_transcription_session_audio_input import NoiseReduction
from openai.types.realtime.realtime_transcription_session_audio_input_turn_detection import (
    SemanticVad,
    ServerVad,
)

from asr.engines.base import Capabilities
from asr.errors import AsrError, InvalidOption
from asr.service.live.beta import FIELDS, FORMATS
from asr.service.live.client_events import NOT_SERVED, event_id_of, parse_event
from asr.service.live.formats import AudioFormat
from asr.service.live.service import Live
from asr.service.live.session_config import MAX_WARNINGS, SessionConfig, warnings_of
from asr.service.live.session_fields import LOGPROBS, SessionUpdate
from asr.settings import Settings

FRESH = SessionConfig("webrtc")
SERVER_VAD = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
}


def nested(**fields):
    return {"type": "transcription", "audio": {"input": fields}}


def after(*sessions, config=FRESH):
    for session in sessions:
        config = config.updated(SessionUpdate.model_validate(session))
    return config


@pytest.mark.parametrize(("sent", "expected"), [(2, (2, 2)), ("2-5", (2, 5)), (" AUTO", (1, None))])
def test_the_number_of_speakers(sent, expected):
    found = after(nested(transcription={"model": "m", "speakers": sent})).speakers
    assert (found.fewest, found.most) == expected


@pytest.mark.parametrize("sent", [0, -1, 2.5, True, [2], "many"])
def test_a_wrong_number_of_speakers(sent):
    with pytest.raises((ValueError, InvalidOption), match=r"speakers|off, auto"):
        after(nested(transcription={"model": "m", "speakers": sent}))


def heard(config):
    return config.body("sess")["audio"]["input"]


def warnings(session):
    return warnings_of(SessionUpdate.model_validate(session), after(session))


def refusal(session, kind="session.update"):
    """The name of the wrong field, and the message."""
    with pytest.raises(InvalidOption) as refused:
        after(parse_event(json.dumps({"type": kind, "session": session})).session.sent())
    return refused.value.name, str(refused.value)


# --- turn detection -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eagerness", "pause"), [("low", 2.0), ("medium", 1.0), ("auto", 1.0), ("high", 0.5), (None, 1)]
)
def test_eagerness_sets_the_pause_that_ends_a_turn(eagerness, pause):
    turns = {"type": "semantic_vad"} | ({"eagerness": eagerness} if eagerness else {})
    config = after(nested(turn_detection=turns))
    assert config.vad_options.min_silence == pause
    assert config.vad_options.padding == 0.3
    echoed = {"type": "semantic_vad", "eagerness": eagerness or "auto"}
    assert heard(config)["turn_detection"] == echoed
    (warning,) = warnings(nested(turn_detection=turns))
    assert f"a pause of {pause:g} s" in warning


def test_eagerness_has_openais_values():
    turns = {"type": "semantic_vad", "eagerness": "soon"}
    assert refusal(nested(turn_detection=turns))[0] == (
        "session.audio.input.turn_detection.eagerness"
    )


@pytest.mark.parametrize(
    "model", ["gpt-realtime-whisper", "gpt-live-transcribe", "gpt-live-transcribe-2026-08-01"]
)
def test_models_without_vad_wait_for_commits_by_default(model):
    chosen = after(nested(transcription={"model": model}))
    assert chosen.turn_detection is None
    assert heard(chosen)["turn_detection"] is None
    other = after(nested(transcription={"model": "gpt-4o-transcribe"}), config=chosen)
    assert heard(other)["turn_detection"] == SERVER_VAD


@pytest.mark.parametrize("order", [1, -1])
def test_a_client_may_choose_the_vad_for_any_model(order):
    model = nested(transcription={"model": "gpt-live-transcribe"})
    turns = nested(turn_detection={"type": "server_vad"})
    assert heard(after(*(model, turns)[::order]))["turn_detection"] == SERVER_VAD


def test_null_stays_null_whatever_the_model():
    config = after(
        nested(turn_detection=None), nested(transcription={"model": "gpt-4o-transcribe"})
    )
    assert heard(config)["turn_detection"] is None


def test_the_kind_of_vad_may_be_left_out():
    config = after(nested(turn_detection={"silence_duration_ms": 800}))
    assert config.vad_options.min_silence == 0.8


# --- fields that are absent, null or empty --------------------------------------------------------


def test_absent_fields_keep_their_values_at_every_level():
    config = after(
        nested(
            transcription={"model": "m", "language": "de", "prompt": "p"},
            turn_detection={"type": "server_vad", "silence_duration_ms": 800, "threshold": 0.2},
            format={"type": "audio/pcm", "rate": 16_000},
        )
        | {"include": [LOGPROBS]},
        nested(
            transcription={"prompt": "q"}, turn_detection={"type": "server_vad", "threshold": 1}
        ),
    )
    assert (config.decode.language, config.decode.prompt) == ("de", "q")
    assert config.transcription.model == "m"
    assert config.vad_options.min_silence == 0.8
    assert heard(config)["turn_detection"]["threshold"] == 1
    assert config.format == AudioFormat("audio/pcm", 16_000)
    assert config.include_logprobs
    assert after({"include": None}, config=config).include_logprobs is False


def test_another_kind_of_vad_starts_from_its_defaults():
    slow = {"type": "server_vad", "silence_duration_ms": 3000}
    config = after(nested(turn_detection=slow), nested(turn_detection={"type": "semantic_vad"}))
    assert config.vad_options.min_silence == 1.0
    assert (
        heard(after(nested(turn_detection={"type": "server_vad"}), config=config))["turn_detection"]
        == SERVER_VAD
    )


@pytest.mark.parametrize(
    "session",
    [
        {"audio": None},
        {"audio": {"input": None}},
        nested(format=None, transcription=None, noise_reduction=None) | {"include": None},
        nested(transcription=dict.fromkeys(AudioTranscription.model_fields)),
        nested(transcription={"language": "", "languages": [""], "keywords": []}),
        nested(format={"rate": None, "type": None}),
        nested(turn_detection=dict.fromkeys(ServerVad.model_fields) | {"type": "server_vad"}),
        {},
        {"type": None},
    ],
)
def test_null_and_empty_values_are_the_defaults(session):
    assert heard(after(session)) == heard(FRESH)
    assert warnings(session) == []
    assert after(nested(transcription={"prompt": ""})).decode == FRESH.decode


def test_the_servers_own_session_can_be_sent_back():
    body = after(nested(transcription={"model": "m", "language": "de"})).body("sess")
    body["expires_at"] = 1
    assert after(body).body("sess") | {"expires_at": 1} == body
    assert warnings(body) == []


# --- the recogniser -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "language", "languages"),
    [
        ({"languages": ["de"]}, None, ("de",)),
        ({"languages": ["de", "deu", "fr"]}, None, ("de", "fr")),
        ({"languages": []}, None, ()),
        ({"languages": ["auto"]}, None, ()),
        ({"language": "fr", "languages": ["de", "fr"]}, "fr", ()),
        ({"language": "fr", "languages": ["de", "French"]}, "fr", ()),
        ({"language": "auto", "languages": ["de", "fr"]}, None, ("de", "fr")),
        ({"language": "auto"}, None, ()),
        ({"language": "eng"}, "en", ()),
        ({"language": "English"}, "en", ()),
    ],
)
def test_languages_have_all_spellings_and_may_be_a_list(options, language, languages):
    session = nested(transcription=options)
    decode = after(session).decode
    assert (decode.language, decode.languages) == (language, languages)
    assert warnings(session) == []


def test_values_for_the_engine_that_are_left_out_are_named():
    told = warnings(nested(transcription={"language": "en_US", "keywords": ["<b>", "Omni"]}))
    path = "session.audio.input.transcription"
    assert [it.split(":")[0] for it in told] == [f"{path}.language", f"{path}.keywords"]
    assert after(nested(transcription={"keywords": ["<b>", "Omni"]})).decode.keywords == ("Omni",)


@pytest.mark.parametrize("name", ["whisper-1", "any"])
def test_the_engine_learns_the_name_of_the_model(name):
    assert after(nested(transcription={"model": name})).decode.model == name


def test_language_and_languages_replace_each_other():
    config = after(
        nested(transcription={"language": "en"}), nested(transcription={"languages": ["de"]})
    )
    assert (config.decode.language, config.decode.languages) == (None, ("de",))
    assert after(nested(transcription={"language": "fr"}), config=config).decode.language == "fr"


def test_languages_that_contradict_language_are_refused():
    name, message = refusal(nested(transcription={"language": "en", "languages": ["de"]}))
    assert name == "session.audio.input.transcription.languages"
    assert "'en'" in message


@pytest.mark.parametrize(("wrong", "end"), [("d", ""), ("de!", ""), (5, ".1"), ("x" * 65, ".1")])
def test_each_language_is_checked(wrong, end):
    name, _ = refusal(nested(transcription={"languages": ["fr", wrong]}))
    assert name == f"session.audio.input.transcription.languages{end}"
    flat = {"input_audio_transcription": {"language": "no language"}}
    with pytest.raises(InvalidOption) as refused:
        FRESH.updated(SessionUpdate.model_validate(flat))
    assert refused.value.name == "session.input_audio_transcription.language"


# --- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ({"type": "audio/pcm"}, AudioFormat()),
        ({"rate": 24_000}, AudioFormat()),
        ("pcm16", AudioFormat()),
        ({"type": "pcm16"}, AudioFormat()),
        ({"type": "pcm16", "rate": 16_000}, AudioFormat("audio/pcm", 16_000)),
        ("g711_ulaw", AudioFormat("audio/pcmu", 8000)),
        ("audio/pcmu", AudioFormat("audio/pcmu", 8000)),
        ({"type": "audio/pcmu", "rate": 8000}, AudioFormat("audio/pcmu", 8000)),
        ({"type": "g711_alaw"}, AudioFormat("audio/pcma", 8000)),
        ({"type": "audio/pcma"}, AudioFormat("audio/pcma", 8000)),
    ],
)
def test_formats_have_two_spellings(given, form):
    assert after(nested(format=given)).format == form


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"type": "audio/pcmu", "rate": 24_000}, "format.rate"),
        ({"type": "audio/opus"}, "format.type"),
        ("opus", "format.type"),
        (5, "format"),
        ({"type": 5}, "format.type"),
    ],
)
def test_other_formats_are_refused(given, name):
    assert refusal(nested(format=given))[0] == f"session.audio.input.{name}"


# --- the beta form --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["session.update", "transcription_session.update"])
@pytest.mark.parametrize(
    ("flat", "same"),
    [
        ({"input_audio_format": "g711_ulaw"}, {"format": {"type": "audio/pcmu"}}),
        ({"input_audio_transcription": {"language": "de"}}, {"transcription": {"language": "de"}}),
        ({"turn_detection": None}, {"turn_detection": None}),
        (
            {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}},
            {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}},
        ),
        ({"input_audio_noise_reduction": None}, {"noise_reduction": None}),
    ],
)
def test_flat_sessions_have_the_same_effect(kind, flat, same):
    update = parse_event(json.dumps({"type": kind, "session": flat})).session
    assert update.is_flat
    config = FRESH.updated(update)
    assert heard(config) == heard(after(nested(**same)))
    assert config.is_beta
    assert not after(nested(**same), config=config).is_beta


def test_a_beta_session_has_the_fields_of_both_forms():
    body = after(
        {
            "input_audio_format": "g711_alaw",
            "input_audio_transcription": {"model": "gpt-4o-transcribe", "language": "de"},
            "turn_detection": {"type": "server_vad", "threshold": 0.7},
        }
    ).body("sess")
    assert body["input_audio_format"] == "g711_alaw"
    assert body["input_audio_transcription"] == {"model": "gpt-4o-transcribe", "language": "de"}
    assert body["turn_detection"] == SERVER_VAD | {"threshold": 0.7}
    assert body["audio"]["input"]["format"] == {"type": "audio/pcma"}
    beta.Session.model_validate(body, strict=True)
    key = {"value": "ek", "expires_at": 1}
    beta.TranscriptionSession.model_validate(body | {"client_secret": key}, strict=True)


@pytest.mark.parametrize(
    ("flat", "name"),
    [
        ({"input_audio_format": "mp3"}, "session.input_audio_format.type"),
        ({"turn_detection": {"threshold": 2}}, "session.turn_detection.threshold"),
        ({"turn_detection": {"type": "none"}}, "session.turn_detection.type"),
        (
            {"input_audio_transcription": {"language": 1}},
            "session.input_audio_transcription.language",
        ),
        ({"turn_detection": None, "type": "realtime"}, "session.type"),
    ],
)
def test_errors_name_the_field_of_the_form_that_was_sent(flat, name):
    assert refusal(flat, "transcription_session.update")[0] == name


def test_a_setting_in_both_forms_is_refused():
    session = nested(format={"type": "audio/pcm"}) | {"input_audio_format": "pcm16"}
    name, message = refusal(session)
    assert name == "session"
    assert "audio.input.format" in message


def test_different_settings_may_mix_both_forms():
    config = after(nested(transcription={"language": "de"}) | {"turn_detection": None})
    assert (config.decode.language, config.turn_detection) == ("de", None)


@pytest.mark.parametrize("audio", [5, "x", {"input": 5}, {"input": [1]}])
def test_malformed_sessions_that_mix_both_forms_are_refused(audio):
    name, _ = refusal({"audio": audio, "turn_detection": None})
    assert name.startswith("session.audio")


# --- nothing is ignored silently ------------------------------------------------------------------

ECHOED = {
    "delay": "high",
    "keywords": ["Omni"],
    "language": "de",
    "languages": ["de"],
    "model": "gpt-transcribe",
    "prompt": "a call",
}
TURNS = {
    "threshold": 0.7,
    "prefix_padding_ms": 100,
    "silence_duration_ms": 900,
    "eagerness": "low",
    "create_response": True,
    "interrupt_response": True,
    "idle_timeout_ms": 5000,
}
WITHOUT_EFFECT = {"create_response", "interrupt_response", "idle_timeout_ms"}


def test_the_tables_have_every_field_of_openais_types():
    assert ECHOED.keys() == AudioTranscription.model_fields.keys()
    kinds = ServerVad.model_fields.keys() | SemanticVad.model_fields.keys()
    assert TURNS.keys() == kinds - {"type"}
    assert RealtimeTranscriptionSessionAudio.model_fields.keys() == {"input"}
    fields = {"format", "noise_reduction", "transcription", "turn_detection"}
    assert RealtimeTranscriptionSessionAudioInput.model_fields.keys() == fields
    assert RealtimeTranscriptionSessionCreateRequest.model_fields.keys() == {
        "type",
        "audio",
        "include",
    }
    assert NoiseReduction.model_fields.keys() == {"type", "strength"}


@pytest.mark.parametrize("name", ECHOED)
def test_every_field_of_transcription_is_applied(name):
    session = nested(transcription={name: ECHOED[name]})
    assert heard(after(session))["transcription"] == {name: ECHOED[name]}
    assert warnings(session) == []


@pytest.mark.parametrize("kind", [ServerVad, SemanticVad])
def test_every_field_of_turn_detection_is_applied_or_named(kind):
    names = kind.model_fields.keys() - {"type"}
    given = {"type": "server_vad" if kind is ServerVad else "semantic_vad"}
    given |= {name: TURNS[name] for name in names}
    session = nested(turn_detection=given)
    assert heard(after(session))["turn_detection"] == given
    path = "session.audio.input.turn_detection"
    named = {it.removeprefix(f"{path}.").split(" ")[0] for it in warnings(session)}
    assert named - {"eagerness:"} == names & WITHOUT_EFFECT
    assert ("eagerness:" in named) == (kind is SemanticVad)


def test_responses_that_are_not_wanted_cause_no_warning():
    turns = {"type": "server_vad", "create_response": False, "interrupt_response": False}
    assert warnings(nested(turn_detection=turns)) == []


@pytest.mark.parametrize("value", [{"type": "near_field"}, {"strength": 0.5}, {}])
def test_noise_reduction_is_named(value):
    session = nested(noise_reduction=value)
    assert heard(after(session))["noise_reduction"] is None
    assert warnings(session) == [
        "session.audio.input.noise_reduction has no effect: the audio is not filtered"
    ]
    assert refusal(nested(noise_reduction={"type": "loud"}))[0] == (
        "session.audio.input.noise_reduction.type"
    )


FOR_RESPONSES = (
    RealtimeSessionCreateRequest.model_fields.keys()
    | BetaSession.model_fields.keys()
    | BetaTranscription.model_fields.keys()
) - {
    "type",
    "audio",
    "include",
    "client_secret",
    "input_audio_format",
    "input_audio_transcription",
    "input_audio_noise_reduction",
    "turn_detection",
}


def test_fields_for_responses_are_named():
    sent = dict.fromkeys(sorted(FOR_RESPONSES), "x")
    assert {"instructions", "tools", "voice", "modalities", "output_modalities"} <= sent.keys()
    for name in sent:
        assert warnings(nested() | {name: "x"}) == [f"session.{name} has no effect"]


def test_unknown_fields_are_named_at_every_level():
    session = nested(
        transcription={"noise_reduction_type": "near_field"}, format={"channels": 1}, echo=True
    )
    session["audio"]["output"] = {"voice": "marin"}
    assert set(warnings(session)) == {
        "session.audio.output has no effect",
        "session.audio.input.echo has no effect",
        "session.audio.input.format.channels has no effect",
        "session.audio.input.transcription.noise_reduction_type has no effect",
    }


def test_warnings_are_few_and_short():
    told = warnings(nested() | {f"{n}{'x' * 1000}": 1 for n in range(100)})
    assert len(told) == MAX_WARNINGS
    assert max(map(len, told)) < 150


@pytest.mark.parametrize("wrong", [["item.x"], "x", [5]])
def test_other_values_of_include_are_refused(wrong):
    assert refusal(nested() | {"include": wrong})[0].startswith("session.include")


@pytest.mark.parametrize("kind", NOT_SERVED)
def test_events_that_are_not_served_get_a_reason(kind):
    with pytest.raises(InvalidOption) as refused:
        parse_event(json.dumps({"type": kind}))
    assert refused.value.name == "type"
    assert str(refused.value) == f"{kind} is not served: {NOT_SERVED[kind]}"


def test_a_missing_type_is_named():
    with pytest.raises(InvalidOption) as refused:
        parse_event('{"audio": ""}')
    assert (refused.value.name, str(refused.value)) == ("type", "is missing")


def test_a_conversation_is_refused_with_the_type_that_is_served():
    name, message = refusal({"type": "realtime"})
    assert name == "session.type"
    assert "'transcription'" in message
    assert "only transcribes" in message


@pytest.mark.parametrize(
    ("text", "event_id"),
    [
        ('{"type": "x", "event_id": "mine"}', "mine"),
        ('{"event_id": 5}', None),
        ('{"event_id": "%s"}' % ("x" * 600), None),
        ("[" * 1000, None),
        ("no json", None),
        ("[]", None),
    ],
)
def test_the_id_of_a_wrong_event_is_found(text, event_id):
    assert event_id_of(text) == event_id


# --- whatever a client sends ----------------------------------------------------------------------

NAMES = sorted(ECHOED.keys() | TURNS.keys() | {"type", "rate", "format", "x"})
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(sorted(FORMATS)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)
ANY_SESSION = st.dictionaries(
    st.sampled_from(["audio", "include", "type", "client_secret", *FIELDS]), VALUES, max_size=4
)
ANY_INPUT = st.dictionaries(st.sampled_from([*FIELDS.values(), "x"]), VALUES, max_size=4)


@given(ANY_SESSION, ANY_INPUT, st.booleans())
def test_any_session_is_applied_or_refused(session, given_input, has_input):
    sent = session | ({"audio": {"input": given_input}} if has_input else {})
    for kind in ("session.update", "transcription_session.update"):
        try:
            event = parse_event(json.dumps({"type": kind, "session": sent}))
            config = FRESH.updated(event.session)
        except AsrError:
            continue
        json.dumps([config.body("sess"), warnings_of(event.session, config)], allow_nan=False)
        again = SessionUpdate.model_validate(json.loads(json.dumps(event.session.sent())))
        assert heard(FRESH.updated(again)) == heard(config)


# --- languages that the engine refuses ------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"language": "de"}, "language"),
        ({"language": "German"}, "language"),
        ({"languages": ["de", "fr"]}, "languages"),
        ({"language": "en_GB"}, None),
        ({"languages": ["de", "en"]}, None),
        ({"language": "auto"}, None),
        ({}, None),
    ],
)
def test_a_language_that_the_engine_refuses_is_warned_of(chosen, field):
    update = SessionUpdate.model_validate(nested(transcription=chosen))
    config = SessionConfig("webrtc", recognised=("en",)).updated(update)
    told = [note for note in warnings_of(update, config) if "each turn will fail" in note]
    place = f"session.audio.input.transcription.{field}: the engine recognises en,"
    assert [note.startswith(place) for note in told] == ([True] if field else [])
    unknown = warnings_of(update, FRESH.updated(update))  # the engine is still loading
    assert not any("will fail" in note for note in unknown)


@pytest.mark.parametrize(
    ("able", "known"),
    [
        (Capabilities(languages=("en",)), ("en",)),
        (Capabilities(languages=("en",), detects_language=True), ()),  # it refuses none
        (None, ()),
    ],
)
def test_the_engine_tells_its_languages(able, known, tmp_path):
    live = Live(None, Settings(), tmp_path, None)
    live.engine_loaded(able)
    assert live._defaults.recognised == known
