"""The watchdog kills leftover child processes when their parent is killed; real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from asr.engines.omni import watchdog
from asr.engines.omni.watchdog import Watchdog, descendants, living
from tests.support.paths import ROOT
from tests.support.serving import wait_for

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
PARENT = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', {STUBBORN!r}])"
OWNER = f"""
import subprocess, sys, time
from asr.engines.omni.watchdog import Watchdog, LOOK_SECONDS
dog = Watchdog()
child = subprocess.Popen([sys.executable, "-c", {PARENT!r}], start_new_session=True)
time.sleep(4 * LOOK_SECONDS)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_children_of_a_killed_process_end_even_if_they_ignore_sigterm(number):
    stranger = subprocess.Popen(SLEEPER)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with owner, stranger:
        child = int(owner.stdout.readline())
        family = descendants(owner.pid)
        assert len(family) == 3, "the dog, the child and its own child"
        assert {it.pid for it in family} >= {child}
        owner.send_signal(number)
        wait_for(lambda: all(living(it.pid) != it for it in family), 60, "the end of the family")
        assert stranger.poll() is None
        stranger.kill()


def test_a_dismissed_watchdog_kills_nothing():
    dog = Watchdog()
    with subprocess.Popen(SLEEPER) as child:
        time.sleep(2 * watchdog.LOOK_SECONDS)
        dog.dismiss()
        assert child.poll() is None
        child.kill()


def test_a_reused_pid_is_another_process():
    ours = living(os.getpid())
    assert ours is not None
    assert living(ours.pid) == ours
    with subprocess.Popen(SLEEPER) as child:
        watchdog.end([watchdog.Process(child.pid, "0")])
        assert child.poll() is None
        child.kill()
    assert living(child.pid) is None
