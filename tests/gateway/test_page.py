"""The live page in Chromium, in front of a service that is scripted: what it sends, shows and says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Page, expect

from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions
from protos.stt.v1 import speech_pb2
from stt_client.convert import transcript_of
from stt_client.subtitles import to_srt, to_vtt
from stt_server.testing.paths import SPEECH
from tests.support.browser import PHONE, open_page, picture
from tests.support.contract_script import Failure, StreamResponse
from tests.support.contract_service import ContractService
from tests.support.services import until
from tests.support.speech import samples_of, wav_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

SPY_ON_THE_MICROPHONE = """() => {
  const devices = navigator.mediaDevices, real = devices.getUserMedia.bind(devices);
  window.asked = []; window.heard = [];
  devices.getUserMedia = async (wanted) => {
    asked.push(wanted.audio);
    heard.push(await real(wanted));
    return heard.at(-1);
  };
}"""
HOSTILE = "<img src=x onerror=alert(1)> & 00:01 --> 00:02"


def url_of(gateway: GatewayServer, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{gateway.port}/"


async def transcribe(page: Page, recording: Path = SPEECH) -> None:
    """Gives the page a file, and waits until it is through with it."""
    await page.set_input_files("#file", recording)
    await expect(page.locator("#start")).to_have_attribute("data-state", "idle", timeout=20_000)


async def fits(page: Page) -> bool:
    """Nothing sticks out to the right."""
    wide: bool = await page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    return wide


async def test_a_file_is_sent_as_it_sounds(gateway: GatewayServer, service: ContractService) -> None:
    async with open_page(url_of(gateway)) as page:
        await transcribe(page)
        await expect(page.locator("#finals .text")).to_have_text(f"{len(service.script.streams[0].audio)} bytes")
        await expect(page.locator("#service")).to_have_text("whisper-tiny on cpu")
    sent = np.frombuffer(service.script.streams[0].audio, "<i2") / 32768
    spoken = samples_of(SPEECH)
    assert len(sent) == len(spoken)
    assert np.abs(sent - spoken).max() < 2 / 32768
    config = service.script.streams[0].config
    assert (config.format.sample_rate_hertz, config.interim_results) == (16000, False)


async def test_the_microphone_reaches_the_service_at_16_khz(
    gateway: GatewayServer, service: ContractService, tmp_path: Path
) -> None:
    tone = tmp_path / "tone.wav"
    tone.write_bytes(wav_of((0.3 * np.sin(2 * np.pi * 1000 * np.arange(16000 * 5) / 16000)).astype(np.float32)))
    async with open_page(url_of(gateway), microphone=tone) as page:
        await page.click("#start")
        await expect(page.locator("#start")).to_have_text("Stop")
        await until(lambda: service.script.streams and len(service.script.streams[0].audio) > 3 * 32000)
        await expect(page.locator("#stable")).to_have_text("Grüße")
        await page.click("#start")
        await expect(page.locator("#finals li")).to_have_count(1)
        await expect(page.locator("#interim")).to_be_hidden()
    assert service.script.streams[0].half_closed
    heard = np.frombuffer(service.script.streams[0].audio, "<i2")[16000:48000]
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard)))) ** 2
    around = slice(1000 * 2 - 20, 1000 * 2 + 20)  # two bins a hertz
    assert spectrum[around].sum() > 0.95 * spectrum.sum()


async def test_another_microphone_can_be_chosen_once_one_was_allowed(
    gateway: GatewayServer, service: ContractService, tmp_path: Path
) -> None:
    quiet = tmp_path / "quiet.wav"
    quiet.write_bytes(wav_of(np.zeros(16000 * 5, dtype=np.float32)))
    async with open_page(url_of(gateway), microphone=quiet) as page:
        await page.evaluate(SPY_ON_THE_MICROPHONE)
        await page.click("#start")
        await until(lambda: service.script.streams and service.script.streams[0].audio)
        await page.click("#start")
        await expect(page.locator("#start")).to_have_attribute("data-state", "idle")
        assert await page.evaluate("asked.at(-1).deviceId ?? null") is None

        await page.click("#open-settings")
        options = page.get_by_label("Microphone").locator("option")
        await expect(options.nth(2)).to_be_attached()  # the browser takes a moment to name them
        name, chosen = await options.last.inner_text(), await options.last.get_attribute("value")
        await page.get_by_label("Microphone").select_option(label=name)
        await page.click("#close-settings")
        await page.click("#start")
        await until(lambda: len(service.script.streams) == 2 and service.script.streams[1].audio)
        assert await page.evaluate("asked.at(-1).deviceId.exact") == chosen
        assert await page.evaluate("heard.at(-1).getAudioTracks()[0].getSettings().deviceId") == chosen
        await page.click("#start")
        await expect(page.locator("#start")).to_have_attribute("data-state", "idle")

        await page.click("#open-settings")
        await expect(page.get_by_label("Microphone")).to_have_value(chosen or "")


async def test_a_final_tells_time_language_confidence_and_model(
    gateway: GatewayServer, service: ContractService
) -> None:
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


async def test_downloads_are_what_the_service_itself_would_write(
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


async def test_what_is_said_is_never_taken_for_markup(gateway: GatewayServer, service: ContractService) -> None:
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


async def test_a_recording_can_be_sent_at_the_speed_of_speech(gateway: GatewayServer, service: ContractService) -> None:
    async with open_page(url_of(gateway)) as page:
        await page.click("#open-settings")
        await page.get_by_label("Send recordings at the speed of speech").check()
        await page.get_by_label("Language").select_option(label="German")
        await page.get_by_label("Translate to English").check()
        await page.click("#close-settings")
        started = await page.evaluate("performance.now()")
        await transcribe(page)
        took_s = (await page.evaluate("performance.now()") - started) / 1000
        await expect(page.locator("#first-label")).to_have_text("First words")
    assert took_s >= len(samples_of(SPEECH)) / 16000  # not faster than it was spoken
    config = service.script.streams[0].config
    assert config.interim_results
    assert (config.options.language, config.options.task) == ("de", speech_pb2.TASK_TRANSLATE)


async def test_a_key_is_asked_for_used_and_forgotten_unless_told_otherwise(
    gateway: GatewayServer, service: ContractService
) -> None:
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
async def test_an_error_says_what_to_do(
    gateway: GatewayServer, service: ContractService, type_: str, title: str
) -> None:
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


async def test_a_denied_microphone_says_so(gateway: GatewayServer, service: ContractService) -> None:
    async with open_page(url_of(gateway)) as page:
        await page.click("#start")
        await expect(page.locator("#trouble-title")).to_have_text("The microphone was not allowed.")
        await expect(page.locator("#start")).to_have_text("Start")
    assert not service.script.streams


async def test_without_https_the_page_says_why_and_still_takes_files(
    gateway: GatewayServer, service: ContractService
) -> None:
    flags = ["--host-resolver-rules=MAP captions.example 127.0.0.1"]
    # Chromium says that it ignores a header which only https pages may use.
    async with open_page(url_of(gateway, "captions.example"), more_flags=flags, expected="Opener-Policy") as page:
        await page.click("#start")
        await expect(page.locator("#trouble-advice")).to_contain_text("over https or from localhost")
        await transcribe(page)
        await expect(page.locator("#finals li")).to_have_count(1)


async def test_what_is_no_audio_says_so(gateway: GatewayServer, service: ContractService, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no sound")
    async with open_page(url_of(gateway)) as page:
        await transcribe(page, tmp_path / "notes.txt")
        await expect(page.locator("#trouble-title")).to_have_text("This file can't be read.")


async def test_a_gateway_that_stops_leaves_the_captions(service: ContractService) -> None:
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


async def test_everything_is_reached_by_keyboard(
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


async def test_finals_are_announced_and_interims_are_not(gateway: GatewayServer, service: ContractService) -> None:
    async with open_page(url_of(gateway)) as page:
        finals = page.get_by_role("log", name="Captions")
        await expect(finals).to_have_attribute("aria-live", "polite")
        assert await page.locator("[aria-live] #interim, [role=log] #interim, [role=status] #interim").count() == 0
        for role in ("button", "link", "combobox", "checkbox"):
            for found in await page.get_by_role(role).all():
                assert (await found.inner_text()).strip() or await found.get_attribute("aria-label")


async def test_a_new_start_while_the_microphone_is_asked_for_is_not_mixed_up(
    gateway: GatewayServer, service: ContractService
) -> None:
    async with open_page(url_of(gateway), microphone=SPEECH) as page:
        # The permission stays open until the test answers it.
        await page.evaluate(
            """() => {
                const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
                const asked = new Promise((resolve) => { window.allow = resolve; });
                navigator.mediaDevices.getUserMedia = async (wish) => { await asked; return ask(wish); };
            }"""
        )
        await page.click("#start")
        await expect(page.locator("#start")).to_have_text("Cancel")
        await page.click("#start")
        await expect(page.locator("#start")).to_have_text("Start")
        await transcribe(page)
        await page.evaluate("window.allow()")
        await expect(page.locator("#finals li")).to_have_count(1)
        await expect(page.locator("#start")).to_have_text("Start")
    assert len(service.script.streams) == 1


async def test_the_docs_page_tells_of_streams_and_leads_here(gateway: GatewayServer, service: ContractService) -> None:
    async with open_page(url_of(gateway)) as page:
        await page.get_by_role("link", name="API").click()
        await expect(page.get_by_role("heading", name="/v1/transcribe")).to_be_visible()
        await expect(page.get_by_role("heading", name="/v1/stream")).to_be_visible()
        await picture(page, "docs")
        await page.get_by_role("link", name="The live page").click()
        await expect(page.get_by_role("button", name="Start")).to_be_visible()


async def test_the_resampler_keeps_speech_and_lets_nothing_fold_over(
    gateway: GatewayServer, service: ContractService
) -> None:
    tones = """async () => {
        const { Resampler } = await import("./live/resample.js");
        const level = (from, hertz, block) => {
            const resampler = new Resampler(from);
            const input = Float32Array.from({ length: from / 2 }, (_, i) => Math.sin(2 * Math.PI * hertz * i / from));
            const output = [];
            for (let at = 0; at < input.length; at += block) {
                output.push(...resampler.push(input.subarray(at, at + block)));
            }
            output.push(...resampler.flush());
            let error = 0, power = 0;
            for (let i = 400; i < output.length - 400; i += 1) {
                error = Math.max(error, Math.abs(output[i] - Math.sin(2 * Math.PI * hertz * i / 16000)));
                power = Math.max(power, Math.abs(output[i]));
            }
            return { from, hertz, length: output.length, error, power };
        };
        const found = [];
        for (const from of [8000, 16000, 44100, 48000, 96000]) {
            for (const hertz of [200, 1000, 3400, 6500, 8300, 11000, 15000]) {
                if (hertz < from / 2) found.push(level(from, hertz, hertz % 2 ? 1000 : 128));
            }
        }
        return found;
    }"""
    async with open_page(url_of(gateway)) as page:
        found = await page.evaluate(tones)
    assert len(found) > 25
    for tone in found:
        assert tone["length"] == 8000
        if tone["hertz"] < 8000:
            assert tone["error"] < 0.02, tone  # in level and in time
        else:
            assert tone["power"] < 0.001, tone  # -60 dB
