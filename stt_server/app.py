"""The wiring: settings in, a ready service out. Entry points and tests use the same functions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from protos.stt.v1.wire import OPERATIONS_SERVICE, SPEECH_SERVICE
from stt_server.admission.upload_budget import Room
from stt_server.audio.sandbox.pool import DecoderPool
from stt_server.audio.sandbox.worker import DecodeLimits
from stt_server.audio.vad import VoiceActivity
from stt_server.backend import Backend, FallbackRoute, fallback_route, usable_cores
from stt_server.config import Settings
from stt_server.engine.health.model_health import ModelHealth
from stt_server.engine.types import Recognizer
from stt_server.errors import EngineLost
from stt_server.lifecycle.gateway import Gateway, address_of
from stt_server.lifecycle.ports import listen, listen_for_gateway
from stt_server.lifecycle.readiness import Readiness
from stt_server.observability.failure_metrics import FaultMetrics
from stt_server.observability.gpu import Gpu, GpuCollector, load_nvml
from stt_server.observability.metrics import Metrics
from stt_server.observability.observer import Observer
from stt_server.observability.reload_metrics import ReloadMetrics
from stt_server.observability.snapshot import Snapshot
from stt_server.observability.stream_metrics import StreamMetrics
from stt_server.rpc.access_control import Guard
from stt_server.rpc.convert import duration
from stt_server.rpc.health import HealthServicer
from stt_server.rpc.interceptors import SpeechInterceptor
from stt_server.rpc.server_options import server_options
from stt_server.rpc.servicers import OperationsServicer, SpeechServicer, status_response
from stt_server.security.key_ring import KeyRing
from stt_server.security.rate_limit import RateLimiter
from stt_server.security.tls import ServerCertificate, ServerPems, server_pems
from stt_server.streaming.events import Message
from stt_server.streaming.registry import Streams
from stt_server.streaming.session import Limits, Session

log = logging.getLogger(__name__)

NOTICE_SHARE = 1 / 60
"""Of DRAIN_TIMEOUT_S, between NOT_SERVING and the first refusal: time for load balancers to see it."""

SPEAKING_SHARE = 0.5
"""Of DRAIN_TIMEOUT_S, in which those who speak may end their utterances."""

ENDING_S = 1.5
"""Of DRAIN_TIMEOUT_S, and at most a quarter of it, kept for telling those who wait that it is over, and for ending."""

MOST_CHILDREN = 8
"""That decode uploads, a core each: together some thousand times faster than speech. More would be no help where a
container is allowed less than the cores that it sees, and each has 20 MiB of its own."""

REFUSING_S = 0.5
"""Longest wait until those who came too late have been told."""

UNREAD_FACTOR = 2
"""Of STREAM_IDLE_TIMEOUT_S, after which a stream is ended whose caller reads nothing: it may be busy with an event."""


class Service:
    """One service of the pair: its gRPC server, and whatever it needs."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[Settings], Recognizer],
        make_gateway: Callable[[str, Settings], Gateway] | None = None,
    ) -> None:
        """
        Args:
            load: loads and warms the model; runs in a thread, for seconds.
            make_gateway: makes the gateway in front of a gRPC target; None: without one.

        Raises:
            ConfigError: a PEM file of FALLBACK_* that can't be used.
        """
        self.settings = settings
        self.route = fallback_route(settings)
        self.grpc_port = 0
        self._load = load
        self._make_gateway = make_gateway if settings.http_port is not None else None
        self._gateway: Gateway | None = None
        self._certificate: ServerCertificate | None = None
        self._started = time.monotonic()
        self._readiness = Readiness()
        self._lost = asyncio.Event()
        self._work: Backend | None = None
        self._stack = contextlib.AsyncExitStack()
        self._vad_threads = ThreadPoolExecutor(usable_cores(), thread_name_prefix="vad")
        self._observe()
        bounds = DecodeLimits(settings.max_audio_seconds, settings.max_upload_bytes)
        self._children = DecoderPool(min(usable_cores(), MOST_CHILDREN), bounds, self._metrics.observe_death)
        self._stack.push_async_callback(self._children.close)
        self._health = HealthServicer()
        self._server = self._make_server()

    @property
    def http_port(self) -> int | None:
        return self._gateway.port if self._gateway else None

    async def start(self) -> None:
        """Opens the ports, loads the model, and turns SERVING once it is warm.

        Raises:
            OSError: a port can't be had, or a child.
            Exception: what `load` raises.
        """
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        socket_target = self._bind()
        await self._server.start()
        if self._make_gateway is not None:
            gateway = self._make_gateway(socket_target, self.settings)
            try:
                await gateway.start()
            except OSError as error:
                address = address_of(self.settings.host, self.settings.http_port or 0)
                raise OSError(f"HTTP can't listen on {address}: {error.strerror or error}") from error
            self._gateway = gateway
        loop = asyncio.get_running_loop()
        loading = loop.run_in_executor(None, self._load, self.settings)
        recognizer, _ = await asyncio.gather(loading, self._children.start())
        await loop.run_in_executor(self._vad_threads, VoiceActivity)  # load its model before the first stream
        self._work = Backend(
            self.settings, recognizer, self._children.decode, self.route, self._faults.circuit_moved, self._model_health
        )
        self._stack.push_async_callback(self._work.close)
        self._readiness.state = "ready"
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """NOT_SERVING, then everything accepted is answered, for at most DRAIN_TIMEOUT_S seconds."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        until = time.monotonic() + self.settings.drain_timeout_s
        if self._gateway is not None:
            self._gateway.announce_shutdown()
        if self._readiness.ready:
            await asyncio.sleep(self.settings.drain_timeout_s * NOTICE_SHARE)
        self._readiness.state = "stopping"
        self._streams.drain(self.settings.drain_timeout_s * SPEAKING_SHARE)
        if cut_off := await self._readiness.drain(until - min(ENDING_S, self.settings.drain_timeout_s / 4)):
            log.warning("stopped before %d calls were answered; they were told not_ready", cut_off)
        if self._gateway is not None:
            await self._gateway.stop(max(0.1, until - time.monotonic()))
        self._health.end_watches()
        # It ends with the last refusal: callers who came in this moment are told not_ready rather than cut off.
        await self._server.stop(REFUSING_S)
        self._vad_threads.shutdown(wait=False)
        await self._stack.aclose()

    def follow(self, settings: Settings, route: FallbackRoute | None) -> None:
        """Goes on with changed settings, which differ in live keys alone. Calls in flight keep what they began with.

        Args:
            route: to the fallback.
        """
        self.settings, self.route = settings, route
        self._guard.follow(settings)
        self._metrics.set_key_names([key.name for key in settings.api_keys])
        self._streams.limit = settings.max_streams
        if self._work is not None:
            self._work.follow(settings, route)

    def renew_certificate(self, pems: ServerPems) -> bool:
        """Shows `pems` to new connections, over HTTP and gRPC; whether they are new.

        Raises:
            OSError: the gateway can't use its files; nothing is changed.
        """
        if self._certificate is None or self._certificate.pems == pems:
            return False
        if self._gateway is not None:
            self._gateway.renew_certificate()
        self._certificate.renew(pems)
        return True

    def hurry(self) -> None:
        """Ends the drain: those whose answers aren't there are told so at once."""
        self._readiness.hurry()

    def _lose(self, error: EngineLost) -> None:
        log.critical("the model is lost: %s", error.__cause__ or error)
        self._lost.set()

    async def losing_model(self) -> None:
        """Returns once the service's own model works no more. Stop the service then, and end the process."""
        await self._lost.wait()

    @property
    def lost(self) -> EngineLost | None:
        """Why the service's own model works no more; None while it does."""
        return self._model_health.error

    def _observe(self) -> None:
        settings = self.settings
        registry = CollectorRegistry()
        self._metrics = Metrics(registry, [key.name for key in settings.api_keys])
        self.reloads = ReloadMetrics(registry)
        self._metrics.watch_queue(self._queue_depth, lambda: self._readiness.in_flight, self._expected_wait)
        self._snapshot = Snapshot(settings.server_commit, settings.model_name, settings.service)
        self._gpu = self._find_gpu()
        if self._gpu is not None:
            registry.register(GpuCollector(self._gpu))
        self._faults = FaultMetrics(registry)
        self._stream_metrics = StreamMetrics(registry, self._metrics)
        self._streams = Streams(settings.max_streams, self._stream_metrics, self._vad_threads)
        self._model_health = ModelHealth(self._faults.engine_failed, self._lose)
        self._observer = Observer(self._metrics, self._snapshot, logging.getLogger("stt.request"))

    def _find_gpu(self) -> Gpu | None:
        if self.settings.device == "cpu":
            return None
        return Gpu(load_nvml(), self.settings.device_index, os.environ.get("CUDA_VISIBLE_DEVICES"))

    def _queue_depth(self) -> int:
        return self._work.gate.depth if self._work else 0

    def _expected_wait(self) -> float:
        return self._work.gate.expected_wait if self._work else 0.0

    def _make_server(self) -> grpc.aio.Server:
        settings = self.settings
        limiter = RateLimiter(settings.rate_limit_rps, settings.rate_limit_burst)
        guard = self._guard = Guard(self._readiness, KeyRing(settings.api_keys), limiter, settings.trusted_proxies)
        room = Room(settings.max_upload_bytes)

        def check_door() -> None:
            self.work.gate.check_admission()

        unread_timeout_s = settings.stream_idle_timeout_s * UNREAD_FACTOR
        server = grpc.aio.server(
            interceptors=[
                SpeechInterceptor(guard, self._readiness, self._observer, room, check_door, unread_timeout_s)
            ],
            options=server_options(settings.max_upload_bytes),
        )
        speech_pb2_grpc.add_SpeechToTextServicer_to_server(
            SpeechServicer(lambda: self.work.pipeline, self._open_stream, settings.max_upload_bytes),
            server,
        )
        speech_pb2_grpc.add_OperationsServicer_to_server(
            OperationsServicer(
                self._status,
                self._metrics.exposition,
                guard,
                check_door,
                self._observer,
                settings.max_upload_bytes,
            ),
            server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        services = (SPEECH_SERVICE, OPERATIONS_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(services, server)
        return server

    def _bind(self) -> str:
        """Opens the service's port, and the way in of its gateway, whose target it returns; empty without one."""
        pems = server_pems(self.settings)
        self._certificate = None if pems is None else ServerCertificate(pems)
        self.grpc_port = listen(self._server, self.settings, self._certificate)
        if self._make_gateway is None:
            return ""
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="stt-"))
        return listen_for_gateway(self._server, Path(folder))

    def _open_stream(
        self, messages: AsyncIterator[Message], request_id: str
    ) -> contextlib.AbstractAsyncContextManager[Session]:
        limits = Limits(self.settings.stream_idle_timeout_s, self.settings.max_upload_bytes)
        return self._streams.open(messages, self.work.live, limits, request_id)

    @property
    def work(self) -> Backend:
        """What answers; there once the service is ready."""
        assert self._work is not None, "calls are let in only when ready"  # noqa: S101
        return self._work

    def _status(self) -> pb.GetStatusResponse:
        settings = self.settings
        limits = pb.Limits(
            max_upload_bytes=settings.max_upload_bytes,
            max_audio_duration=duration(settings.max_audio_seconds),
            max_concurrency=self._work.batcher.workers if self._work else 0,
            max_queue=settings.max_queue,
        )
        return status_response(
            settings,
            self._work.info if self._work else None,
            time.monotonic() - self._started,
            limits,
            self._snapshot_now(),
        )

    def _snapshot_now(self) -> dict[str, Any]:
        gpu = self._gpu.read() if self._gpu else None
        return self._snapshot.as_dict(self._queue_depth(), self._readiness.in_flight, gpu, self._faults.circuit)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        for name in ("", SPEECH_SERVICE):
            await self._health.set(name, status)
