"""Headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from playwright.async_api import Page, ViewportSize, async_playwright

from stt_server.testing.paths import ROOT
from tests.support.needs import lacking

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

DESKTOP: ViewportSize = {"width": 1120, "height": 640}
PHONE: ViewportSize = {"width": 360, "height": 740}

ARTIFACTS = ROOT / "artifacts"
"""Screenshots for review. Ignored by git, kept by CI."""

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=user-gesture-required",
)


@asynccontextmanager
async def open_page(
    url: str,
    *,
    microphone: Path | None = None,
    viewport: ViewportSize = DESKTOP,
    color_scheme: Literal["light", "dark"] = "light",
    expected: str = "",
    more_flags: Sequence[str] = (),
) -> AsyncIterator[Page]:
    """Open the page at `url`. Exceptions, console errors and requests to other hosts fail the test.

    Args:
        microphone: WAV file played once as the microphone's input; None: permission is denied.
        expected: text of console errors that are allowed.
    """
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        lacking(
            "there is no `chromium` on the PATH: run `sudo apt-get install chromium` first (buildscripts/test does)"
        )
    flags = [*FLAGS, *more_flags, "--use-fake-device-for-media-stream"]
    if microphone is None:
        flags.append("--deny-permission-prompts")
    else:
        flags += ["--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}%noloop"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=flags)
        opened = await browser.new_context(viewport=viewport, color_scheme=color_scheme)
        page = await opened.new_page()
        page.set_default_timeout(20_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
        page.on("console", lambda line: problems.append(f"console: {line.text}") if line.type == "error" else None)
        page.on("request", lambda sent: None if _is_own(sent.url, url) else problems.append(f"request: {sent.url}"))
        await page.goto(url)
        yield page
        await browser.close()
        unexpected = [it for it in problems if not (expected and expected in it)]
        assert not unexpected, unexpected


def _is_own(requested: str, url: str) -> bool:
    return requested.startswith((url, "blob:", "data:"))


async def picture(page: Page, name: str) -> None:
    """Save a screenshot as `artifacts/NAME.png`."""
    ARTIFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTIFACTS / f"{name}.png", animations="disabled")
