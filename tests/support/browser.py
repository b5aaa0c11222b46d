"""Chromium without a window, for what only a browser can prove."""

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
"""Pictures for people to look at; git ignores the folder, CI keeps it."""

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
    """The page at `url`; that it throws, complains, or asks another host for anything, fails the test.

    Args:
        microphone: a WAV file that the browser hears once, from when the page listens; None: it may not listen.
        expected: what a complaint of the browser's may hold.
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
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(f"thrown: {error}"))
        page.on("console", lambda line: wrong.append(f"said: {line.text}") if line.type == "error" else None)
        page.on("request", lambda asked: None if _is_own(asked.url, url) else wrong.append(f"asked {asked.url}"))
        await page.goto(url)
        yield page
        await browser.close()
        unexpected = [it for it in wrong if not (expected and expected in it)]
        assert not unexpected, unexpected


def _is_own(asked: str, url: str) -> bool:
    return asked.startswith((url, "blob:", "data:"))


async def picture(page: Page, name: str) -> None:
    """Keeps what the page looks like now as `artifacts/NAME.png`."""
    ARTIFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTIFACTS / f"{name}.png", animations="disabled")
