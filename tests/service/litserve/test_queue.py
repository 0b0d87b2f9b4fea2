"""The queue of commands: no command is lost and all stay in order, whenever a worker dies.

A property test and unit tests, in process.
"""

from __future__ import annotations

import threading
from queue import Empty

import pytest
from hypothesis import given, strategies as st

from asr.service.litserve.queue import MAX_HANDED, CommandQueue, Commands


class Worker:
    """Takes commands, and dies before or after it has received one."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands
        self.received: list[int] = []

    def ask(self, *, lost: bool = False) -> bool:
        try:
            command = self.commands.get(0)
        except Empty:
            return False
        if not lost:
            self.received.append(command)
        return True

    def die(self) -> None:
        self.commands = self.commands.renewed()


steps = st.lists(st.sampled_from(["put", "ask", "die", "lost"]), max_size=60)


@given(steps)
def test_every_command_arrives_in_order_whenever_workers_die(script):
    commands = Commands(CommandQueue())
    worker = Worker(commands)
    n_sent = 0
    for step in script:
        if step == "put":
            commands.put(n_sent)
            n_sent += 1
        elif step == "ask":
            worker.ask()
        else:
            if step == "lost" and worker.ask(lost=True):
                worker.die()
                worker.ask()  # the new worker gets the same command
                continue
            worker.die()
    while worker.ask():
        pass
    firsts = list(dict.fromkeys(worker.received))
    assert firsts == list(range(n_sent))
    assert worker.received == sorted(worker.received)
    assert all(worker.received.count(command) <= MAX_HANDED for command in firsts)


def test_the_get_of_a_dead_worker_takes_no_command():
    """The `get` of a dead worker still waits in the manager process, but must take no command."""
    queue = CommandQueue()
    dead, outcome = Commands(queue), []

    def ask() -> None:
        try:
            outcome.append(dead.get(30))
        except Empty:
            outcome.append("nothing")

    thread = threading.Thread(target=ask)
    thread.start()
    alive = dead.renewed()
    dead.put("command")  # any end of the same queue can put
    thread.join(5)
    assert outcome == ["nothing"]
    with pytest.raises(Empty):
        dead.get(0)  # a `get` that the worker sent before it died may arrive late
    assert alive.get(0) == "command"


def test_the_command_of_a_dead_worker_goes_first_to_the_next():
    commands = Commands(CommandQueue())
    commands.put("a")
    commands.put("b")
    assert commands.get(0) == "a"
    after = commands.renewed()
    assert [after.get(0), after.get(0)] == ["a", "b"]


def test_a_command_counts_as_received_at_the_next_get():
    commands = Commands(CommandQueue())
    commands.put("a")
    assert commands.get(0) == "a"
    with pytest.raises(Empty):
        commands.get(0)
    with pytest.raises(Empty):
        commands.renewed().get(0)


def test_a_command_that_kills_workers_is_not_handed_out_for_ever():
    commands = Commands(CommandQueue())
    commands.put("deadly")
    commands.put("harmless")
    for _ in range(MAX_HANDED):
        assert commands.get(0) == "deadly"
        commands = commands.renewed()
    assert commands.get(0) == "harmless"


def test_get_waits_for_a_command():
    commands = Commands(CommandQueue())
    timer = threading.Timer(0.05, commands.put, ["late"])
    timer.start()
    assert commands.get(10) == "late"
    timer.join()
