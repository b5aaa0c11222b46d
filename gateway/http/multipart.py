"""Incremental parsing of multipart forms, with bounds on size and number of parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.http.errors import Refusal

MAX_FIELD_BYTES = 64 * 1024
"""Bytes of one field other than `audio`."""
MAX_PARTS = 64
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 4096
FORM_SLACK_BYTES = 1024 * 1024
"""Bytes that a body may have besides its audio: boundaries, headers, fields."""

AUDIO = "audio"


@dataclass
class Form:
    audio: bytes | None = None
    """None if the form has no such part."""
    fields: dict[str, list[str]] = field(default_factory=dict)


def boundary_of(content_type: str) -> bytes:
    """Boundary parameter of a `Content-Type` header.

    Raises:
        Refusal: invalid_argument: not multipart, or no boundary.
    """
    media_type, parameters = parse_options_header(content_type)
    if media_type != b"multipart/form-data":
        raise Refusal(
            "invalid_argument",
            "Unsupported Content-Type; send multipart/form-data with a part named 'audio'.",
        )
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise Refusal("invalid_argument", "The Content-Type has no multipart boundary.")
    return boundary


class FormReader:
    """Parses the body of a form chunk by chunk.

    Args:
        boundary: from `boundary_of`.
        known: names of fields besides `audio`.
        max_audio_bytes: largest size of the part `audio`.
    """

    def __init__(self, boundary: bytes, known: frozenset[str], max_audio_bytes: int) -> None:
        self._known = known
        self._max_audio_bytes = max_audio_bytes
        self._total = 0
        self._parts = 0
        self._ended = False
        self._form = Form()
        self._name = ""
        self._data = bytearray()
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_part_data": self._part_data,
                    "on_part_end": self._end_part,
                    "on_header_field": self._appender(self._header[0]),
                    "on_header_value": self._appender(self._header[1]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_end": self._end,
                },
                max_header_count=MAX_PART_HEADERS,
                max_header_size=MAX_PART_HEADER_BYTES,
            )
        except FormParserError:
            raise Refusal("invalid_argument", "The multipart boundary is too long.") from None

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body.

        Raises:
            Refusal: payload_too_large, or invalid_argument if the form is malformed or has unknown fields.
        """
        self._total += len(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise Refusal("invalid_argument", "The multipart body is malformed.") from None
        if self._total > self._max_audio_bytes + FORM_SLACK_BYTES:
            raise too_large(self._max_audio_bytes)

    def finish(self) -> Form:
        """Return the form after the last chunk.

        Raises:
            Refusal: invalid_argument: the closing boundary is missing.
        """
        if not self._ended:
            raise Refusal("invalid_argument", "The multipart body is truncated: the closing boundary is missing.")
        return self._form

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Refusal("invalid_argument", f"The form has too many parts; the limit is {MAX_PARTS}.")
        self._data = bytearray()
        self._headers.clear()

    def _appender(self, into: bytearray) -> Callable[[bytes, int, int], None]:
        def append(data: bytes, start: int, end: int) -> None:
            into.extend(memoryview(data)[start:end])

        return append

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def _end_headers(self) -> None:
        disposition, parameters = parse_options_header(self._headers.get(b"content-disposition"))
        if disposition != b"form-data" or b"name" not in parameters:
            raise Refusal("invalid_argument", "A part of the form has no name in its Content-Disposition.")
        self._name = parameters[b"name"].decode("utf-8", "replace")
        if self._name != AUDIO and self._name not in self._known:
            names = ", ".join((AUDIO, *sorted(self._known)))
            raise Refusal("invalid_argument", f"Unknown field '{self._name[:40]}'; known fields: {names}.")
        if self._name == AUDIO and self._form.audio is not None:
            raise Refusal("invalid_argument", "The part 'audio' is given more than once.")
        encoding = self._headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if encoding not in (b"binary", b"8bit", b"7bit"):
            raise Refusal("invalid_argument", "Content-Transfer-Encoding is not supported; send parts unencoded.")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        size = len(self._data) + end - start
        if self._name == AUDIO and size > self._max_audio_bytes:
            raise too_large(self._max_audio_bytes)
        if self._name != AUDIO and size > MAX_FIELD_BYTES:
            raise Refusal("invalid_argument", f"The field '{self._name}' exceeds {MAX_FIELD_BYTES} bytes.")
        self._data += memoryview(data)[start:end]

    def _end_part(self) -> None:
        if self._name == AUDIO:
            self._form.audio = bytes(self._data)
        else:
            try:
                value = self._data.decode()
            except UnicodeDecodeError:
                raise Refusal("invalid_argument", f"The field '{self._name}' is not UTF-8.") from None
            self._form.fields.setdefault(self._name, []).append(value)
        self._data = bytearray()

    def _end(self) -> None:
        self._ended = True


def too_large(limit_bytes: int) -> Refusal:
    """Refusal of a recording that exceeds `limit_bytes`."""
    return Refusal("payload_too_large", f"The recording exceeds the limit of {limit_bytes} bytes.")
