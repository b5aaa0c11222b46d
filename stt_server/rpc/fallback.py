"""The primary's way to the fallback: a gRPC stub with a deadline and one retry."""

from __future__ import annotations

import json
from typing import Any

import grpc

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from protos.stt.v1.errors import FallbackCode, fallback_code_of
from stt_server.jobs import Answer, FallbackError, Job
from stt_server.rpc.convert import answer_of, request_of
from stt_server.rpc.limits import MESSAGE_SLACK_BYTES

_RETRY_ONCE = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "stt.v1.SpeechToText"}],
                "retryPolicy": {
                    "maxAttempts": 2,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": "stt.v1.SpeechToText"},
    }
)


def channel_options(max_upload_bytes: int) -> list[tuple[str, Any]]:
    """Options of the channel to the fallback."""
    largest = max_upload_bytes + MESSAGE_SLACK_BYTES
    return [
        ("grpc.service_config", _RETRY_ONCE),
        ("grpc.enable_retries", 1),
        # The .env file says where the fallback is; a proxy of the process environment has no part in it.
        ("grpc.enable_http_proxy", 0),
        # Without this a request over 256 KiB is silently not retried.
        ("grpc.per_rpc_retry_buffer_size", 2 * largest),
        ("grpc.max_send_message_length", largest),
        ("grpc.max_receive_message_length", largest),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.keepalive_time_ms", 30000),
        ("grpc.keepalive_timeout_ms", 10000),
    ]


class FallbackStub:
    """Asks the fallback. Close it when done."""

    def __init__(
        self,
        target: str,
        *,
        api_key: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        max_upload_bytes: int,
    ) -> None:
        """
        Args:
            target: any gRPC target.
            api_key: sent as Bearer; empty: nothing is sent.
            credentials: of TLS; None: in the clear.
        """
        options = channel_options(max_upload_bytes)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        self._stub = speech_pb2_grpc.SpeechToTextStub(self._channel)
        self._key = (("authorization", f"Bearer {api_key}"),) if api_key else ()

    async def transcribe(self, job: Job, timeout_s: float) -> Answer:
        """The fallback's answer to the same job, within `timeout_s` seconds.

        Raises:
            FallbackError: with the fallback's error type, or what the transport says.
        """
        metadata = (*self._key, ("x-req-id", job.request_id))
        try:
            response: pb.TranscribeResponse = await self._stub.Transcribe(
                request_of(job), timeout=timeout_s, metadata=metadata
            )
        except grpc.aio.AioRpcError as error:
            raise FallbackError(_code_of(error)) from error
        return answer_of(response)

    async def close(self) -> None:
        await self._channel.close()


def _code_of(error: grpc.aio.AioRpcError) -> FallbackCode:
    """What goes into `fallback_error`: the fallback's own error type, else what the transport says."""
    said = [value for name, value in error.trailing_metadata() or () if name == "x-error-type"]
    return fallback_code_of(error.code().name, said[0] if said and isinstance(said[0], str) else "")
