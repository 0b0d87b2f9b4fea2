"""ONNX Runtime, set up for child processes: one thread, no telemetry.

Import ``onnxruntime`` from here. Version 1.29 and later of its wheels send telemetry on Linux: a
thread that starts with the import, and files in the home folder. The lock file holds an older
version, and the variable below turns telemetry off in a newer one. It must be set before the
import.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

ERRORS_ONLY = 3
"""ONNX Runtime's log severity level for errors."""


def session_options() -> onnxruntime.SessionOptions:
    """Options for a session with a single thread.

    A process with one thread can be forked, and a recogniser uses more cores by running more
    processes.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def load_session(path: Path) -> onnxruntime.InferenceSession:
    """Load a model on the CPU.

    Raises:
        Exception: ONNX Runtime cannot use the file; its errors have no common base class.
    """
    return onnxruntime.InferenceSession(str(path), session_options(), ["CPUExecutionProvider"])
