"""What answers once a model is there: gate, batcher, pipelines, and the way to the fallback."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from stt_server.audio.mono import FloatArray
from stt_server.breaker import CircuitState
from stt_server.config import Settings
from stt_server.engine.batcher import Batcher
from stt_server.engine.types import Recognizer
from stt_server.gate import Gate
from stt_server.live import Live
from stt_server.pipeline import Pipeline
from stt_server.rpc.circuit import Circuit
from stt_server.rpc.fallback import FallbackStub
from stt_server.rules import live_rules_of, rules_of
from stt_server.security.tls import channel_credentials


class Work:
    """Everything between an admitted call and its answer. Made in the event loop; close it there."""

    def __init__(
        self,
        settings: Settings,
        recognizer: Recognizer,
        decode_file: Callable[[bytes], Awaitable[FloatArray]],
        circuit_moved: Callable[[CircuitState], None] = lambda _: None,
    ) -> None:
        """
        Args:
            decode_file: gives the samples of a file that may do harm to who decodes it.
            circuit_moved: told the state of the circuit to the fallback, and each time that it changes.
        """
        cores = usable_cores()
        self.info = recognizer.info
        slots = settings.concurrency(recognizer.info.device == "cpu", cores)
        self.gate = Gate(slots, settings.max_queue)
        self.batcher = Batcher(recognizer, slots, settings.max_batch_size)
        self._audio_threads = ThreadPoolExecutor(cores, thread_name_prefix="audio")
        self._fallback = _fallback_of(settings, circuit_moved)
        parts = (self.info, self.batcher, self.gate, self._audio_threads, decode_file)
        self.pipeline = Pipeline(*parts, rules_of(settings), self._fallback)
        live = Pipeline(*parts, live_rules_of(settings), self._fallback)
        self.live = Live(live, self.batcher, self.gate)

    async def close(self) -> None:
        """Starts nothing more, and lets go of the fallback."""
        if self._fallback is not None:
            await self._fallback.close()
        self._audio_threads.shutdown()
        self.batcher.close()


FAIR_SHARE = 0.5
"""Of FALLBACK_TIMEOUT_S: a call that was given less and was late says nothing of the fallback. Its caller was in a
hurry, or a live stream was."""


def _fallback_of(settings: Settings, moved: Callable[[CircuitState], None]) -> Circuit | None:
    """The way to the fallback, behind its circuit breaker; None where none is configured."""
    if settings.fallback is None:
        return None
    stub = FallbackStub(
        settings.fallback.target,
        api_key=settings.fallback_api_key,
        credentials=channel_credentials(settings),
        max_upload_bytes=settings.max_upload_bytes,
    )
    return Circuit(stub, settings.fallback_timeout_s * FAIR_SHARE, moved)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
