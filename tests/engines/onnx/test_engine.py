"""The real onnx-asr and ONNX Runtime, with tiny models that the tests make."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import importlib.metadata
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from asr import doctor
from asr.config import DecodeOptions, Options
from asr.engines import load_engine
from asr.engines.onnx import engine as engines, model as models, processes
from asr.engines.onnx.engine import OnnxEngine
from asr.engines.onnx.model import Model, ModelOptions
from asr.engines.onnx.processes import ServedModel
from asr.engines.onnx.words import Answer, hypothesis
from asr.errors import (
    EngineTimeout,
    EngineUnavailable,
    InvalidOption,
    WorkerDied,
)
from asr.pipeline.transcriber import Transcriber, collect
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Audio, Chunk, ordered
from asr.workers import call
from tests.support import makers, onnx_models

PLAIN = DecodeOptions()
SECONDS = 3
NOISE = makers.noise(SECONDS)
CHUNK = Chunk(7, SAMPLE_RATE, (1 + SECONDS) * SAMPLE_RATE)


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of each model by its name."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "ctc": onnx_models.gigaam_ctc(folder / "ctc"),
        "whisper": onnx_models.whisper(folder / "whisper"),
        "canary": onnx_models.canary(folder / "canary"),
        "parakeet": onnx_models.parakeet_tdt(folder / "parakeet"),
        "endless": onnx_models.gigaam_ctc(folder / "endless", endless_from=150),
    }


@contextlib.contextmanager
def opened(runner, folder, *languages, served=False):
    """An open engine with two processes, or with the one child that a GPU gets."""
    engine = OnnxEngine(ModelOptions(str(folder)), languages or ["ru"], 2)
    if served:
        engine._runner = ServedModel(ModelOptions(str(folder)))
    try:
        runner.run(engine.open())
        yield engine
    finally:
        runner.run(engine.close())


@pytest.fixture(scope="module")
def ctc(runner, folders):
    with opened(runner, folders["ctc"]) as engine:
        yield engine


@pytest.fixture(scope="module")
def served(runner, folders):
    with opened(runner, folders["whisper"], "en", "de", served=True) as engine:
        yield engine


def heard(runner, engine, samples=NOISE, options=PLAIN):
    return runner.run(engine.transcribe(CHUNK, Audio(samples), options))


async def together(engine, *samples, options=PLAIN):
    work = (engine.transcribe(CHUNK, Audio(it), options) for it in samples)
    return await asyncio.gather(*work, return_exceptions=True)


# --- models with times --------------------------------------------------------------------------


def test_a_model_with_times_through_the_whole_pipeline(runner, folders, tmp_path):
    path = tmp_path / "speech.wav"
    voice = makers.bursts(12, [(1, 4), (8, 11)])
    makers.write(path, voice * (1 + makers.noise(12, level=0.5)))

    async def transcript():
        engine = OnnxEngine(ModelOptions(str(folders["ctc"])), ["ru"], 2)
        async with Transcriber(engine) as transcriber:
            events = transcriber.transcribe_file(path, Options(), tmp_path)
            return await collect(events)

    first = runner.run(transcript())
    words = [word for segment in first.segments for word in segment.words]
    assert len(words) > 3
    ordered(words, 0.5, 11.5)
    assert any(word.start < 4.5 for word in words)
    assert any(word.start > 7.5 for word in words)
    assert {word.timing for word in words} == {"engine"}
    assert len({word.confidence for word in words}) > 1
    assert first.language == "ru"
    assert first.engine == f"onnx (ctc on onnx-asr {importlib.metadata.version('onnx-asr')}, cpu)"
    assert runner.run(transcript()) == first


def test_the_order_of_the_chunks_does_not_matter(runner, ctc):
    chunks = [makers.noise(1 + 0.5 * n, seed=n) for n in range(5)]
    one_by_one = [heard(runner, ctc, chunk) for chunk in chunks]
    assert runner.run(together(ctc, *chunks[::-1]))[::-1] == one_by_one
    assert len({it.text for it in one_by_one}) == len(chunks)
    assert all(it.avg_logprob < 0 for it in one_by_one)


def test_the_process_that_is_forked_has_one_thread(ctc):
    pid = ctc._runner._pool._template._process.pid
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1


@pytest.mark.parametrize("n_samples", [1, 160, 1600])
def test_a_short_chunk_is_no_problem(runner, ctc, n_samples):
    duration = n_samples / SAMPLE_RATE
    ordered(heard(runner, ctc, NOISE[:n_samples]).words, 0.0, duration)


def test_a_transducer_times_its_words_and_needs_no_guards(runner, folders):
    with opened(runner, folders["parakeet"], "en", "de") as engine:
        first = heard(runner, engine)
        assert heard(runner, engine, options=DecodeOptions(language="de")) == first, "no choice"
        assert not engine.guarded
    assert len(first.words) > 3
    assert len({word.start for word in first.words}) > 3
    ordered(first.words, 0.0, SECONDS)
    assert [word.text for word in first.words] == first.text.split()
    assert first.avg_logprob < 0
    assert {word.timing for word in first.words} == {"engine"}


# --- models with a text decoder -----------------------------------------------------------------


def test_whisper_writes_the_language_that_is_asked_for(runner, folders):
    with opened(runner, folders["whisper"], "en", "de") as engine:
        english = heard(runner, engine)
        assert (english.chunk_index, english.text) == (7, "good morning,")
        assert (english.words, english.avg_logprob) == ((), None)
        assert heard(runner, engine, options=DecodeOptions(language="de")).text == "guten Morgen,"
        assert engine.guarded, "a text decoder may invent text"
        second = runner.run(engine.retry(CHUNK, Audio(NOISE), PLAIN))
        assert second == english
        assert heard(runner, engine, np.zeros(SAMPLE_RATE, np.float32)).text == ""


def test_canary_gives_confidences_without_times(folders):
    model = Model(ModelOptions(str(folders["canary"])))
    facts = model.facts()
    assert (facts.is_timed, facts.languages) == (False, ("de", "en"))
    (answer,) = model.recognise([NOISE], "de")
    found = hypothesis(0, Answer.of(answer), SECONDS)
    assert found.text == "good days."
    assert found.words == ()
    assert found.word_confidences == (0.9, 0.9)
    assert found.avg_logprob == pytest.approx(np.log(0.9))


def test_a_language_that_the_model_lacks_is_an_error_at_the_start(runner, folders):
    engine = OnnxEngine(ModelOptions(str(folders["whisper"])), ["en", "fr"], 1)
    with pytest.raises(EngineUnavailable, match=r"does not know fr.*it knows de, en"):
        runner.run(engine.open())
    runner.run(engine.close())


# --- one child for batches, as on a GPU ---------------------------------------------------------


def test_a_batch_holds_chunks_of_several_languages(runner, served):
    async def mixed():
        german = together(served, *[NOISE] * 11, options=DecodeOptions(language="de"))
        return await asyncio.gather(together(served, *[NOISE] * 9), german)

    english, german = runner.run(mixed())
    assert [it.text for it in english] == ["good morning,"] * 9
    assert [it.text for it in german] == ["guten Morgen,"] * 11


def test_a_cancelled_chunk_does_not_disturb_the_others(runner, served):
    async def run():
        work = [
            asyncio.create_task(served.transcribe(CHUNK, Audio(NOISE), PLAIN)) for _ in range(4)
        ]
        await asyncio.sleep(0)
        work[1].cancel()
        return await asyncio.gather(*work, return_exceptions=True)

    found = runner.run(run())
    assert isinstance(found.pop(1), asyncio.CancelledError)
    assert [it.text for it in found] == ["good morning,"] * 3


def test_a_killed_child_is_replaced(runner, folders):
    with opened(runner, folders["ctc"], served=True) as engine:
        before = heard(runner, engine)
        (child,) = children_of(engine)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(EngineUnavailable, match="SIGKILL"):
            heard(runner, engine)
        assert heard(runner, engine) == before


def test_what_waits_fails_when_the_engine_is_closed(runner, folders):
    async def run(engine):
        work = asyncio.create_task(engine.transcribe(CHUNK, Audio(NOISE), PLAIN))
        await asyncio.sleep(0.2)
        await engine.close()
        return await work

    with opened(runner, folders["endless"], served=True) as engine:
        with pytest.raises(EngineUnavailable, match="closed"):
            runner.run(run(engine))
        assert heard(runner, engine, NOISE[:SAMPLE_RATE]).text, "it can be opened again"


def test_a_batch_that_fails_is_tried_chunk_by_chunk(monkeypatch, folders):
    model = Model(ModelOptions(str(folders["ctc"])))
    real = model._adapter.recognize
    sizes = []

    def recognize(waves, **options):
        sizes.append(len(waves))
        if len(waves) > 1 or len(waves[0]) == SAMPLE_RATE:
            raise RuntimeError("out of memory in /secret")
        return real(waves, **options)

    monkeypatch.setattr(model._adapter, "recognize", recognize)
    waves = [NOISE, NOISE[:SAMPLE_RATE]]
    chunks = [{"language": "ru", "n_bytes": 2 * len(wave)} for wave in waves]
    payload = b"".join(Audio(wave).pcm16() for wave in waves)
    good, bad = models._batch(model, chunks, payload)
    assert sizes == [2, 1, 1]
    assert good["text"]
    assert bad == {"failed": "the model failed (RuntimeError); the log has the details"}


# --- failures -----------------------------------------------------------------------------------


def children_of(engine):
    pid = engine._runner._pool._template._process.pid
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def test_an_endless_chunk_ends_at_its_limit(runner, folders, monkeypatch):
    monkeypatch.setattr(processes, "SECONDS_BASE", 1)
    monkeypatch.setattr(processes, "SECONDS_PER_SECOND", 0)
    monkeypatch.setattr(processes, "WALL_FACTOR", 100)  # this machine may be busy
    with opened(runner, folders["endless"]) as engine:

        async def both():
            return await together(engine, NOISE, NOISE[:SAMPLE_RATE])

        endless, short = runner.run(both())
        assert isinstance(endless, EngineTimeout)
        assert "more than 1 s of CPU time" in str(endless)
        assert short.text
        assert children_of(engine) == []


def test_an_endless_batch_ends_at_its_deadline(runner, folders, monkeypatch):
    monkeypatch.setattr(processes, "SECONDS_PER_SECOND", 0)
    with opened(runner, folders["endless"], served=True) as engine:
        monkeypatch.setattr(processes, "SECONDS_BASE", 0.3)
        with pytest.raises(EngineTimeout, match=r"at 1.0 s: no answer within"):
            heard(runner, engine)
        monkeypatch.undo()
        assert heard(runner, engine, NOISE[:SAMPLE_RATE]).text


def test_a_child_that_is_killed_each_time_fails_only_its_chunk(runner, ctc, monkeypatch):
    monkeypatch.setattr(call, "TRIES", 1)

    async def run():
        work = asyncio.create_task(ctc.transcribe(CHUNK, Audio(NOISE), PLAIN))
        while not children_of(ctc):
            await asyncio.sleep(0)
        os.kill(children_of(ctc)[0], signal.SIGKILL)
        return await work

    with pytest.raises(WorkerDied, match=r"chunk at 1.0 s.*SIGKILL") as caught:
        runner.run(run())
    assert caught.value.chunk_index == 7
    assert heard(runner, ctc).text


def without(name):
    def damage(folder):
        (folder / name).unlink()

    return damage


def replacing(name, content):
    def damage(folder):
        (folder / name).write_bytes(content)

    return damage


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without("v2_vocab.txt"), "File 'v._vocab.txt' not found"),
        (without("v2_ctc.onnx"), "did not load as gigaam-v2-ctc: File 'v._ctc.onnx' not found"),
        (without("config.json"), "no readable config.json in .*: set ASR_ONNX_TYPE"),
        (replacing("v2_ctc.onnx", b"not a model"), "did not load as gigaam-v2-ctc"),
        (replacing("v2_vocab.txt", b"a b c"), "did not load as gigaam-v2-ctc"),
        (replacing("config.json", b"{}"), "has no model_type: set ASR_ONNX_TYPE"),
        (replacing("config.json", b"\xff"), "no readable config.json"),
        (replacing("config.json", b'{"model_type": "wav2vec2"}'), "knows no type 'wav2vec2'"),
    ],
)
def test_a_damaged_folder_is_named_with_its_damage(tmp_path, damage, told):
    folder = onnx_models.gigaam_ctc(tmp_path / "ctc")
    damage(folder)
    with pytest.raises(EngineUnavailable, match=told):
        Model(ModelOptions(str(folder)))


def test_files_that_do_not_fit_together_are_found_at_the_start(runner, tmp_path, capfd):
    """The vocabulary has fewer tokens than the network."""
    folder = onnx_models.gigaam_ctc(tmp_path / "ctc")
    (folder / "v2_vocab.txt").write_text("a 0\n<blk> 1\n")
    engine = OnnxEngine(ModelOptions(str(folder)), ["ru"], 1)
    with pytest.raises(EngineUnavailable, match=r"AssertionError.*the log has the details"):
        runner.run(engine.open())
    assert "Traceback" in capfd.readouterr().err
    onnx_models.gigaam_ctc(folder)  # repaired: the next start works
    engine = OnnxEngine(ModelOptions(str(folder), "gigaam-v3-ctc"), ["ru"], 1)
    runner.run(engine.open())
    runner.run(engine.close())


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "~/no-such-folder-of-models"])
def test_a_missing_folder_is_not_looked_up_in_the_hub(name):
    with pytest.raises(EngineUnavailable, match="does not exist: correct ASR_ONNX_MODEL"):
        Model(ModelOptions(name))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.onnx").touch()
    with pytest.raises(EngineUnavailable, match=r"model\.onnx is not a folder: correct ASR_ONNX"):
        Model(ModelOptions(str(tmp_path / "model.onnx")))


def test_an_unknown_name_is_an_error():
    with pytest.raises(EngineUnavailable, match="'parakeet' is neither a folder nor a name"):
        Model(ModelOptions("parakeet"))


def test_a_type_does_not_replace_a_name():
    with pytest.raises(EngineUnavailable, match="ASR_ONNX_TYPE is for a folder"):
        Model(ModelOptions("me/my-gigaam", "gigaam-v3-ctc"))


def test_a_quantized_model_has_other_files(folders, tmp_path):
    with pytest.raises(EngineUnavailable, match=r"int8.onnx' not found"):
        Model(ModelOptions(str(folders["ctc"]), quantization="int8"))
    folder = onnx_models.gigaam_ctc(tmp_path / "ctc")
    (folder / "v2_ctc.onnx").rename(folder / "v2_ctc.int8.onnx")
    assert Model(ModelOptions(str(folder), quantization="int8")).facts().is_timed


@pytest.mark.parametrize(
    ("package", "model", "command"),
    [
        ("onnx_asr", None, "asr-service[onnx]"),
        ("huggingface_hub", "nemo-parakeet-tdt-0.6b-v3", "onnx-asr[hub]"),
    ],
)
def test_a_missing_package_is_named_with_its_command(folders, monkeypatch, package, model, command):
    real = builtins.__import__

    def imported(name, *args):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", imported)
    with pytest.raises(EngineUnavailable) as caught:
        Model(ModelOptions(model or str(folders["ctc"])))
    assert f"pip install '{command}'" in str(caught.value)


def test_a_gpu_that_cannot_be_used_is_an_error(folders):
    """onnxruntime itself would run the model on the CPU."""
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(EngineUnavailable, match="ASR_ONNX_DEVICE=cpu"),
    ):
        Model(ModelOptions(str(folders["ctc"]), device="cuda"))


# --- settings -----------------------------------------------------------------------------------


def test_the_settings_choose_the_engine(folders, monkeypatch):
    folder = folders["ctc"]
    settings = Settings(
        engine="onnx", onnx_model=str(folder), onnx_language="RU, en", cpu_workers=3
    )
    engine = load_engine(settings)
    assert isinstance(engine, OnnxEngine)
    assert (engine.slots, engine.language, engine.model) == (3, "ru", "ctc")
    assert isinstance(engine._runner, processes.ForkedModel)
    monkeypatch.setattr(engines, "_device", lambda: "cuda")
    on_gpu = load_engine(Settings(engine="onnx", onnx_model="nemo-canary-1b-v2"))
    assert (on_gpu.slots, on_gpu.model) == (engines.GPU_SLOTS, "nemo-canary-1b-v2")
    assert isinstance(on_gpu._runner, ServedModel)


@pytest.mark.parametrize(("field", "value"), [("onnx_model", ""), ("onnx_language", " ,")])
def test_a_missing_setting_is_named(field, value):
    given = {"onnx_model": "some-model", field: value}
    with pytest.raises(InvalidOption) as caught:
        load_engine(Settings(engine="onnx", **given))
    assert caught.value.name == field


def test_the_extra_is_named_if_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'asr-service\[onnx\]'"):
        load_engine(Settings(engine="onnx", onnx_model="some-model"))


def test_options_that_the_model_cannot_serve():
    engine = OnnxEngine(ModelOptions("some-model"), ["de", "en"], 1)
    for language in (None, "de", "EN", "en-US", "english"):
        assert engine.check(DecodeOptions(language=language)) == ()
    with pytest.raises(InvalidOption, match="recognises de, en") as caught:
        engine.check(DecodeOptions(language="fr"))
    assert caught.value.name == "language"
    options = DecodeOptions(prompt="A talk.", keywords=("Nemotron",), temperature=0.5)
    assert engine.check(options) == (
        "onnx ignores prompt",
        "onnx ignores keywords",
        "onnx ignores temperature",
    )


# --- asr doctor ---------------------------------------------------------------------------------


def engine_check(**settings):
    found = doctor.check_settings(Settings(engine="onnx", **settings))
    return next(check for check in found if check.name == "engine")


def test_the_doctor_loads_the_model(folders, tmp_path):
    good = engine_check(onnx_model=str(folders["ctc"]))
    assert (good.level, good.fix) == ("ok", "")
    assert "which loads" in good.found
    bad = engine_check(onnx_model=str(tmp_path))
    assert bad.level == "fail"
    assert "no readable config.json" in bad.found


def test_the_doctor_names_what_is_missing(folders, monkeypatch):
    assert "ASR_ONNX_MODEL" in engine_check().fix
    lacking = engine_check(onnx_model="nemo-parakeet-tdt-0.6b-v3")
    assert lacking.fix == "pip install 'onnx-asr[hub]'"
    monkeypatch.setattr(doctor.machine, "_lacks", lambda package: package == "onnx_asr")
    assert engine_check(onnx_model=str(folders["ctc"])).fix == "pip install 'asr-service[onnx]'"
    monkeypatch.setattr(doctor.machine, "_lacks", lambda _: False)
    named = engine_check(onnx_model="nemo-parakeet-tdt-0.6b-v3")
    assert (named.level, "not loaded" in named.found) == ("ok", True)
