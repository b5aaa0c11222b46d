"""Steps on the live page that several tests take."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Page, expect

from gateway.http.server import GatewayServer
from stt_server.testing.paths import SPEECH

PAGE_TIMEOUT_MS = 60_000
"""For what depends on the service; far longer than it takes."""


def url_of(gateway: GatewayServer, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{gateway.port}/"


async def transcribe(page: Page, recording: Path = SPEECH) -> None:
    """Give the page a file, and wait until it is done with it."""
    await page.set_input_files("#file", recording)
    await expect(page.locator("#start")).to_have_attribute("data-state", "idle", timeout=PAGE_TIMEOUT_MS)
