"""The web service: OpenAI's audio routes, jobs, uploads and live sessions around the pipeline.

The API process writes request bodies to disk and renders answers. The worker process runs the
pipeline. Only paths, options and results cross LitServe's queue between them. Read in this order:

    run              starts the processes and ends them
    app              puts the parts below into one application
    json_text        limits on JSON texts before they are parsed
    errors, files    errors without HTTP; folders, locks and threads
    litserve         the worker and the way to it
    http             request bodies, errors as HTTP statuses, server-sent events, middleware
    access           API keys, their limits, admission of requests
    observability    logs, metrics and traces
    transcriptions   OpenAI's transcription routes
    compat           the routes of whisper-asr-webservice and of whisper.cpp's server
    uploads          resumable uploads (tus)
    jobs             jobs that survive a restart, in a database
    live             live sessions over WebSockets
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.engines import load_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from asr.engines.base import Engine
    from asr.settings import Settings


def serve(settings: Settings, make_engine: Callable[[Settings], Engine] = load_engine) -> None:
    """Run until SIGTERM or Ctrl-C, then end every process.

    The end takes at most 5 seconds more than ``ASR_SHUTDOWN_GRACE``.

    Args:
        settings: the settings of the service.
        make_engine: makes the engine in the worker process, so it must be importable there.
    """
    # Imported here, because the worker imports this package too but needs no routes or database.
    from asr.service.run import run

    run(settings, make_engine)
