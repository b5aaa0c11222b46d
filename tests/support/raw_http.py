"""Raw HTTP, for requests that HTTP clients do not send."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from dataclasses import dataclass
from typing import Any

BOUNDARY = "frontier"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    """Keys are lower case."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def part(name: str, value: bytes, more: str = "") -> bytes:
    """One part of a form. `more`: further parameters of its Content-Disposition."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def head(*lines: str, method: str = "POST", path: str = "/v1/transcribe") -> bytes:
    """Head of a request with a form."""
    fixed = (
        f"{method} {path} HTTP/1.1",
        "Host: gateway",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
    )
    return "\r\n".join((*fixed, *lines, "", "")).encode("latin-1")


def chunked(body: bytes, size: int) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one response, by its Content-Length."""
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Answer(int(status_line.split()[1]), headers, body)


async def exchange(port: int, sent: bytes) -> Answer:
    """Write all of `sent` before reading, as simple clients do."""
    answer = await asyncio.to_thread(_exchange, port, sent)
    reader = asyncio.StreamReader()
    reader.feed_data(answer)
    reader.feed_eof()
    return await read_answer(reader)


def _exchange(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent)
        received = connection.recv(65536)
        while not _complete(received) and (more := connection.recv(65536)):
            received += more
        return received


def _complete(received: bytes) -> bool:
    head, found, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(found) and length is not None and len(body) >= int(length[1])
