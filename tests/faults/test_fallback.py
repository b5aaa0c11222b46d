"""Faults of the fallback: the primary answers in time, with a transcript or the contract's 502."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.testing.network import NamespaceLink, namespace_link, namespaces_unavailable
from stt_server.testing.paths import ROOT, SPEECH
from stt_server.testing.processes import HOST
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.faults.replies import TRANSPORTS, Reply, until_circuit, until_fallback_error, until_used
from tests.support.needs import lacking
from tests.support.speech import samples_of
from tests.support.streams import FLUSH, Caller, config

SMALL, MEDIUM = "the small text is here", "the medium text is here"
FALLBACK_TIMEOUT_S = 20
DEADLINE_S = 6.0
"""Deadline of callers in a hurry, in seconds; answers that need not wait come much sooner."""
KEY = "the-key-of-the-hop"


@dataclass
class Trio:
    """A fallback and two primaries whose model has low confidence in everything."""

    fallback: ServiceProcess
    fail: ServiceProcess
    degrade: ServiceProcess
    namespace_link: NamespaceLink | None

    @property
    def primaries(self) -> tuple[ServiceProcess, ServiceProcess]:
        return self.fail, self.degrade

    async def recovered(self) -> None:
        """Wait until both primaries use the fallback (again)."""
        await asyncio.gather(*(until_used(primary) for primary in self.primaries))

    async def trouble(self, *codes: str) -> list[Reply]:
        """Assert that concurrent callers of each kind get the configured answer in time, for one of these reasons."""
        failing = [transcribe(self.fail) for transcribe in TRANSPORTS * 2]
        hurried = [
            transcribe(self.degrade, DEADLINE_S, routing=routing)
            for transcribe, routing in itertools.product(TRANSPORTS, ROUTINGS)
        ]
        failed = await asyncio.gather(*failing)
        degraded = await asyncio.gather(*hurried)
        for reply in failed:
            assert (reply.http, reply.error_type) == (502, "fallback_failed"), reply
            assert reply.seconds < FALLBACK_TIMEOUT_S, "no request waits for the whole timeout"
        for reply in degraded:
            assert (reply.http, reply.text, reply.fallback_used) == (200, SMALL, False), reply
        for reply in (*failed, *degraded):
            assert reply.fallback_error in codes, reply
            assert "secret" not in reply.shown
        return [*failed, *degraded]

    async def circuits(self, state: str) -> None:
        """Wait until both primaries have noticed."""
        await asyncio.gather(*(until_circuit(primary, state) for primary in self.primaries))

    async def refused_at_once(self) -> None:
        """Assert that with open circuits no request waits."""
        await self.circuits("open")
        for reply in await self.trouble("circuit_open"):
            assert reply.seconds < DEADLINE_S


ROUTINGS = ("auto", "fallback")


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """A trio whose fallback has its own network namespace, if one can be created."""
    folder = tmp_path_factory.mktemp("pair")
    with contextlib.ExitStack() as stack:
        link = None if namespaces_unavailable() else stack.enter_context(namespace_link())
        keys: dict[str, object] = {"API_KEYS": f"primary:{KEY}"}
        prefix, host = (link.prefix, link.host) if link else ((), HOST)
        fallback = ServiceProcess("fallback", folder / "fallback", keys, Script(text=MEDIUM), prefix=prefix, host=host)
        stack.enter_context(running(fallback))
        hop: dict[str, object] = {
            "FALLBACK_URL": f"grpc://{fallback.target}",
            "FALLBACK_API_KEY": KEY,
            "FALLBACK_TIMEOUT_S": FALLBACK_TIMEOUT_S,
        }
        fail, degrade = (
            ServiceProcess(
                "primary", folder / policy, {**hop, "FALLBACK_ON_ERROR": policy}, Script(text=SMALL, confidence=0.1)
            )
            for policy in ("fail", "degrade")
        )
        stack.enter_context(running(fail, degrade))
        yield Trio(fallback, fail, degrade, link)


@pytest.fixture
async def pair(trio: Trio) -> Trio:
    """A trio of working services."""
    await trio.recovered()
    return trio


async def test_a_killed_fallback_is_not_called_until_it_is_back(pair: Trio) -> None:
    pair.fallback.kill()
    await pair.trouble("unavailable", "circuit_open")
    await pair.refused_at_once()
    pair.fallback.restart()
    await pair.recovered()


async def test_with_a_stopped_fallback_no_request_waits_for_timeout(pair: Trio) -> None:
    pair.fallback.send(signal.SIGSTOP)
    try:
        await pair.trouble("unavailable", "circuit_open", "deadline_exceeded")
        await pair.refused_at_once()
        assert "circuit to the fallback is open: health checks time out" in pair.fail.log_text()
        final = await final_of(pair.degrade)
        assert (final.text, final.routing.fallback_error) == (SMALL, "circuit_open")
    finally:
        pair.fallback.send(signal.SIGCONT)
    await pair.recovered()
    assert (await final_of(pair.degrade)).text == MEDIUM


async def final_of(primary: ServiceProcess) -> pb.TranscribeResponse:
    """Final of a live stream with one utterance."""
    async with primary.channel() as channel:
        caller = Caller(speech_pb2_grpc.SpeechToTextStub(channel).StreamTranscribe())
        await caller.send(config(interim_results=False))
        await caller.send_audio(samples_of(SPEECH))
        await caller.send(FLUSH)
        final = (await caller.next("final")).final.result
        caller.call.cancel()
        return final


async def test_with_a_cut_network_no_request_waits_for_timeout(pair: Trio) -> None:
    if pair.namespace_link is None:
        lacking(namespaces_unavailable())
    pair.namespace_link.cut()
    try:
        await pair.trouble("unavailable", "circuit_open", "deadline_exceeded")
        await pair.refused_at_once()
    finally:
        pair.namespace_link.mend()
    await pair.recovered()


async def test_a_fallback_restart_under_load_degrades_or_fails_as_set(pair: Trio) -> None:
    replies: dict[str, list[Reply]] = {"fail": [], "degrade": []}
    over = asyncio.Event()

    async def callers(primary: ServiceProcess, found: list[Reply]) -> None:
        for transcribe in itertools.cycle(TRANSPORTS):
            found.append(await transcribe(primary, DEADLINE_S))
            if over.is_set():
                return

    calling = [
        asyncio.ensure_future(callers(primary, found)) for primary, found in zip(pair.primaries, replies.values())
    ]
    await asyncio.to_thread(pair.fallback.stop)
    await asyncio.to_thread(pair.fallback.restart)
    await pair.recovered()
    over.set()
    await asyncio.gather(*calling)
    assert {(reply.http, reply.text) for reply in replies["degrade"]} <= {(200, SMALL), (200, MEDIUM)}
    assert {(reply.http, reply.error_type) for reply in replies["fail"]} <= {(200, ""), (502, "fallback_failed")}
    reasons = {reply.fallback_error for reply in (*replies["fail"], *replies["degrade"])}
    assert reasons <= {"", "not_ready", "unavailable", "circuit_open"}


@pytest.mark.parametrize(
    ("keys", "undone", "code"),
    [
        ({"API_KEYS": "other:another-key-altogether"}, {"API_KEYS": f"primary:{KEY}"}, "unauthenticated"),
        ({"RATE_LIMIT_RPS": 0.001, "RATE_LIMIT_BURST": 1}, {"RATE_LIMIT_RPS": 0}, "rate_limited"),
    ],
)
async def test_refusals_of_the_fallback_are_reported(
    pair: Trio, keys: dict[str, object], undone: dict[str, object], code: str
) -> None:
    pair.fallback.stop()
    pair.fallback.write_config(**keys)
    pair.fallback.restart()
    try:
        if code == "rate_limited":
            await until_used(pair.fail)  # takes the only token
        await asyncio.gather(*(until_fallback_error(primary, code) for primary in pair.primaries))
        for _ in range(2):
            await pair.trouble(code)
    finally:
        pair.fallback.kill()
        pair.fallback.write_config(**undone)
        pair.fallback.restart()
    await pair.recovered()


async def test_a_slow_fallback_is_awaited_until_the_deadline(pair: Trio) -> None:
    pair.fallback.act(Script(text=MEDIUM, seconds=60))
    waiting = [asyncio.ensure_future(transcribe(pair.fail)) for transcribe in TRANSPORTS]
    hurried = await asyncio.gather(
        *(transcribe(pair.degrade, DEADLINE_S, routing=r) for transcribe in TRANSPORTS for r in ROUTINGS)
    )
    assert {(reply.http, reply.text, reply.fallback_error) for reply in hurried} == {(200, SMALL, "deadline_exceeded")}
    for reply in await asyncio.gather(*waiting):
        assert (reply.http, reply.error_type, reply.fallback_error) == (502, "fallback_failed", "deadline_exceeded")
        assert FALLBACK_TIMEOUT_S - 1 < reply.seconds < 2 * FALLBACK_TIMEOUT_S
    pair.fallback.kill()
    pair.fallback.restart()
    await pair.recovered()


async def test_answers_that_break_the_contract_reach_no_caller(pair: Trio) -> None:
    pair.fallback.kill()
    for kind, code in NONSENSE.items():
        with nonsense(pair, kind):
            await pair.trouble("unavailable", "circuit_open", code)
    pair.fallback.restart()
    await pair.recovered()


NONSENSE = {
    "garbage": "unavailable",
    "http1": "unavailable",
    "unimplemented": "unimplemented",
    "errors": "internal",
    "empty": "invalid_answer",
    "nan": "invalid_answer",
}


@contextlib.contextmanager
def nonsense(pair: Trio, kind: str) -> Iterator[None]:
    """Run a process that is no fallback at the fallback's address."""
    command = [sys.executable, "-m", "tests.faults.nonsense", kind, pair.fallback.host]
    with subprocess.Popen(
        [*pair.fallback.prefix, *command, str(pair.fallback.grpc_port)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()
