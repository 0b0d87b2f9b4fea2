"""``asr settings``: the table of settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.settings import settings_table

if TYPE_CHECKING:
    import argparse


def set_up(parser: argparse.ArgumentParser) -> None:
    """Declare what runs; there are no arguments."""
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print it."""
    print(settings_table())
    return 0
