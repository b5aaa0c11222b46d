"""Service level objectives as Prometheus rules: error ratios by window, error budgets, and burn-rate alerts.

Windows and burn rates are those of the SRE workbook, chapter "Alerting on SLOs", table 5-8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from protos.stt.v1.errors import ERRORS

PRIMARIES = 'job=~".*primary"'
"""The services that callers use. A job is named after its service: statically, by a ServiceMonitor or a PodMonitor."""
UPLOADS = f'{PRIMARIES},endpoint="/v1/transcribe"'

SERVER_ERRORS = "|".join(sorted(kind.type for kind in ERRORS.values() if kind.http >= 500 and kind.status))
"""Error types that are the service's own failures: HTTP 5xx."""

BUDGET_WINDOW = "30d"


@dataclass(frozen=True)
class Objective:
    """One objective: the share of bad events stays below a budget over `BUDGET_WINDOW`."""

    name: str
    budget: float
    """Largest share of bad events, 0 to 1."""
    bad: str
    """PromQL of the ratio of bad events; `[window]` stands for the window."""


OBJECTIVES = (
    Objective(
        "availability",
        0.001,
        f'sum(rate(stt_requests_exceptions_total{{{UPLOADS},type=~"{SERVER_ERRORS}"}}[window]))'
        f" / sum(rate(stt_requests_total{{{UPLOADS}}}[window]))",
    ),
    Objective(
        "latency",
        0.05,
        f'1 - sum(rate(stt_clip_total_seconds_bucket{{{PRIMARIES},le="1.0"}}[window]))'
        f" / sum(rate(stt_clip_total_seconds_count{{{PRIMARIES}}}[window]))",
    ),
    Objective(
        "fallback",
        0.005,
        f'sum(rate(stt_fallback_total{{{PRIMARIES},result="failed"}}[window]))'
        f" / sum(rate(stt_requests_total{{{UPLOADS}}}[window]))",
    ),
)


@dataclass(frozen=True)
class Burn:
    """A pair of windows in which the budget burns too fast: the long one proves it, the short one that it goes on."""

    long: str
    short: str
    rate: float
    """Multiple of the rate that uses up exactly the budget in `BUDGET_WINDOW`."""


FAST = (Burn("1h", "5m", 14.4), Burn("6h", "30m", 6))
SLOW = (Burn("1d", "2h", 3), Burn("3d", "6h", 1))
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", BUDGET_WINDOW)


def ratio(window: str) -> str:
    """Name of the recorded ratio of bad events, by label `slo`."""
    return f"stt:slo_errors:ratio_rate{window}"


def groups() -> list[dict[str, Any]]:
    """Rule groups of deploy/prometheus/slo.yml."""
    recorded = [*_budgets(), *_ratios(), *_left()]
    return [
        {"name": "stt-slo", "interval": "30s", "rules": recorded},
        {"name": "stt-slo-alerts", "rules": [*_alerts()]},
    ]


def _budgets() -> Iterator[dict[str, Any]]:
    for objective in OBJECTIVES:
        yield {
            "record": "stt:slo_budget:ratio",
            "labels": {"slo": objective.name},
            "expr": f"vector({objective.budget:g})",
        }


def _ratios() -> Iterator[dict[str, Any]]:
    for objective in OBJECTIVES:
        for window in WINDOWS:
            expression = objective.bad.replace("[window]", f"[{window}]")
            yield {"record": ratio(window), "labels": {"slo": objective.name}, "expr": expression}


def _left() -> Iterator[dict[str, Any]]:
    yield {
        "record": "stt:slo_budget_left:ratio",
        "expr": f"1 - {ratio(BUDGET_WINDOW)} / on (slo) stt:slo_budget:ratio",
    }


def _burning(burns: Sequence[Burn]) -> str:
    """PromQL that gives the ratio of the long window where an objective's budget burns too fast."""
    return "\nor\n".join(
        f"(\n  {ratio(burn.long)} > on (slo) {burn.rate:g} * stt:slo_budget:ratio"
        f"\n  and on (slo)\n  {ratio(burn.short)} > on (slo) {burn.rate:g} * stt:slo_budget:ratio\n)"
        for burn in burns
    )


def _alerts() -> Iterator[dict[str, Any]]:
    for name, burns, severity, action in (
        (
            "SttErrorBudgetBurnsFast",
            FAST,
            "critical",
            "Act now: stop a rollout first, then see the runbook of the cause.",
        ),
        ("SttErrorBudgetBurnsSlowly", SLOW, "warning", "Act within days: find the cause before the budget is used up."),
    ):
        yield {
            "alert": name,
            "expr": _burning(burns) + "\n",
            "labels": {"severity": severity},
            "annotations": {
                "summary": "The error budget of {{ $labels.slo }} burns too fast: "
                "{{ $value | humanizePercentage }} of the requests are bad",
                "action": f"{action} docs/slo.md",
            },
        }
