"""Real client packages transcribe a recording at a real server: ``make test-clients``.

Each package has its own environment (`tests.clients.environments`) and its own scripts
(``scripts/``). A script reports what the package returned, and the test compares it with what a
plain request returns.
"""

import json
import os
import re
import subprocess
import wave
from difflib import SequenceMatcher

import httpx
import numpy as np
import pytest

from tests.clients import environments
from tests.support.paths import SAMPLES
from tests.support.serving import PATH, REAL, serving

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

KEY = "sesame-42-clients"
SECONDS = 8.2
"""The beginning of the sample, so that the engine needs little time."""
SPOKEN = "Good morning, everyone, and thank you for coming. We have three things to talk about "
SPOKEN += "today. First, the new office"
FILES = 1.0
LIVE = 0.85
"""The least similarity of words. Turns of a live session may differ by a word."""

PYTHON = [
    ("openai", "openai_files", FILES),
    ("openai", "openai_json_granularities", FILES),
    ("openai", "openai_realtime", LIVE),
    ("openai", "openai_semantic_vad", LIVE),
    ("openai-agents", "agents_files", LIVE),
    ("openai-agents", "agents_realtime", LIVE),
    ("litellm", "litellm_files", FILES),
    ("langchain", "langchain_files", LIVE),
    ("haystack", "haystack_files", FILES),
    ("pipecat", "pipecat_files", FILES),
    ("pipecat", "pipecat_logprobs", FILES),
    ("pipecat", "pipecat_realtime", LIVE),
    ("livekit", "livekit_files", LIVE),
    ("livekit", "livekit_realtime", LIVE),
    ("livekit", "livekit_defaults", LIVE),
    ("wyoming-openai", "wyoming_openai_files", FILES),
    ("speechrecognition", "speechrecognition_files", FILES),
    ("semantic-kernel", "semantic_kernel_files", FILES),
    ("camel", "camel_files", FILES),
    ("aider", "aider_files", FILES),
    ("tuspy", "tuspy_files", FILES),
    ("whisper-cpp-client", "whisper_cpp_client_files", FILES),
]
"""Environment, script, least similarity."""
NODE = [
    ("openai_files", FILES),
    ("openai_realtime", LIVE),
    ("ai_sdk", FILES),
    ("tus", FILES),
    ("eventsource", FILES),
]
"""Script, least similarity."""
KEYLESS = {"whisper-cpp-client"}
"""Clients that cannot send a key."""
MISSING: dict[str, str] = {}
"""What a script needs that the service cannot do yet. The test fails as soon as it can."""


def cases(rows):
    """Mark the rows whose script is in `MISSING`."""
    marked = []
    for row in rows:
        reason = MISSING.get(row[-2])
        marks = [] if reason is None else [pytest.mark.xfail(strict=True, reason=reason)]
        marked.append(pytest.param(*row, marks=marks, id="-".join(row[:-1])))
    return marked


@pytest.fixture(scope="module")
def server():
    with serving(*REAL, ASR_VAD="webrtc", ASR_API_KEY=KEY, start_seconds=300) as server:
        yield server


@pytest.fixture(scope="module")
def open_server():
    """A server that needs no key."""
    with serving(*REAL, ASR_VAD="webrtc", start_seconds=300) as server:
        yield server


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The beginning of a sample as WAV files of 16 and 24 kHz."""
    folder = tmp_path_factory.mktemp("clients")
    with wave.open(str(SAMPLES / "meeting.wav")) as file:
        audio = np.frombuffer(file.readframes(int(SECONDS * 16_000)), dtype=np.int16)
    places = np.arange(len(audio) * 3 // 2) * 2 / 3
    finer = np.interp(places, np.arange(len(audio)), audio).astype(np.int16)
    for name, rate, samples in (("meeting.wav", 16_000, audio), ("finer.wav", 24_000, finer)):
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
    return folder / "meeting.wav", folder / "finer.wav"


@pytest.fixture(scope="module")
def heard(server, recordings):
    """The words of the transcript that a plain request gets."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with recordings[0].open("rb") as file:
        send = {"headers": headers, "files": {"file": file}, "timeout": 300}
        answer = httpx.post(server.url + PATH, **send).raise_for_status()
    words = words_of(answer.json()["text"])
    assert similarity(words, words_of(SPOKEN)) > 0.9
    return words


def words_of(text):
    return re.findall(r"[a-z']+", text.lower())


def similarity(words, others):
    return SequenceMatcher(None, words, others, autojunk=False).ratio()


def check(command, server, recordings, heard, least):
    """Run a script; each transcript that it reports must have the words of a plain request."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("ASR_")}
    env |= {
        "CLIENT_ROOT": server.url,
        "CLIENT_KEY": KEY,
        "CLIENT_AUDIO": str(recordings[0]),
        "CLIENT_AUDIO_24K": str(recordings[1]),
    }
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"what"')]
    transcripts = {item["what"]: item["text"] for item in map(json.loads, lines)}
    assert transcripts, done.stdout[-2000:]
    for what, text in transcripts.items():
        assert similarity(words_of(text), heard) >= least, (what, text, heard)


@pytest.mark.parametrize(("name", "script", "least"), cases(PYTHON))
def test_python(request, server, recordings, heard, name, script, least):
    python = environments.python_of(name)
    server = request.getfixturevalue("open_server") if name in KEYLESS else server
    command = [python, str(environments.HERE / "scripts" / f"{script}.py")]
    check(command, server, recordings, heard, least)


@pytest.mark.parametrize(("script", "least"), cases(NODE))
def test_node(server, recordings, heard, script, least):
    place = environments.node()
    # Node looks for packages in the folders above the script.
    for source in (environments.HERE / "scripts").glob("*.mjs"):
        (place / source.name).write_bytes(source.read_bytes())
    command = [str(place / "node_modules" / ".bin" / "node"), str(place / f"{script}.mjs")]
    check(command, server, recordings, heard, least)
