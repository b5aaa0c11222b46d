"""Judge a canary release by its guardrails, from the metrics of a Prometheus server.

Compares the instances that match --canary with those that match --baseline, by the same queries as the rules in
deploy/prometheus/canary.yml and the analysis in deploy/argo. Prints a table. Exit status: 0 if no guardrail is
exceeded, 1 if one is, if there were too few requests for a verdict, or if Prometheus doesn't answer.

With --watch it looks again and again: it ends with 1 at once when a guardrail is exceeded, and with the last verdict
when the time is up.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from buildscripts.lib.rules.guardrails import GUARDRAILS, MIN_REQUESTS, Guardrail, Timing, judged, requests

_SELECTOR = re.compile(r'\w+(=|!=|=~|!~)"[^"]*"(,\w+(=|!=|=~|!~)"[^"]*")*')
TIMEOUT_S = 30.0


class PrometheusError(Exception):
    """A query failed; the message says why."""


class Prometheus:
    """Instant queries that give one number."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(timeout=TIMEOUT_S)

    def value(self, query: str) -> float | None:
        """The value of a query; None if it has none or isn't a number. Raises PrometheusError."""
        try:
            reply = self._http.post(f"{self._url}/api/v1/query", data={"query": query})
            body = reply.json()
        except (httpx.HTTPError, ValueError) as error:
            raise PrometheusError(f"{self._url} doesn't answer as Prometheus does: {error}") from None
        if body.get("status") != "success":
            raise PrometheusError(f"{self._url} refused a query: {body.get('error', reply.text)}")
        result = body["data"]["result"]
        value = float(result[0]["value"][1]) if result else None
        return None if value is None or value != value else value


@dataclass(frozen=True)
class Line:
    """One guardrail, judged."""

    guardrail: Guardrail
    baseline: float | None
    canary: float | None
    limit: float
    excess: float | None
    """The canary's value over its limit, for as long as the guardrail asks for; None: too few requests."""

    @property
    def verdict(self) -> str:
        if self.excess is None:
            return "too few requests"
        if self.excess > 1:
            return "EXCEEDED"
        if self.guardrail.held and self.canary is not None and self.canary > self.limit:
            return "ok: exceeded, but not for long enough"
        return "ok"

    @property
    def cells(self) -> list[str]:
        guardrail = self.guardrail
        numbers = [_number(value, guardrail.unit) for value in (self.baseline, self.canary, self.limit)]
        return [guardrail.name, *numbers, f"{guardrail.factor:g} x baseline", self.verdict]


@dataclass(frozen=True)
class Verdict:
    """One look at canary and baseline."""

    requests: tuple[float, float]
    """Finished within `Timing.hold`: baseline, canary."""
    lines: Sequence[Line]

    @property
    def exceeded(self) -> bool:
        return any(line.verdict == "EXCEEDED" for line in self.lines)

    @property
    def passed(self) -> bool:
        return all(line.excess is not None and line.excess <= 1 for line in self.lines)


def judge(prometheus: Prometheus, baseline: str, canary: str, timing: Timing, minimum: int) -> Verdict:
    """Evaluate all guardrails now. Raises PrometheusError."""
    lines = [
        Line(
            guardrail,
            prometheus.value(guardrail.value(baseline, timing)),
            prometheus.value(guardrail.value(canary, timing)),
            prometheus.value(guardrail.limit(baseline, timing)) or guardrail.floor,
            prometheus.value(judged(guardrail, baseline, canary, timing, minimum)),
        )
        for guardrail in GUARDRAILS
    ]
    counts = [prometheus.value(requests(selector, timing)) or 0.0 for selector in (baseline, canary)]
    return Verdict((counts[0], counts[1]), lines)


def table(verdict: Verdict) -> str:
    """Markdown table with a line per guardrail."""
    head = ("guardrail", "baseline", "canary", "limit", "which is", "verdict")
    rows = [head, ("---",) * len(head), *(line.cells for line in verdict.lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def summary(verdict: Verdict, timing: Timing, minimum: int) -> str:
    """One line that says what to do, and why."""
    counted = f"{verdict.requests[0]:.0f} requests at the baseline, {verdict.requests[1]:.0f} at the canary"
    if verdict.exceeded:
        names = ", ".join(line.guardrail.name for line in verdict.lines if line.verdict == "EXCEEDED")
        return f"stop the rollout: {names} exceeded ({counted} in {timing.hold})"
    if not verdict.passed:
        return f"no verdict yet: {counted} in {timing.hold}; each needs {minimum}"
    return f"go on: no guardrail is exceeded ({counted} in {timing.hold})"


def main(argv: Sequence[str]) -> int:
    arguments = _arguments(argv)
    timing = Timing(arguments.window, arguments.hold, arguments.step)
    prometheus = Prometheus(arguments.prometheus)
    end = time.monotonic() + 60 * arguments.watch
    while True:
        try:
            verdict = judge(prometheus, arguments.baseline, arguments.canary, timing, arguments.min_requests)
        except PrometheusError as error:
            print(f"canary: {error}", file=sys.stderr)
            return 1
        over = verdict.exceeded or time.monotonic() + arguments.every > end
        if over:
            print(table(verdict))
        print(summary(verdict, timing, arguments.min_requests), flush=True)
        if over:
            return 0 if verdict.passed else 1
        time.sleep(arguments.every)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/canary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    timing = Timing()
    parser.add_argument("--prometheus", required=True, metavar="URL", help="such as http://localhost:9090")
    parser.add_argument(
        "--baseline", required=True, type=_selector, metavar="SELECTOR", help="""label matchers: 'track="baseline"'"""
    )
    parser.add_argument(
        "--canary", required=True, type=_selector, metavar="SELECTOR", help="""label matchers: 'track="canary"'"""
    )
    parser.add_argument(
        "--min-requests",
        type=int,
        default=MIN_REQUESTS,
        metavar="N",
        help=f"requests that each must have finished within --hold before there is a verdict (default: {MIN_REQUESTS})",
    )
    parser.add_argument("--watch", type=float, default=0.0, metavar="MINUTES", help="default: 0, look once")
    parser.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help="between two looks (default: 30)")
    parser.add_argument("--window", default=timing.window, help=f"of rates (default: {timing.window})")
    parser.add_argument(
        "--hold", default=timing.hold, help=f"how long p95 must be too high to stop (default: {timing.hold})"
    )
    parser.add_argument("--step", default=timing.step, help=f"between two looks at p95 within it ({timing.step})")
    return parser.parse_args(argv)


def _selector(text: str) -> str:
    """Argument type: label matchers, with or without braces."""
    inner = text.strip().removeprefix("{").removesuffix("}").strip()
    if not _SELECTOR.fullmatch(inner):
        raise argparse.ArgumentTypeError(f"""invalid selector {text!r}: use label matchers such as 'track="canary"'""")
    return inner


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:.3f} s" if unit == "s" else f"{value:.2%}"
