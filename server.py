"""Start the service: ``python server.py``. The README lists the ``ASR_*`` settings."""

from asr.service import serve
from asr.settings import Settings

if __name__ == "__main__":
    serve(Settings.from_env())
