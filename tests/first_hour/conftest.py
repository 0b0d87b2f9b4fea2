"""A stand-in server whose words are the reference of each clip, known by the clip's length."""

import contextlib

import pytest
import soundfile

from asr.evaluation import Utterance
from asr.settings import Settings
from asr.types import SAMPLE_RATE
from benchmarks.first_hour.bench import Bench
from benchmarks.first_hour.references import Clip
from benchmarks.first_hour.stand_in import StandIn
from tests.support.asgi_server import hosting
from tests.support.makers import speech

TEXTS = (
    "the kitchen water stays terribly cold",
    "nobody understands the building manager",
    "remember the customer survey tomorrow morning",
    "seventeen elephants crossed the ancient bridge quietly",
)


@pytest.fixture
def clips(tmp_path):
    """Four clips of 1 to 4 s; their sound does not matter."""
    made = []
    for number, text in enumerate(TEXTS, 1):
        file = tmp_path / f"clip{number}.wav"
        soundfile.write(file, speech(number), SAMPLE_RATE)
        made.append(Clip(Utterance(file, text, categories=("test",)), float(number)))
    return made


@pytest.fixture
def stand_in():
    """Start a server with some tricks, and give its bench."""

    async def words(audio):
        text = TEXTS[round(audio.duration) - 1]
        return text, (0.9,) * len(text.split())

    def make(*tricks):
        return StandIn(words, tricks)

    return make


@pytest.fixture
def bench_at(tmp_path, clips):
    def make(url):
        env = {"ASR_ENGINE": "omni", "ASR_VLLM_URL": url, "ASR_WORK_DIR": str(tmp_path)}
        env["ASR_ALIGNER"] = "none"  # it would load a model for each arm
        return Bench(Settings.from_env(env), tmp_path / "out", clips, parallel=2, quiet=True)

    return make


@pytest.fixture
def running(stand_in, bench_at):
    """A bench with its running server."""

    @contextlib.contextmanager
    def start(*tricks):
        server = stand_in(*tricks)
        with hosting(server.app()) as host:
            yield bench_at(f"http://127.0.0.1:{host.address[1]}"), server

    return start
