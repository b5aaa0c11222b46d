"""Messages between the service and its decoder child processes, over two pipes.

The child sends `READY` once. For each `FILE` that the service sends, the child answers with blocks of `SAMPLES` and
`DONE`, or with `REJECTED` at any point. `SEPARATE` is a `FILE` whose channels are kept apart; then `CHANNEL` says whose
the next samples are, from 0.
"""

from __future__ import annotations

import json
import os
import struct

from stt_server.errors import AudioTooLong, EmptyAudio, InvalidArgument, SttError, UnsupportedAudio

READY, FILE, SEPARATE, CHANNEL, SAMPLES, DONE, REJECTED = b"RFPCSDE"

OUT_OF_MEMORY = 12
"""Exit status of a child that exceeded its memory limit."""

_HEADER = struct.Struct("<BQ")
"""Kind of the message, and the number of bytes that follow."""

ERRORS = {kind.type: kind for kind in (AudioTooLong, EmptyAudio, InvalidArgument, UnsupportedAudio)}
"""Errors that a child may report, by type."""


def send(descriptor: int, kind: int, content: bytes | memoryview = b"") -> None:
    """Write one message. Raises OSError if the pipe is closed."""
    rest = memoryview(content).cast("B")
    header = _HEADER.pack(kind, len(rest))
    written = os.writev(descriptor, [header, rest])
    if written < len(header):
        raise OSError("only part of a message header was written to the pipe")
    rest = rest[written - len(header) :]
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def receive(descriptor: int, max_bytes: int) -> tuple[int, bytearray]:
    """Read one message: its kind and content.

    Raises:
        EOFError: the pipe ends before or within the message.
        ValueError: the message is longer than `max_bytes`.
    """
    kind, size = _HEADER.unpack(_exactly(descriptor, _HEADER.size))
    if size > max_bytes:
        raise ValueError(f"message of {size} bytes exceeds the limit of {max_bytes}")
    return kind, _exactly(descriptor, size)


def _exactly(descriptor: int, size: int) -> bytearray:
    content = bytearray(size)
    rest = memoryview(content)
    while rest:
        count = os.readv(descriptor, [rest])
        if not count:
            raise EOFError
        rest = rest[count:]
    return content


def pack_error(error: SttError, frames: list[str]) -> bytes:
    """
    Args:
        frames: stack of an unexpected error.
    """
    return json.dumps({"type": error.type, "message": error.message, "frames": frames}).encode()


def unpack_error(content: bytes | bytearray) -> tuple[SttError, list[str]]:
    """The error and its stack. Raises ValueError if `content` isn't an error that a child may report."""
    fields = json.loads(content)
    try:
        return ERRORS[fields["type"]](str(fields["message"])), [str(frame) for frame in fields["frames"]]
    except (KeyError, TypeError) as error:
        raise ValueError("not an error that a decoder may report") from error
