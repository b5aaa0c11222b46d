"""deploy/prometheus and deploy/grafana, checked by promtool and against the exported metrics."""

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

from stt_server.config import Role
from stt_server.observability.failure_metrics import FailureMetrics
from stt_server.observability.gpu import Gpu, GpuCollector
from stt_server.observability.metrics import Metrics
from stt_server.observability.reload_metrics import ReloadMetrics
from stt_server.observability.stream_metrics import StreamMetrics
from stt_server.testing.paths import ROOT
from tests.support.call_records import a_call, refused
from tests.support.config_files import default_of
from tests.support.needs import lacking
from tests.support.nvml import FakeNvml

DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "stt.json"
NOT_OURS = {"http_requests_total", "up"}
"""Metrics of the ingress and of Prometheus itself."""


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("promtool")
    if tool is None:
        lacking("promtool is not installed. Run: sudo apt-get install prometheus")
    command = [tool, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def assert_passes(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def exposition() -> str:
    """Metrics of a primary with a GPU after an answered and a refused request."""
    registry = CollectorRegistry()
    registry.register(GpuCollector(Gpu(FakeNvml())))
    metrics = Metrics(registry, key_names=["web"])
    metrics.watch_queue(lambda: 1, lambda: 2, lambda: 0.5)
    metrics.watch_slots(lambda: 2, lambda: 3.5)
    metrics.observe(a_call(fallback_result="used", fallback_infer=1.0, route_reasons=("few_words",)))
    metrics.observe(refused("overloaded", "UNAVAILABLE", 503))
    FailureMetrics(registry)
    StreamMetrics(registry, metrics.models).opened()
    ReloadMetrics(registry)
    return metrics.exposition()[0]


@pytest.fixture(scope="module")
def exported(exposition: str) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(exposition) for sample in family.samples}


def alert_expressions() -> list[str]:
    """PromQL of all rules, the recorded ones included."""
    files = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["rule_files"]
    groups = [group for file in files for group in yaml.safe_load((DEPLOY / "prometheus" / file).read_text())["groups"]]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def panels() -> Iterator[dict[str, Any]]:
    dashboard = json.loads(DASHBOARD.read_text())
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def dashboard_expressions() -> list[str]:
    """PromQL of all panels, with Grafana's variables filled in."""
    raw = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [expression.replace("$__rate_interval", "5m").replace("$", "") for expression in raw]


def test_scrape_configuration_is_valid() -> None:
    assert_passes(promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml"))


def test_all_addresses_of_a_name_are_scraped_at_the_default_port() -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    scraped = {
        job["job_name"].removeprefix("stt-"): (str(found["port"]), job["metrics_path"])
        for job in configuration["scrape_configs"]
        for found in job["dns_sd_configs"]
        if (found["names"], found["type"]) == ([job["job_name"]], "A")
    }
    roles: tuple[Role, ...] = ("primary", "fallback")
    assert scraped == {role: (default_of("HTTP_PORT", role), "/metrics") for role in roles}


def test_alert_rules_pass_their_tests() -> None:
    assert_passes(promtool("check", "rules", ALERTS))
    assert_passes(promtool("test", "rules", DEPLOY / "prometheus" / "alerts_test.yml"))


def test_every_alert_has_a_test() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    tested = set(re.findall(r"alertname: (\w+)", (DEPLOY / "prometheus" / "alerts_test.yml").read_text()))
    assert alerts == tested


def test_panel_queries_are_valid_promql(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(dashboard_expressions())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert_passes(promtool("check", "rules", file))


@pytest.mark.parametrize("expressions", [alert_expressions, dashboard_expressions], ids=["alerts", "dashboard"])
def test_queried_metrics_are_exported(expressions: Any, exported: set[str]) -> None:
    asked = set(re.findall(r"\b(?:(?:stt|process)_\w+|http_requests_total|up\b)", " ".join(expressions())))
    assert len(asked) >= 5
    assert asked - exported - NOT_OURS == set()


@pytest.mark.parametrize("expressions", [alert_expressions, dashboard_expressions], ids=["alerts", "dashboard"])
def test_services_are_selected_by_a_label_that_every_scrape_has(expressions: Any) -> None:
    """Prometheus Operator sets `service` and others, which a static configuration has not."""
    queries = " ".join(expressions())
    grouped = {name for names in re.findall(r"by \(([^)]*)\)", queries) for name in re.findall(r"\w+", names)}
    used = grouped | set(re.findall(r"(\w+)=~?\"", queries))
    assert "job" in used
    assert not used & {"service", "pod", "container", "namespace"}


def test_dashboard_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells


def test_exposition_passes_promtool_lint(exposition: str) -> None:
    result = promtool("check", "metrics", stdin=exposition)
    remarks = set((result.stdout + result.stderr).splitlines())
    # The contract's names end in `mb`; promtool recommends bytes.
    assert {remark.split()[0] for remark in remarks} <= {"stt_gpu_mem_used_mb", "stt_gpu_mem_total_mb"}, remarks
