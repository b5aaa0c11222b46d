"""`DrainSignal.interrupt`."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from stt_server.streaming.draining import DrainSignal


async def test_error_of_cancelled_work_is_not_logged_by_asyncio() -> None:
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # as gRPC's request iterator does: it ends, and the config is missing
            raise ValueError("no config") from None

    call = asyncio.ensure_future(DrainSignal().interrupt(work()))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0)
    del call
    gc.collect()
    assert not logged
