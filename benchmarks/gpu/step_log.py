"""Our scheduler for vLLM with a log of its steps, and settings that can change while it runs.

`benchmarks.gpu.steps` says how to start it, and reads the log.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final

from asr.engines.omni.gather import GatheringScheduler

READ_EVERY: Final = 0.5
"""Seconds between two reads of the settings."""


class Steps(GatheringScheduler):
    """Our scheduler with a log of its steps and changeable settings."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._folder = Path(os.environ["ASR_STEPS"])
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log = (self._folder / f"{os.getpid()}.steps").open("w", buffering=1 << 16)
        self._settings = self._folder / "settings.json"
        self._read_at = 0.0

    def change(self, settings: dict[str, Any]) -> None:
        """Follow the file of settings, which is read twice a second."""
        self.share = settings.get("share", self.share)
        self.patience = settings.get("patience", self.patience)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Plan one step and log it."""
        now = time.monotonic()
        if now - self._read_at > READ_EVERY:
            self._read_at = now
            self._log.flush()
            if self._settings.exists():
                self.change(json.loads(self._settings.read_text()))
        n_running, _ = self.get_request_counts()
        plan = super().schedule(*args, **kwargs)
        n_new, n_tokens = len(plan.scheduled_new_reqs), plan.total_num_scheduled_tokens
        self._log.write(f"{now:.6f} {n_running} {n_new} {n_tokens}\n")
        return plan
