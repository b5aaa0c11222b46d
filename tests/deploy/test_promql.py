"""Every PromQL of docs, dashboard and alerts, on a real Prometheus that scrapes a real pair under a known load.

In two worlds: a static configuration, and the labels that Prometheus Operator sets. `-s -k formula_of` prints the
error of each formula of the docs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import pytest
import yaml

from stt_server.observability.metrics import SECONDS_BUCKETS
from stt_server.testing.load import percentile
from stt_server.testing.paths import ROOT
from tests.support.known_load import ANSWERED, BROKEN, FALLBACK_S, PRIMARY_S, UNKNOWN, UNSURE, WORLDS, Load, loaded_pair
from tests.support.prometheus_server import Labels, PrometheusServer

WINDOW_S = 600
"""All ranges are replaced by this one, which covers the whole run: a rate times it is the increase, apart from
Prometheus' extrapolation by up to a scrape."""

REQUESTS = ANSWERED + BROKEN
UPLOAD = "/v1/transcribe"
Vector = list[tuple[Labels, float]]
Pairs = Sequence[tuple[float, float]]
"""Values, each with the true one."""
Check = Callable[[Load, Vector], Pairs]
Prepared = tuple[Load, dict[str, PrometheusServer]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    with loaded_pair(tmp_path_factory.mktemp("promql")) as made:
        yield made


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, prepared: Prepared) -> tuple[Load, PrometheusServer]:
    return prepared[0], prepared[1][request.param]


@pytest.fixture(scope="module")
def errors() -> Iterator[dict[str, float]]:
    """Largest relative error of each formula so far; printed at the end."""
    found: dict[str, float] = {}
    yield found
    print("\n\n| formula | error |\n|---|---|")
    for formula, error in found.items():
        print(f"| `{formula}` | {error:+.1%} |")


def ranged(promql: str) -> str:
    """A query over the whole run, of all jobs and instances."""
    filled = re.sub(r'"\$(job|instance)"', '".*"', promql).replace("$__rate_interval", "5m")
    return re.sub(r"\[\d+[smhd]\]", f"[{WINDOW_S}s]", filled)


K = TypeVar("K")


def close(found: Mapping[K, float], true: Mapping[K, float], rel: float) -> Pairs:
    """Assert that values are close to the true ones; return both."""
    assert found == {key: pytest.approx(each, rel=rel) for key, each in true.items()}
    return [(found[key], true[key]) for key in true]


def increases(names: str, counts: Callable[[Load], Mapping[tuple[str, ...], float]]) -> Check:
    """Rates by labels; those that stayed 0 are left out. Extrapolation adds a scrape of some dozens."""

    def check(load: Load, vector: Vector) -> Pairs:
        found = {tuple(each[name] for name in names.split()): value * WINDOW_S for each, value in vector if value}
        return close(found, counts(load), 0.15)

    return check


def value(expected: Callable[[Load], float]) -> Check:
    """One element. A ratio is exact: extrapolation is the same above and below the line."""

    def check(load: Load, vector: Vector) -> Pairs:
        ((_, found),) = vector
        return close({"": found}, {"": expected(load)}, 0.02)

    return check


def each_is(expected: float) -> Check:
    """The same value for the primary and for the fallback, and for no other instance."""

    def check(load: Load, vector: Vector) -> Pairs:
        both(load, vector)
        assert {found for _, found in vector} == {expected}
        return [(found, expected) for _, found in vector]

    return check


def both(load: Load, vector: Vector) -> Pairs:
    """One element each for the primary and for the fallback, and for no other instance."""
    assert sorted(labels["instance"] for labels, _ in vector) == sorted((load.primary, load.fallback))
    return ()


