"""Limits of the gRPC server."""

from __future__ import annotations

from typing import Any

MESSAGE_SLACK_BYTES = 4 * 1024 * 1024
"""Over the upload limit, so that a slightly too large request gets `payload_too_large` instead of gRPC's own error."""

MAX_METADATA_BYTES = 16 * 1024
"""All metadata of a call, in HTTP/2's accounting. gRPC refuses more with RESOURCE_EXHAUSTED before it calls us."""

MAX_CALLS_PER_CONNECTION = 1024
"""Open calls of one connection; the client's further calls wait on its side."""

MAX_CONNECTIONS = 4096
"""One more is closed as soon as it opens."""

MAX_PENDING_CALLS = 16384
"""Calls that arrived and that no handler has taken yet; gRPC cancels further ones. Calls that were reset count until
they are discarded: with gRPC's default of 1000 a single connection could get everybody's calls cancelled."""

HANDSHAKE_TIMEOUT_S = 15
"""From accepting a connection to its HTTP/2 preface."""


def server_options(max_upload_bytes: int) -> list[tuple[str, Any]]:
    """Options of the server. `maximum_concurrent_rpcs` stays unset: it would refuse health checks under load."""
    max_message_bytes = max_upload_bytes + MESSAGE_SLACK_BYTES
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Equal soft and hard limits: between the two gRPC refuses at random, the likelier the more metadata there is.
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", MAX_CALLS_PER_CONNECTION),
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
        ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_S * 1000),
        # A second process on the same port must fail; with SO_REUSEPORT the two would silently share its callers.
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10000),
        # Ends connections, not calls, after five minutes: clients resolve names again and find new pods.
        ("grpc.max_connection_age_ms", 300000),
    ]
