"""Environments with real client packages, one for each, under ``build/clients``.

They are made once and kept. The versions are in ``requirements/*.txt`` and ``package.json``.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

HERE = Path(__file__).parent
HOME = ROOT / "build" / "clients"
NEEDS_NEWER = {"wyoming-openai": "3.12"}
"""Packages that need a newer Python than this service."""


def python_of(name):
    """The interpreter of the environment for `name`; it is made if it is missing."""
    wanted = HERE / "requirements" / f"{name}.txt"
    place = HOME / name
    python = place / "bin" / "python"
    with _made(place, wanted) as needed:
        if needed:
            _run(name, "venv", "--quiet", "--clear", "--python", _base_python(name), str(place))
            _run(name, "pip", "install", "--quiet", "--python", str(python), "-r", str(wanted))
    return str(python)


def node():
    """The folder with the npm packages, among them the Node that they need."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    place, wanted = HOME / "npm", HERE / "package.json"
    with _made(place, wanted) as needed:
        if needed:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(wanted, place)
            command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
            _check("npm", subprocess.run(command, cwd=place, capture_output=True, text=True))
    return place


@contextlib.contextmanager
def _made(place, wanted):
    """Whether an environment must be made. It is marked as complete afterwards."""
    mark = place / "made-from"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    needed = not mark.exists() or mark.read_text() != digest
    yield needed
    if needed:
        mark.write_text(digest)


def _base_python(name):
    version = NEEDS_NEWER.get(name)
    if version is None:
        return sys.executable
    for folder in (Path(sys.base_prefix).parent, *map(Path, os.get_exec_path())):
        for python in (*sorted(folder.glob(f"{version}*/bin/python")), folder / f"python{version}"):
            if python.exists() and _works(python):
                return str(python)
    pytest.skip(f"{name} needs Python {version}")


def _works(python):
    return subprocess.run([python, "--version"], capture_output=True).returncode == 0


def _run(name, *arguments):
    env = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
    command = [sys.executable, "-m", "uv", *arguments]
    _check(name, subprocess.run(command, env=env, capture_output=True, text=True))


def _check(name, done):
    if done.returncode:
        pytest.skip(f"{name} cannot be installed: {done.stderr.strip()[-400:]}")
