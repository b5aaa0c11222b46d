"""One request to a real primary over gRPC or REST, and its outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from stt_client import SttClient, SttError
from stt_server.testing.paths import SPEECH
from stt_server.testing.services import ServiceProcess


@dataclass(frozen=True)
class Reply:
    """Answer to one request, and its duration."""

    seconds: float
    http: int
    """200, or the code of the error table."""
    error_type: str = ""
    fallback_error: str = ""
    text: str = ""
    fallback_used: bool = False
    shown: str = ""
    """Everything that the caller received."""


Transport = Callable[..., Awaitable[Reply]]


async def over_grpc(primary: ServiceProcess, timeout: float = 60, **options: str) -> Reply:
    """Send one request with the client library; `timeout`: its deadline in seconds."""
    began = time.monotonic()
    async with SttClient(primary.target) as client:
        try:
            found = await client.transcribe(SPEECH, timeout=timeout, routing=options.get("routing", "auto"))
        except SttError as error:
            shown = f"{error} {dict(error.metadata)}"
            return Reply(time.monotonic() - began, error.kind.http, error.type, error.fallback_error, shown=shown)
    routing = found.routing
    seconds = time.monotonic() - began
    return Reply(seconds, 200, "", routing.fallback_error, found.text, routing.fallback_used, repr(found))


async def over_rest(primary: ServiceProcess, timeout: float = 60, **options: str) -> Reply:
    """Send one request through the HTTP gateway."""
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=primary.url, timeout=timeout + 5, trust_env=False) as http:
        response = await http.post(
            "/v1/transcribe",
            files={"audio": SPEECH.read_bytes()},
            data=options,
            headers={"X-Timeout-Ms": str(round(timeout * 1000))},
        )
    seconds = time.monotonic() - began
    headers, shown = response.headers, f"{dict(response.headers)} {response.text}"
    fallback_error = headers.get("x-fallback-error", "")
    if response.status_code != 200:
        return Reply(seconds, response.status_code, headers["x-error-type"], fallback_error, shown=shown)
    used = headers["x-fallback-used"] == "true"
    return Reply(seconds, 200, "", fallback_error, response.json()["text"], used, shown)


TRANSPORTS: tuple[Transport, ...] = (over_grpc, over_rest)


async def until_circuit(primary: ServiceProcess, state: str, seconds: float = 60) -> None:
    """Wait until the circuit to the fallback is in `state`, without sending requests."""
    end = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=primary.url) as client:
        while (found := (await client.get("/v1/metrics")).json()["circuit"]) != state:
            assert time.monotonic() < end, f"it is {found}; the log ends: {primary.log_text()[-800:]}"
            await asyncio.sleep(0.05)


async def until_fallback_error(primary: ServiceProcess, code: str, seconds: float = 60) -> None:
    """Send requests until the fallback fails for that reason: reconnecting after a restart takes a moment."""
    end = time.monotonic() + seconds
    while (reply := await over_grpc(primary)).fallback_error != code:
        assert time.monotonic() < end, reply
        await asyncio.sleep(0.1)


async def until_used(primary: ServiceProcess, seconds: float = 60) -> float:
    """Send requests until the fallback answers again; seconds until then."""
    began = time.monotonic()
    while not (await over_grpc(primary)).fallback_used:
        assert time.monotonic() < began + seconds, (
            f"the fallback is not used; the log ends: {primary.log_text()[-800:]}"
        )
        await asyncio.sleep(0.1)
    return time.monotonic() - began
