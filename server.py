"""Start the service: ``python server.py``. Settings come from ``ASR_*`` variables (README)."""

from asr.config import Settings
from asr.service import serve

if __name__ == "__main__":
    serve(Settings.from_env())
