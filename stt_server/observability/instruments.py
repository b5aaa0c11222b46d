"""Metrics, snapshot and request log of one service."""

from __future__ import annotations

import logging
import os
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from protos.stt.v1.errors import ERRORS
from protos.stt.v1.spans import SpanSink, span_sink
from stt_server.config import Settings
from stt_server.observability.build_info import state_build
from stt_server.observability.call_record import CallRecord
from stt_server.observability.call_spans import spans_of
from stt_server.observability.failure_metrics import FailureMetrics
from stt_server.observability.gpu import Gpu, GpuCollector, load_nvml
from stt_server.observability.logs import log_call
from stt_server.observability.metrics import ENDPOINTS, Metrics
from stt_server.observability.reload_metrics import ReloadMetrics
from stt_server.observability.snapshot import Snapshot
from stt_server.observability.stream_metrics import StreamMetrics


class QueueState(Protocol):
    """State read at each scrape, from other threads; must not block."""

    @property
    def queue_depth(self) -> int:
        """Requests waiting for an inference slot."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests arrived and not yet answered."""
        ...

    @property
    def expected_wait(self) -> float:
        """Seconds until a request that arrived now would be recognized."""
        ...

    @property
    def slots(self) -> int:
        """Concurrent inferences at most; 0 while the model is loading."""
        ...

    @property
    def busy_slot_seconds(self) -> float:
        """Seconds that slots have been busy, all together."""
        ...


class Observer:
    """Records finished requests in metrics, snapshot, request log and trace, so that all agree."""

    def __init__(
        self, metrics: Metrics, snapshot: Snapshot, logger: logging.Logger, spans: SpanSink | None = None
    ) -> None:
        self._metrics = metrics
        self._snapshot = snapshot
        self._logger = logger
        self._spans = spans

    def finished(self, call: CallRecord) -> None:
        """Record a request. Call exactly once per request, whatever its outcome."""
        self._metrics.observe(call)
        self._snapshot.observe(call)
        log_call(self._logger, call)
        if self._spans is not None:
            for span in spans_of(call):
                self._spans.add(span)

    def refused_by_gateway(self, endpoint: str, type_: str, count: int) -> None:
        """Record requests that the gateway refused, and logged, by itself. Unknown labels are ignored."""
        if endpoint in ENDPOINTS and type_ in ERRORS and count > 0:
            self._metrics.observe_refusals(endpoint, type_, count)
            self._snapshot.observe_refusals(type_, count)


class Instruments:
    """Everything that observes a service, around one Prometheus registry."""

    def __init__(self, settings: Settings, queue: QueueState) -> None:
        registry = CollectorRegistry()
        self._queue = queue
        self._gpu = _find_gpu(settings)
        if self._gpu is not None:
            registry.register(GpuCollector(self._gpu))
        self._snapshot = Snapshot(settings.server_commit, settings.model_name, settings.service)
        state_build(registry, settings.server_commit, settings.model_name)
        self.metrics = Metrics(registry, settings.service, [key.name for key in settings.api_keys])
        self.metrics.watch_queue(lambda: queue.queue_depth, lambda: queue.in_flight, lambda: queue.expected_wait)
        self.metrics.watch_slots(lambda: queue.slots, lambda: queue.busy_slot_seconds)
        self.failures = FailureMetrics(registry)
        self.reloads = ReloadMetrics(registry)
        service = f"stt-{settings.service}"
        self.spans = span_sink(settings.otlp_endpoint, service, settings.server_commit)
        """None: traces are not exported."""
        self.streams = StreamMetrics(registry, self.metrics.models, self.spans)
        self.observer = Observer(self.metrics, self._snapshot, logging.getLogger("stt.request"), self.spans)

    def apply(self, settings: Settings) -> None:
        """Count requests by the names of the reloaded API keys."""
        self.metrics.set_key_names([key.name for key in settings.api_keys])

    def snapshot(self) -> dict[str, Any]:
        """Snapshot as a dict for `json.dumps`. Blocks for milliseconds while reading the GPU, if there is one."""
        gpu = self._gpu.read() if self._gpu else None
        return self._snapshot.as_dict(self._queue.queue_depth, self._queue.in_flight, gpu, self.failures.circuit)


def _find_gpu(settings: Settings) -> Gpu | None:
    if settings.device == "cpu":
        return None
    return Gpu(load_nvml(), settings.device_index, os.environ.get("CUDA_VISIBLE_DEVICES"))
