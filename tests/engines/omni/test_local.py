"""The in-process engine: errors without vLLM, and how it maps vLLM's answers and failures.

The vLLM modules are fakes here; `make test-vllm` runs the real ones.
"""

import asyncio
import importlib.util
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from asr.config import DecodeOptions
from asr.engines import load_engine
from asr.engines.omni import local as vllm_local
from asr.engines.omni.instruction import INSTRUCTION, PLACEHOLDER, placed
from asr.engines.omni.local import VllmLocalEngine, read_arguments
from asr.errors import EngineFailed, EngineUnavailable, InvalidOption
from asr.settings import Settings
from asr.types import Audio, Chunk

AUDIO = Audio(np.zeros(16_000, dtype=np.float32))
CHUNK = Chunk(3, 0, 16_000)


class Tokenizer:
    """A chat template that accepts content parts, or only text."""

    def __init__(self, takes_parts=True):
        self.takes_parts = takes_parts

    def apply_chat_template(self, messages, **options):
        assert options["enable_thinking"] is False
        assert options["add_generation_prompt"] is True
        content = messages[0]["content"]
        if isinstance(content, str):
            return f"[{content}]"
        texts = [part.get("text", PLACEHOLDER if self.takes_parts else "") for part in content]
        return f"[{''.join(texts)}]"


class Llm:
    """A fake `AsyncLLM` that answers, takes long, fails or dies, as the test sets it."""

    model_config = SimpleNamespace(get_diff_sampling_param=lambda: {"top_p": 0.9, "top_k": 7})
    made = ()

    def __init__(self, arguments):
        self.arguments = arguments
        self.errored = False
        self.was_shut_down = False
        self.aborted = []
        self.way = "answer"
        self.given = self.parameters = None
        Llm.made.append(self)

    @classmethod
    def from_engine_args(cls, arguments):
        if arguments["model"] == "broken":
            raise RuntimeError("Engine core initialization failed")
        time.sleep(0.3)  # it blocks while it loads
        return cls(arguments)

    def get_tokenizer(self):
        return Tokenizer()

    async def generate(self, given, parameters, request_id):
        self.given, self.parameters = given, parameters
        if self.way == "last":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.aborted.append(request_id)
                raise
        if self.way in ("fail", "die"):
            self.errored = self.way == "die"
            raise RuntimeError("it broke")
        finish = "abort" if self.way == "abort" else "length"
        drawn = [SimpleNamespace(decoded_token=it, logprob=-0.5) for it in ("Hi", " there")]
        logprobs = [{index: token} for index, token in enumerate(drawn)]
        output = SimpleNamespace(
            text="Hi there", token_ids=[0, 1], logprobs=logprobs, finish_reason=finish
        )
        yield SimpleNamespace(outputs=[output])

    def shutdown(self):
        self.was_shut_down = True


def engine_arguments(**given):
    if "nonsense" in given:
        raise TypeError("got an unexpected keyword argument 'nonsense'")
    return given


@pytest.fixture
def vllm(monkeypatch):
    """Replace vLLM's modules by fakes; return the list of engines created."""
    contents = {
        "vllm": {"SamplingParams": lambda **given: given},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(FINAL_ONLY="final")},
        "vllm.engine": {},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": engine_arguments},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.async_llm": {"AsyncLLM": Llm},
    }
    for name, attributes in contents.items():
        module = ModuleType(name)
        module.__spec__ = importlib.util.spec_from_loader(name, None)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(vllm_local, "ENVIRONMENT", {})
    monkeypatch.setattr(Llm, "made", [])
    return Llm.made


def with_engine(work, model="some/omni", **arguments):
    async def run():
        engine = VllmLocalEngine(model, arguments)
        try:
            await engine.open()
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(run())


async def hear(engine):
    return await engine.transcribe(CHUNK, AUDIO, DecodeOptions())


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_it_says_how_to_get_it():
    with pytest.raises(EngineUnavailable, match=r"pip install 'asr-service\[vllm\]'"):
        load_engine(Settings(engine="omni-local", vllm_model="some/omni"))


def test_it_wants_a_model():
    with pytest.raises(InvalidOption) as caught:
        load_engine(Settings(engine="omni-local"))
    assert caught.value.name == "vllm_model"


@pytest.mark.parametrize("text", ["{", "[1]", "3", '"x"'])
def test_arguments_must_be_an_object(text):
    with pytest.raises(InvalidOption) as caught:
        read_arguments(text)
    assert caught.value.name == "vllm_args"


