"""Every output format against committed golden files."""

from __future__ import annotations

import pytest

from asr.output.formats import FORMATS, render
from asr.output.full_json import from_json
from tests.support.golden_transcript import FOLDER, TRANSCRIPT, golden_path


@pytest.mark.parametrize("name", FORMATS)
def test_output_is_what_it_was(name):
    assert render(TRANSCRIPT, name).encode() == golden_path(name).read_bytes()


def test_there_is_a_golden_file_for_every_format():
    assert {path.name for path in FOLDER.iterdir()} == {golden_path(name).name for name in FORMATS}


def test_old_json_can_still_be_read():
    stored = golden_path("json").read_text(encoding="utf-8")
    assert render(from_json(stored), "json") == stored
