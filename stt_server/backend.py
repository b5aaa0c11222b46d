"""What answers requests once the model is loaded: gate, batcher, pipelines and the connection to the fallback."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from stt_server.admission.audio_budget import AudioBudget
from stt_server.admission.audio_length import AudioLengthForecast
from stt_server.admission.gate import Gate
from stt_server.admission.service_time import Load, ServiceTime
from stt_server.audio.reader import AudioReader, DecodeFile
from stt_server.cascade.breaker import CircuitState
from stt_server.cascade.cascade import Cascade, SingleModelCascade, TwoModelCascade
from stt_server.cascade.circuit import Circuit
from stt_server.cascade.fallback import ClosableFallback
from stt_server.cascade.hot_swap import HotSwap
from stt_server.cascade.settings import stream_cascade_settings, upload_cascade_settings
from stt_server.config import Settings
from stt_server.engine.batcher import Batcher, InferenceTimes
from stt_server.engine.health.model_health import ModelHealth
from stt_server.engine.types import Recognizer
from stt_server.lifecycle.process_limits import usable_cores
from stt_server.pipeline import Pipeline
from stt_server.rpc.fallback_stub import FallbackStub
from stt_server.security.tls import ChannelPems, Read, channel_pems
from stt_server.streaming.recognition import StreamBackend

MIN_TIMEOUT_SHARE = 0.5
"""Share of FALLBACK_TIMEOUT_S below which running into the timeout is no failure of the fallback: the caller or the
live stream allowed too little."""


@dataclass(frozen=True)
class FallbackRoute:
    """Parameters of the connection to the fallback; a change of any needs a new connection."""

    target: str
    api_key: str = field(repr=False)
    pems: ChannelPems | None
    """None: without TLS."""
    max_upload_bytes: int
    timeout_s: float
    """FALLBACK_TIMEOUT_S, for the circuit breaker to distinguish a slow fallback from a short deadline."""


def fallback_route(settings: Settings, read: Read = Path.read_bytes) -> FallbackRoute | None:
    """The configured connection to the fallback; None without one.

    Raises:
        ConfigError: a PEM file of FALLBACK_* can't be used.
    """
    if settings.fallback is None:
        return None
    pems = channel_pems(settings, read)
    return FallbackRoute(
        target=settings.fallback.target,
        api_key=settings.fallback_api_key,
        pems=pems,
        max_upload_bytes=settings.max_upload_bytes,
        timeout_s=settings.fallback_timeout_s,
    )


class Backend:
    """Everything between an admitted call and its answer. Create and close it in the event loop."""

    def __init__(
        self,
        settings: Settings,
        recognizer: Recognizer,
        decode_file: DecodeFile,
        route: FallbackRoute | None,
        on_circuit_change: Callable[[CircuitState | None], None] = lambda _: None,
        health: ModelHealth | None = None,
    ) -> None:
        """
        Args:
            decode_file: decodes a container file in a sandbox.
            route: None without a fallback.
            on_circuit_change: called with the state of the fallback's circuit, now and at each change; None without a
                fallback.
            health: the model's, kept up to date with the results of its inferences.
        """
        cores = usable_cores()
        self.info = recognizer.info
        slots = settings.concurrency(recognizer.info.device == "cpu", cores)
        service_time = ServiceTime()
        self.gate = Gate(slots, settings.max_queue, service_time)
        times = InferenceTimes(
            forecast=lambda jobs: service_time.seconds(Load.of(job.chunk for job in jobs)),
            observe=lambda jobs, seconds: service_time.observe(Load.of(job.chunk for job in jobs), seconds),
        )
        self.batcher = Batcher(recognizer, slots, settings.max_batch_size, times, health)
        self._audio_threads = ThreadPoolExecutor(cores, thread_name_prefix="audio")
        self._decode_file = decode_file
        self._lengths = AudioLengthForecast()
        self._budget = AudioBudget(settings.max_audio_seconds)
        self._on_circuit_change = on_circuit_change
        self._fallback = HotSwap()
        self._route: FallbackRoute | None = None
        self.pipeline, live = self._pipelines(settings, route)
        self.live = StreamBackend(live, self.batcher, self.gate)

    def apply(self, settings: Settings, route: FallbackRoute | None) -> None:
        """Apply changed settings to new requests and utterances; work in progress keeps the old ones."""
        self.gate.set_max_queue(settings.max_queue)
        self.pipeline, self.live.pipeline = self._pipelines(settings, route)

    def _pipelines(self, settings: Settings, route: FallbackRoute | None) -> tuple[Pipeline, Pipeline]:
        """Pipelines for uploads and for live streams."""
        if route != self._route:
            self._reconnect(route)
        uploads, streams = self._cascades(settings)
        audio = AudioReader(
            self._audio_threads,
            self._decode_file,
            max_seconds=settings.max_audio_seconds,
            vad_filter=settings.vad_filter,
        )
        parts = (self.info, self.batcher, self.gate, self._lengths, audio, self._budget)
        return Pipeline(*parts, uploads), Pipeline(*parts, streams)

    def _cascades(self, settings: Settings) -> tuple[Cascade, Cascade]:
        """Cascades for uploads and for live streams."""
        if settings.service == "fallback":
            single = SingleModelCascade(self.info)
            return single, single
        fallback = None if self._route is None else self._fallback
        uploads, streams = upload_cascade_settings(settings), stream_cascade_settings(settings)
        return TwoModelCascade(self.info, uploads, fallback), TwoModelCascade(self.info, streams, fallback)

    def _reconnect(self, route: FallbackRoute | None) -> None:
        self._route = route
        if route is None:
            self._fallback.replace(None)
            self._on_circuit_change(None)
            return

        def changed(state: CircuitState) -> None:
            if self._route is route:  # ignore a replaced connection that calls in progress still hold
                self._on_circuit_change(state)

        self._fallback.replace(_connect(route, changed))

    async def close(self) -> None:
        """Start no more work, and close the connection to the fallback."""
        await self._fallback.close()
        self._audio_threads.shutdown()
        self.batcher.close()


def _connect(route: FallbackRoute, on_change: Callable[[CircuitState], None]) -> ClosableFallback:
    """A new connection to the fallback, behind its circuit breaker."""
    stub = FallbackStub(
        route.target,
        api_key=route.api_key,
        credentials=None if route.pems is None else route.pems.credentials(),
        max_upload_bytes=route.max_upload_bytes,
    )
    return Circuit(stub, route.timeout_s * MIN_TIMEOUT_SHARE, on_change)
