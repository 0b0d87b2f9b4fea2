"""Network namespaces that stand for machines, on a bridge of their own. Needs root and iproute2."""

import contextlib
import os
import shutil
import subprocess
import uuid

import pytest

needs_namespaces = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("ip") is None,
    reason="network namespaces need root and iproute2",
)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Network:
    """Some machines and their addresses.

    Attributes:
        gateway: the address of this machine on the bridge.
        machines: (namespace, address) of each.
    """

    def __init__(self, n_machines):
        self.name = uuid.uuid4().hex[:6]
        # One of 16,384 networks in 10.128.0.0/10, which tests that run at once hardly share.
        number = int(self.name, 16) % 16_384
        self._start = f"10.{128 + number // 256}.{number % 256}"
        self.network, self.gateway = f"{self._start}.0/24", f"{self._start}.1"
        ip("link", "add", self._bridge, "type", "bridge")
        ip("addr", "add", f"{self.gateway}/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")
        self.machines = []
        for number in range(n_machines):
            self._add(f"asr-{self.name}-{number}", f"{self._start}.{number + 2}", f"n{number}")

    @property
    def _bridge(self):
        return f"br{self.name}"

    def _add(self, namespace, address, end):
        self.machines.append((namespace, address))
        outer = f"v{self.name}{end}"
        ip("netns", "add", namespace)
        ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        ip("link", "set", outer, "master", self._bridge, "up")
        ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", namespace, "link", "set", device, "up")

    def remove(self):
        for namespace, _ in self.machines:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", namespace)
        ip("link", "del", self._bridge)


@contextlib.contextmanager
def network(n_machines):
    """Machines that reach this one and one another."""
    made = Network(n_machines)
    try:
        yield made
    finally:
        made.remove()
