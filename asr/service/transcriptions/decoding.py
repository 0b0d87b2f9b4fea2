"""What the user tells the engine, from the values of a client: language, prompt, keywords."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.config import KEYWORD_RULE, DecodeOptions, is_keyword
from asr.errors import InvalidOption
from asr.text.languages import is_automatic, read_language

if TYPE_CHECKING:
    from collections.abc import Sequence


def decode_options(
    *,
    language: str | None = None,
    languages: Sequence[str] = (),
    prompt: str | None = None,
    keywords: Sequence[str] = (),
    temperature: float | None = None,
    model: str = "",
) -> tuple[DecodeOptions, tuple[str, ...]]:
    """What the user tells the engine, from the values of a client.

    Returns:
        The options, and warnings about values that are left out.

    Raises:
        InvalidOption: a value is wrong.
    """
    if language and is_automatic(language):
        language = None
    name = "language" if language else "languages"
    codes, notes = _languages(name, [language] if language else languages)
    usable = tuple(keyword for keyword in keywords if is_keyword(keyword))
    notes += [
        f"keywords: {keyword[:40]!r} was left out: {KEYWORD_RULE}"
        for keyword in keywords
        if not is_keyword(keyword)
    ]
    only = codes[0] if language and codes else None
    options = DecodeOptions(
        only, prompt or None, usable, temperature, () if only else tuple(codes), model
    )
    return options, tuple(notes)


def _languages(name: str, values: Sequence[str]) -> tuple[list[str], list[str]]:
    """The codes of languages without repetitions, and warnings. Empty if the engine chooses."""
    codes: dict[str, None] = {}
    notes = []
    is_open = False
    for value in values:
        try:
            found = read_language(value)
        except ValueError as error:
            raise InvalidOption(name, f"{value[:40]!r} {error}") from error
        if found.code is None:
            is_open = True
        else:
            codes.setdefault(found.code)
            if found.rest:
                notes.append(f"{name}: only {found.code!r} of {value[:40]!r} is used")
    return ([], []) if is_open else (list(codes), notes)
