"""``asr models``: install the embedded recogniser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asr.cli.installing import Installation
from asr.engines.moonshine.folder import installed_folder
from asr.engines.moonshine.install import REQUIREMENT, install, is_installed

if TYPE_CHECKING:
    import argparse

_MODEL: Final = Installation(
    "Moonshine tiny",
    f"download Moonshine tiny (56 MB, of which 44 MB stay) from {REQUIREMENT}",
    "ASR_MOONSHINE_MODEL to the folder",
    installed_folder,
    is_installed,
    install,
)


def set_up(parser: argparse.ArgumentParser) -> None:
    """Add the actions, and set the function to run."""
    _MODEL.add(parser.add_subparsers(required=True, metavar="ACTION"))
