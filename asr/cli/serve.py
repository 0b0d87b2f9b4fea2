"""``asr serve``: start the web service; every setting is a flag."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import TYPE_CHECKING

from asr.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    import argparse


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, and set the function to run."""
    for item in fields(Settings):
        flag = "--" + item.name.replace("_", "-")
        text = f"{item.metadata['doc']} ({ENV_PREFIX}{item.name.upper()})"
        parser.add_argument(flag, dest=f"setting_{item.name}", metavar="X", help=text)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal arrives."""
    # Only this command needs the web stack, which takes a second to import.
    from asr.service import serve

    env = dict(os.environ)
    for item in fields(Settings):
        value = getattr(options, f"setting_{item.name}")
        if value is not None:
            env[ENV_PREFIX + item.name.upper()] = value
    serve(Settings.from_env(env))
    return 0
