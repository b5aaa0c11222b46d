"""Incremental parsing of multipart forms, with bounds on size and number of parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.http.errors import Refusal

MAX_FIELD_BYTES = 64 * 1024
"""Bytes of one field other than the recording."""
MAX_PARTS = 64
"""Parts of one form, unless its rules allow more."""
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 4096
FORM_SLACK_BYTES = 1024 * 1024
"""Bytes that a body may have besides its audio: boundaries, headers, fields."""


@dataclass(frozen=True)
class FormRules:
    """What a form may hold."""

    audio: str
    """Name of the part that is the recording."""
    fields: frozenset[str]
    """Names of all other parts."""
    skips_unknown: bool = False
    """Parts of other names are skipped unread, of any size that the body may have; otherwise they are refused."""
    max_parts: int = MAX_PARTS


@dataclass
class Form:
    audio: bytes | None = None
    """The recording; None if the form has none."""
    fields: dict[str, list[str]] = field(default_factory=dict)
    """Values by name, in order."""


def boundary_of(content_type: str) -> bytes:
    """Boundary parameter of a `Content-Type` header.

    Raises:
        Refusal: invalid_argument: not multipart, or no boundary.
    """
    media_type, parameters = parse_options_header(content_type)
    if media_type != b"multipart/form-data":
        raise Refusal(
            "invalid_argument",
            "Unsupported Content-Type; send multipart/form-data.",
        )
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise Refusal("invalid_argument", "The Content-Type has no multipart boundary.")
    return boundary


class FormReader:
    """Parses the body of a form chunk by chunk.

    Args:
        boundary: from `boundary_of`.
        max_audio_bytes: largest size of the recording.
    """

    def __init__(self, boundary: bytes, rules: FormRules, max_audio_bytes: int) -> None:
        self._rules = rules
        self._max_audio_bytes = max_audio_bytes
        self._total = 0
        self._parts = 0
        self._ended = False
        self._form = Form()
        self._name: str | None = ""
        """Of the part that is being read; None: it is skipped."""
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
            Refusal: payload_too_large, or invalid_argument if the form is malformed or breaks its rules.
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
        if self._parts > self._rules.max_parts:
            raise Refusal("invalid_argument", f"The form has too many parts; the limit is {self._rules.max_parts}.")
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
        self._name = self._known(parameters[b"name"].decode("utf-8", "replace"))
        if self._name is None:
            return
        if self._name == self._rules.audio and self._form.audio is not None:
            raise self._invalid("The part '{}' is given more than once.")
        encoding = self._headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if encoding not in (b"binary", b"8bit", b"7bit"):
            raise self._invalid("Content-Transfer-Encoding is not supported; send parts unencoded.")

    def _known(self, name: str) -> str | None:
        """`name`; None if parts of this name are skipped. Raises Refusal if they are refused."""
        if name == self._rules.audio or name in self._rules.fields:
            return name
        if self._rules.skips_unknown:
            return None
        names = ", ".join((self._rules.audio, *sorted(self._rules.fields)))
        raise Refusal("invalid_argument", f"Unknown field '{name[:40]}'; known fields: {names}.")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is None:
            return
        size = len(self._data) + end - start
        if self._name == self._rules.audio and size > self._max_audio_bytes:
            raise too_large(self._max_audio_bytes)
        if self._name != self._rules.audio and size > MAX_FIELD_BYTES:
            raise self._invalid(f"The field '{{}}' exceeds {MAX_FIELD_BYTES} bytes.")
        self._data += memoryview(data)[start:end]

    def _end_part(self) -> None:
        if self._name == self._rules.audio:
            self._form.audio = bytes(self._data)
        elif self._name is not None:
            try:
                value = self._data.decode()
            except UnicodeDecodeError:
                raise self._invalid("The field '{}' is not UTF-8.") from None
            self._form.fields.setdefault(self._name, []).append(value)
        self._data = bytearray()

    def _invalid(self, message: str) -> Refusal:
        """Refusal of the part that is being read, whose name replaces `{}`."""
        return Refusal("invalid_argument", message.format(self._name), field=self._name)

    def _end(self) -> None:
        self._ended = True


def too_large(limit_bytes: int) -> Refusal:
    """Refusal of a recording that exceeds `limit_bytes`."""
    return Refusal("payload_too_large", f"The recording exceeds the limit of {limit_bytes} bytes.")