def quantile(load: Load, vector: Vector) -> Pairs:
    """Of the primary: from the bucket of an inference to that of the slowest answer."""
    (found,) = (each for labels, each in vector if labels.get("instance", load.primary) == load.primary)
    bounds = (0.0, *SECONDS_BUCKETS)
    slowest = max(load.latencies)
    assert max(bound for bound in bounds if bound <= PRIMARY_S) <= found
    assert found <= min(bound for bound in bounds if bound >= slowest)
    return [(found, percentile(load.latencies, 0.95))]


def waits(load: Load, vector: Vector) -> Pairs:
    """Queue waits: of the burst, some requests waited for the slot; the fallback's never did."""
    found = {labels["instance"]: each for labels, each in vector}
    assert found.keys() == {load.primary, load.fallback}
    assert found[load.fallback] <= found[load.primary] <= 2 * max(load.latencies)
    return ()


def busy(load: Load, vector: Vector) -> Pairs:
    """Each clip keeps a slot busy for its time, alone or in a batch; the callers wait for longer than that."""
    seconds = {labels.get("instance", load.primary): each * WINDOW_S for labels, each in vector}
    assert ANSWERED * PRIMARY_S * 0.95 <= seconds[load.primary] <= sum(load.latencies)
    if load.fallback in seconds:
        assert UNSURE * FALLBACK_S * 0.95 <= seconds[load.fallback] <= sum(load.latencies)
    return [(seconds[load.primary], ANSWERED * PRIMARY_S)]


def average_length(load: Load, vector: Vector) -> Pairs:
    """Seconds of audio per request; broken recordings have none."""
    found = {labels["instance"]: each for labels, each in vector}
    return close(found, {load.primary: load.clip_s * ANSWERED / REQUESTS, load.fallback: load.clip_s}, 0.02)


def nothing(load: Load, vector: Vector) -> Pairs:
    """No element: a metric of the ingress, of a GPU, or of live streams."""
    assert vector == []
    return ()


def without_job(names: Mapping[tuple[str, ...], float]) -> Check:
    """Rates by label and job, of which the end is compared."""

    def check(load: Load, vector: Vector) -> Pairs:
        found: dict[tuple[str, ...], float] = {}
        for labels, each in vector:
            (other,) = (text for name, text in labels.items() if name != "job")
            if each:
                found[other, labels["job"].rpartition("-")[2]] = each * WINDOW_S
        return close(found, names, 0.15)

    return check


ERRORS: Mapping[tuple[str, ...], float] = {
    ("unsupported_audio", "primary"): BROKEN,
    ("invalid_argument", "primary"): UNKNOWN,
}
KEYS: Mapping[tuple[str, ...], float] = {("web", "primary"): REQUESTS, ("pair", "fallback"): UNSURE}

FORMULAS: Mapping[str, Check] = {
    "histogram_quantile(0.95, sum(rate(stt_request_total_seconds_bucket[5m])) by (le, instance))": quantile,
    'histogram_quantile(0.95, sum(rate(stt_request_total_seconds_bucket{job=~".*primary"}[5m])) by (le))': quantile,
    "histogram_quantile(0.95, sum(rate(stt_queue_wait_seconds_bucket[5m])) by (le, instance))": waits,
    'sum(rate(stt_fallback_total{job=~".*primary",result="used"}[5m])) / '
    'sum(rate(stt_requests_total{job=~".*primary",endpoint="/v1/transcribe"}[5m]))': value(lambda _: UNSURE / REQUESTS),
    'rate(stt_fallback_total{result="failed"}[5m])': each_is(0.0),
    "rate(stt_requests_total[5m])": increases(
        "instance endpoint",
        lambda load: {
            (load.primary, UPLOAD): REQUESTS,
            (load.primary, "other"): UNKNOWN,
            (load.fallback, UPLOAD): UNSURE,
        },
    ),
    "sum(rate(stt_requests_exceptions_total[5m])) by (type, job)": without_job(ERRORS),
    "sum(rate(stt_requests_exceptions_total[5m])) by (type, instance)": increases(
        "type instance", lambda load: {(type_, load.primary): count for (type_, _), count in ERRORS.items()}
    ),
    "sum(rate(stt_route_reasons_total[5m])) by (reason)": increases("reason", lambda _: {("low_logprob",): UNSURE}),
    'sum(rate(stt_audio_seconds_total{job=~".*primary"}[5m]))': increases(
        "", lambda load: {(): ANSWERED * load.clip_s}
    ),
    "sum(rate(stt_audio_seconds_total[5m])) by (instance) / "
    'sum(rate(stt_requests_total{endpoint="/v1/transcribe"}[5m])) by (instance)': average_length,
    # The scripted model decodes nothing again.
    "rate(stt_redecoded_seconds_total[5m]) / rate(stt_audio_seconds_total[5m])": each_is(0.0),
    "sum(rate(stt_slots_busy_seconds_total[5m])) by (instance)": busy,
    'sum(rate(stt_slots_busy_seconds_total{job=~".*primary"}[1h]))': busy,
    "sum(rate(stt_key_requests_total[5m])) by (key_name, job)": without_job(KEYS),
}
"""Formulas of the docs, and what the load generator knows about their values."""

