"""``asr doctor``: what is wrong with this setup."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asr.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    import argparse


def set_up(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, and what runs."""
    parser.add_argument("--vllm-url", help="servers to look at (default: ASR_VLLM_URL)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print each finding as it comes; return 1 if something must be mended."""
    # It loads every part, which no other command does.
    from asr.doctor import examine

    env = dict(os.environ)
    if options.vllm_url:
        env[ENV_PREFIX + "VLLM_URL"] = options.vllm_url
    n_failed = 0
    for found in examine(Settings.from_env(env)):
        print(found, flush=True)
        n_failed += found.level == "fail"
    return 1 if n_failed else 0
