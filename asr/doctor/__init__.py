"""Looks at a running setup and says what is wrong with it and how to mend it.

    asr doctor --vllm-url http://gpu:8000

The servers are asked what the engine asks them, in the same words, with a tone for audio. A tone
says nothing of how well the model recognises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.doctor.checks import Check
from asr.doctor.machine import check_machine, check_service, check_settings
from asr.doctor.server import VllmCheckup, check_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asr.settings import Settings

__all__ = [
    "Check",
    "VllmCheckup",
    "check_machine",
    "check_server",
    "check_service",
    "check_settings",
    "examine",
]


def examine(settings: Settings) -> Iterator[Check]:
    """All checks that fit the settings, one after the other."""
    yield from check_machine(settings)
    yield from check_settings(settings)
    yield check_service(settings)
    for url in settings.vllm_urls:
        yield from check_server(url, settings)
