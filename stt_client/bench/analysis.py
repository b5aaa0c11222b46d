"""What the figures of a load test say: quantiles by step, the knee, Little's law, and the settings to choose."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stt_client.bench.load import Level, Outcome
from stt_client.results import Status
from stt_client.telemetry import quantile

STEPS: Mapping[str, Callable[[Outcome], float | None]] = {
    "total": lambda outcome: outcome.seconds,
    "primary": lambda outcome: outcome.primary,
    "fallback": lambda outcome: outcome.fallback,
    "queue_wait": lambda outcome: outcome.queue_wait,
}
"""Steps of a request: `total` is end to end as the caller saw it, the others are the service's own measurements."""
QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}

TOLERANCE = 0.1
"""Largest relative difference between two measurements of the same number that is not reported."""
ROUNDING = 0.05
"""Share by which a measured number of requests may exceed a whole number."""
GPU_HAS_ROOM_PCT = 80.0
"""Below this utilization at the knee, another slot is worth a try."""
CLIENT_BUSY = 0.8
"""From this share of a core on, this process may be what limits the throughput."""


def mean(values: Sequence[float | None]) -> float:
    """Arithmetic mean, in which None counts as 0; 0 without values."""
    return sum(value or 0.0 for value in values) / len(values) if values else 0.0


@dataclass(frozen=True)
class Little:
    """Little's law, L = X * W, on the figures of one level: three measurements of the same number."""

    callers: float
    """Mean number of requests in flight, counted by the callers."""
    product: float
    """Ended requests per second times their mean latency."""
    service: float | None
    """Mean number in flight that the services reported; None: they reported nothing."""

    @property
    def deviation(self) -> float:
        """Relative difference of `product` from `callers`."""
        return abs(self.product - self.callers) / self.callers if self.callers else 0.0


@dataclass(frozen=True)
class Figures:
    """One level in figures. Times are in seconds."""

    level: Level

    @property
    def callers(self) -> int:
        return self.level.callers

    @property
    def throughput(self) -> float:
        """Answered requests per second."""
        return self.level.throughput

    @property
    def audio_rate(self) -> float:
        """Seconds of audio transcribed per second."""
        return sum(outcome.audio for outcome in self.level.answered) / self.level.seconds

    @property
    def power(self) -> float:
        """Throughput over mean latency, whose maximum is the knee of the latency curve; 0 if nothing was answered.

        L. Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in computer communications",
        ICC 1979: where it is greatest, the system is kept just full, with nobody waiting.
        """
        latency = mean([outcome.seconds for outcome in self.level.answered])
        return self.throughput / latency if latency else 0.0

    def quantiles(self, step: str) -> dict[str, float | None]:
        """Latency of one step, by the names of `QUANTILES`, over the answered requests that had it."""
        values = [value for outcome in self.level.answered if (value := STEPS[step](outcome)) is not None]
        return {name: quantile(values, q) for name, q in QUANTILES.items()}

    @property
    def fallback_share(self) -> float | None:
        """Share of the answers that are the fallback's; None without answers."""
        answered = self.level.answered
        return sum(outcome.fallback_used for outcome in answered) / len(answered) if answered else None

    @property
    def at_model(self) -> float:
        """Mean number of requests that waited for the services' own model or were in it, by Little's law."""
        times = [(outcome.queue_wait or 0.0) + (outcome.primary or 0.0) for outcome in self.level.answered]
        return min(float(self.callers), self.throughput * mean(times))

    @property
    def little(self) -> Little:
        level = self.level
        product = len(level.outcomes) / level.seconds * mean([outcome.seconds for outcome in level.outcomes])
        service = mean([reading.in_flight for reading in level.readings]) if level.readings else None
        return Little(level.in_flight, product, service)

    def gpu(self, name: str) -> float | None:
        """Mean `utilization_pct` of the services' GPUs, or the largest `mem_used_mb`; None: not reported."""
        values = [gpu[name] for reading in self.level.readings for gpu in reading.gpus if gpu.get(name) is not None]
        if not values:
            return None
        return mean(values) if name == "utilization_pct" else max(values)

    def as_dict(self) -> dict[str, Any]:
        """JSON-serializable values: latencies in milliseconds, by step and quantile."""
        latency = {step: {name: _ms(value) for name, value in self.quantiles(step).items()} for step in STEPS}
        little = self.little
        return {
            "callers": self.callers,
            "seconds": round(self.level.seconds, 3),
            "answered": len(self.level.answered),
            "requests_per_s": round(self.throughput, 3),
            "audio_s_per_s": round(self.audio_rate, 3),
            "latency_ms": latency,
            "fallback_share": self.fallback_share,
            "refused": self.level.refused,
            "errors": dict(self.level.errors),
            "little": {"callers": little.callers, "product": little.product, "service": little.service},
            "at_model": round(self.at_model, 3),
            "gpu_utilization_pct": self.gpu("utilization_pct"),
            "gpu_mem_used_mb": self.gpu("mem_used_mb"),
            "client_cpu": round(self.level.client_cpu, 3),
        }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


