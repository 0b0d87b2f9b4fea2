"""What engines declare, and how options are fitted to them."""

import pytest

from asr.config import DecodeOptions
from asr.engines import load_engine
from asr.engines.base import MODEL_ALIASES, Capabilities, settle
from asr.engines.omni.instruction import instruction
from asr.errors import InvalidOption
from asr.settings import Settings
from tests.support.fakes import FakeEngine

SETTINGS = [
    Settings(engine="moonshine"),
    Settings(engine="omni", vllm_url="http://localhost:1"),
]
GIVEN = {"prompt": "A meeting.", "keywords": ("office",), "temperature": 0.5}


class Polyglot(FakeEngine):
    """Recognises two languages, but only the one that it is told."""

    capabilities = Capabilities(languages=("en", "ru"))

    def check(self, options):
        return ()


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda it: it.engine_name)
@pytest.mark.parametrize("name", GIVEN)
def test_an_engine_warns_about_what_it_does_not_declare(settings, name):
    engine = load_engine(settings)
    warnings = engine.check(DecodeOptions(**{name: GIVEN[name]}))
    assert any(name in warning for warning in warnings) != getattr(engine.capabilities, name)
    assert engine.language in engine.capabilities.languages


def test_one_of_several_languages_is_chosen():
    options, notes = settle(Polyglot(), DecodeOptions(languages=("de", "ru", "en")))
    assert options.language == "ru"
    assert notes == ("languages: only 'ru' is used, because fake cannot choose",)
    options, notes = settle(Polyglot(), DecodeOptions(languages=("ru",)))
    assert (options.language, notes) == ("ru", ())


@pytest.mark.parametrize(
    ("given", "code", "note"),
    [
        ("auto", None, ()),
        ("Eng", "en", ()),
        ("Russian", "ru", ()),
        ("en_US", "en", ("language: only 'en' of 'en_US' is used",)),
    ],
)
def test_spellings_of_a_language(given, code, note):
    """The command line and `asr.transcribe` accept the same spellings as requests."""
    options, notes = settle(Polyglot(), DecodeOptions(language=given))
    assert (options.language, notes) == (code, note)


def test_spellings_of_several_languages():
    options, _ = settle(Polyglot(), DecodeOptions(languages=("deu", "Russian")))
    assert options.language == "ru"
    options, notes = settle(Polyglot(), DecodeOptions(languages=("ru", "auto")))
    assert (options.language, options.languages, notes) == (None, (), ())


def test_languages_that_the_engine_lacks_are_refused():
    with pytest.raises(InvalidOption, match="recognises en, ru") as refused:
        settle(Polyglot(), DecodeOptions(languages=("de", "fr")))
    assert refused.value.name == "languages"


def test_an_engine_that_detects_the_language_gets_all_of_them():
    engine = load_engine(SETTINGS[1])
    given = DecodeOptions(languages=("en", "de<|x|>"))
    options, notes = settle(engine, given)
    assert options == given
    assert notes == ("the model card of Omni names English only",)
    assert "to written english or de |x| text, " in instruction(options)


@pytest.mark.parametrize("model", ["", "fake", "fake engine", *MODEL_ALIASES])
def test_a_model_that_is_listed_needs_no_warning(model):
    assert settle(Polyglot(), DecodeOptions(model=model))[1] == ()


def test_another_model_is_a_warning():
    _, (note,) = settle(Polyglot(), DecodeOptions(model="large-v3"))
    assert note == "model: fake is used, because 'large-v3' is not served here"


def test_an_engine_without_capabilities_still_works():
    class Foreign:
        name = model = "foreign"

        def check(self, options):
            return (f"got {options.language}",)

    assert settle(Foreign(), DecodeOptions(languages=("de",)))[1] == ("got de",)