WITHOUT_LOAD = ("stt_stream_",)
"""Metrics of live streams, of which the load has none: the formula's value is not a number."""


def docs_formulas() -> set[str]:
    """PromQL with a rate in code of the docs, on one line each."""
    found = set()
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text("utf-8")
        blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line.strip() for block in blocks for line in block.splitlines()]
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
        found |= {code for code in (*lines, *spans) if re.search(r"\brate\(stt_", code)}
    return found


def test_every_formula_of_the_docs_has_a_known_value() -> None:
    unchecked = {formula for formula in docs_formulas() if not any(name in formula for name in WITHOUT_LOAD)}
    assert unchecked - FORMULAS.keys() == set()
    assert FORMULAS.keys() <= docs_formulas()


@pytest.mark.parametrize("formula", FORMULAS, ids=range(len(FORMULAS)))
def test_formula_of_the_docs_has_the_value_that_the_load_generator_knows(
    world: tuple[Load, PrometheusServer], formula: str, errors: dict[str, float]
) -> None:
    load, server = world
    pairs = FORMULAS[formula](load, server.query(ranged(formula)))
    if pairs:
        relative = [found / true - 1 if true else 0.0 for found, true in pairs]
        errors[formula] = max([errors.get(formula, 0.0), *relative], key=abs)


def rules() -> dict[str, str]:
    """Left side of each alert's comparison with a number."""
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"]
    alerts = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}
    return {name: re.sub(r"\s*(>|==)\s*[\d.]+\s*$", "", expression) for name, expression in alerts.items()}


ALERTS: Mapping[str, Check] = {
    "SttHighTailLatency": quantile,
    "SttFallbackFailures": each_is(0.0),
    "SttIngress5xx": nothing,
    "SttGpuSaturated": nothing,
    "SttDown": both,
    "SttStreamErrors": nothing,
    "SttFallbackCircuitOpen": each_is(0.0),
    "SttQueueRefusing": each_is(0.0),
    "SttConfigurationRefused": each_is(1.0),
    "SttEngineFailures": each_is(0.0),
    "SttRestarting": each_is(0.0),
    "SttOutOfMemory": each_is(0.0),
}


def test_every_alert_is_checked() -> None:
    assert rules().keys() == ALERTS.keys()


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_sees_both_services(world: tuple[Load, PrometheusServer], alert: str) -> None:
    load, server = world
    ALERTS[alert](load, server.query(ranged(rules()[alert])))


def panels() -> list[str]:
    """PromQL of all panels, apart from recording rules, streams and GPUs."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "stt.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [each for each in found if not re.search(r"stt:|stt_gpu_|stt_stream_", each)]


@pytest.mark.parametrize("number", range(len(panels())))
def test_no_panel_is_empty(world: tuple[Load, PrometheusServer], number: int) -> None:
    _, server = world
    assert server.query(ranged(panels()[number])), panels()[number]
