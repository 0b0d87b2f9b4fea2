"""Start the service: ``python server.py``. Settings come from ``ASR_*`` variables (README)."""

from asr.service import serve
from asr.settings import Settings

if __name__ == "__main__":
    serve(Settings.from_env())
