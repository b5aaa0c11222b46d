"""Reload of a changed configuration by running services: when, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from protos.stt.v1 import speech_pb2_grpc
from stt_server.testing.network import connections
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.faults.steady import NO_RETRY, PATIENCE_S, WAV, Steady, by_grpc, by_rest
from tests.support.observing import eventually
from tests.support.services import transcribe

FIRST = "the first fallback says"
SECOND = "the second fallback says"
OWN = "the quick brown fox jumps over the lazy dog"
OLD_KEY, NEW_KEY = "old-key-0123456789", "new-key-0123456789"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServiceProcess, ServiceProcess, ServiceProcess]]:
    """A primary, its fallback, and another fallback."""
    folder = tmp_path_factory.mktemp("reload")
    first = ServiceProcess("fallback", folder / "first", {"HTTP_PORT": "off"}, Script(text=FIRST))
    second = ServiceProcess("fallback", folder / "second", {"HTTP_PORT": "off"}, Script(text=SECOND))
    primary = ServiceProcess("primary", folder / "primary", {"VAD_FILTER": "false", "API_KEYS": ""}, Script())
    first.write_config(VAD_FILTER="false")
    second.write_config(VAD_FILTER="false", API_KEYS=NEW_KEY)
    with running(first, second, primary):
        yield primary, first, second


@pytest.fixture
async def primary(pair: tuple[ServiceProcess, ServiceProcess, ServiceProcess]) -> AsyncIterator[ServiceProcess]:
    """The primary; its initial configuration is restored afterwards."""
    service = pair[0]
    service.act(Script())
    before = dict(service.keys)
    yield service
    service.config.unlink(missing_ok=True)
    service.keys = {}
    service.write_config(**before)
    service.send(signal.SIGHUP)
    await eventually(lambda: metric(service, "stt_config_last_reload_successful"), 1)


async def metric(service: ServiceProcess, name: str) -> float:
    """Value of a sample of /metrics."""
    async with httpx.AsyncClient(base_url=service.url) as http:
        text = (await http.get("/metrics")).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


async def reloads(service: ServiceProcess, result: str) -> float:
    return await metric(service, f'stt_config_reloads_total{{result="{result}"}}')


@asynccontextmanager
async def stub(service: ServiceProcess) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(service.target, options=NO_RETRY) as channel:
        yield speech_pb2_grpc.SpeechToTextStub(channel)


def lines(service: ServiceProcess, text: str) -> list[dict[str, Any]]:
    """Lines of its log that contain `text`."""
    return [json.loads(line) for line in service.log_text().splitlines() if text in line]


async def error_type(service: ServiceProcess, key: str = "") -> str:
    """Error of a short request; empty if it is answered."""
    async with stub(service) as calls:
        try:
            await transcribe(calls, WAV, (("authorization", f"Bearer {key}"),) if key else ())
        except grpc.aio.AioRpcError as error:
            return str(dict(error.trailing_metadata() or ()).get("x-error-type", error.details()))
    return ""


async def test_keys_limits_and_thresholds_are_reloaded(primary: ServiceProcess) -> None:
    assert await error_type(primary) == ""
    primary.write_config(API_KEYS=f"one:{OLD_KEY}", LOG_LEVEL="debug")
    await eventually(lambda: error_type(primary), "unauthenticated")
    assert await error_type(primary, OLD_KEY) == ""
    primary.write_config(RATE_LIMIT_RPS=0.001, RATE_LIMIT_BURST=1, MIN_WORDS_FOR_CONF=4, LOG_LEVEL="info")
    await eventually(lambda: error_type(primary, OLD_KEY), "rate_limited")
    message = lines(primary, "configuration applied")[-1]["message"]
    assert message.partition(": ")[2] == "MIN_WORDS_FOR_CONF, RATE_LIMIT_RPS, RATE_LIMIT_BURST, LOG_LEVEL"
    assert OLD_KEY not in primary.log_text()
    async with stub(primary) as calls:
        primary.write_config(RATE_LIMIT_RPS=0, CONF_LOGPROB_THRESHOLD=0.95)
        await eventually(lambda: _reason(calls), "low_logprob")


async def _reason(calls: Any) -> str:
    try:
        return (await transcribe(calls, WAV, _bearer(OLD_KEY)))[1]["x-route-reason"]
    except grpc.aio.AioRpcError as error:
        return str(error.code())


def _bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


async def test_the_log_level_is_reloaded(primary: ServiceProcess) -> None:
    primary.write_config(LOG_LEVEL="error")
    await eventually(lambda: _logged_lines(primary), 0)
    primary.write_config(LOG_LEVEL="info")
    await eventually(lambda: _logged_lines(primary), 1)


async def _logged_lines(service: ServiceProcess) -> int:
    """Number of lines that one request adds to the log."""
    before = len(lines(service, "request finished"))
    await error_type(service)
    return len(lines(service, "request finished")) - before


async def test_sighup_reloads_at_once_and_stops_nothing(primary: ServiceProcess) -> None:
    unchanged = await reloads(primary, "unchanged")
    primary.send(signal.SIGHUP)
    await eventually(lambda: reloads(primary, "unchanged"), unchanged + 1)
    # A file without a final newline may be incomplete: it is read after a delay, or at once on SIGHUP.
    primary.config.write_text(_without_keys(primary) + f"API_KEYS=one:{OLD_KEY}")
    primary.send(signal.SIGHUP)
    await eventually(lambda: error_type(primary), "unauthenticated")


def _without_keys(service: ServiceProcess) -> str:
    return service.config.read_text().replace("API_KEYS=\n", "")


async def test_a_config_map_that_swaps_a_link_is_reloaded(primary: ServiceProcess) -> None:
    applied = await reloads(primary, "applied")
    text = _without_keys(primary)
    for number, keys in enumerate(("API_KEYS=\n", f"API_KEYS=one:{OLD_KEY}\n")):
        version = primary.folder / f"..version_{number}"
        version.mkdir()
        (version / primary.config.name).write_text(text + keys)
        fresh = primary.folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(primary.folder / "..data")
        if number == 0:
            primary.config.unlink()
            primary.config.symlink_to(f"..data/{primary.config.name}")
            unchanged = await reloads(primary, "unchanged")
            primary.send(signal.SIGHUP)
            await eventually(lambda: reloads(primary, "unchanged"), unchanged + 1)
            assert await reloads(primary, "applied") == applied, "the same content by another path is no change"
    await eventually(lambda: error_type(primary), "unauthenticated")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "CT2_SMALL_PATH: required key is missing"),
        (None, "can't read the configuration: No such file or directory"),
        (b"%(text)sFALLBACK_API_KEY=secret of ours\n", "FALLBACK_API_KEY: expected printable ASCII without spaces"),
        (b"%(half)s", "the file is truncated within this line"),
    ],
    ids=["empty", "missing", "wrong", "half"],
)
async def test_a_bad_file_changes_nothing_and_is_logged_once(
    primary: ServiceProcess, content: bytes | None, problem: str
) -> None:
    refused, applied = await reloads(primary, "refused"), await reloads(primary, "applied")
    logged = len(lines(primary, "configuration not applied"))
    text = primary.config.read_bytes()
    changed = text + b"RATE_LIMIT_BURST=1\n"
    if content is None:
        primary.config.unlink()
    else:
        half = changed[: changed.index(b"RATE_LIMIT_RPS=0") - 20]
        primary.config.write_bytes(content.replace(b"%(text)s", changed).replace(b"%(half)s", half))
    await eventually(lambda: reloads(primary, "refused"), refused + 1)
    await asyncio.sleep(1)  # read repeatedly, logged and counted once
    assert await reloads(primary, "refused") == refused + 1
    assert await reloads(primary, "applied") == applied
    assert await metric(primary, "stt_config_last_reload_successful") == 0
    new = lines(primary, "configuration not applied")[logged:]
    assert [line["level"] for line in new] == ["ERROR"]
    assert problem in new[0]["message"]
    assert str(primary.config) in new[0]["message"]
    assert "ours" not in primary.log_text()
    primary.config.write_bytes(text)
    await eventually(lambda: metric(primary, "stt_config_last_reload_successful"), 1)
    assert await reloads(primary, "applied") == applied


async def test_a_file_without_its_keys_is_refused(primary: ServiceProcess) -> None:
    without = _without_keys(primary)
    primary.write_config(API_KEYS=f"one:{OLD_KEY}")
    await eventually(lambda: error_type(primary), "unauthenticated")
    primary.config.write_text(without)
    await eventually(lambda: metric(primary, "stt_config_last_reload_successful"), 0)
    assert await error_type(primary) == "unauthenticated"
    assert "API_KEYS: was removed" in lines(primary, "configuration not applied")[-1]["message"]
    primary.write_config(API_KEYS="")
    await eventually(lambda: error_type(primary), "")


async def test_changes_that_need_a_restart_are_named(primary: ServiceProcess) -> None:
    primary.write_config(MAX_BATCH_SIZE=3, MODEL_NAME="other", API_KEYS=f"one:{OLD_KEY}")
    await eventually(lambda: error_type(primary), "unauthenticated")
    warned = lines(primary, "restart required for changed keys")
    assert [line["message"].partition(": ")[2] for line in warned] == ["MODEL_NAME, MAX_BATCH_SIZE"]
    assert await metric(primary, "stt_config_keys_awaiting_restart") == 2


async def test_rotating_keys_under_load_fails_no_request(primary: ServiceProcess) -> None:
    key = OLD_KEY
    primary.write_config(API_KEYS=f"old:{OLD_KEY}")
    await eventually(lambda: error_type(primary), "unauthenticated")
    channel = grpc.aio.insecure_channel(primary.target, options=NO_RETRY)
    async with (
        channel,
        httpx.AsyncClient(base_url=primary.url, timeout=PATIENCE_S) as http,
        Steady([by_grpc(channel, lambda: key), by_rest(http, lambda: key)]) as load,
    ):
        await load.answered(OWN)
        primary.write_config(API_KEYS=f"old:{OLD_KEY},new:{NEW_KEY}")
        await eventually(lambda: error_type(primary, NEW_KEY), "")
        key = NEW_KEY
        await load.answered(OWN, 50)
        primary.write_config(API_KEYS=f"new:{NEW_KEY}")
        await eventually(lambda: error_type(primary, OLD_KEY), "unauthenticated")
        await load.answered(OWN, 50)
    assert load.failures == []
    assert load.sent > 100
    assert await metric(primary, 'stt_key_requests_total{key_name="new"}') > 50


async def test_replacing_the_fallback_under_load_fails_no_request(
    primary: ServiceProcess, pair: tuple[ServiceProcess, ServiceProcess, ServiceProcess]
) -> None:
    _, first, second = pair
    primary.write_config(FALLBACK_URL=f"grpc://{first.target}")
    primary.act(Script(confidence=0.1))
    # Slow, so that calls are in progress when their fallback is replaced.
    first.act(Script(text=FIRST, seconds=0.02))
    channel = grpc.aio.insecure_channel(primary.target, options=NO_RETRY)
    async with channel, httpx.AsyncClient(base_url=primary.url, timeout=PATIENCE_S) as http:
        await eventually(lambda: _text(by_grpc(channel)), FIRST)
        assert await _connections(primary, first) > 0
        async with Steady([by_grpc(channel), by_rest(http)], rate=30) as load:
            for there, key, text in ((second, NEW_KEY, SECOND), (first, "", FIRST), (second, NEW_KEY, SECOND)):
                primary.write_config(FALLBACK_URL=f"grpc://{there.target}", FALLBACK_API_KEY=key)
                await load.answered(text)
    assert load.failures == []
    assert set(load.answers) == {FIRST, SECOND}
    await eventually(lambda: _connections(primary, first), 0)


async def _text(call: Callable[[], Awaitable[str]]) -> str:
    return await call()


async def _connections(primary: ServiceProcess, fallback: ServiceProcess) -> int:
    return connections(primary.pid, fallback.grpc_port)


def test_sighup_during_the_start_does_not_stop_it(tmp_path: Path) -> None:
    service = ServiceProcess("fallback", tmp_path, {"HTTP_PORT": "off"})
    try:
        for _ in range(5):
            service.spawn()
            while not _ignores_hang_ups(service):
                assert service.running, service.log_text()
            if still_importing := "cygrpc" not in Path(f"/proc/{service.pid}/maps").read_text():
                break
            service.kill()  # this process was delayed
        assert still_importing, "that took all the imports"
        for _ in range(20):
            service.send(signal.SIGHUP)
            time.sleep(0.1)
        service.wait_ready()
        assert service.stop() == 0
    finally:
        service.kill()


def _ignores_hang_ups(service: ServiceProcess) -> bool:
    status = Path(f"/proc/{service.pid}/status").read_text()
    found = re.search(r"^SigIgn:\t(\w+)$", status, re.MULTILINE)
    return bool(found and int(found[1], 16) & 1)