def test_arguments_of_the_user_come_before_ours(vllm):
    assert read_arguments("") == {}
    settings = Settings(
        engine="omni-local",
        vllm_model="some/omni",
        vllm_args='{"max_model_len": 99, "quantization": "fp8"}',
        engine_slots=7,
    )
    engine = load_engine(settings)
    assert engine.slots == 7
    asyncio.run(_open_and_close(engine))
    given = vllm[0].arguments
    assert (given["model"], given["max_model_len"], given["quantization"]) == (
        "some/omni",
        99,
        "fp8",
    )
    assert given["limit_mm_per_prompt"] == {"audio": 1, "image": 0, "video": 0}
    assert vllm[0].was_shut_down


async def _open_and_close(engine):
    await engine.open()
    await engine.close()


def test_an_unknown_argument_is_an_error_of_the_setting(vllm):
    with pytest.raises(InvalidOption, match="nonsense") as caught:
        with_engine(hear, nonsense=1)
    assert caught.value.name == "vllm_args"


def test_a_model_that_does_not_load_is_unavailable(vllm):
    with pytest.raises(EngineUnavailable, match="initialization failed"):
        with_engine(hear, "broken")


def test_the_samples_go_to_the_model_as_they_are(vllm):
    heard = with_engine(hear)
    assert (heard.chunk_index, heard.text, heard.is_cut) == (3, "Hi there", True)
    assert heard.avg_logprob == pytest.approx(-0.5)
    assert len(heard.word_confidences) == 2
    given, parameters = vllm[0].given, vllm[0].parameters
    samples, rate = given["multi_modal_data"]["audio"]
    assert samples is AUDIO.samples
    assert rate == 16_000
    assert given["prompt"] == f"[{PLACEHOLDER}. \n{INSTRUCTION}]"
    wanted = {"temperature": 0.0, "top_k": 1, "max_tokens": 44, "top_p": 0.9, "logprobs": 0}
    assert parameters == wanted | {"output_kind": "final"}


def test_a_template_of_text_alone_gets_the_audio_in_front():
    omni = vllm_local._Omni.__new__(vllm_local._Omni)
    omni._tokenizer = Tokenizer(takes_parts=False)
    assert omni.prompt(placed("Write.")) == f"[{PLACEHOLDER}. \nWrite.]"


def test_a_template_that_loses_the_audio_is_an_error():
    omni = vllm_local._Omni.__new__(vllm_local._Omni)
    omni._tokenizer = Tokenizer(takes_parts=False)
    with pytest.raises(EngineUnavailable, match="does not keep the text"):
        omni.prompt("Write.")


def test_the_loop_goes_on_while_the_model_loads(vllm):
    async def run():
        engine = VllmLocalEngine("some/omni", {})
        opening = asyncio.create_task(engine.open())
        beats = 0
        while not opening.done():
            await asyncio.sleep(0.01)
            beats += 1
        await engine.close()
        return beats

    assert asyncio.run(run()) > 5


def test_a_cancelled_chunk_is_cancelled_in_vllm(vllm):
    async def work(engine):
        vllm[0].way = "last"
        task = asyncio.create_task(hear(engine))
        while vllm[0].given is None:
            await asyncio.sleep(0.01)
        task.cancel()
        while not vllm[0].aborted:
            await asyncio.sleep(0.01)
        return vllm[0].aborted

    assert with_engine(work) == ["chunk-0"]


def test_a_chunk_that_breaks_is_an_error_of_that_chunk(vllm):
    async def work(engine):
        vllm[0].way = "fail"
        with pytest.raises(EngineFailed, match="it broke") as caught:
            await hear(engine)
        assert caught.value.chunk_index == 3
        vllm[0].way = "answer"
        return (await hear(engine)).text

    assert with_engine(work) == "Hi there"
    assert len(vllm) == 1


def test_an_answer_that_was_broken_off_is_no_transcript(vllm):
    async def work(engine):
        vllm[0].way = "abort"
        with pytest.raises(EngineUnavailable, match="aborted its answer"):
            await hear(engine)

    with_engine(work)


def test_a_model_that_died_is_loaded_again(vllm):
    async def work(engine):
        vllm[0].way = "die"
        with pytest.raises(EngineUnavailable, match="died"):
            await hear(engine)
        return (await hear(engine)).text

    assert with_engine(work) == "Hi there"
    assert [llm.was_shut_down for llm in vllm] == [True, True]


def test_an_engine_that_was_closed_can_be_opened_again(vllm):
    async def work(engine):
        await engine.close()
        await engine.open()
        return (await hear(engine)).text

    assert with_engine(work) == "Hi there"
