"""A multipart form, parsed piece by piece as it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from asr.errors import InvalidOption
from asr.service.http.fields import (
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_LIST_ITEMS,
    MAX_REFERENCE_BYTES,
    MAX_REFERENCES,
    REFERENCE_FIELD,
    too_many_references,
)
from asr.service.http.problems import Problem
from asr.service.names import sent_name
from asr.text.decoding import decode_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

FILE_PARTS: Final = ("file",)
"""OpenAI's name of the part with the recording."""


class MultipartForm:
    """Collects the fields of a form and passes on the bytes of its file.

    The parser of `python_multipart` calls the methods below in the order of the body. That parser
    also limits the number and the length of the headers of a part.

    Args:
        boundary: from the content type.
        write_file: takes the next bytes of the file.
        max_text_bytes: the limit of the field called text; other fields may have 64 KiB.
        file_parts: the names that the part with the file may have.

    Attributes:
        fields: name and value of each field, in the order of the body.
        has_file: the body has a part with the file.
        file_name: the name that the client gave this part, cleaned, or None.

    Raises:
        Problem: 400, the boundary is malformed.
    """

    def __init__(
        self,
        boundary: bytes,
        write_file: Callable[[bytes], None],
        max_text_bytes: int,
        file_parts: Collection[str] = FILE_PARTS,
    ) -> None:
        self.fields: list[tuple[str, str]] = []
        self.has_file = False
        self.file_name: str | None = None
        self._write_file = write_file
        self._max_text_bytes = max_text_bytes
        self._file_parts = file_parts
        self._is_file = False
        self._name = ""
        self._names: set[str] = set()
        self._n_references = 0
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
        self._is_file = False
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
        self._is_file = self._name in self._file_parts
        if self._is_file:
            if self.has_file:
                message = f"{self._name}: send one file per request"
                raise Problem(400, message, "invalid_value", self._name)
            self.has_file = True
            self.file_name = sent_name(self._disposition)
        else:
            self._names.add(self._name)
            is_reference = self._name.partition("[")[0] == REFERENCE_FIELD
            self._n_references += is_reference
            if self._n_references > MAX_REFERENCES:
                raise too_many_references()
            many_values = len(self.fields) >= MAX_FIELDS + MAX_LIST_ITEMS
            if len(self._names) > MAX_FIELDS or many_values:
                message = f"more than {MAX_FIELDS} fields, or lists of more than {MAX_LIST_ITEMS}"
                raise Problem(400, f"{message} values", "malformed_body")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._write_file(data[start:end])
            return
        self._value += data[start:end]
        limit = self._max_text_bytes if self._name == "text" else MAX_FIELD_BYTES
        if self._name.partition("[")[0] == REFERENCE_FIELD:
            limit = MAX_REFERENCE_BYTES
        if len(self._value) > limit:
            message = f"{self._name}: longer than {limit} bytes"
            raise Problem(400, message, "invalid_value", self._name)

    def _end_part(self) -> None:
        if self._name == "text" and self._max_text_bytes > MAX_FIELD_BYTES:
            self.fields.append((self._name, _decoded(bytes(self._value))))
        elif not self._is_file:
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
