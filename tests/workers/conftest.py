"""The pool tests start real template processes; all other tests fork them."""

import pytest

from tests.support.templates import started_templates


@pytest.fixture(scope="package", autouse=True)
def _started_templates():
    with started_templates():
        yield
