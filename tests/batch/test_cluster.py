"""Kill actors, nodes and drivers of a cluster of two hosts at random moments.

`make test-batch-cluster` runs it, as root. In the end every recording has its transcript once, and
no transcript differs from that of a run without kills and without Ray.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from asr.batch.results import ATTEMPTS, INTERNAL
from tests.batch.inline import job_for, run, talk
from tests.batch.netns import Hosts, wait_for
from tests.support import makers

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.batch,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2"
    ),
]
SHORT = 40
KILLS = {"actor": 13, "node": 3, "driver": 4}
"""How many of each, 20 in all."""
LONGEST = 30.0


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    for number in range(SHORT):
        makers.write(folder / f"{number:02d}.wav", talk(6.0 + number / 10, number))
    for number in range(3):
        makers.write(folder / f"long{number}.wav", talk(150.0 + number, number))
    shutil.copy(folder / "00.wav", folder / "copy.wav")
    (folder / "empty.wav").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def quiet(archive, tmp_path_factory):
    """The transcripts of a run without kills and without Ray."""
    folder = tmp_path_factory.mktemp("quiet")
    outcome = run(job_for(folder / "out", folder), [archive])
    assert (outcome.n_done, outcome.n_failed) == (SHORT + 4, 1)
    return transcripts(folder / "out")


def transcripts(out):
    return {path.name: path.read_bytes() for path in out.glob("transcripts/*/*")}


def steps(out):
    """Everything that was finished so far."""
    names = [f"{INTERNAL}/done/*/*.json", f"{INTERNAL}/work/*/p*"]
    return sum(1 for name in names for _ in out.glob(name))


@pytest.fixture
def folder():
    """A folder with a short name, because Ray's sockets lie in it."""
    path = Path(tempfile.mkdtemp(prefix="ab"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_twenty_kills_lose_nothing_and_double_nothing(archive, quiet, folder):
    out, work = folder / "out", folder / "work"
    work.mkdir()
    rng = random.Random(int(os.environ.get("SEED", "19")))
    kinds = [kind for kind, count in KILLS.items() for _ in range(count)]
    rng.shuffle(kinds)
    killed = Counter()
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "FAKE_ENGINE_DELAY": "1.0"}
    with Hosts(folder / "ray", env) as hosts, (folder / "driver.log").open("wb") as log:

        def drive(*more):
            program = [sys.executable, "-m", "tests.batch.drive", out, work, archive]
            program += ["--address", hosts.address, "--engine", "slow_engine"]
            return hosts.popen(
                0, [*map(str, program), "--longest", str(LONGEST)], stdout=log, stderr=log
            )

        def has_moved(before, driver):
            return (steps(out) > before and hosts.actors()) or driver.poll() is not None

        driver = drive()
        for kind in kinds:
            before = steps(out)
            wait_for(partial(has_moved, before, driver), 600)
            assert driver.poll() is None, "the run ended before all kills"
            if kind == "actor":
                os.kill(rng.choice(hosts.actors()), signal.SIGKILL)
            elif kind == "node":
                hosts.kill_node(1)
                hosts.start_node(1)
            else:
                os.killpg(driver.pid, signal.SIGKILL)
                driver.wait()
                driver = drive()
            killed[kind] += 1
            print(f"killed {kind}, {steps(out)} steps, {len(transcripts(out))} files", flush=True)
        assert driver.wait(1800) == 1, (folder / "driver.log").read_text()  # the empty file
        print((folder / "driver.log").read_text()[-2000:])
    assert killed == KILLS
    assert transcripts(out) == quiet
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert Counter(row["status"] for row in rows) == {"done": SHORT + 4, "failed": 1}
    assert not list((out / f"{INTERNAL}/work").iterdir())
    print(len(list((out / ATTEMPTS).iterdir())), "marks are left")
