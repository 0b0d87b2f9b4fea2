"""ONNX Runtime must not call home: no file, no thread and no socket besides our own."""

from __future__ import annotations

import json
import subprocess
import sys

from asr.engines.moonshine.folder import find_folder
from tests.support.paths import ROOT

PROGRAM = """
import json, os, sys
from pathlib import Path
import numpy as np
from asr.engines.moonshine.model import Model

def state():
    kinds = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            kinds.append(os.readlink(f"/proc/self/fd/{entry}"))
        except FileNotFoundError:  # that of the listing itself
            pass
    threads = len(os.listdir("/proc/self/task"))
    return {"threads": threads, "sockets": [it for it in kinds if it.startswith("socket:")]}

model = Model(Path(sys.argv[1]))
loaded = state()
tokens = model.decode(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32), 0.1)
print(json.dumps({"loaded": loaded, "after": state(), "set": os.environ["ORT_DISABLE_TELEMETRY"]}))
"""


def test_a_model_that_runs_starts_nothing_and_writes_nothing(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(find_folder(""))],
        cwd=home,
        env={
            "HOME": str(home),
            "TMPDIR": str(home),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        check=True,
    )
    found = json.loads(answer.stdout)
    assert found["loaded"] == found["after"] == {"threads": 1, "sockets": []}
    assert found["set"] == "1"
    assert list(home.rglob("*")) == []
