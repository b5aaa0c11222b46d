"""Reading and parsing of request messages. The interceptor reads raw bytes, so that a refusal needs no message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError

from stt_server.errors import DeadlineExceeded, InvalidArgument

Parse = Callable[[bytes], Any]

RECEIVE_TIMEOUT_S = 1800.0
"""Longest time for the message of a unary call to arrive: 16 MiB at 10 KiB/s."""


async def read_message(requests: AsyncIterator[bytes]) -> bytes:
    """Read the message of a unary call, unparsed.

    Raises:
        InvalidArgument: the call ended without a message.
        DeadlineExceeded: no message within `RECEIVE_TIMEOUT_S`.
    """
    # wait_for() loses a cancellation that arrives together with the message.
    reading = asyncio.ensure_future(anext(aiter(requests)))
    try:
        await asyncio.wait((reading,), timeout=RECEIVE_TIMEOUT_S)
        if not reading.done():
            raise DeadlineExceeded("the message took too long to arrive; check the connection or send less")
        return reading.result()
    except StopAsyncIteration:
        raise InvalidArgument("the call ended without a message; send one request") from None
    finally:
        reading.cancel()


async def parse_messages(requests: AsyncIterator[bytes], parse: Parse) -> AsyncIterator[Any]:
    """Parse the messages of a stream. Raises InvalidArgument, as `parse_message`."""
    async for raw in requests:
        yield parse_message(raw, parse)


def parse_message(raw: bytes, parse: Parse) -> Any:
    """Raises InvalidArgument if `raw` can't be parsed."""
    try:
        return parse(raw)
    except DecodeError:
        raise InvalidArgument("the message can't be parsed; use stubs generated from speech.proto") from None
