"""WebSocket frames written by hand."""

from __future__ import annotations

import struct

from tests.faults.hostile import head

TEXT, BINARY = 0x81, 0x82
"""First byte of a whole message."""


def handshake(*lines: str, path: str = "/v1/stream") -> bytes:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    return head(*upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *lines, start=f"GET {path} HTTP/1.1")


def masked(opcode: int, payload: bytes, size: int | None = None) -> bytes:
    """Client frame. `size`: declared instead of the payload's own."""
    key = b"abcd"
    size = len(payload) if size is None else size
    if size < 126:
        header = bytes((0x80 | size,))
    else:
        header = b"\xfe" + struct.pack(">H", size) if size < 2**16 else b"\xff" + struct.pack(">Q", size)
    repeated = int.from_bytes((key * (len(payload) // 4 + 1))[: len(payload)], "big")
    return bytes((opcode,)) + header + key + (int.from_bytes(payload, "big") ^ repeated).to_bytes(len(payload), "big")
