"""Waiting for the state of another process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

IN_TIME_S = 30.0
"""Seconds. A changed file is reloaded within 2 s; a busy machine may need many times that."""


async def eventually(look: Callable[[], Awaitable[Any]], wanted: Any, within_s: float = IN_TIME_S) -> None:
    """Poll `look` until it returns `wanted`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while True:
        found = await look()
        if found == wanted:
            return
        assert loop.time() < end, f"{found!r} after {within_s} s, not {wanted!r}"
        await asyncio.sleep(0.05)
