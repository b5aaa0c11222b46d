"""Spans of gateway, primary and fallback as a collector receives them, and services without OpenTelemetry."""

from __future__ import annotations

import ast
import asyncio
import pkgutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.semconv import attributes
from opentelemetry.semconv._incubating import attributes as incubating
from opentelemetry.semconv._incubating.attributes import rpc_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, service_attributes, url_attributes

from protos.stt.v1 import spans, speech_pb2_grpc
from stt_server.testing.processes import ProcessError
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import GatewayProcess, ServiceProcess, running
from tests.support.collector import Collector, Received, collecting, collecting_through_rotel
from tests.support.observing import eventually
from tests.support.services import speech
from tests.support.streams import Caller, audio, config, pcm, recording_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
METHOD = "stt.v1.SpeechToText/Transcribe"
RPC = {rpc_attributes.RPC_SYSTEM_NAME: "grpc", rpc_attributes.RPC_METHOD: METHOD}
OWN = "stt."
"""Prefix of attributes that OpenTelemetry doesn't define."""
CLOCKS_NS = 5_000_000
"""Difference of the wall clock between two readings in a process, in nanoseconds, while it is being adjusted."""


@contextmanager
def pair(folder: Path, collector: Collector, **keys: object) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    """A primary that asks its fallback about everything. Both export their spans, and have ended afterwards."""
    exporting = {"OTLP_ENDPOINT": collector.endpoint}
    fallback = ServiceProcess("fallback", folder / "fallback", exporting, Script(seconds=0.05))
    with running(fallback):
        keys |= {**exporting, "FALLBACK_URL": f"grpc://{fallback.target}"}
        primary = ServiceProcess("primary", folder / "primary", keys, Script(confidence=0.1, seconds=0.05))
        with running(primary):
            yield primary, fallback


async def call(folder: Path, collector: Collector, flags: str) -> httpx.Response:
    """One REST call through a gateway, a primary and its fallback, which export their spans and stop."""
    with pair(folder, collector) as (primary, fallback):
        gateway = GatewayProcess(folder / "gateway", primary.target, ("--otlp-endpoint", collector.endpoint))
        with running(gateway):
            async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
                headers = {"traceparent": f"00-{TRACE}-{SPAN}-{flags}", "X-Req-Id": "traced"}
                answer = await http.post("/v1/transcribe", files={"audio": ("a.wav", speech())}, headers=headers)
            for process in (gateway, primary, fallback):
                assert await asyncio.to_thread(process.stop) == 0
    return answer


@pytest.fixture(params=["alone", "behind Rotel"])
async def collector(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Collector]:
    async with collecting() if request.param == "alone" else collecting_through_rotel(tmp_path) as collector:
        yield collector


async def test_spans_of_a_request_form_one_tree(tmp_path: Path, collector: Collector) -> None:
    assert (await call(tmp_path, collector, "01")).status_code == 200
    await eventually(lambda: _count(collector), 10)
    assert {span.trace_id for span in collector.spans} == {TRACE}

    (gateway,) = children(collector, SPAN)
    assert (gateway.service, gateway.name, gateway.kind) == ("stt-gateway", "POST /v1/transcribe", "SERVER")
    assert gateway.attributes[http_attributes.HTTP_REQUEST_METHOD] == "POST"
    assert gateway.attributes[http_attributes.HTTP_ROUTE] == "/v1/transcribe"
    assert gateway.attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] == 200
    assert gateway.attributes[url_attributes.URL_PATH] == "/v1/transcribe"
    assert gateway.attributes[url_attributes.URL_SCHEME] == "http"

    (primary,) = children(collector, gateway.span_id)
    assert (primary.service, primary.name, primary.kind) == ("stt-primary", METHOD, "SERVER")
    assert primary.attributes.items() >= {**RPC, rpc_attributes.RPC_RESPONSE_STATUS_CODE: "OK"}.items()
    assert primary.attributes["stt.request_id"] == "traced"

    steps = {span.name: span for span in children(collector, primary.span_id)}
    assert {name: step.kind for name, step in steps.items()} == {
        "decode": "INTERNAL",
        "queue": "INTERNAL",
        "recognize": "INTERNAL",
        "fallback": "CLIENT",
    }
    assert steps["fallback"].attributes.items() >= RPC.items()
    (fallback,) = children(collector, steps["fallback"].span_id)
    assert fallback.service == "stt-fallback"
    assert {span.name for span in children(collector, fallback.span_id)} == {"decode", "queue", "recognize"}

    assert not any(span.failed for span in collector.spans)
    for span in collector.spans:
        for part in children(collector, span.span_id):
            assert span.start - CLOCKS_NS <= part.start <= part.end <= span.end + CLOCKS_NS, (span, part)
    assert steps["queue"].end <= steps["recognize"].start + CLOCKS_NS

    names = {name for span in collector.spans for name in span.attributes if not name.startswith(OWN)}
    assert names <= attribute_names() and names >= {*RPC, http_attributes.HTTP_ROUTE}


