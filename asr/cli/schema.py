"""``asr schema``: print the JSON Schema of transcripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def set_up(parser: argparse.ArgumentParser) -> None:
    """Set the function to run; the command has no arguments."""
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print the schema."""
    # The service, and so pydantic, is slow to import.
    from asr.service.transcriptions.bodies import TranscriptBody

    print(json.dumps(TranscriptBody.model_json_schema(), indent=2))
    return 0
