"""The program of a decoder's child process: files on standard input, samples on standard output.

`python -m stt_server.audio.sandbox.child MAX_SECONDS MAX_BYTES EXTRA_MEMORY CPU_SECONDS PARENT`
"""

from __future__ import annotations

import struct
import sys
import traceback

from stt_server.audio.channels import sink_for
from stt_server.audio.container import decode_container
from stt_server.audio.mono import FloatArray, MonoSink
from stt_server.audio.sandbox import messages
from stt_server.audio.sandbox.confinement import confine, grant_cpu
from stt_server.errors import SttError

IN, OUT = 0, 1

_MULAW_FORM = struct.pack("<IHHIIHH", 16, 7, 1, 8000, 8000, 1, 8)
_MULAW_WAV = b"RIFF\0\0\0\0WAVEfmt " + _MULAW_FORM + b"data\x40\1\0\0" + b"\xff" * 320
"""40 ms of silence, decoded once before confinement, so that everything loaded lazily is loaded by then."""


def main(arguments: list[str]) -> None:
    max_seconds = float(arguments[0])
    max_bytes, extra_memory, cpu_seconds, parent = map(int, arguments[1:])
    _warm_up(max_seconds)
    confine(extra_memory, parent)
    messages.send(OUT, messages.READY)
    while True:
        try:
            kind, data = messages.receive(IN, max_bytes)
        except EOFError:
            return  # the service has ended or closed this worker
        grant_cpu(cpu_seconds)
        _decode(bytes(data), max_seconds, separate_channels=kind == messages.SEPARATE)
        del data


def _decode(data: bytes, max_seconds: float, *, separate_channels: bool) -> None:
    try:
        decode_container(data, sink_for(max_seconds, Sender().send, separate_channels=separate_channels))
    except SttError as error:
        messages.send(OUT, messages.REJECTED, messages.pack_error(error, _frames(error.__cause__)))
    else:
        messages.send(OUT, messages.DONE)


class Sender:
    """Sends the samples of one file, and the channel before them where it changes."""

    def __init__(self) -> None:
        self._channel = 0

    def send(self, channel: int, block: FloatArray) -> None:
        if channel != self._channel:
            messages.send(OUT, messages.CHANNEL, bytes([channel]))
            self._channel = channel
        if len(block):
            messages.send(OUT, messages.SAMPLES, block.data)


def _frames(cause: BaseException | None) -> list[str]:
    """The stack and type of an unexpected error, without its text, which may quote the file."""
    if cause is None:
        return []
    places = traceback.extract_tb(cause.__traceback__, limit=-8)
    return [*(f"{place.filename}:{place.lineno} {place.name}" for place in places), type(cause).__name__]


def _warm_up(max_seconds: float) -> None:
    decode_container(_MULAW_WAV, MonoSink(max_seconds, lambda block: None))
    for broken in (_MULAW_WAV[:30], b"OggS"):
        try:
            decode_container(broken, MonoSink(max_seconds, lambda block: None))
        except SttError as error:
            messages.pack_error(error, _frames(error.__cause__))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MemoryError:
        sys.exit(messages.OUT_OF_MEMORY)
