"""A real Prometheus that scrapes services under test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.needs import lacking

START_S = 60.0
Labels = Mapping[str, str]


class PrometheusServer:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30)
        self.at: float | None = None
        """Time of queries: when `wait_scrapes` found all targets scraped, since a busy machine may delay later scrapes
        beyond their timeout. None: now."""

    def query(self, promql: str) -> list[tuple[Labels, float]]:
        """Labels and value of each element of an instant vector, without NaN."""
        params = {"query": promql, **({} if self.at is None else {"time": f"{self.at:.3f}"})}
        answer = self._http.get("/api/v1/query", params=params).json()
        assert answer["status"] == "success", (promql, answer)
        found: list[Any] = answer["data"]["result"]
        values = [(each["metric"], float(each["value"][1])) for each in found]
        return [(labels, value) for labels, value in values if value == value]

    def wait_scrapes(self, count: int) -> None:
        """Wait until every target has been scraped so many times from now on, and answered the last scrape too."""
        query = "sum_over_time(up[1h])"
        self.at = None
        before = {labels["instance"]: value for labels, value in self.query(query)}
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            self.at = time.time()
            now = dict((labels["instance"], value) for labels, value in self.query(query))
            scraped = now and all(value >= before.get(name, 0) + count for name, value in now.items())
            if scraped and all(value == 1 for _, value in self.query("up")):
                return
            time.sleep(0.1)
        raise AssertionError(f"Prometheus did not scrape {count} times within {START_S:g} s")


@contextmanager
def prometheus(folder: Path, targets: Sequence[tuple[str, Labels]]) -> Iterator[PrometheusServer]:
    """Scrape `targets`, each an address with its labels, every half second. `job` is one of the labels."""
    binary = shutil.which("prometheus")
    if binary is None:
        lacking("prometheus is not installed. Run: sudo apt-get install prometheus")
    folder.mkdir(parents=True)
    static = [{"targets": [address], "labels": dict(labels)} for address, labels in targets]
    job = {"job_name": "all", "scrape_interval": "500ms", "scrape_timeout": "500ms", "static_configs": static}
    # As the chart's PodMonitor, whose label `endpoint` would replace ours otherwise.
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [{**job, "honor_labels": True}]}))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [binary, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            server = PrometheusServer(f"http://127.0.0.1:{port}")
            _wait_ready(f"http://127.0.0.1:{port}/-/ready", process, folder / "log")
            yield server
        finally:
            process.terminate()
            process.wait()


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"Prometheus did not start: {log.read_text()[-2000:]}")
