"""The in-process Omni engine on real vLLM, in an environment with the service and vLLM."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from asr.engines.omni.watchdog import descendants, living
from tests.support.paths import ROOT
from tests.support.serving import PATH, REAL, STOP_SECONDS, clean_env, make_wav, serving, wait_for
from tests.vllm.servers import ENGINE_ARGUMENTS, ENVIRONMENT, PYTHON, START_SECONDS, engine_core
from tests.vllm.sounds import sound
from tests.vllm.test_engine import body_of, transcribe
from tests.vllm.tiny_text import SENTENCE

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def steps(checkpoint):
    """The results of `local_steps`, which runs the engine in a separate process."""
    ran = subprocess.run(
        [str(PYTHON), "-m", "tests.vllm.local_steps", str(checkpoint)],
        env=clean_env(ENVIRONMENT | {"PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}:{ROOT}"}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-5000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_unknown_engine_arguments_are_named(steps):
    assert steps["refused"].startswith("vllm_args: ")
    assert "no_such_argument" in steps["refused"]


def test_the_loop_of_the_service_runs_on_while_the_model_loads(steps):
    assert steps["beats"] > 5 * steps["open_seconds"], "of 10 beats a second"


def test_chunks_are_heard(steps):
    assert (steps["one"]["text"], steps["one"]["is_cut"]) == (SENTENCE, False)
    assert len(steps["one"]["confidences"]) == len(SENTENCE.split())
    assert steps["many"] == [SENTENCE]
    assert steps["order"] == list(range(len(steps["order"])))


def test_a_cancelled_chunk_is_aborted(steps):
    assert steps["cancelled"]["before"] == 1
    assert steps["cancelled"]["after"] == 0
    assert steps["cancelled"]["seconds"] < 2


def test_a_model_that_dies_is_loaded_again(steps):
    assert "died" in steps["killed"]["during"]
    assert steps["killed"]["after"] == SENTENCE


def test_nothing_is_left_when_it_is_closed(steps):
    assert steps["left"] == []


def test_both_forms_ask_the_same_of_the_model(steps, parsing):
    """Both send the same tokens and get the same confidences."""
    answer = parsing.chat(body_of(sound(1.0), return_token_ids=True)).json()
    assert steps["prompt_ids"] == answer["prompt_token_ids"]
    over_http = transcribe(parsing, sound(3.0, seed=1))
    assert steps["one"]["avg_logprob"] == pytest.approx(over_http.avg_logprob, rel=0.05)


def test_the_service_serves_with_the_model_in_its_process(checkpoint):
    """LitServe and vLLM in one environment: it starts, transcribes, survives, and ends in time."""
    settings = {
        "ASR_ENGINE": "omni-local",
        "ASR_ALIGNER": "none",  # its witness would doubt text from random weights
        "ASR_VLLM_MODEL": str(checkpoint),
        "ASR_VLLM_ARGS": json.dumps(ENGINE_ARGUMENTS),
    }
    options = {"python": str(PYTHON), "start_seconds": START_SECONDS}
    with serving(*REAL, **options, **ENVIRONMENT, **settings) as server:
        client = server.client()

        def post():
            return client.post(PATH, files={"file": ("a.wav", make_wav(3.0))}, timeout=120)

        answer = post()
        assert answer.status_code == 200, answer.text
        assert answer.json()["text"] == SENTENCE
        models = client.get("/v1/models").json()
        assert models["data"][0]["id"] == checkpoint.name, "not the path on this machine"

        worker = worker_of(server)
        model = descendants(worker)
        assert engine_core(worker) in {it.pid for it in model}
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: have_ended(model), 60, "the end of the model of the killed worker")
        wait_for(server.is_ready, START_SECONDS, "another worker with another model")
        assert post().json()["text"] == SENTENCE
        family = descendants(server.pid)
        assert engine_core(server.pid)
        stopped = time.monotonic()
    # `serving` ended it with SIGTERM and saw exit code 0, but does not see vLLM's processes
    wait_for(lambda: have_ended(family), STOP_SECONDS, "the end of all processes")
    assert time.monotonic() - stopped < STOP_SECONDS


def worker_of(server):
    """The process with the engine, the only one that has vLLM's process as a child."""
    core = engine_core(server.pid)
    status = Path(f"/proc/{core}/status").read_text("utf-8")
    return int(re.search(r"^PPid:\s+(\d+)", status, re.MULTILINE)[1])


def have_ended(processes):
    return all(living(it.pid) != it for it in processes)
