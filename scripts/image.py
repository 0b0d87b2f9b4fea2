"""Build the image without Docker and try it: ``make test-image`` (as root, on Debian or Ubuntu).

The base comes from debootstrap, buildah builds the Dockerfile in a chroot, and bubblewrap runs the
result as the image's user with a read-only root. Needs buildah, debootstrap and bubblewrap.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT: Final = Path(__file__).resolve().parent.parent
IMAGE: Final = "localhost/asr-service:test"
BASE: Final = "localhost/asr-base:latest"
PIP_KEYS: Final = ("index-url", "extra-index-url", "proxy", "trusted-host", "timeout", "cert")
"""Options of pip's configuration that the build needs to reach the package index."""
TOOLS: Final = ("buildah", "debootstrap", "bwrap")


def main() -> None:
    """Build the image, print its sizes, and run the checks of `image_checks`."""
    options = _arguments()
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        sys.exit(f"missing: {', '.join(missing)}; apt-get install buildah debootstrap bubblewrap")
    builder = Builder(options.folder.resolve())
    builder.tidy()
    with timed("base"):
        base = options.base or builder.base(options.suite)
    with timed("build"):
        builder.build(base)
    with builder.mounted() as files:
        sizes(files)
        command = [sys.executable, str(ROOT / "scripts" / "image_checks.py"), str(files)]
        sys.exit(subprocess.run([*command, json.dumps(builder.config())], check=False).returncode)


class Builder:
    """Calls buildah with a storage of its own, so that no other image of the machine is touched."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        storage = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self._buildah = ["buildah", *storage, "--storage-driver", driver()]

    def tidy(self) -> None:
        """Unmount what an interrupted run left, or its folder could not be deleted."""
        self._run("rm", "--all", quiet=True)

    def base(self, suite: str) -> str:
        """Make the base from debootstrap: Debian with its Python, about as python:slim."""
        if self._has(BASE):
            return BASE
        archive = self._folder / "base.tar"
        if not archive.exists():
            self._debootstrap(suite, archive)
        container = self._output("from", "scratch")
        self._run("add", "--quiet", container, str(archive), "/")
        self._run("config", "--env", "PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin", container)
        self._run("commit", "--quiet", "--rm", container, BASE)
        return BASE

    def build(self, base: str) -> None:
        """Build the Dockerfile, with this machine's package index."""
        command = ["bud", "--isolation", "chroot", "--format", "docker", "--layers"]
        command += ["--build-arg", f"BASE={base}", "--tag", IMAGE]
        index = pip_config()
        config = self._folder / "pip.conf"
        lines = [f"{key} = {value}\n" for key, value in index.items()]
        config.write_text("[global]\n" + "".join(lines), encoding="utf-8")
        command += ["--secret", f"id=pip.conf,src={config}"]
        if "cert" in index:
            command += ["--volume", f"{index['cert']}:{index['cert']}:ro"]
        self._run(*command, str(ROOT))

    @contextlib.contextmanager
    def mounted(self) -> Generator[Path]:
        """The image's file system."""
        container = self._output("from", IMAGE)
        try:
            yield Path(self._output("mount", container))
        finally:
            self._run("rm", container, quiet=True)

    def config(self) -> dict[str, Any]:
        """The image's user, command, environment and health check."""
        told = json.loads(self._output("inspect", "--type", "image", IMAGE))
        config: dict[str, Any] = told["Docker"]["config"]
        return config

    def _debootstrap(self, suite: str, archive: Path) -> None:
        root = self._folder / "rootfs"
        shutil.rmtree(root, ignore_errors=True)
        packages = "--include=python3-venv,ca-certificates"
        command = ["debootstrap", "--variant=minbase", packages, suite, str(root)]
        with (self._folder / "debootstrap.log").open("w", encoding="utf-8") as log:
            subprocess.run(command, check=True, stdout=log)
        shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
        shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
        shutil.rmtree(root)

    def _has(self, image: str) -> bool:
        command = [*self._buildah, "inspect", "--type", "image", image]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def _run(self, *arguments: str, quiet: bool = False) -> None:
        target = subprocess.DEVNULL if quiet else None
        subprocess.run([*self._buildah, *arguments], check=True, stdout=target)

    def _output(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._buildah, *arguments], check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()


def driver() -> str:
    """The storage driver: overlay where the kernel has it, else vfs, which copies every layer."""
    kernel = Path("/proc/filesystems").read_text(encoding="utf-8")
    return os.environ.get("STORAGE_DRIVER", "overlay" if "overlay" in kernel else "vfs")


def pip_config() -> dict[str, str]:
    """What this machine's pip is told about package indexes, by files or by its environment.

    Indexes in local folders are left out, because the build does not see them.
    """
    command = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, str] = {}
    for line in told.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        words = str(ast.literal_eval(value)).split()
        kept = [word for word in words if not word.startswith("file:")]
        if key in PIP_KEYS and kept:
            found[key] = " ".join(kept)
    return found


def sizes(files: Path) -> None:
    """Print the size of the image's parts in MB."""
    python = next((files / "app/lib").glob("python3*")) / "site-packages"
    parts = {"image": files, "/app": files / "app", "model": files / "app/share/asr"}
    for package in ("asr", "llvmlite", "scipy", "scipy.libs", "sklearn", "matplotlib"):
        parts[package] = python / package
    for name, path in parts.items():
        done = subprocess.run(["du", "-sm", path], check=True, stdout=subprocess.PIPE, text=True)
        print(f"size  {name:<12}{done.stdout.split()[0]:>6} MB", flush=True)


@contextlib.contextmanager
def timed(name: str) -> Generator[None]:
    """Print how long a step took."""
    begin = time.perf_counter()
    yield
    print(f"time  {name:<12}{time.perf_counter() - begin:>8.1f} s", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", help="an image to build on, instead of debootstrap's")
    parser.add_argument("--suite", default="bookworm", help="debootstrap's suite (%(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "image", help="for base and layers"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
