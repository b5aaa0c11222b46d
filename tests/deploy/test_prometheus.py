"""The files of deploy/prometheus and deploy/grafana, checked by promtool and against the exported metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from stt_server.observability.failure_metrics import FaultMetrics
from stt_server.observability.gpu import Gpu, GpuCollector
from stt_server.observability.metrics import Metrics
from stt_server.observability.reload_metrics import ReloadMetrics
from stt_server.observability.stream_metrics import StreamMetrics
from tests.support.call_records import a_call, refused
from tests.support.needs import lacking
from tests.unit.test_gpu import FakeNvml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "stt.json"
NOT_OURS = {"http_requests_total", "up"}
"""From the ingress, and from Prometheus itself."""


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("promtool")
    if tool is None:
        lacking("promtool is missing: install it with `apt-get install prometheus`.")
    command = [tool, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def assert_passes(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def exposition() -> str:
    """Of a primary with a GPU that has seen one request of each sort."""
    registry = CollectorRegistry()
    registry.register(GpuCollector(Gpu(FakeNvml())))
    metrics = Metrics(registry, key_names=["web"])
    metrics.watch_queue(lambda: 1, lambda: 2, lambda: 0.5)
    metrics.observe(a_call(fallback_result="used", fallback_infer=1.0, route_reasons=("few_words",)))
    metrics.observe(refused("overloaded", "UNAVAILABLE", 503))
    FaultMetrics(registry)
    StreamMetrics(registry, metrics).opened()
    ReloadMetrics(registry)
    return metrics.exposition()[0]


@pytest.fixture(scope="module")
def exported(exposition: str) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(exposition) for sample in family.samples}


def alert_expressions() -> list[str]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def panels() -> Iterator[dict[str, Any]]:
    dashboard = json.loads(DASHBOARD.read_text())
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def dashboard_expressions() -> list[str]:
    """With Grafana's variables filled in."""
    raw = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [expression.replace("$__rate_interval", "5m").replace("$", "") for expression in raw]


def test_the_scrape_configuration_is_valid() -> None:
    assert_passes(promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml"))


def test_both_services_are_scraped_where_they_listen() -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    scraped = {
        static["labels"]["service"]: (target.rpartition(":")[2], job["metrics_path"])
        for job in configuration["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    assert scraped == {"primary": ("8081", "/metrics"), "fallback": ("8082", "/metrics")}


def test_each_alert_fires_on_its_trouble_and_keeps_quiet_without_it() -> None:
    assert_passes(promtool("check", "rules", ALERTS))
    assert_passes(promtool("test", "rules", DEPLOY / "prometheus" / "alerts_test.yml"))


def test_every_alert_has_a_test() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    tested = set(re.findall(r"alertname: (\w+)", (DEPLOY / "prometheus" / "alerts_test.yml").read_text()))
    assert alerts == tested


def test_every_panels_query_is_promql(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(dashboard_expressions())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert_passes(promtool("check", "rules", file))


@pytest.mark.parametrize("expressions", [alert_expressions, dashboard_expressions], ids=["alerts", "dashboard"])
def test_only_metrics_that_exist_are_asked_for(expressions: Any, exported: set[str]) -> None:
    asked = set(re.findall(r"\b(?:(?:stt|process)_\w+|http_requests_total|up\b)", " ".join(expressions())))
    assert len(asked) >= 5
    assert asked - exported - NOT_OURS == set()


def test_the_dashboard_has_the_handbooks_panels() -> None:
    shown = {panel["title"]: " ".join(target["expr"] for target in panel["targets"]) for panel in panels()}
    for quantile in ("0.50", "0.95", "0.99"):
        assert f"histogram_quantile({quantile}, sum(rate(stt_request_total_seconds_bucket" in shown["Latency"]
    assert 'stt_fallback_total{result="used"' in shown["Fallback rate"]
    assert 'rate(stt_fallback_total{result="failed"}[5m])' in shown["Fallback failures"]
    assert "rate(stt_requests_total" in shown["Throughput"]
    assert "avg(stt_gpu_utilization_pct)" in shown["GPU utilization"]
    assert "stt_queue_depth" in shown["Queue depth"]
    assert "stt_in_flight" in shown["In flight"]


def test_the_dashboards_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells


def test_the_exposition_passes_prometheus_lint_but_for_the_contracts_names(exposition: str) -> None:
    result = promtool("check", "metrics", stdin=exposition)
    remarks = set((result.stdout + result.stderr).splitlines())
    # The contract's names end in `mb`; Prometheus would have bytes.
    assert {remark.split()[0] for remark in remarks} <= {"stt_gpu_mem_used_mb", "stt_gpu_mem_total_mb"}, remarks


def test_lint_would_see_a_broken_exposition() -> None:
    assert promtool("check", "metrics", stdin="stt_x 1\n# TYPE stt_x counter\nstt_x{ 1\n").returncode != 0
