"""What answers once a model is there: gate, batcher, pipelines, and the way to the fallback."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from stt_server.admission.gate import Gate
from stt_server.admission.service_time import Load, Pace
from stt_server.audio.mono import FloatArray
from stt_server.cascade.breaker import CircuitState
from stt_server.cascade.circuit import Circuit
from stt_server.cascade.hot_swap import ClosableFallback, Switch
from stt_server.cascade.rules import live_rules_of, rules_of
from stt_server.config import Settings
from stt_server.engine.batcher import Batcher
from stt_server.engine.health.model_health import ModelHealth
from stt_server.engine.types import Recognizer
from stt_server.pipeline import Pipeline
from stt_server.rpc.fallback_stub import FallbackStub
from stt_server.security.tls import ChannelPems, Read, channel_pems
from stt_server.streaming.recognition import Live

FAIR_SHARE = 0.5
"""Of FALLBACK_TIMEOUT_S: a call that was given less and was late says nothing of the fallback. Its caller was in a
hurry, or a live stream was."""


@dataclass(frozen=True)
class Route:
    """What leads to the fallback; another one is another connection."""

    target: str
    api_key: str = field(repr=False)
    pems: ChannelPems | None
    """None: without TLS."""
    max_upload_bytes: int
    timeout_s: float
    """FALLBACK_TIMEOUT_S, by which the circuit breaker tells who was in a hurry."""


def route_of(settings: Settings, read: Read = Path.read_bytes) -> Route | None:
    """The way to the fallback; None where none is configured. Raises ConfigError for a bad file of FALLBACK_*."""
    if settings.fallback is None:
        return None
    pems = channel_pems(settings, read)
    return Route(
        target=settings.fallback.target,
        api_key=settings.fallback_api_key,
        pems=pems,
        max_upload_bytes=settings.max_upload_bytes,
        timeout_s=settings.fallback_timeout_s,
    )


class Work:
    """Everything between an admitted call and its answer. Made in the event loop; close it there."""

    def __init__(
        self,
        settings: Settings,
        recognizer: Recognizer,
        decode_file: Callable[[bytes], Awaitable[FloatArray]],
        route: Route | None,
        circuit_moved: Callable[[CircuitState | None], None] = lambda _: None,
        health: ModelHealth | None = None,
    ) -> None:
        """
        Args:
            decode_file: gives the samples of a file that may do harm to who decodes it.
            route: to the fallback.
            circuit_moved: told the state of the circuit to the fallback, and each time that it changes; None: there is
                no fallback.
            health: of the model, told what its inferences come to.
        """
        cores = usable_cores()
        self.info = recognizer.info
        slots = settings.concurrency(recognizer.info.device == "cpu", cores)
        pace = Pace()
        self.gate = Gate(slots, settings.max_queue, pace)
        self.batcher = Batcher(
            recognizer,
            slots,
            settings.max_batch_size,
            measured=lambda jobs, took: pace.observe(Load.of(job.chunk for job in jobs), took),
            forecast=lambda jobs: pace.seconds(Load.of(job.chunk for job in jobs)),
            health=health,
        )
        self._audio_threads = ThreadPoolExecutor(cores, thread_name_prefix="audio")
        self._decode_file = decode_file
        self._circuit_moved = circuit_moved
        self._fallback = Switch()
        self._route: Route | None = None
        self.pipeline, live = self._pipelines(settings, route)
        self.live = Live(live, self.batcher, self.gate)

    def follow(self, settings: Settings, route: Route | None) -> None:
        """From now on requests, and utterances of live streams, are answered by `settings`; those that have begun
        keep to the rules that they began with."""
        self.gate.allow(settings.max_queue)
        self.pipeline, self.live.pipeline = self._pipelines(settings, route)

    def _pipelines(self, settings: Settings, route: Route | None) -> tuple[Pipeline, Pipeline]:
        """Of recordings, and of live streams."""
        if route != self._route:
            self._turn_to(route)
        parts = (self.info, self.batcher, self.gate, self._audio_threads, self._decode_file)
        fallback = None if route is None else self._fallback
        return Pipeline(*parts, rules_of(settings), fallback), Pipeline(*parts, live_rules_of(settings), fallback)

    def _turn_to(self, route: Route | None) -> None:
        self._route = route
        if route is None:
            self._fallback.turn(None)
            self._circuit_moved(None)
            return

        def moved(state: CircuitState) -> None:
            if self._route is route:  # the state of a connection that calls in flight still hold is of no interest
                self._circuit_moved(state)

        self._fallback.turn(fallback_at(route, moved))

    async def close(self) -> None:
        """Starts nothing more, and lets go of the fallback."""
        await self._fallback.close()
        self._audio_threads.shutdown()
        self.batcher.close()


def fallback_at(route: Route, moved: Callable[[CircuitState], None]) -> ClosableFallback:
    """A new connection to the fallback, behind its circuit breaker."""
    stub = FallbackStub(
        route.target,
        api_key=route.api_key,
        credentials=None if route.pems is None else route.pems.credentials(),
        max_upload_bytes=route.max_upload_bytes,
    )
    return Circuit(stub, route.timeout_s * FAIR_SHARE, moved)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
