"""The tests of pools start template processes for real, unlike all others."""

import pytest

from tests.support.templates import started_templates


@pytest.fixture(scope="package", autouse=True)
def _started_templates():
    with started_templates():
        yield
