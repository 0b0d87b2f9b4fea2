"""`tests.support.fake_server` that waits a second where the service waits a minute."""

from asr.service import serve
from asr.service.http import body as intake, connections
from asr.settings import Settings
from tests.support.fake_server import make_engine

PATIENCE = 1.0

if __name__ == "__main__":
    # The API process is forked from this one.
    intake.IDLE_SECONDS = connections.HEAD_SECONDS = connections.STALL_SECONDS = PATIENCE
    intake.DRAIN_SECONDS = PATIENCE / 2
    serve(Settings.from_env(), make_engine)
