"""Objectives and guardrails in deploy/: the generated files are fresh, and pass promtool's tests of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from protos.stt.v1.errors import ERRORS
from stt_server.observability.metrics import CLIP_SECONDS, SECONDS_BUCKETS
from stt_server.testing.paths import ROOT
from tests.deploy.test_prometheus import assert_passes, promtool

PROMETHEUS = ROOT / "deploy" / "prometheus"
GENERATED = ("deploy/prometheus/slo.yml", "deploy/prometheus/canary.yml", "deploy/argo/analysis-template.yaml")


def rules(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "buildscripts" / "rules", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_generated_files_are_fresh() -> None:
    done = rules("--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "rules: fresh\n", "")


def test_stale_file_is_reported_and_rewritten(tmp_path: Path) -> None:
    for name in GENERATED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text().replace("stt_requests_total", "requests_total"))
    done = rules("--check", "--root", tmp_path)
    assert done.returncode == 1
    assert "stale: deploy/prometheus/slo.yml, deploy/prometheus/canary.yml" in done.stderr
    assert rules("--root", tmp_path).returncode == 0
    assert all((tmp_path / name).read_text() == (ROOT / name).read_text() for name in GENERATED)


@pytest.mark.parametrize("name", ["slo", "canary"])
def test_rules_pass_their_tests(name: str) -> None:
    assert_passes(promtool("check", "rules", PROMETHEUS / f"{name}.yml"))
    assert_passes(promtool("test", "rules", PROMETHEUS / f"{name}_test.yml"))


def test_availability_counts_the_errors_that_are_the_service_s_own() -> None:
    text = (PROMETHEUS / "slo.yml").read_text()
    (types,) = set(re.findall(r'type=~"([^"]+)"', text))
    assert set(types.split("|")) == {kind.type for kind in ERRORS.values() if kind.http >= 500 and kind.status}


def test_latency_objective_is_a_bucket_and_the_page_names_the_length_of_a_clip() -> None:
    bounds = {float(bound) for bound in re.findall(r'le="([^"]+)"', (PROMETHEUS / "slo.yml").read_text())}
    assert bounds <= set(SECONDS_BUCKETS)
    assert f"at most {CLIP_SECONDS:g} s of audio" in (ROOT / "docs" / "slo.md").read_text()


def test_analysis_and_rules_ask_the_same_queries() -> None:
    (group,) = yaml.safe_load((PROMETHEUS / "canary.yml").read_text())["groups"]
    recorded = {rule["labels"]["guardrail"]: rule["expr"] for rule in group["rules"] if "record" in rule}
    spec = yaml.safe_load((ROOT / "deploy" / "argo" / "analysis-template.yaml").read_text())["spec"]
    values = {argument["name"]: argument["value"] for argument in spec["args"]}
    for metric in spec["metrics"]:
        query = re.sub(
            r"\{\{args\.(\w+)\}\}", lambda found: values[found[1]], metric["provider"]["prometheus"]["query"]
        )
        assert query == recorded[metric["name"].replace("-", " ")]
    assert len(spec["metrics"]) == len(recorded) == 4
