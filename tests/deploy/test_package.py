"""The sdist and the wheel have what pyproject.toml promises; `make dist` builds and tries them."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import PurePath

import pytest

from tests.support.paths import ROOT

FACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())
SDIST = FACTS["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
BUILT = {".git", "build", "dist"}


def names_in_tests():
    """What tests read below the root of the repository."""
    texts = (path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    found = {name for text in texts for name in re.findall(r'\bROOT / "([^"/]+)', text)}
    return sorted(name for name in found - BUILT if not name.startswith(".venv"))


@pytest.mark.parametrize("name", ["benchmarks", *names_in_tests()])
def test_the_sdist_has_what_the_tests_read(name):
    # hatchling always adds pyproject.toml.
    assert name == "pyproject.toml" or any(fnmatch(f"/{name}", it) for it in SDIST)


def test_every_licence_is_named():
    files = [
        path.relative_to(ROOT)
        for path in (ROOT / "asr").rglob("*")
        if re.search("LICENSE|NOTICE|COPYING", path.name)
    ]
    patterns = FACTS["project"]["license-files"]
    assert len(files) >= 5
    unnamed = [path for path in files if not any(map(path.match, patterns))]
    assert unnamed == []
    assert all(list(ROOT.glob(pattern)) for pattern in patterns)
    assert PurePath("LICENSE").match(patterns[0])
