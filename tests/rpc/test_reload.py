"""Reloading of configuration and PEM files while a service runs, valid and invalid ones."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from stt_server.app import Service
from stt_server.config import Role, Settings, parse
from stt_server.config.watch import FileView
from stt_server.engine.types import Recognizer
from stt_server.lifecycle.reload import Reloader
from stt_server.testing.scripted_model import ScriptedModel
from tests.support.certificates import authority, signed
from tests.support.services import failure, running, settings_text, stub_of, transcribe, until
from tests.support.speech import wav_of

SECRET = "0123456789abcdef"
SILENCE = wav_of(np.zeros(16000, np.float32))
BEARER = (("authorization", f"Bearer {SECRET}"),)
REFUSED = "configuration not applied: "
KEYS: dict[str, Any] = {"API_KEYS": f"one:{SECRET}", "FALLBACK_URL": "grpc://127.0.0.1:9"}


@asynccontextmanager
async def watched(folder: Path, service: Role = "primary") -> AsyncIterator[tuple[Service, Reloader, Path]]:
    """A running service with `KEYS` in its file, its reloader and the file."""
    path = folder / "stt.env"
    path.write_text(settings_text(folder, service, **KEYS))
    async with running(folder, service, **KEYS) as served:
        reloader = Reloader(path, served)
        task = asyncio.ensure_future(reloader.run())
        try:
            await counted(served, reloader, "unchanged")
            yield served, reloader, path
        finally:
            task.cancel()


async def counted(service: Service, reloader: Reloader, result: str) -> None:
    """Reload, and wait until `result` is counted once more."""
    before = count(service, result)
    reloader.reload_now()
    await until(lambda: count(service, result) > before)


def count(service: Service, result: str) -> float:
    text = service.instruments.metrics.exposition()[0]
    (line,) = (line for line in text.splitlines() if line.startswith(f'stt_config_reloads_total{{result="{result}"}}'))
    return float(line.rpartition(" ")[2])


Change = Callable[[str], str]

INVALID: list[tuple[Change, str]] = [
    (lambda text: "", "stt.env: CT2_SMALL_PATH: required key is missing"),
    (lambda text: "\ufeff", "stt.env: CT2_SMALL_PATH: required key is missing"),
    (lambda text: text[: text.index("API_KEYS=") + 4], "stt.env:9: the file is truncated within this line"),
    (lambda text: text[:-2], "the file is truncated within this line"),
    (lambda text: text[:-1].rpartition("\n")[0], "the file is truncated within this line"),
    (lambda text: text + "LOG_LEVEL=loud\n", "LOG_LEVEL: expected debug, info, warning or error, got 'loud'"),
    (lambda text: text + "CONF_LOGPROB_THRESHOLD=1.5\n", "CONF_LOGPROB_THRESHOLD: expected a number from 0 to 1"),
    (lambda text: text + "API_KEYS=two:ours\n", "API_KEYS: duplicate key"),
    (lambda text: text.replace(SECRET, "of ours"), "API_KEYS: expected keys or name:key pairs"),
    (lambda text: text + "FALLBACK_API_KEY=of ours\n", "FALLBACK_API_KEY: expected printable ASCII without spaces"),
    (lambda text: text + "API_KEYZ=ours\n", "API_KEYZ: unknown key; did you mean API_KEYS?"),
    (lambda text: text.replace("grpc://", "http://"), "FALLBACK_URL: expected grpc://host:port"),
    (lambda text: text.replace("grpc://", "grpcs://") + "FALLBACK_CA=gone.pem\n", "file not found: 'gone.pem'"),
    (lambda text: text.replace("grpc://", "grpcs://") + f"FALLBACK_CA={__file__}\n", "contains no PEM certificate"),
    (lambda text: text.replace("API_KEYS=", "MODEL_NAME="), "API_KEYS: was removed"),
    (lambda text: text + "<<<<<<< HEAD\n", "expected KEY=VALUE"),
    (lambda text: text + "MODEL_NAME='open\n", "unclosed quote?"),
    (lambda text: text + "\0", "contains a NUL"),
    (lambda text: text + "#" * 2**20, "larger than 1 MiB"),
]


async def test_an_invalid_file_changes_nothing_and_logs_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(tmp_path) as (service, reloader, path):
        before, text = service.settings, path.read_text()
        for edit, problem in INVALID:
            caplog.clear()
            path.write_text(edit(text))
            await counted(service, reloader, "refused")
            assert service.settings == before
            (record,) = (record for record in caplog.records if record.name == "stt_server.lifecycle.reload")
            assert record.levelno == logging.ERROR
            assert record.getMessage().startswith(f"{REFUSED}/"), "the file is named"
            assert problem in record.getMessage()
            assert "\n" not in record.getMessage()
            assert SECRET not in record.getMessage() and "ours" not in record.getMessage()


async def test_an_unreadable_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with watched(tmp_path) as (service, reloader, path):
        before = service.settings
        path.write_bytes(b"\xff\xfeA=1")
        await counted(service, reloader, "refused")
        path.unlink()
        await counted(service, reloader, "refused")
        path.mkdir()
        await counted(service, reloader, "refused")
        assert service.settings == before
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    for text, reason in zip(logged, ("not UTF-8 text", "No such file or directory", "Is a directory")):
        assert reason in text


async def test_a_refused_file_is_applied_once_its_pem_file_exists(tmp_path: Path) -> None:
    async with watched(tmp_path) as (service, reloader, path):
        ca = tmp_path / "ca.pem"
        path.write_text(path.read_text().replace("grpc://", "grpcs://") + f"FALLBACK_CA={ca}\n")
        await counted(service, reloader, "refused")
        authority(tmp_path, "ca")
        await until(lambda: count(service, "applied"))
        assert service.settings.fallback_ca == ca
        assert service.route is not None and service.route.pems is not None


async def test_a_key_replaced_while_it_is_read_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = authority(tmp_path, "ca")
    used, fresh = signed(tmp_path, "used", ca), signed(tmp_path, "fresh", ca)
    async with watched(tmp_path) as (service, reloader, path):
        client = f"FALLBACK_CERT={used.cert}\nFALLBACK_KEY={used.key}\n"
        path.write_text(path.read_text().replace("grpc://", "grpcs://") + client)
        await counted(service, reloader, "applied")
        used.cert.write_bytes(fresh.cert.read_bytes())
        await counted(service, reloader, "refused")
        preload = FileView.preload

        def replaced_afterwards(view: FileView, paths: Collection[Path]) -> None:
            preload(view, paths)
            used.key.write_bytes(fresh.key.read_bytes())

        monkeypatch.setattr(FileView, "preload", replaced_afterwards)
        await until(lambda: count(service, "applied") == 2)
        assert count(service, "refused") == 1
        assert service.route is not None and service.route.pems is not None
        assert service.route.pems.key == fresh.key.read_bytes()


async def test_a_pair_replaced_while_it_is_first_read_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = authority(tmp_path, "ca")
    used, fresh = signed(tmp_path, "used", ca), signed(tmp_path, "fresh", ca)
    keys = KEYS | {"FALLBACK_URL": "grpcs://127.0.0.1:9", "FALLBACK_CERT": used.cert, "FALLBACK_KEY": used.key}
    path = tmp_path / "stt.env"
    path.write_text(settings_text(tmp_path, "primary", **keys))
    read = FileView.read

    def replaced_afterwards(view: FileView, file: Path) -> bytes:
        data = read(view, file)
        if file == used.key:
            used.cert.write_bytes(fresh.cert.read_bytes())
            used.key.write_bytes(fresh.key.read_bytes())
        return data

    monkeypatch.setattr(FileView, "read", replaced_afterwards)
    async with running(tmp_path, "primary", **keys) as service:
        task = asyncio.ensure_future(Reloader(path, service).run())
        try:
            await until(lambda: count(service, "applied") == 1)
        finally:
            task.cancel()
        assert count(service, "refused") == 0
        assert service.route is not None and service.route.pems is not None
        assert service.route.pems.key == fresh.key.read_bytes()


async def test_keys_are_revoked_despite_a_broken_certificate(tmp_path: Path) -> None:
    ca = authority(tmp_path, "ca").cert
    async with watched(tmp_path) as (service, reloader, path):
        path.write_text(path.read_text().replace("grpc://", "grpcs://") + f"FALLBACK_CA={ca}\n")
        await counted(service, reloader, "applied")
        route = service.route
        ca.write_text("half a cert")
        path.write_text(path.read_text().replace("one:", "two:"))
        await counted(service, reloader, "applied")
        assert [key.name for key in service.settings.api_keys] == ["two"]
        assert count(service, "refused") == 1
        assert service.route == route


async def test_changes_during_model_loading_are_applied(tmp_path: Path) -> None:
    path = tmp_path / "stt.env"
    path.write_text(settings_text(tmp_path, "primary", MIN_WORDS_FOR_CONF=1))
    loading = threading.Event()

    def load(_: Settings) -> Recognizer:
        loading.wait(20)
        return ScriptedModel()

    service = Service(parse(path.read_text(), "primary"), load)
    reloader = Reloader(path, service)
    task = asyncio.ensure_future(reloader.run())
    starting = asyncio.ensure_future(service.start())
    try:
        path.write_text(settings_text(tmp_path, "primary", MIN_WORDS_FOR_CONF=20))
        await counted(service, reloader, "applied")
        loading.set()
        await starting
        async with stub_of(service) as stub:
            assert (await transcribe(stub))[1]["x-route-reason"] == "few_words"
    finally:
        loading.set()
        task.cancel()
        await service.stop()


async def test_changed_limits_apply_to_the_next_request(tmp_path: Path) -> None:
    async with watched(tmp_path) as (service, reloader, path), stub_of(service) as stub:
        text = path.read_text()

        async def reload(**keys: object) -> None:
            path.write_text(text + "".join(f"{name}={value}\n" for name, value in keys.items()))
            await counted(service, reloader, "applied")

        unsure = {"MIN_WORDS_FOR_CONF": 1000}
        await reload(**unsure)
        assert (await failure(stub, metadata=BEARER))[1]["x-error-type"] == "fallback_failed"
        await reload(FALLBACK_ON_ERROR="degrade", **unsure)
        assert (await transcribe(stub, metadata=BEARER))[1]["x-fallback-error"] in ("unavailable", "circuit_open")
        assert (await transcribe(stub, SILENCE, BEARER))[0].text == ""
        await reload(VAD_FILTER="false")
        assert (await transcribe(stub, SILENCE, BEARER))[0].text != ""
        await reload(MAX_STREAMS=0)
        with pytest.raises(grpc.aio.AioRpcError, match=r"live-stream limit reached \(0\)"):
            await stub.StreamTranscribe(iter(()), metadata=BEARER).read()


async def test_trusted_proxies_are_reloaded(tmp_path: Path) -> None:
    async with watched(tmp_path) as (service, reloader, path), stub_of(service) as stub:
        limited = path.read_text().replace(f"one:{SECRET}", "").replace("RATE_LIMIT_RPS=0", "RATE_LIMIT_RPS=0.001")
        for proxies, taken in (("127.0.0.1", ["", ""]), ("none", ["", "rate_limited"])):
            path.write_text(f"{limited}RATE_LIMIT_BURST=1\nTRUSTED_PROXIES={proxies}\n")
            await counted(service, reloader, "applied")
            assert [await _refusal(stub, f"10.0.0.{n}") for n in (1, 2)] == taken


async def _refusal(stub: Any, address: str) -> str:
    """Error type of a call forwarded for `address`; empty if it succeeds."""
    try:
        await transcribe(stub, metadata=(("x-forwarded-for", address),))
    except grpc.aio.AioRpcError as error:
        return str(dict(error.trailing_metadata() or ())["x-error-type"])
    return ""
