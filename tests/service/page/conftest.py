"""One service with keys for all tests of the page's routes: starting one costs half a second."""

import pytest

from tests.service.access.test_keys import lines
from tests.support.inprocess import serving
from tests.support.serving import make_wav

SECONDS = 3.0
SOUND = make_wav(SECONDS)
QUOTA = 40
"""How many recordings of this length one key may keep."""


@pytest.fixture(scope="session")
def keyed():
    """A service with the keys key-a and key-b."""
    keys = "".join(lines({name: {"key": f"key-{name}"} for name in ("a", "b")}))
    with serving(ASR_API_KEYS=keys, ASR_UPLOAD_QUOTA_BYTES=str(QUOTA * len(SOUND))) as server:
        yield server
