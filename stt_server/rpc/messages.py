"""Messages as strangers send them: read once their caller was let in, parsed where an error can still be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError

from stt_server.errors import DeadlineExceeded, InvalidArgument

Parse = Callable[[bytes], Any]

UNSENT_TIMEOUT_S = 1800.0
"""The longest that the one message of a unary call may take: 16 MiB at 10 KiB/s."""


async def single_message(requests: AsyncIterator[bytes], parse: Parse) -> Any:
    """The message of a unary call.

    Raises:
        InvalidArgument: there is none, or it is none.
        DeadlineExceeded: it does not come.
    """
    # Not wait_for(), which forgets that it was cancelled where the message comes in the same moment.
    coming = asyncio.ensure_future(anext(aiter(requests)))
    try:
        await asyncio.wait((coming,), timeout=UNSENT_TIMEOUT_S)
        if not coming.done():
            raise DeadlineExceeded("the message came in too slowly")
        raw = coming.result()
    except StopAsyncIteration:
        raise InvalidArgument("the call ended without a message") from None
    finally:
        coming.cancel()
    return _parsed(raw, parse)


async def parsed(requests: AsyncIterator[bytes], parse: Parse) -> AsyncIterator[Any]:
    """The messages of a stream.

    Raises:
        InvalidArgument: one is none.
    """
    async for raw in requests:
        yield _parsed(raw, parse)


def _parsed(raw: bytes, parse: Parse) -> Any:
    try:
        return parse(raw)
    except DecodeError:
        raise InvalidArgument("the message can't be read; make it with the stubs of speech.proto") from None
