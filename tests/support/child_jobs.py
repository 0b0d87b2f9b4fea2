"""Jobs that the child processes of `tests.workers.test_pool` run. The template imports them."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from pathlib import Path

from asr.errors import DamagedAudio, EngineFailed
from asr.workers.template import FRAME

loaded = 0
arguments = ()


def load():
    """Called once, in the template process."""
    global loaded
    loaded += 1


def load_with(*given):
    """Called once, in the template process, with the arguments of the pool."""
    global arguments
    arguments = given


def tell_arguments(channel):
    channel.receive()  # closing a socket with unread data would discard the answer
    channel.send({"arguments": arguments})


def fail_to_load():
    raise RuntimeError("this template does not load")


def echo(channel):
    request, payload = channel.receive()
    channel.send({"request": request, "payload": payload.hex(), "loaded": loaded})


def count(channel):
    request, _ = channel.receive()
    for number in range(request["upto"]):
        channel.send({"number": number})


def state(channel):
    """Change the state of the module; no other job may see the change."""
    global loaded
    channel.receive()
    loaded += 1
    channel.send({"loaded": loaded, "pid": os.getpid()})


def big(channel):
    request, _ = channel.receive()
    channel.send({"text": "x" * request["size"]})


def sleep(channel):
    channel.receive()
    channel.send({"pid": os.getpid(), "zygote": os.getppid()})
    time.sleep(3600)


def sleep_briefly(channel):
    request, _ = channel.receive()
    started = time.monotonic()
    time.sleep(request["seconds"])
    channel.send({"started": started, "ended": time.monotonic()})


def deaf(channel):
    """Read nothing."""
    time.sleep(60)


def damaged(channel):
    channel.receive()
    raise DamagedAudio("broken off", 12.5)


def failed(channel):
    channel.receive()
    raise EngineFailed("no", 7)


def bug(channel):
    channel.receive()
    raise KeyError("a bug in the child")


def raise_memory_error(channel):
    channel.receive()
    raise MemoryError


def raise_os_error(channel):
    request, _ = channel.receive()
    raise OSError(request["errno"], os.strerror(request["errno"]), "/secret")


def exit_with(channel):
    request, _ = channel.receive()
    os._exit(request["status"])


def end_without_answer(channel):
    channel.receive()


def die(channel):
    request, _ = channel.receive()
    with contextlib.suppress(OSError):  # SIGKILL has no handler
        signal.signal(request["signal"], signal.SIG_DFL)  # a nohup around the tests ignores SIGHUP
    signal.raise_signal(request["signal"])


def burn(channel):
    channel.receive()
    while True:
        pass


def allocate(channel):
    request, _ = channel.receive()
    data = bytearray(request["size"])
    channel.send({"size": len(data)})


def limits(channel):
    channel.receive()
    kinds = ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_CORE")
    channel.send({kind: resource.getrlimit(getattr(resource, kind)) for kind in kinds})


def surroundings(channel):
    channel.receive()
    channel.send({"fds": len(list(Path("/proc/self/fd").iterdir())), "path": sys.path})


def send_bytes(channel):
    """Send arbitrary bytes, as a compromised child might."""
    _, payload = channel.receive()
    channel._sock.sendall(payload)


def claim(channel):
    request, _ = channel.receive()
    channel._sock.sendall(FRAME.pack(request["length"], 0) + b"{")
    time.sleep(60)


def echo_all(channel):
    """Return each request, and the size of its payload."""
    while True:
        request, payload = channel.receive()
        channel.send(request | {"size": len(payload)})
