"""``asr keys``: make API keys."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the actions, and set the function to run."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    new = actions.add_parser("new", help="print a new key, and its line for ASR_API_KEYS_FILE")
    new.add_argument(
        "name", metavar="NAME", help="name of the key in logs, metrics and lists of jobs"
    )
    new.set_defaults(run=run_new)


def run_new(options: argparse.Namespace) -> int:
    """Print the line to standard output, for the file, and the key to standard error."""
    from asr.service.access.keys import new_key

    key, line = new_key(options.name)
    print(f"key, shown this once: {key}", file=sys.stderr)
    print(line)
    return 0
