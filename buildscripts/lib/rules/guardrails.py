"""Guardrails of a canary as PromQL: the one source of the command, the rules and the Argo Rollouts analysis."""

from __future__ import annotations

from dataclasses import dataclass

from buildscripts.lib.rules.slo import SERVER_ERRORS

ENDPOINT = 'endpoint="/v1/transcribe"'


@dataclass(frozen=True)
class Timing:
    """Windows of the queries, as PromQL durations."""

    window: str = "5m"
    """Over which rates are taken."""
    hold: str = "10m"
    """How long the latency has to be too high."""
    step: str = "1m"
    """Between two looks at it."""


@dataclass(frozen=True)
class Guardrail:
    """One measure of a release. The canary exceeds it with more than `factor` times the baseline, and `floor`."""

    name: str
    measure: str
    """PromQL with SELECTOR for label matchers and WINDOW."""
    factor: float
    floor: float
    """Values up to this are accepted whatever the baseline's, which may be 0."""
    held: bool = False
    """Exceeded only if it is at every look for `Timing.hold`."""
    unit: str = "%"
    """Of the value: `s`, or `%` for shares."""

    def value(self, selector: str, timing: Timing) -> str:
        """PromQL of the measure of the instances that match a selector."""
        return self.measure.replace("SELECTOR", selector).replace("WINDOW", timing.window)

    def limit(self, baseline: str, timing: Timing) -> str:
        """PromQL of the canary's limit. Without a baseline value it is the floor."""
        value = self.value(baseline, timing)
        return f"clamp_min({self.factor:g} * ({value} >= 0 or vector(0)), {self.floor:g})"

    def excess(self, baseline: str, canary: str, timing: Timing) -> str:
        """PromQL of the canary's value over its limit: above 1 it is exceeded; 0 without a value."""
        now = f"({self.value(canary, timing)} >= 0 or vector(0)) / {self.limit(baseline, timing)}"
        return f"min_over_time(({now})[{timing.hold}:{timing.step}])" if self.held else now


GUARDRAILS = (
    Guardrail(
        "p95 latency",
        "histogram_quantile(0.95, sum(rate(stt_request_total_seconds_bucket{SELECTOR}[WINDOW])) by (le))",
        factor=1.5,
        floor=0.1,
        held=True,
        unit="s",
    ),
    Guardrail(
        "fallback failures",
        'sum(rate(stt_fallback_total{SELECTOR,result="failed"}[WINDOW]))'
        f" / sum(rate(stt_requests_total{{SELECTOR,{ENDPOINT}}}[WINDOW]))",
        factor=3,
        floor=0.01,
    ),
    Guardrail(
        "errors",
        f'sum(rate(stt_requests_exceptions_total{{SELECTOR,{ENDPOINT},type=~"{SERVER_ERRORS}"}}[WINDOW]))'
        f" / sum(rate(stt_requests_total{{SELECTOR,{ENDPOINT}}}[WINDOW]))",
        factor=2,
        floor=0.01,
    ),
    Guardrail(
        "fallback share",
        'sum(rate(stt_fallback_total{SELECTOR,result=~"used|failed"}[WINDOW]))'
        " / sum(rate(stt_fallback_total{SELECTOR}[WINDOW]))",
        factor=1.5,
        floor=0.1,
    ),
)

MIN_REQUESTS = 100
"""Requests that canary and baseline each must have finished within `Timing.hold` before there is a verdict."""


def requests(selector: str, timing: Timing) -> str:
    """PromQL of the number of requests within `Timing.hold`; 0 if there are no instances."""
    return f"(sum(increase(stt_requests_total{{{selector},{ENDPOINT}}}[{timing.hold}])) or vector(0))"


def judged(guardrail: Guardrail, baseline: str, canary: str, timing: Timing, minimum: int = MIN_REQUESTS) -> str:
    """PromQL of the excess, once both have had enough requests; no value before that."""
    excess = guardrail.excess(baseline, canary, timing)
    enough = " and ".join(f"{requests(selector, timing)} >= {minimum}" for selector in (baseline, canary))
    return f"({excess}) and ({enough})"
