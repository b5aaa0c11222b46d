"""What answers once a model is there: gate, batcher, pipelines, and the way to the fallback."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from stt_server.audio.mono import FloatArray
from stt_server.config import Settings
from stt_server.engine.batcher import Batcher
from stt_server.engine.types import Recognizer
from stt_server.estimate import Load, Pace
from stt_server.gate import Gate
from stt_server.live import Live
from stt_server.pipeline import Pipeline
from stt_server.rpc.fallback import FallbackStub
from stt_server.rules import live_rules_of, rules_of
from stt_server.security.tls import ChannelPems, Read, channel_pems
from stt_server.switch import ClosableFallback, Switch


@dataclass(frozen=True)
class Route:
    """What leads to the fallback; another one is another connection."""

    target: str
    api_key: str = field(repr=False)
    pems: ChannelPems | None
    """None: without TLS."""
    max_upload_bytes: int


def route_of(settings: Settings, read: Read = Path.read_bytes) -> Route | None:
    """The way to the fallback; None where none is configured. Raises ConfigError for a bad file of FALLBACK_*."""
    if settings.fallback is None:
        return None
    pems = channel_pems(settings, read)
    return Route(settings.fallback.target, settings.fallback_api_key, pems, settings.max_upload_bytes)


class Work:
    """Everything between an admitted call and its answer. Made in the event loop; close it there."""

    def __init__(
        self,
        settings: Settings,
        recognizer: Recognizer,
        decode_file: Callable[[bytes], Awaitable[FloatArray]],
        route: Route | None,
    ) -> None:
        """
        Args:
            decode_file: gives the samples of a file that may do harm to who decodes it.
            route: to the fallback.
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
        )
        self._audio_threads = ThreadPoolExecutor(cores, thread_name_prefix="audio")
        self._decode_file = decode_file
        self._fallback = Switch()
        self._route: Route | None = None
        self.pipeline, live = self._pipelines(settings, route)
        self.live = Live(live, self.batcher, self.gate)

    def follow(self, settings: Settings, route: Route | None) -> None:
        """From now on requests, and utterances of live streams, are answered by `settings`; those that have begun
        keep to the rules that they began with."""
        self.pipeline, self.live.pipeline = self._pipelines(settings, route)

    def _pipelines(self, settings: Settings, route: Route | None) -> tuple[Pipeline, Pipeline]:
        """Of recordings, and of live streams."""
        if route != self._route:
            self._fallback.turn(None if route is None else fallback_at(route))
            self._route = route
        parts = (self.info, self.batcher, self.gate, self._audio_threads, self._decode_file)
        fallback = None if route is None else self._fallback
        return Pipeline(*parts, rules_of(settings), fallback), Pipeline(*parts, live_rules_of(settings), fallback)

    async def close(self) -> None:
        """Starts nothing more, and lets go of the fallback."""
        await self._fallback.close()
        self._audio_threads.shutdown()
        self.batcher.close()


def fallback_at(route: Route) -> ClosableFallback:
    """A new connection to the fallback."""
    return FallbackStub(
        route.target,
        api_key=route.api_key,
        credentials=None if route.pems is None else route.pems.credentials(),
        max_upload_bytes=route.max_upload_bytes,
    )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
