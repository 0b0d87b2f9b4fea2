"""What happens to accepted jobs when one part of the server fails.

    python -m tests.support.failures [--only SCENARIO]

Each scenario sends jobs, causes one kind of trouble for `TROUBLE_SECONDS`, ends it, and waits for
the jobs. A service that has ended, or that no longer answers, is started again, as by systemd.
The scenarios `child` and `template` use Moonshine, the others a test double of the engine.
"""

import argparse
import collections
import contextlib
import os
import random
import resource
import signal
import socket
import tempfile
import time
from pathlib import Path

import httpx

from tests.support import calamities, chaos
from tests.support.calamities import Recordings, Site, tree_of
from tests.support.serving import HTTP, PATH, make_wav

TROUBLE_SECONDS = 20.0
END_SECONDS = 150.0
ANSWER_SECONDS = 15.0
FEW = 6
N_JOBS = {"descriptors": 16, "manager": 12, "api": 12, "folder": 4, "child": 9, "template": 9}


def kill_again_and_again(site, kind):
    """Kill every process of a kind as soon as it appears."""
    deadline = time.monotonic() + TROUBLE_SECONDS
    while time.monotonic() < deadline:
        for pid in tree_of(site.server)[kind]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def descriptors(site):
    """Idle connections, as many as the API process takes at a limit of 1024."""
    address = ("127.0.0.1", httpx.URL(site.server.url).port)
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection(address, 0.2))
        site.look("descriptors")
        time.sleep(TROUBLE_SECONDS)


def manager(site):
    """The manager process is killed once."""
    site.kill("manager")


def api(site):
    """The API process is killed once."""
    site.kill("api")


def folder(site):
    """The run directories are deleted."""
    site.delete_folders()


def child(site):
    """Every child is killed."""
    kill_again_and_again(site, "child")


def template(site):
    """Every template is killed."""
    kill_again_and_again(site, "template")


def disk(site):
    """The disk of the work directory is full."""
    site.fill_disk()


SCENARIOS = (descriptors, manager, api, folder, child, template, disk)


def is_answering(site):
    """Whether the service answers within `ANSWER_SECONDS`."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if HTTP.get(f"{site.server.url}/health", timeout=2).status_code == httpx.codes.OK:
                return True
        time.sleep(0.2)
    return False


def is_transcribing(site):
    """Whether a new synchronous request is answered."""
    headers = {"content-type": "audio/wav"}
    with contextlib.suppress(httpx.TransportError):
        url = site.server.url + PATH
        answer = HTTP.post(url, content=make_wav(), headers=headers, timeout=60)
        return answer.status_code == httpx.codes.OK
    return False


def states(client):
    """The states of the jobs when all have ended, or after `END_SECONDS`."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        found = collections.Counter(client.job(number)["state"] for number in client.accepted)
        if not found["queued"] + found["running"]:
            break
        time.sleep(0.5)
    return found


def run(scenario):
    """One scenario; returns its figures."""
    engine = "moonshine" if scenario in ("child", "template") else "fake"
    client = Recordings() if engine == "moonshine" else chaos.Client()
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        site = Site(Path(home), client, engine, random.Random(0))
        site.max_descriptors = 1024 if scenario == "descriptors" else None
        stack.enter_context(calamities.small_disk(site.work))
        stack.callback(site.close)
        site.start()
        site.server.wait_ready()
        for number in range(N_JOBS.get(scenario, FEW)):
            client.send(number)
        site.wait_for_work()
        globals()[scenario](site)
        if not is_answering(site):
            site.done["did not answer, or had ended"] += 1
            site.server.kill_all()
        elif not is_transcribing(site):
            site.done["answered, and did not transcribe"] += 1
        site.revive()
        ended = dict(states(client))
        return f"{scenario:12} jobs: {ended}, {dict(site.done)}"


def main():
    """Run the scenarios."""
    parser = argparse.ArgumentParser()
    names = [it.__name__ for it in SCENARIOS]
    parser.add_argument("--only", choices=names, action="append")
    calamities.TROUBLE_SECONDS = TROUBLE_SECONDS
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for name in parser.parse_args().only or names:
        print(run(name), flush=True)


if __name__ == "__main__":
    main()
