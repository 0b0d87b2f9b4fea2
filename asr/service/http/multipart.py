"""A multipart form, parsed piece by piece as it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from asr.errors import InvalidOption
from asr.service.http.fields import MAX_FIELD_BYTES, MAX_FIELDS
from asr.service.http.problems import Problem
from asr.text.decoding import decode_text

if TYPE_CHECKING:
    from collections.abc import Callable


class MultipartForm:
    """Collects the fields of a form and passes on the bytes of its file.

    The parser of `python_multipart` calls the methods below in the order of the body. That parser
    also limits the number and the length of the headers of a part.

    Args:
        boundary: from the content type.
        write_file: takes the next bytes of the part called file.
        max_text_bytes: the limit of the field called text; other fields may have 64 KiB.

    Attributes:
        fields: name and value of each field, in the order of the body.
        has_file: the body has a part called file.

    Raises:
        Problem: 400, the boundary is malformed.
    """

    def __init__(
        self, boundary: bytes, write_file: Callable[[bytes], None], max_text_bytes: int
    ) -> None:
        self.fields: list[tuple[str, str]] = []
        self.has_file = False
        self._write_file = write_file
        self._max_text_bytes = max_text_bytes
        self._name = ""
        self._value = bytearray()
        self._header = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._has_ended = False
        callbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._on_header,
            "on_header_value": self._on_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise _malformed(error) from error

    def feed(self, data: bytes) -> None:
        """Parse the next bytes of the body.

        Raises:
            Problem: 400, the form is malformed, has too many fields or a field that is too long.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(error) from error

    def finish(self) -> None:
        """Check that the form is complete.

        Raises:
            Problem: 400, the last boundary is missing.
        """
        if not self._has_ended:
            message = "the multipart body ends before its last boundary"
            raise Problem(400, message, "malformed_body")

    def _begin_part(self) -> None:
        self._disposition = b""
        self._name = ""
        self._value.clear()

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if not self._name:
            raise Problem(400, "a part of the multipart body has no name", "malformed_body")
        if self._name == "file":
            if self.has_file:
                raise Problem(400, "file: send one file per request", "invalid_value", "file")
            self.has_file = True
        elif len(self.fields) >= MAX_FIELDS:
            raise Problem(400, f"more than {MAX_FIELDS} fields", "malformed_body")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._write_file(data[start:end])
            return
        self._value += data[start:end]
        limit = self._max_text_bytes if self._name == "text" else MAX_FIELD_BYTES
        if len(self._value) > limit:
            message = f"{self._name}: longer than {limit} bytes"
            raise Problem(400, message, "invalid_value", self._name)

    def _end_part(self) -> None:
        if self._name == "text" and self._max_text_bytes > MAX_FIELD_BYTES:
            self.fields.append((self._name, _decoded(bytes(self._value))))
        elif self._name != "file":
            self.fields.append((self._name, self._value.decode("utf-8", "replace")))

    def _end(self) -> None:
        self._has_ended = True


def _decoded(text: bytes) -> str:
    """The text to align. It may be a file of the user, so its encoding is checked.

    Raises:
        Problem: 400, it is not UTF-8.
    """
    try:
        return decode_text(text)
    except InvalidOption as error:
        raise Problem(400, f"text: {error}", "invalid_value", "text") from error


def _malformed(error: FormParserError) -> Problem:
    return Problem(400, f"malformed multipart body: {error}", "malformed_body")
