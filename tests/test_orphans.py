"""Processes of a library end when the one that used it is killed, however it is killed."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from asr.engines.orphans import MARK, Keeper, marked
from tests.serving import ROOT, wait_for

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); "
OWNER = f"""
import subprocess, sys, time
from asr.engines.orphans import Keeper
keeper = Keeper()
with keeper.watching():
    child = subprocess.Popen({SLEEPER!r}, start_new_session=True)
other = subprocess.Popen({SLEEPER!r}, start_new_session=True)
print(child.pid, other.pid, keeper._token, flush=True)
time.sleep(60)
"""


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = pathlib.Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2]
    return state.split()[0] not in "ZX"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_children_of_a_killed_process_end_and_no_others(number):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with owner:
        child, other, token = owner.stdout.readline().split()
        assert marked(token) == [int(child)]
        owner.send_signal(number)
        wait_for(lambda: not marked(token), 5, "the end of the child")
        assert is_alive(int(other))
    os.kill(int(other), signal.SIGKILL)


def test_a_process_that_will_not_end_is_killed():
    keeper = Keeper()
    with keeper.watching():
        child = subprocess.Popen(
            [sys.executable, "-c", STUBBORN + "time.sleep(60)"], stdout=subprocess.PIPE
        )
    with child:
        child.stdout.readline()
        keeper.kill()
        assert child.wait(5) == -signal.SIGKILL


def test_the_mark_is_set_only_while_watching():
    keeper = Keeper()
    assert MARK not in os.environ
    with keeper.watching():
        assert MARK in os.environ
    assert MARK not in os.environ
    keeper.kill()
