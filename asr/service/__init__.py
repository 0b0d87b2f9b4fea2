"""The web service on LitServe: OpenAI's audio routes in front of the pipeline.

The API process takes bodies to disk and renders answers; the worker process runs the pipeline;
only paths, options and results cross LitServe's queue between them. `asr.service.run` starts
them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.engines import load_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from asr.engines.base import Engine
    from asr.settings import Settings


def serve(settings: Settings, make_engine: Callable[[Settings], Engine] = load_engine) -> None:
    """Run until SIGTERM or Ctrl-C, then end every process within 10 seconds.

    Args:
        settings: of the service.
        make_engine: called in the worker process, so it must be importable there.
    """
    # Here, because the worker imports this package too, and needs neither routes nor a database.
    from asr.service.run import run

    run(settings, make_engine)