@dataclass(frozen=True)
class Advice:
    """Settings for each service, from the figures at the knee."""

    knee: Figures
    max_concurrency: int
    max_batch_size: int
    notes: Sequence[str]
    """What limits the answer, and what to do about it."""


def knee_of(levels: Sequence[Figures]) -> Figures | None:
    """The level with the greatest power; None if no level answered anything."""
    best = max(levels, key=lambda figures: figures.power, default=None)
    return best if best is not None and best.power > 0 else None


def advise(levels: Sequence[Figures], services: Sequence[Status]) -> Advice | None:
    """Choose MAX_CONCURRENCY and MAX_BATCH_SIZE such that at the knee no request waits; None without a knee.

    The requests that were at the model at the knee, by Little's law, need as many places: slots times batch size. More
    slots than the services have were not measured, so their number is an upper bound; batches provide the rest. On a
    CPU the number of slots stays.

    Args:
        levels: by increasing number of callers.
        services: status of each.
    """
    knee = knee_of(levels)
    if knee is None or not services:
        return None
    # Requests that end in the window began before it, so that the mean can exceed the number of callers by a little.
    places = max(1, math.ceil(knee.at_model / len(services) * (1 - ROUNDING)))
    slots = max(1, min(status.limits.max_concurrency for status in services))
    # On a CPU a request that runs alone computes on the cores of idle slots, which fewer slots would take from it.
    on_cpu = any(status.device == "cpu" for status in services)
    concurrency = slots if on_cpu else min(slots, places)
    notes = [*_notes_on_knee(knee, levels, slots, services), *_notes_on_levels(levels)]
    return Advice(knee, concurrency, math.ceil(places / concurrency), notes)


def _notes_on_knee(knee: Figures, levels: Sequence[Figures], slots: int, services: Sequence[Status]) -> Sequence[str]:
    notes = []
    if len(levels) == 1:
        notes.append("one level shows no knee: measure several numbers of callers")
    elif knee is levels[-1]:
        notes.append(
            f"the latency curve has no knee up to --callers {knee.callers}: measure more, such as --callers "
            f"{knee.callers},{2 * knee.callers},{4 * knee.callers}"
        )
    used = knee.gpu("utilization_pct")
    busy = knee.at_model >= slots * len(services) * (1 - ROUNDING)
    if used is not None and used < GPU_HAS_ROOM_PCT and busy:
        notes.append(f"the GPU was used {used:.0f} % at the knee: try MAX_CONCURRENCY={slots + 1} and measure again")
    return notes


def _notes_on_levels(levels: Sequence[Figures]) -> Sequence[str]:
    notes = [note for figures in levels for note in notes_on(figures, f"at --callers {figures.callers}")]
    if any("rate_limited" in figures.level.errors for figures in levels):
        notes.append(
            "rate_limited: raise RATE_LIMIT_RPS and RATE_LIMIT_BURST (0 turns the limit off) for the measurement"
        )
    return notes


def notes_on(figures: Figures, where: str) -> Sequence[str]:
    """Reasons to doubt the figures of one level.

    Args:
        where: names the level.
    """
    notes = []
    if figures.level.errors:
        errors = ", ".join(f"{count} {type_}" for type_, count in sorted(figures.level.errors.items()))
        notes.append(f"{where}: {errors}")
    little = figures.little
    if little.deviation > TOLERANCE:
        notes.append(
            f"{where} Little's law is off by {little.deviation:.0%}: the window is too short for these latencies; "
            "increase --seconds"
        )
    if figures.level.client_cpu > CLIENT_BUSY:
        notes.append(
            f"{where} this client used {figures.level.client_cpu:.0%} of a core and may be the limit: run several"
        )
    return notes
