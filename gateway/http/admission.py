"""Asking the service, before audio is received, whether it would be admitted."""

from __future__ import annotations

from gateway.http.caller import Metadata
from protos.stt.v1.wire import X_REQ_ID
from stt_client import SttClient


async def upload_limit(client: SttClient, request_id: str, metadata: Metadata) -> int:
    """Bytes of audio that the service takes at most, if it would admit a recording now.

    Raises:
        SttError: unauthenticated, rate_limited, not_ready, overloaded, upstream_unavailable.
    """
    limit = await client.check_admission(metadata=[*metadata, (X_REQ_ID, request_id)])
    return limit or (await client.status()).limits.max_upload_bytes
