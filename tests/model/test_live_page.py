"""The live page with real models and real speech, from a browser's microphone to captions and files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Page, WebSocket, expect

from stt_client.results import Segment
from stt_client.subtitles import to_srt, to_vtt
from stt_server.app import Service
from stt_server.engine.whisper import WhisperRecognizer
from tests.model.test_pair import pair
from tests.support.browser import DESKTOP, PHONE, open_page, picture
from tests.support.speech import clip, samples_of, silence, wav_of, words

pytestmark = [pytest.mark.model, pytest.mark.timeout(180)]

PATIENCE_MS = 60_000
ENGLISH = (("en", "quick_brown_fox"), ("en", "hello_world"), ("en", "counting"), ("en", "quick_brown_fox"))
LANGUAGES = (("pt", "contagem"), ("it", "pangrama"), ("fr", "bonjour_monde"), ("en", "quick_brown_fox"))
LOOKS: dict[str, Any] = {
    "wide-light": ({"viewport": DESKTOP, "color_scheme": "light"}, ENGLISH),
    "phone-dark": ({"viewport": PHONE, "color_scheme": "dark"}, LANGUAGES),
}
FOX = "the quick brown fox jumps over the lazy dog"


class ReceivedEvents:
    """Events that the page has received over its WebSocket."""

    def __init__(self, page: Page) -> None:
        self.events: list[dict[str, Any]] = []
        page.on("websocket", self._watch)

    def _watch(self, socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: self.events.append(json.loads(frame)))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event[kind] for event in self.events if kind in event]

    @property
    def segments(self) -> list[Segment]:
        found = [segment for final in self.of("final") for segment in final["result"]["segments"]]
        return [Segment(**{**segment, "words": ()}) for segment in found]


def speech_file(folder: Path, *clips: tuple[str, str], pause: float = 1.2) -> Path:
    """Clips joined with pauses, as a WAV file."""
    parts = [part for language, name in clips for part in (samples_of(clip(language, name)), silence(pause))]
    file = folder / "speech.wav"
    file.write_bytes(wav_of(np.concatenate([silence(0.5), *parts])))
    return file


@asynccontextmanager
async def page_of(service: Service, **options: Any) -> AsyncIterator[tuple[Page, ReceivedEvents]]:
    async with open_page(f"http://127.0.0.1:{service.http_port}/", **options) as page:
        yield page, ReceivedEvents(page)


async def downloaded(page: Page, name: str, folder: Path) -> str:
    async with page.expect_download() as caught:
        await page.get_by_role("button", name=name, exact=True).click()
    file = folder / "download"
    await (await caught.value).save_as(file)
    return file.read_text(encoding="utf-8")


async def test_interims_appear_while_speaking_and_finals_are_right(
    tmp_path: Path, tiny_en: WhisperRecognizer, base: WhisperRecognizer
) -> None:
    spoken = speech_file(tmp_path, ("en", "quick_brown_fox"), ("en", "hello_world"), ("en", "quick_brown_fox"))
    keys = {"MODEL_NAME": tiny_en.info.name, "MIN_WORDS_FOR_CONF": 3}
    async with (
        pair(tmp_path, tiny_en, base, **keys) as (_, primary, __),
        page_of(primary, microphone=spoken) as (page, received),
    ):
        await page.get_by_role("button", name="Start").click()
        await page.locator("#interim:not(.waiting)").wait_for(timeout=PATIENCE_MS)
        await expect(page.locator("#finals li")).to_have_count(0)  # the first words came before the first final
        await expect(page.locator("#finals li")).to_have_count(3, timeout=PATIENCE_MS)
        await page.get_by_role("button", name="Stop").click()
        await expect(page.locator("#status")).to_have_text("Done", timeout=PATIENCE_MS)

        said = [words(text) for text in await page.locator("#finals .text").all_inner_texts()]
        assert said == [FOX, "hello world", FOX]
        assert said == [words(final["result"]["text"]) for final in received.of("final")]
        assert any(interim["stable_text"] for interim in received.of("interim"))
        about = await page.locator("#finals .about").all_inner_texts()
        assert all("English" in line and "%" in line for line in about)
        assert tiny_en.info.name in about[0] and "larger model" not in about[0]
        assert "larger model used: few words" in about[1]  # two words: the larger model was asked
        for figure in ("#first", "#second"):
            assert float((await page.locator(figure).inner_text()).removesuffix(" s")) > 0

        assert await downloaded(page, "SRT", tmp_path) == to_srt(received.segments)
        assert await downloaded(page, "VTT", tmp_path) == to_vtt(received.segments)
        assert [words(line) for line in (await downloaded(page, "Text", tmp_path)).splitlines()] == said


async def test_recording_is_processed_faster_than_real_time(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    clips = (("en", "quick_brown_fox"), ("fr", "comptage"), ("es", "conteo"), ("en", "counting"))
    spoken = speech_file(tmp_path, *clips)
    keys = {"MODEL_NAME": base.info.name}
    async with (
        pair(tmp_path, base, base_with_beams, **keys) as (_, primary, __),
        page_of(primary) as (page, received),
    ):
        await page.set_input_files("#file", spoken)
        await expect(page.locator("#status")).to_have_text("Done", timeout=PATIENCE_MS)
        assert len(received.of("final")) >= len(clips) - 1
        assert words(await page.locator("#finals .text").first.inner_text()) == FOX
        assert (await page.locator("#second").inner_text()).endswith("×")


@pytest.mark.parametrize("look", LOOKS)
async def test_screenshots_for_review(
    tmp_path: Path, tiny_en: WhisperRecognizer, base: WhisperRecognizer, base_with_beams: WhisperRecognizer, look: str
) -> None:
    """Screenshots of the page in use, wide and light, narrow and dark. For review, not compared."""
    options, clips = LOOKS[look]
    # Of the pair for English, a little stricter than by default, so that its larger model is seen at work.
    keys = {"CONF_LOGPROB_THRESHOLD": 0.75} if look == "wide-light" else {}
    small, large = (tiny_en, base) if look == "wide-light" else (base, base_with_beams)
    spoken = speech_file(tmp_path, *clips)
    async with (
        pair(tmp_path, small, large, MODEL_NAME=small.info.name, **keys) as (_, primary, __),
        page_of(primary, microphone=spoken, **options) as (page, _received),
    ):
        await picture(page, f"page-{look}-ready")
        await page.get_by_role("button", name="Start").click()
        await expect(page.locator("#finals li")).to_have_count(len(clips) - 1, timeout=PATIENCE_MS)
        await page.locator("#interim:not(.waiting) #stable:not(:empty)").wait_for(timeout=PATIENCE_MS)
        await picture(page, f"page-{look}")
        assert await page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        await page.get_by_role("button", name="Settings").click()
        await picture(page, f"page-{look}-settings")
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Stop").click()
        await expect(page.locator("#status")).to_have_text("Done", timeout=PATIENCE_MS)