async def test_each_utterance_of_a_stream_has_a_span_with_its_steps(tmp_path: Path) -> None:
    recording = recording_of("quick_brown_fox")
    metadata = (("traceparent", f"00-{TRACE}-{SPAN}-01"),)
    async with collecting() as collector:
        # Long, so that a busy machine meets it.
        with pair(tmp_path, collector, STREAM_FALLBACK_TIMEOUT_S=60) as (primary, fallback):
            async with grpc.aio.insecure_channel(primary.target) as channel:
                caller = Caller(speech_pb2_grpc.SpeechToTextStub(channel).StreamTranscribe(metadata=metadata))
                # The text of the second utterance repeats that of the first: it is recognized again, without context.
                await caller.send(config(), audio(pcm(recording)))
                await caller.next("final")
                await caller.send(audio(pcm(recording)))
                await caller.finish()
            for process in (primary, fallback):
                assert await asyncio.to_thread(process.stop) == 0
    assert {span.trace_id for span in collector.spans} == {TRACE}

    (streamed,) = children(collector, SPAN)
    assert (streamed.service, streamed.name) == ("stt-primary", "stt.v1.SpeechToText/StreamTranscribe")
    utterances = children(collector, streamed.span_id)
    assert [span.name for span in utterances] == ["utterance", "utterance"]
    assert [span.attributes["stt.utterance"] for span in utterances] == [0, 1]
    for utterance in utterances:
        steps = sorted(children(collector, utterance.span_id), key=lambda span: span.name)
        assert [step.name for step in steps] == ["fallback", "queue", "recognize"]
        (answered,) = children(collector, steps[0].span_id)
        assert (answered.service, answered.name) == ("stt-fallback", METHOD)
        assert utterance.attributes["stt.model"] == answered.attributes["stt.model"]
        assert utterance.attributes["stt.audio_seconds"] == answered.attributes["stt.audio_seconds"]
        for step in steps:
            assert utterance.start - CLOCKS_NS <= step.start <= step.end <= utterance.end + CLOCKS_NS, step
    assert len(collector.spans) == 1 + 2 * (1 + 3 + 4), "nothing else"


def attribute_names() -> set[str]:
    """Names of attributes that OpenTelemetry's conventions define, without deprecated ones."""
    names = set()
    for package in (attributes, incubating):
        for module in pkgutil.iter_modules(package.__path__):
            file = Path(package.__path__[0]) / f"{module.name}.py"
            nodes = ast.parse(file.read_text()).body
            # Each constant's description follows it.
            for node, below in pairwise(nodes):
                if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant):
                    description = below.value.value if isinstance(below, ast.Expr) else ""  # type: ignore[attr-defined]
                    if not description.strip().startswith("Deprecated"):
                        names.add(str(node.value.value))
    return names


def test_names_of_the_conventions_leave_out_deprecated_ones() -> None:
    names = attribute_names()
    assert {rpc_attributes.RPC_METHOD, error_attributes.ERROR_TYPE, service_attributes.SERVICE_NAME} <= names
    assert {"rpc.system", "rpc.service", "rpc.grpc.status_code", "http.method"} & names == set()


async def _count(collector: Collector) -> int:
    return len(collector.spans)


def children(collector: Collector, parent: str) -> list[Received]:
    return [span for span in collector.spans if span.parent_id == parent]


async def test_trace_that_the_caller_does_not_record_is_not_exported(tmp_path: Path) -> None:
    async with collecting() as collector:
        assert (await call(tmp_path, collector, "00")).status_code == 200
    assert collector.spans == []


async def test_collector_that_is_away_fails_no_call_and_no_stop(tmp_path: Path) -> None:
    collector = Collector()
    collector.endpoint = "http://127.0.0.1:1"
    assert (await call(tmp_path, collector, "01")).status_code == 200


def test_invalid_endpoint_stops_the_start(tmp_path: Path) -> None:
    process = ServiceProcess("primary", tmp_path, {"OTLP_ENDPOINT": "collector"}, Script())
    with pytest.raises(ProcessError, match="OTLP_ENDPOINT: expected http://host:port"), running(process):
        pass


def test_nothing_of_opentelemetry_is_imported_without_an_endpoint() -> None:
    program = (
        "import sys, stt_server.primary, stt_server.app, gateway.http.server, stt_client;"
        "from protos.stt.v1.spans import span_sink;"
        "assert span_sink('', 'stt-primary', '1') is None;"
        "sys.exit(str([name for name in sys.modules if name.startswith('opentelemetry.sdk')] or ''))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.stderr.strip() == ""


def test_endpoint_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'stt-pair\[otel\]'"):
        spans.span_sink("http://127.0.0.1:4317", "stt-primary", "1")
