"""The live page in Chromium: captions, downloads, settings and errors, in front of a scripted service."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions
from stt_client import Segment
from stt_client.convert import transcript_of
from stt_client.subtitles import to_srt, to_vtt
from stt_server.testing.paths import SPEECH
from tests.support.browser import PHONE, open_page, picture
from tests.support.contract_script import Failure, StreamResponse
from tests.support.contract_service import ContractService
from tests.support.live_page import transcribe, url_of
from tests.support.services import until
from tests.support.speech import samples_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

HOSTILE = "<img src=x onerror=alert(1)> & 00:01 --> 00:02"


async def fits(page: Page) -> bool:
    """Whether nothing overflows to the right."""
    wide: bool = await page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    return wide


async def test_the_languages_of_the_service_are_offered(gateway: GatewayServer, service: ContractService) -> None:
    service.script.snapshot_json = json.dumps({"languages": ["de", "haw", "yue"]})
    async with open_page(url_of(gateway)) as page:
        offered = page.locator("#language option")
        await expect(offered).to_have_text(["Detect", "Cantonese", "German", "Hawaiian"])
        assert await offered.evaluate_all("found => found.map(({ value }) => value)") == ["", "yue", "de", "haw"]


async def test_without_its_languages_those_of_every_model_are_offered(
    gateway: GatewayServer, service: ContractService
) -> None:
    service.script.snapshot_json = "{}"
    async with open_page(url_of(gateway)) as page:
        await expect(page.locator("#language option")).to_have_count(100)  # with "Detect"
        assert await page.locator("#language option[value=yue]").count() == 0


async def test_final_shows_time_language_confidence_and_model(gateway: GatewayServer, service: ContractService) -> None:
    async with open_page(url_of(gateway)) as page:
        await transcribe(page)
        service.script.response.routing.fallback_used = True
        service.script.response.routing.final_model = "whisper-medium"
        service.script.response.routing.fallback_confidence = 0.81
        service.script.response.segments[0].start.seconds = 65
        await transcribe(page)
        first, second = [await it.inner_text() for it in await page.locator("#finals li").all()]
    assert first.split("\n")[0] == "0:00" and second.split("\n")[0] == "1:08"  # after the first recording's 2.9 s
    assert "German" in first and "50 %" in first and "whisper-tiny" in first and "larger model" not in first
    assert "81 %" in second and "whisper-medium" in second
    assert "larger model used: low confidence, few words" in second


async def test_downloads_match_the_services_own_formats(
    gateway: GatewayServer, service: ContractService, tmp_path: Path
) -> None:
    service.script.response.segments[0].text = HOSTILE
    service.script.response.segments[1].text = " 你好。\n 世界 "
    segments = transcript_of(service.script.response, {}).segments
    wanted = {"SRT": to_srt(segments), "VTT": to_vtt(segments), "Text": f"{len(samples_of(SPEECH)) * 2} bytes\n"}
    async with open_page(url_of(gateway)) as page:
        await expect(page.locator("#exports")).to_be_hidden()
        await transcribe(page)
        for name, text in wanted.items():
            async with page.expect_download() as caught:
                await page.get_by_role("button", name=name, exact=True).click()
            saved = tmp_path / (await caught.value).suggested_filename
            await (await caught.value).save_as(saved)
            assert saved.read_text(encoding="utf-8") == text
            assert saved.name == f"captions.{ {'Text': 'txt'}.get(name, name.lower()) }"


async def test_long_captions_are_divided_as_the_services_own(gateway: GatewayServer, service: ContractService) -> None:
    texts = (
        "It was the best of times, it was the worst of times, it was the age of wisdom. Dr. Who (of all people) did.",
        "今日はとても天気がいいですね。「明日」も晴れるといいのですが、どうでしょうか。",
        "สวัสดีครับ ยินดีต้อนรับ", "한국어 텍스트", "🎉 🇩🇪 \u2014 ---> x" + "y" * 60, "No.", "No.", "  ",
    )  # fmt: skip
    chance, cases = random.Random(1), []
    for round_ in range(40):
        segments, at = [], 0.0
        for text in chance.choices(texts, k=round_ % 7):
            start = at + chance.choice((0, 0, 0.4, 1.5))
            at = start + chance.random() * 12
            segments.append(Segment(start, at, text, -0.1, 0.0, 1.0, "tiny"))
        cases.append(segments)
    given = [[segment.as_dict() for segment in case] for case in cases]
    async with open_page(url_of(gateway)) as page:
        found = await page.evaluate(
            """async (cases) => {
              const { srt } = await import("./live/subtitles.js");
              return cases.map(srt);
            }""",
            given,
        )
    assert found == [to_srt(case) for case in cases]


async def test_transcripts_are_never_parsed_as_markup(gateway: GatewayServer, service: ContractService) -> None:
    async def hostile(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[StreamResponse]:
        async for response in service.script.echo(requests, context):
            if response.HasField("final"):
                response.final.result.text = response.final.result.language = HOSTILE
            yield response

    service.script.stream = hostile
    service.script.response.routing.final_model = HOSTILE
    async with open_page(url_of(gateway), viewport=PHONE) as page:
        await transcribe(page)
        await expect(page.locator("#finals .text")).to_have_text(HOSTILE)
        await expect(page.locator("#finals img")).to_have_count(0)
        assert await fits(page)


async def test_key_is_requested_and_kept_only_if_asked(gateway: GatewayServer, service: ContractService) -> None:
    service.script.keys = frozenset({"s3cret"})
    async with open_page(url_of(gateway)) as page:
        await transcribe(page)
        await expect(page.locator("#trouble-title")).to_have_text("The service requires a key.")
        await expect(page.locator("#key")).to_be_focused()
        await page.keyboard.type("s3cret")
        await page.keyboard.press("Enter")
        await expect(page.locator("#settings")).to_be_hidden()
        await transcribe(page)
        await expect(page.locator("#trouble")).to_be_hidden()
        await expect(page.locator("#finals li")).to_have_count(1)
        await page.reload()
        await expect(page.locator("#key")).to_have_value("")
        await page.click("#open-settings")
        await page.fill("#key", "s3cret")
        await page.get_by_label("Keep the key until this tab is closed").check()
        await page.keyboard.press("Escape")
        await page.reload()
        await expect(page.locator("#key")).to_have_value("s3cret")
        assert await page.evaluate("localStorage.length") == 0
        await transcribe(page)
        await expect(page.locator("#finals li")).to_have_count(1)


@pytest.mark.parametrize(
    ("type_", "title"),
    [("overloaded", "The service is busy."), ("invalid_argument", "The service rejected the request.")],
)
async def test_error_has_advice(gateway: GatewayServer, service: ContractService, type_: str, title: str) -> None:
    service.script.failure = Failure(type_, "English only: language takes 'en'.", trailers={"retry-after-ms": "5000"})
    async with open_page(url_of(gateway), viewport=PHONE) as page:
        await transcribe(page)
        await expect(page.locator("#trouble-title")).to_have_text(title)
        assert await fits(page)
        advice = await page.locator("#trouble-advice").inner_text()
        if type_ == "overloaded":
            assert "wait 5 s" in advice
            await picture(page, "page-busy-phone")
            service.script.failure = None
            await page.get_by_role("button", name="Try again").click()
            await expect(page.locator("#finals li")).to_have_count(1)
        else:
            assert advice == "English only: language takes 'en'."
            await expect(page.locator("#again")).to_be_hidden()
            await page.get_by_role("button", name="Dismiss").click()
        await expect(page.locator("#trouble")).to_be_hidden()


async def test_captions_stay_when_the_gateway_stops(service: ContractService) -> None:
    own = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0))
    await own.start()
    async with open_page(url_of(own), microphone=SPEECH, expected="ERR_CONNECTION_REFUSED") as page:
        await page.click("#start")
        await until(lambda: service.script.streams and len(service.script.streams[0].audio) > 32000)
        await own.stop(5)
        await expect(page.locator("#trouble-title")).to_have_text("The service is starting or stopping.")
        await expect(page.locator("#finals li")).to_have_count(1)
        await page.get_by_role("button", name="Try again").click()
        await expect(page.locator("#trouble-title")).to_have_text("The connection was lost.")
        await expect(page.locator("#finals li")).to_have_count(1)


async def test_all_controls_are_reachable_by_keyboard(
    gateway: GatewayServer, service: ContractService, tmp_path: Path
) -> None:
    async with open_page(url_of(gateway), microphone=SPEECH) as page:
        await transcribe(page)
        await page.evaluate("document.activeElement.blur()")
        names = []
        for _ in range(8):
            await page.keyboard.press("Tab")
            names.append(await page.evaluate("document.activeElement.textContent.trim()"))
            outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", names
        assert names == ["Text", "SRT", "VTT", "Clear", "API", "File", "Settings", "Start"]
        await page.keyboard.press("Enter")
        await expect(page.locator("#start")).to_have_text("Stop")
        await until(lambda: len(service.script.streams) == 2 and service.script.streams[1].audio)
        await page.keyboard.press("Enter")
        await expect(page.locator("#finals li")).to_have_count(2)
        await expect(page.locator("#start")).to_be_focused()


async def test_only_finals_are_announced_to_screen_readers(gateway: GatewayServer, service: ContractService) -> None:
    async with open_page(url_of(gateway)) as page:
        finals = page.get_by_role("log", name="Captions")
        await expect(finals).to_have_attribute("aria-live", "polite")
        assert await page.locator("[aria-live] #interim, [role=log] #interim, [role=status] #interim").count() == 0
        for role in ("button", "link", "combobox", "checkbox"):
            for found in await page.get_by_role(role).all():
                assert (await found.inner_text()).strip() or await found.get_attribute("aria-label")


async def test_docs_page_and_live_page_link_each_other(gateway: GatewayServer, service: ContractService) -> None:
    async with open_page(url_of(gateway)) as page:
        await page.get_by_role("link", name="API").click()
        await expect(page.get_by_role("heading", name="/v1/transcribe")).to_be_visible()
        await expect(page.get_by_role("heading", name="/v1/stream")).to_be_visible()
        await picture(page, "docs")
        await page.get_by_role("link", name="The live page").click()
        await expect(page.get_by_role("button", name="Start")).to_be_visible()
