"""The gRPC server of a service: its RPC services and its options."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protos.stt.v1 import speech_pb2_grpc
from protos.stt.v1.wire import OPERATIONS_SERVICE, SPEECH_SERVICE
from stt_server.rpc.health import HealthServicer
from stt_server.rpc.operations import OperationsServicer
from stt_server.rpc.server_options import server_options
from stt_server.rpc.speech import SpeechServicer


def create_server(
    speech: SpeechServicer,
    operations: OperationsServicer,
    health_servicer: HealthServicer,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    max_upload_bytes: int,
) -> grpc.aio.Server:
    """A server with reflection that listens nowhere yet."""
    server = grpc.aio.server(interceptors=interceptors, options=server_options(max_upload_bytes))
    speech_pb2_grpc.add_SpeechToTextServicer_to_server(speech, server)
    speech_pb2_grpc.add_OperationsServicer_to_server(operations, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = (SPEECH_SERVICE, OPERATIONS_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server
