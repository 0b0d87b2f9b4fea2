"""The fields of another server's API, translated into ours.

A dialect takes the fields that it knows, one by one, and gives fields of our API instead. The
fields that nobody took are passed on as they are, so our own fields work too, and `parse_fields`
names the unknown ones in a warning. So each field has an effect, is refused, or is in a warning.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from asr.service.http.problems import Problem
from asr.service.transcriptions.form import NOT_TRANSLATED, TRANSLATE_ADVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asr.config import VadKind

TRUE: Final = frozenset({"true", "1", "yes", "y", "on", "t"})
FALSE: Final = frozenset({"false", "0", "no", "n", "off", "f"})


class Fields:
    """The fields of one request.

    Args:
        pairs: name and value of each field. An empty value counts as not sent.
        default_vad: the voice activity detector of the service.

    Attributes:
        given: fields of our API, so far.
        origins: the field of the request for each field in `given` that has another name there.
        warnings: fields without effect, so far.

    Raises:
        Problem: 400, a field was sent twice with different values.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[str, str]],
        default_vad: VadKind,
        *,
        tells_speakers: bool = False,
    ) -> None:
        self.tells_speakers = tells_speakers
        self.given: list[tuple[str, str]] = []
        self.origins: dict[str, str] = {}
        self.warnings: list[str] = []
        self.default_vad = default_vad
        self._rest: list[tuple[str, str]] = []
        for pair in pairs:
            if pair[1] != "" and pair not in self._rest:
                self._rest.append(pair)

    def take(self, name: str) -> str | None:
        """The value of a field, or None. It is not passed on.

        Raises:
            Problem: 400, it has several values.
        """
        values = [value for key, value in self._rest if key == name]
        self._rest = [(key, value) for key, value in self._rest if key != name]
        if len(values) > 1:
            raise refusal(name, "sent more than once, with different values")
        return values[0] if values else None

    def has(self, name: str, values: Iterable[str]) -> bool:
        """Whether a field has one of some values. It stays."""
        return any((name, value) in self._rest for value in values)

    def flag(self, name: str) -> bool | None:
        """Take a field that is true or false.

        Raises:
            Problem: 400, it is neither.
        """
        value = (self.take(name) or "").strip().lower()
        if value not in TRUE | FALSE | {""}:
            raise refusal(name, "must be true or false")
        return value in TRUE if value else None

    def number(self, name: str) -> float | None:
        """Take a field that is a number.

        Raises:
            Problem: 400, it is not.
        """
        value = self.take(name)
        try:
            number = None if value is None else float(value)
        except ValueError:
            raise refusal(name, "must be a number") from None
        if number is not None and not math.isfinite(number):
            raise refusal(name, "must be a finite number")
        return number

    def choice(self, name: str, choices: Mapping[str, str], default: str) -> str:
        """Take a field with one of a few values; return what `choices` has for it.

        Raises:
            Problem: 400, it has another value.
        """
        value = (self.take(name) or default).strip().lower()
        if value not in choices:
            raise refusal(name, f"must be one of {', '.join(choices)}")
        return choices[value]

    def give(self, name: str, value: str | float | None, origin: str = "") -> None:
        """Add a field of our API, unless the value is None.

        Args:
            name: of our field.
            value: of our field.
            origin: the field of the request that it comes from, if that has another name.
        """
        if value is None:
            return
        if origin:
            self.origins[name] = origin
        self.given.append((name, value if isinstance(value, str) else f"{value:g}"))

    def give_vad(self, *, wanted: bool | None) -> None:
        """Turn the voice activity detector on or off, or leave it as the service has it."""
        if wanted is False:
            self.give("vad", "off")
        elif wanted and self.default_vad == "off":
            self.give("vad", "webrtc")

    def warn(self, name: str, reason: str) -> None:
        """Say why a field has no effect."""
        self.warnings.append(f"field {name!r} was ignored: {reason}")

    def ignore(self, names: Iterable[str], reason: str) -> None:
        """Take fields without effect. Those that ask for something get a warning."""
        for name in names:
            value = self.take(name)
            if value is not None and value.strip().lower() not in FALSE - {"0"}:  # 0 is a number
                self.warn(name, reason)

    def refuse_any(self, names: Iterable[str], advice: str) -> None:
        """Refuse fields with any value. A list may be written as ``name``, ``name[]``, ``name[0]``.

        Raises:
            Problem: 400, one of them was sent.
        """
        sent = {key.partition("[")[0]: key for key, _ in self._rest}
        for name in names:
            if name in sent:
                raise refusal(sent[name], advice)

    def refuse(self, names: Iterable[str], advice: str) -> None:
        """Refuse fields that are not zero or false, since ignoring them would give a wrong result.

        Raises:
            Problem: 400, one of them was sent.
        """
        for name in names:
            value = (self.take(name) or "0").strip().lower()
            if value not in FALSE and value.strip("0.") != "":
                raise refusal(name, advice)

    def translated(self) -> list[tuple[str, str]]:
        """The request in fields of our API."""
        return [*self._rest, *self.given]


def refusal(name: str, message: str) -> Problem:
    """The answer to a wrong field."""
    return Problem(400, f"{name}: {message}", "invalid_value", name)


def refuse_translation(name: str) -> Problem:
    """The answer to a request for a translation."""
    return Problem(400, f"{name}: {TRANSLATE_ADVICE}", NOT_TRANSLATED, name)
