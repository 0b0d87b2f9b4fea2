"""Start the service: ``python server.py``. docs/settings.md lists the ``ASR_*`` settings."""

from asr.service import serve
from asr.settings import Settings

if __name__ == "__main__":
    serve(Settings.from_env())
