"""The files of the page. These tests need no browser."""

import hashlib
import re

import pytest

from tests.support.paths import ROOT

WEB = ROOT / "asr/service/web"
OWN = sorted(path for path in WEB.rglob("*.js") if "vendor" not in path.parts)


def test_the_page_is_small():
    assert sum(path.stat().st_size for path in WEB.rglob("*") if path.is_file()) < 250_000


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_text_enters_the_page_only_as_text(path):
    text = path.read_text()
    for bad in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "srcdoc",
    ):
        assert bad not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_every_import_exists(path):
    targets = re.findall(r'^import [^"]*"([^"]+)";$', path.read_text(), re.MULTILINE)
    for target in targets:
        imported = (path.parent / target).resolve()
        names = re.findall(
            rf'^import \{{ ([^}}]*) \}} from "{re.escape(target)}";$',
            path.read_text(),
            re.MULTILINE,
        )
        text = imported.read_text()
        for name in [name.strip() for part in names for name in part.split(",")]:
            assert re.search(rf"\b{name}\b", text), f"{target} has no {name}"
    assert targets or path.name in {"dom.js", "format.js", "store.js", "words.js", "pcm.js"}


def test_nothing_is_inline():
    text = (WEB / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"(src|href)=\"(https?:|//|/)", text)


def test_libraries_are_the_vendored_ones():
    rows = re.findall(
        r"^\| `([\w.]+)` .* `([0-9a-f]{64})` \|$",
        (ROOT / "scripts/VENDORED_PAGE.md").read_text(),
        re.MULTILINE,
    )
    assert {name for name, _ in rows} == {path.name for path in WEB.glob("vendor/*.js")}
    for name, digest in rows:
        assert hashlib.sha256((WEB / "vendor" / name).read_bytes()).hexdigest() == digest
        assert (WEB / "vendor" / name.replace(".js", ".LICENSE.txt")).read_text().strip()
