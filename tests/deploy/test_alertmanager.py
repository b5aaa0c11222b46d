"""deploy/prometheus/alertmanager.yml on a real Alertmanager: one page for one fact."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from stt_server.testing.paths import ROOT
from stt_server.testing.processes import HOST, free_port
from tests.support.needs import lacking

START_S = 60.0
Alert = Mapping[str, str]

BURNS_AVAILABILITY: Alert = {"alertname": "SttErrorBudgetBurnsFast", "slo": "availability", "severity": "critical"}
BURNS_FALLBACK: Alert = {**BURNS_AVAILABILITY, "slo": "fallback"}
BURNS_SLOWLY: Alert = {"alertname": "SttErrorBudgetBurnsSlowly", "slo": "fallback", "severity": "warning"}
FAILURES: Alert = {"alertname": "SttFallbackFailures", "instance": "p:8081", "severity": "critical"}
CIRCUIT: Alert = {"alertname": "SttFallbackCircuitOpen", "instance": "p:8081", "severity": "critical"}
OTHER_CIRCUIT: Alert = {**CIRCUIT, "instance": "q:8081"}
INGRESS: Alert = {"alertname": "SttIngress5xx", "severity": "critical"}
MARKERS: Sequence[Alert] = ({**BURNS_AVAILABILITY, "slo": "latency"}, {**BURNS_SLOWLY, "slo": "latency"})


def alertmanager_command() -> list[str]:
    """Command of Debian's Alertmanager, which reads templates in /usr/share.

    Where its package is only unpacked, it gets a mount namespace in which they are there.
    """
    tool = shutil.which("prometheus-alertmanager")
    if tool is None:
        lacking("alertmanager is not installed. Run: sudo apt-get install prometheus-alertmanager")
    if Path("/usr/share/prometheus/alertmanager").exists():
        return [tool]
    if os.geteuid() != 0:
        lacking("an unpacked Alertmanager needs root. Run: sudo apt-get install prometheus-alertmanager")
    share = Path(tool).parent.with_name("share")
    return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /usr/share && exec "$@"', str(share), tool]


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a running Alertmanager without alerts."""
    port = free_port()
    config = ROOT / "deploy" / "prometheus" / "alertmanager.yml"
    command = [*alertmanager_command(), f"--config.file={config}", f"--storage.path={tmp_path}"]
    command += ["--cluster.listen-address=", f"--web.listen-address={HOST}:{port}"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://{HOST}:{port}") as client:
                _wait_ready(client, process, tmp_path / "log")
                yield client
        finally:
            process.terminate()


def _wait_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if client.get("/-/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"Alertmanager did not start: {log.read_text()[-2000:]}")


def paged(alertmanager: httpx.Client, alerts: Sequence[Alert]) -> list[Alert]:
    """The alerts of these that reach the receiver `page`, once all fire."""
    post(alertmanager, alerts)
    # Alertmanager takes alerts in their order: once it inhibits the last one, it has seen all before.
    post(alertmanager, MARKERS)
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        found = states(alertmanager)
        if ("ticket", "suppressed", MARKERS[-1]) in found:
            return [alert for alert in alerts if ("page", "active", alert) in found]
        time.sleep(0.05)
    raise AssertionError(f"Alertmanager did not inhibit {MARKERS[-1]}: {found}")


def post(alertmanager: httpx.Client, alerts: Sequence[Alert]) -> None:
    sent = alertmanager.post("/api/v2/alerts", json=[{"labels": dict(alert)} for alert in alerts])
    assert sent.is_success, sent.text


def states(alertmanager: httpx.Client) -> list[tuple[str, str, Alert]]:
    """Receiver, state and labels of each alert."""
    groups = alertmanager.get("/api/v2/alerts/groups").json()
    return [
        (group["receiver"]["name"], alert["status"]["state"], alert["labels"])
        for group in groups
        for alert in group["alerts"]
    ]


@pytest.mark.parametrize(
    ("firing", "pages"),
    [
        ((FAILURES,), (FAILURES,)),
        ((FAILURES, BURNS_FALLBACK, BURNS_SLOWLY), (BURNS_FALLBACK,)),
        ((FAILURES, BURNS_AVAILABILITY), (FAILURES, BURNS_AVAILABILITY)),
        ((FAILURES, CIRCUIT), (CIRCUIT,)),
        ((FAILURES, OTHER_CIRCUIT), (FAILURES, OTHER_CIRCUIT)),
        ((INGRESS,), (INGRESS,)),
        ((INGRESS, BURNS_AVAILABILITY), (BURNS_AVAILABILITY,)),
        ((INGRESS, BURNS_FALLBACK), (INGRESS, BURNS_FALLBACK)),
    ],
    ids=lambda alerts: "+".join(alert["alertname"].removeprefix("Stt") for alert in alerts),
)
def test_one_fact_is_one_page(alertmanager: httpx.Client, firing: tuple[Alert, ...], pages: tuple[Alert, ...]) -> None:
    assert paged(alertmanager, firing) == list(pages)
