"""What a service and its decoding children say to each other, through two pipes.

The service sends `FILE` and gets blocks of `SAMPLES`, then `DONE`; or, at any point, `REFUSED`. A child says `READY`
once, when it may be sent files.
"""

from __future__ import annotations

import json
import os
import struct

from stt_server.errors import AudioTooLong, EmptyAudio, InvalidArgument, SttError, UnsupportedAudio

READY, FILE, SAMPLES, DONE, REFUSED = b"RFSDE"

OUT_OF_MEMORY = 12
"""Exit status of a child that needed more than it may have."""

_HEADER = struct.Struct("<BQ")
"""Kind of a message, and how many bytes follow."""

ERRORS = {kind.type: kind for kind in (AudioTooLong, EmptyAudio, InvalidArgument, UnsupportedAudio)}
"""What a child may say of a file."""


def send(descriptor: int, kind: int, content: bytes | memoryview = b"") -> None:
    """Raises OSError if nobody reads any more."""
    rest = memoryview(content).cast("B")
    header = _HEADER.pack(kind, len(rest))
    written = os.writev(descriptor, [header, rest])
    if written < len(header):
        raise OSError("a pipe took part of a header")
    rest = rest[written - len(header) :]
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def receive(descriptor: int, most: int) -> tuple[int, bytearray]:
    """The next message's kind and content.

    Raises:
        EOFError: there is none, or it breaks off.
        ValueError: it says to be longer than `most` bytes.
    """
    kind, size = _HEADER.unpack(_exactly(descriptor, _HEADER.size))
    if size > most:
        raise ValueError("the message is too long")
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
        frames: where in the code an unexpected error came from.
    """
    return json.dumps({"type": error.type, "message": error.message, "frames": frames}).encode()


def unpack_error(content: bytes | bytearray) -> tuple[SttError, list[str]]:
    """Raises ValueError if a child of ours can't have said that."""
    said = json.loads(content)
    try:
        return ERRORS[said["type"]](str(said["message"])), [str(frame) for frame in said["frames"]]
    except (KeyError, TypeError) as error:
        raise ValueError("no error of the table") from error
