"""The table in README.md names the versions that are installed."""

import json
import re

import pytest

from tests.clients.environments import HERE

ROWS = re.findall(r"^\| (.+?) \| (\d.+?) \|", (HERE / "README.md").read_text(), re.MULTILINE)
PINNED = "\n".join(path.read_text() for path in (HERE / "requirements").glob("*.txt"))
NPM = json.loads((HERE / "package.json").read_text())["dependencies"]


def pairs():
    for names, versions in ROWS:
        plain = names.removesuffix(" (npm)")
        for name, version in zip(plain.split(", "), versions.split(", "), strict=True):
            yield name, version, plain != names


@pytest.mark.parametrize(("name", "version", "is_npm"), list(pairs()))
def test_the_version_is_the_pinned_one(name, version, is_npm):
    if is_npm:
        assert NPM[name] == version
    else:
        assert f"{name.lower()}=={version}" in PINNED.split()


def test_every_environment_is_in_the_table():
    assert len(ROWS) == len(list((HERE / "requirements").glob("*.in"))) + 4
