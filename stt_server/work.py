"""What answers once a model is there: gate, batcher, pipelines, and the way to the fallback."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from stt_server.audio.mono import FloatArray
from stt_server.config import Settings
from stt_server.engine.batcher import Batcher
from stt_server.engine.types import Recognizer
from stt_server.gate import Gate
from stt_server.live import Live
from stt_server.pipeline import Pipeline
from stt_server.rpc.fallback import FallbackStub
from stt_server.rules import live_rules_of, rules_of
from stt_server.security.tls import channel_credentials


class Work:
    """Everything between an admitted call and its answer. Made in the event loop; close it there."""

    def __init__(
        self, settings: Settings, recognizer: Recognizer, decode_file: Callable[[bytes], Awaitable[FloatArray]]
    ) -> None:
        """
        Args:
            decode_file: gives the samples of a file that may do harm to who decodes it.
        """
        cores = usable_cores()
        self.info = recognizer.info
        slots = settings.concurrency(recognizer.info.device == "cpu", cores)
        self.gate = Gate(slots, settings.max_queue)
        self.batcher = Batcher(recognizer, slots, settings.max_batch_size)
        self._audio_threads = ThreadPoolExecutor(cores, thread_name_prefix="audio")
        self._fallback = _fallback_of(settings)
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


def _fallback_of(settings: Settings) -> FallbackStub | None:
    """The way to the fallback; None where none is configured."""
    if settings.fallback is None:
        return None
    return FallbackStub(
        settings.fallback.target,
        api_key=settings.fallback_api_key,
        credentials=channel_credentials(settings),
        max_upload_bytes=settings.max_upload_bytes,
    )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
