"""The header with the warnings of answers that are not JSON."""

import json

import pytest

from asr.service.compat.answers import MAX_HEADER_CHARACTERS, warnings_line


@pytest.mark.parametrize("n_characters", [1, 100, 3000, 9000])
def test_the_header_stays_short_and_says_what_is_missing(n_characters):
    warnings = tuple(f"{i}{'x' * n_characters}\r\né" for i in range(9))
    line = warnings_line(warnings)
    assert len(line) <= MAX_HEADER_CHARACTERS
    assert line.isascii()
    assert line.isprintable()
    kept = json.loads(line)
    if len(kept) == 9:
        assert tuple(kept) == warnings
    else:
        assert tuple(kept[:-1]) == warnings[: len(kept) - 1]
        assert kept[-1].startswith("further warnings")
