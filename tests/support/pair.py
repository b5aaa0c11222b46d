"""A primary and its fallback with scripted models, connected over real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from stt_server.app import Service
from stt_server.testing.scripted_model import ScriptedModel
from tests.support.services import running, stub_of


@contextlib.asynccontextmanager
async def pair(
    folder: Path,
    small: ScriptedModel,
    medium: ScriptedModel,
    *,
    fallback_keys: Mapping[str, Any] | None = None,
    **keys: Any,
) -> AsyncIterator[tuple[Any, Service, Service]]:
    """Run both services; yield a stub of the primary, the primary and the fallback.

    Args:
        fallback_keys: configuration of the fallback.
        keys: configuration of the primary.
    """
    async with running(folder, "fallback", medium, **fallback_keys or {}) as fallback:
        keys.setdefault("FALLBACK_URL", f"grpc://127.0.0.1:{fallback.grpc_port}")
        async with running(folder, "primary", small, **keys) as primary, stub_of(primary) as stub:
            yield stub, primary, fallback
