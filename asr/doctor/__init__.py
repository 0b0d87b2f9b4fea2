"""Check a setup, and say for each problem how to fix it.

    asr doctor --vllm-url http://gpu:8000

- `checks`: the result of a check.
- `machine`: this machine, the settings, and our own service.
- `server`: a server that recognises speech.

The checks send a server the same requests as the engine does, but with a tone as audio. So they say
nothing about the quality of recognition.
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
    """Run all checks that apply to the settings, one after the other."""
    yield from check_machine(settings)
    yield from check_settings(settings)
    yield check_service(settings)
    for url in settings.vllm_urls:
        yield from check_server(url, settings)
