"""The checkpoint and two servers, shared: starting one takes two cores for half a minute."""

import subprocess

import pytest

from asr.engines.omni.local import ARGUMENTS
from tests.support.paths import ROOT
from tests.support.serving import clean_env
from tests.vllm.servers import ENVIRONMENT, PYTHON, Vllm


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The folder of the tiny model."""
    assert PYTHON.exists(), "there is no environment with vLLM: run `make test-vllm`"
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny-omni"
    command = [str(PYTHON), "-m", "tests.vllm.make_tiny", str(folder)]
    subprocess.run(command, env=clean_env(ENVIRONMENT), cwd=ROOT, check=True, timeout=120)
    return folder


@pytest.fixture(scope="session")
def servers(checkpoint, tmp_path_factory):
    """Two servers, started together; tests may kill the second."""
    logs = tmp_path_factory.mktemp("vllm")
    flags = ("--reasoning-parser", "nemotron_v3", "--scheduler-cls", ARGUMENTS["scheduler_cls"])
    first = Vllm(checkpoint, logs, flags)
    second = Vllm(checkpoint, logs, VLLM_MAX_AUDIO_DECODE_DURATION_S="700")
    try:
        for server in (first, second):
            server.start()
        for server in (first, second):
            server.wait()
        yield first, second
    finally:
        first.kill()
        second.kill()


@pytest.fixture
def parsing(servers):
    """A server with a reasoning parser, and with our scheduler."""
    return servers[0]


@pytest.fixture
def plain(servers):
    """A server without a reasoning parser, which takes audio of up to 700 s."""
    return servers[1]
