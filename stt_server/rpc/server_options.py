"""Sizes and times of a gRPC server."""

from __future__ import annotations

from typing import Any

MESSAGE_SLACK_BYTES = 4 * 1024 * 1024
"""Over the upload limit, so that a request which is somewhat too large gets the contract's error instead of gRPC's."""

METADATA_BYTES = 16 * 1024
"""Of a call's metadata, in all, as HTTP/2 counts it: gRPC refuses more with RESOURCE_EXHAUSTED, before we see any."""

CALLS_PER_CONNECTION = 1024
"""That a client may have open on one connection; its further ones wait on its side."""

CONNECTIONS = 4096
"""One more is closed as it opens."""

CALLS_UNSEEN = 16384
"""That have arrived and that no handler has taken over yet; gRPC cancels further ones. Those that their callers reset
count until they are thrown out: with gRPC's own limit, 1000, one connection could have everybody's calls cancelled."""

HANDSHAKE_S = 15
"""From the opening of a connection to its first words of HTTP/2."""


def server_options(max_upload_bytes: int) -> list[tuple[str, Any]]:
    """Options of the server. `maximum_concurrent_rpcs` is left alone: it would refuse health checks of a busy one."""
    largest = max_upload_bytes + MESSAGE_SLACK_BYTES
    return [
        ("grpc.max_receive_message_length", largest),
        ("grpc.max_send_message_length", largest),
        # One number twice, here and below: between the two, chance decides; the more there is, the likelier a refusal.
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.max_concurrent_streams", CALLS_PER_CONNECTION),
        ("grpc.server.max_pending_requests", CALLS_UNSEEN),
        ("grpc.server.max_pending_requests_hard_limit", CALLS_UNSEEN),
        ("grpc.max_allowed_incoming_connections", CONNECTIONS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
        # Two processes on one port would share its callers silently; the second must fail instead.
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10000),
        # Connections end after five minutes, calls on them don't: clients look names up again and find new pods.
        ("grpc.max_connection_age_ms", 300000),
    ]
