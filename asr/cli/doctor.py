"""``asr doctor``: check this setup."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asr.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    import argparse


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, and set the function to run."""
    parser.add_argument("--vllm-url", help="servers to check (default: ASR_VLLM_URL)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print each finding; return 1 if something must be fixed."""
    # The doctor imports every part of the package.
    from asr.doctor import examine

    env = dict(os.environ)
    if options.vllm_url:
        env[ENV_PREFIX + "VLLM_URL"] = options.vllm_url
    n_failed = 0
    for found in examine(Settings.from_env(env)):
        print(found, flush=True)
        n_failed += found.level == "fail"
    return 1 if n_failed else 0
