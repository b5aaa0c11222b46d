"""Logs, pages and errors of a busy run hold no key, transcript or address."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from protos.stt.v1.errors import ERRORS
from stt_client import SttClient
from stt_server import build
from stt_server.audio.sandbox.worker import EXIT_REASONS
from stt_server.engine.hallucination import REASONS as SUPPRESSED
from stt_server.observability import failure_metrics as faults
from stt_server.observability import metrics
from stt_server.observability import reload_metrics as reloads
from stt_server.observability import stream_metrics as streams
from stt_server.testing.paths import ROOT, SPEECH
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.faults.busy import (
    CALLER_KEY,
    FALLBACK_KEY,
    HOTWORD,
    KEYS,
    LARGER_TEXT,
    PROMPT,
    SAID_BY_CALLERS,
    SPOKEN,
    TEXT,
    Busy,
    forms,
)

INTERNALS = re.compile(r"Traceback|site-packages|\.py\b|/tmp/|/proc/|0x[0-9a-f]{8}")
Series = set[tuple[str, tuple[tuple[str, str], ...]]]


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    """A pair after its run, at `debug`, with keys, and with every kind of failure."""
    folder = tmp_path_factory.mktemp("secretfolder")
    common: dict[str, object] = {"LOG_LEVEL": "debug", "MAX_UPLOAD_MB": 2, "MAX_BATCH_SIZE": 1}
    keys = common | {"API_KEYS": f"primary:{FALLBACK_KEY}"}
    fallback = ServiceProcess("fallback", folder / "fallback", keys, Script(text=LARGER_TEXT))
    with running(fallback):
        keys = common | {"API_KEYS": f"web:{CALLER_KEY}", "FALLBACK_API_KEY": FALLBACK_KEY}
        keys |= {"FALLBACK_URL": f"grpc://{fallback.target}"}
        primary = ServiceProcess("primary", folder / "primary", keys, Script(text=TEXT))
        with running(primary):
            pair = Busy(primary, fallback)
            asyncio.run(pair.work())
            yield pair


def shown(process: ServiceProcess) -> dict[str, str]:
    """Everything that a service shows without a key."""
    pages = {path: httpx.get(f"{process.url}{path}").text for path in ("/metrics", "/v1/metrics", "/v1/health")}

    async def status() -> str:
        async with process.channel() as channel:
            operations = speech_pb2_grpc.OperationsStub(channel)
            status = await operations.GetStatus(pb.GetStatusRequest())
            return f"{status}{await operations.GetMetrics(pb.GetMetricsRequest())}"

    return {**pages, "GetStatus": asyncio.run(status())}


def found_in(text: str, secrets: tuple[str, ...]) -> list[str]:
    """Secrets found in a text in any of their forms, with the surrounding text."""
    found = ((secret, text.find(form)) for secret in secrets for form in forms(secret))
    return [f"{secret}: ...{text[max(0, at - 200) : at + 100]}" for secret, at in found if at >= 0]


def test_the_run_was_busy(busy: Busy) -> None:
    """The run produced what the other tests search for: transcripts and errors of many kinds."""
    successes, errors = "\n".join(busy.answers.successes), "\n".join(busy.answers.errors)
    assert [word for word in (*SPOKEN, *PROMPT.split()) if word not in successes] == []
    kinds = set(re.findall(r"'x-error-type'[,:] '(\w+)'", errors))
    expected = {"unauthenticated", "empty_audio", "unsupported_audio", "invalid_argument", "payload_too_large"}
    assert expected | {"fallback_failed", "deadline_exceeded"} <= kinds
    log = busy.primary.log_text()
    assert '"level": "DEBUG"' in log
    assert log.count("request finished") > 20
    assert '"fallback": "used"' in log
    assert '"fallback": "failed"' in log
    assert '"key_name": "web"' in log


@pytest.mark.parametrize("service", ["primary", "fallback"])
def test_logs_hold_no_key_transcript_or_address(busy: Busy, service: str) -> None:
    process: ServiceProcess = getattr(busy, service)
    log = process.log_text()
    assert found_in(log, (*KEYS, *SAID_BY_CALLERS, *SPOKEN)) == []
    assert re.findall(r"(?:ipv4|ipv6):[^ \"]*", log) == [], "addresses of callers"
    for line in log.splitlines():
        assert {"time", "level", "logger", "message"} <= set(json.loads(line)), "every line has our format"


@pytest.mark.parametrize("service", ["primary", "fallback"])
def test_status_and_metrics_hold_no_secret_or_path(busy: Busy, service: str) -> None:
    for where, text in shown(getattr(busy, service)).items():
        assert found_in(text, (*KEYS, *SAID_BY_CALLERS, *SPOKEN, "127.0.0.1", "secretfolder", str(ROOT))) == [], where
        assert not INTERNALS.search(text), where


def test_errors_hold_no_secrets_or_internals(busy: Busy) -> None:
    for error in busy.answers.errors:
        assert found_in(error, (*KEYS, *SAID_BY_CALLERS, *SPOKEN, "secretfolder", str(ROOT), "some/path")) == []
        assert not INTERNALS.search(error), error
        assert "\n" not in error.split("{", 1)[0]


@pytest.mark.parametrize("service", ["primary", "fallback"])
def test_command_line_and_environment_hold_no_key(busy: Busy, service: str) -> None:
    process: ServiceProcess = getattr(busy, service)
    for pid in (process.pid, *process.children()):
        for name in ("cmdline", "environ", "comm"):
            assert found_in(Path(f"/proc/{pid}/{name}").read_text(errors="replace"), KEYS) == []
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size +0 ", limits), "a core dump would hold keys"


def series_of(process: ServiceProcess) -> Series:
    text = httpx.get(f"{process.url}/metrics").text
    families = text_string_to_metric_families(text)
    return {(sample.name, tuple(sorted(sample.labels.items()))) for family in families for sample in family.samples}


def test_five_hundred_unknown_callers_add_no_series(busy: Busy) -> None:
    before = series_of(busy.primary)
    asyncio.run(busy.strangers(500))
    assert series_of(busy.primary) == before
    assert found_in(busy.primary.log_text(), tuple(f"wrong-{number}" for number in range(500))) == []


CLOSED: dict[tuple[str, str], Collection[str]] = {
    ("stt_requests_total", "endpoint"): metrics.ENDPOINTS,
    ("stt_requests_exceptions_total", "endpoint"): metrics.ENDPOINTS,
    ("stt_requests_exceptions_total", "type"): ERRORS,
    ("stt_refusals_total", "reason"): metrics.REFUSALS,
    ("stt_fallback_total", "result"): metrics.FALLBACK_RESULTS,
    ("stt_route_reasons_total", "reason"): metrics.ROUTE_REASONS,
    ("stt_suppressed_texts_total", "reason"): SUPPRESSED,
    ("stt_decode_children_died_total", "reason"): EXIT_REASONS,
    ("stt_utterances_total", "result"): streams.RESULTS,
    ("stt_config_reloads_total", "result"): reloads.RESULTS,
    ("stt_engine_failures_total", "kind"): faults.FAILURE_KINDS,
    ("stt_fallback_circuit_state", "state"): faults.CIRCUIT_STATES,
    ("stt_fallback_circuit_transitions_total", "state"): faults.CIRCUIT_STATES,
    ("stt_build_info", "version"): (build.version(),),
    ("stt_build_info", "commit"): (build.UNKNOWN,),
    ("stt_build_info", "model"): ("scripted-primary", "scripted-fallback"),
    ("stt_key_requests_total", "key_name"): ("web", "next", "primary", metrics.NO_KEY, metrics.UNLISTED_KEY),
}
"""Values that the code declares for each label, and the configured names of keys."""


def test_each_label_holds_a_value_of_its_closed_set(busy: Busy) -> None:
    for process in (busy.primary, busy.fallback):
        for name, labels in series_of(process):
            for label, value in labels:
                assert label == "le" or value in CLOSED[name, label], (name, label, value)


@pytest.mark.model
async def test_libraries_of_the_real_model_log_no_transcript(tmp_path: Path) -> None:
    process = ServiceProcess("primary", tmp_path, {"LOG_LEVEL": "debug"})
    with running(process):
        async with SttClient(process.target) as client:
            transcript = await client.transcribe(SPEECH, prompt=PROMPT, hotwords=[HOTWORD], word_timestamps=True)
        assert "fox" in transcript.text
        assert process.stop() == 0
    words = ("brown", "fox", "lazy", *PROMPT.split(), HOTWORD)
    assert [word for word in words if word in process.log_text().lower()] == []
