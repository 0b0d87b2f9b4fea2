"""``asr settings``: print all settings as a Markdown table."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from asr.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    import argparse


def set_up(parser: argparse.ArgumentParser) -> None:
    """Set the function to run; the command has no arguments."""
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print the table."""
    print(settings_table())
    return 0


def settings_table() -> str:
    """All settings as a Markdown table, for docs/settings.md."""
    rows = ["| variable | flag | default | meaning |", "| --- | --- | --- | --- |"]
    for item in fields(Settings):
        flag = "--" + item.name.replace("_", "-")
        default = "the system's" if item.name == "work_dir" else item.default
        if isinstance(default, bool):
            default = str(default).lower()
        shown = f"`{default}`" if default != "" else "none"
        row = (f"`{ENV_PREFIX}{item.name.upper()}`", f"`{flag}`", shown, item.metadata["doc"])
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows)
