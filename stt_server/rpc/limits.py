"""Sizes and times of a gRPC server."""

from __future__ import annotations

from typing import Any

MESSAGE_SLACK_BYTES = 4 * 1024 * 1024
"""Over the upload limit, so that a request which is somewhat too large gets the contract's error instead of gRPC's."""


def server_options(max_upload_bytes: int) -> list[tuple[str, Any]]:
    """Options of the server. `maximum_concurrent_rpcs` is left alone: it would refuse health checks of a busy one."""
    largest = max_upload_bytes + MESSAGE_SLACK_BYTES
    return [
        ("grpc.max_receive_message_length", largest),
        ("grpc.max_send_message_length", largest),
        # Two processes on one port would share its callers silently; the second must fail instead.
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10000),
        # Connections end after five minutes, calls on them don't: clients look names up again and find new pods.
        ("grpc.max_connection_age_ms", 300000),
    ]
