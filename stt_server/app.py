"""The wiring of a service: settings in, a ready server out. Entry points and tests use the same class."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from protos.stt.v1 import speech_pb2 as pb
from stt_server.admission.upload_budget import UploadBudget
from stt_server.audio.sandbox.pool import DecoderPool
from stt_server.audio.sandbox.worker import DecodeLimits
from stt_server.audio.vad import VoiceActivity
from stt_server.backend import Backend, FallbackRoute, fallback_route
from stt_server.config import Settings
from stt_server.engine.health.model_health import ModelHealth
from stt_server.engine.types import Recognizer
from stt_server.errors import EngineLost, NotReady
from stt_server.lifecycle.gateway import Gateway, MakeGateway
from stt_server.lifecycle.listening import listen, listen_for_gateway
from stt_server.lifecycle.process_limits import usable_cores
from stt_server.lifecycle.readiness import Readiness
from stt_server.observability.instruments import Instruments
from stt_server.rpc.access_control import AccessControl
from stt_server.rpc.health import HealthServicer
from stt_server.rpc.interceptors import SpeechInterceptor
from stt_server.rpc.operations import OperationsServicer, status_response
from stt_server.rpc.server import create_server
from stt_server.rpc.speech import SpeechServicer
from stt_server.security.tls import ServerCertificate, ServerPems, server_pems
from stt_server.streaming.events import Message
from stt_server.streaming.registry import Streams
from stt_server.streaming.session import Limits, Session

log = logging.getLogger(__name__)

MAX_DECODERS = 8
"""Decoder processes, at most one per core. Eight decode about a thousand times faster than speech; more would not help
a container that is allowed fewer cores than it sees, and each takes 20 MiB."""

NOTICE_SHARE = 1 / 60
"""Share of DRAIN_TIMEOUT_S between NOT_SERVING and the first refusal, for load balancers to notice."""

UTTERANCE_SHARE = 0.5
"""Share of DRAIN_TIMEOUT_S in which live streams may end their current utterance."""

CLEANUP_S = 1.5
"""Part of DRAIN_TIMEOUT_S, at most a quarter of it, kept for sending errors to calls that are cut off, and for exit."""

LEAST_REFUSAL_S, REFUSAL_S = 0.5, 2.0
"""Grace period of gRPC's shutdown in seconds, at least and at most, by what the drain left: calls that arrive late
receive their refusal within it, and are cancelled after it."""

UNREAD_FACTOR = 2
"""A stream ends if its caller reads no event for so many times STREAM_IDLE_TIMEOUT_S: it may be busy with an event."""


class Service:
    """One service of the pair. Start it once; stop it also after a failed start."""

    def __init__(
        self, settings: Settings, load: Callable[[Settings], Recognizer], make_gateway: MakeGateway | None = None
    ) -> None:
        """
        Args:
            load: loads and warms the model; runs in a thread, for seconds.
            make_gateway: None: without HTTP.

        Raises:
            ConfigError: a PEM file of TLS_* or FALLBACK_* can't be used.
        """
        self.settings = settings
        self.route = fallback_route(settings)
        self.grpc_port = 0
        """0 until the port is open."""
        self.readiness = Readiness()
        self._load = load
        self._make_gateway = make_gateway if settings.http_port is not None else None
        self._gateway: Gateway | None = None
        self._backend: Backend | None = None
        self.instruments = Instruments(settings, self)
        pems = server_pems(settings)
        self._certificate = None if pems is None else ServerCertificate(pems)
        self._started = time.monotonic()
        self._model_lost = asyncio.Event()
        self._model_health = ModelHealth(self.instruments.failures.engine_failed, self._lose_model)
        self._vad_threads = ThreadPoolExecutor(usable_cores(), thread_name_prefix="vad")
        limits = DecodeLimits(settings.max_audio_seconds, settings.max_upload_bytes)
        metrics = self.instruments.metrics
        self._decoders = DecoderPool(min(usable_cores(), MAX_DECODERS), limits, metrics.observe_death)
        self._resources = contextlib.AsyncExitStack()
        self._resources.push_async_callback(self._decoders.close)
        self._streams = Streams(settings.max_streams, self.instruments.streams, self._vad_threads)
        self._access = AccessControl(settings, self.readiness, lambda: self.backend.gate.check_admission())
        self._health = HealthServicer()
        self._server = self._create_server()

    def _create_server(self) -> grpc.aio.Server:
        settings, observer = self.settings, self.instruments.observer
        speech = SpeechServicer(lambda: self.backend.pipeline, self._open_stream, settings.max_upload_bytes)
        operations = OperationsServicer(
            self._status, self.instruments.metrics.exposition, self._access, observer, settings.max_upload_bytes
        )
        interceptor = SpeechInterceptor(
            self._access,
            self.readiness,
            UploadBudget(settings.max_upload_bytes),
            observer,
            settings.stream_idle_timeout_s * UNREAD_FACTOR,
        )
        return create_server(speech, operations, self._health, [interceptor], settings.max_upload_bytes)

    @property
    def backend(self) -> Backend:
        """What answers admitted calls. Raises NotReady while the model is loading."""
        if self._backend is None:
            raise NotReady("the model is loading; retry later or use another server")
        return self._backend

    @property
    def http_port(self) -> int | None:
        """None: without HTTP, or not started."""
        return self._gateway.port if self._gateway else None

    @property
    def wyoming_port(self) -> int | None:
        """None: without the Wyoming protocol, or not started."""
        return self._gateway.wyoming_port if self._gateway else None

    @property
    def queue_depth(self) -> int:
        """Requests waiting for an inference slot."""
        return self._backend.gate.depth if self._backend else 0

    @property
    def in_flight(self) -> int:
        """Requests arrived and not yet answered."""
        return self.readiness.in_flight

    @property
    def expected_wait(self) -> float:
        """Seconds until a request that arrived now would be recognized."""
        return self._backend.gate.expected_wait if self._backend else 0.0

    @property
    def slots(self) -> int:
        """Concurrent inferences at most; 0 while the model is loading."""
        return self._backend.batcher.workers if self._backend else 0

    @property
    def busy_slot_seconds(self) -> float:
        """Seconds that inference slots have been busy, all together."""
        return self._backend.batcher.busy_seconds if self._backend else 0.0

    async def start(self) -> None:
        """Open the ports, load the model, and turn SERVING once it is warm.

        Raises:
            OSError: a port can't be opened, or a decoder process can't be started.
            Exception: what `load` raises.
        """
        await self._health.set_serving(False)
        self.grpc_port = listen(self._server, self.settings, self._certificate)
        if self._make_gateway is None:
            await self._server.start()
        else:
            folder = self._resources.enter_context(tempfile.TemporaryDirectory(prefix="stt-"))
            target = listen_for_gateway(self._server, Path(folder))
            await self._server.start()
            gateway = self._make_gateway(target, self.settings)
            await gateway.start()
            self._gateway = gateway
        self._backend = await self._load_backend()
        self._resources.push_async_callback(self._backend.close)
        self.readiness.state = "ready"
        await self._health.set_serving(True)

    async def _load_backend(self) -> Backend:
        loop = asyncio.get_running_loop()
        loading = loop.run_in_executor(None, self._load, self.settings)
        recognizer, _ = await asyncio.gather(loading, self._decoders.start())
        await loop.run_in_executor(self._vad_threads, VoiceActivity)  # loads the model before the first stream needs it
        circuit_moved = self.instruments.failures.circuit_changed
        return Backend(self.settings, recognizer, self._decoders.decode, self.route, circuit_moved, self._model_health)

    async def stop(self) -> None:
        """Turn NOT_SERVING, answer every admitted call within DRAIN_TIMEOUT_S, and release all resources."""
        await self._health.set_serving(False)
        timeout_s = self.settings.drain_timeout_s
        deadline = time.monotonic() + timeout_s
        if self._gateway is not None:
            self._gateway.announce_shutdown()
        if self.readiness.ready:
            await asyncio.sleep(timeout_s * NOTICE_SHARE)
        self.readiness.state = "stopping"
        self._streams.drain(timeout_s * UTTERANCE_SHARE)
        if cut_off := await self.readiness.drain(deadline - min(CLEANUP_S, timeout_s / 4)):
            log.warning("drain timed out: %d calls were cut off with not_ready", cut_off)
        if self._gateway is not None:
            await self._gateway.stop(max(0.1, deadline - time.monotonic()))
        self._health.end_watches()
        # With a grace period, so that calls which arrive now receive their refusal.
        await self._server.stop(max(LEAST_REFUSAL_S, min(REFUSAL_S, deadline - time.monotonic())))
        self._vad_threads.shutdown(wait=False)
        await self._resources.aclose()
        if self.instruments.spans is not None:
            await asyncio.to_thread(self.instruments.spans.close)

    def end_drain(self) -> None:
        """End a running or later drain: calls that are not answered yet are cut off with an error."""
        self.readiness.end_drain()

    def apply(self, settings: Settings, route: FallbackRoute | None) -> None:
        """Apply changed settings, which differ in live keys alone, to new calls.

        Args:
            route: None without a fallback.
        """
        self.settings, self.route = settings, route
        self._access.apply(settings)
        self.instruments.apply(settings)
        self._streams.limit = settings.max_streams
        if self._gateway is not None:
            self._gateway.use_wyoming_key(settings.wyoming_api_key)
        if self._backend is not None:
            self._backend.apply(settings, route)

    def renew_certificate(self, pems: ServerPems) -> bool:
        """Use `pems` for new connections, over HTTP and gRPC. Returns whether they differ from the current ones.

        Raises:
            OSError: the gateway can't use its files; nothing is changed.
        """
        if self._certificate is None or self._certificate.pems == pems:
            return False
        if self._gateway is not None:
            self._gateway.renew_certificate()
        self._certificate.renew(pems)
        return True

    @property
    def model_error(self) -> EngineLost | None:
        """Why the service's own model has stopped working; None while it works."""
        return self._model_health.error

    async def wait_model_lost(self) -> None:
        """Wait until the service's own model has stopped working: stop the service then, and exit."""
        await self._model_lost.wait()

    def _lose_model(self, error: EngineLost) -> None:
        log.critical("model lost: %s", error.__cause__ or error)
        self._model_lost.set()

    def _open_stream(
        self, messages: AsyncIterator[Message], request_id: str
    ) -> contextlib.AbstractAsyncContextManager[Session]:
        limits = Limits(self.settings.stream_idle_timeout_s, self.settings.max_upload_bytes)
        return self._streams.open(messages, self.backend.live, limits, request_id)

    def _status(self) -> pb.GetStatusResponse:
        backend = self._backend
        return status_response(
            self.settings,
            None if backend is None else backend.info,
            workers=self.slots,
            uptime_s=time.monotonic() - self._started,
            snapshot=self.instruments.snapshot(),
        )
