"""The live page in Chromium: microphone, files and resampling, in front of a scripted service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import expect

from gateway.http.server import GatewayServer
from protos.stt.v1 import speech_pb2
from stt_server.testing.paths import SPEECH
from tests.support.browser import open_page
from tests.support.contract_service import ContractService
from tests.support.live_page import transcribe, url_of
from tests.support.services import until
from tests.support.speech import samples_of, wav_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

RECORD_MICROPHONE_REQUESTS = """() => {
  const devices = navigator.mediaDevices, real = devices.getUserMedia.bind(devices);
  window.requested = []; window.opened = [];
  devices.getUserMedia = async (wanted) => {
    requested.push(wanted.audio);
    opened.push(await real(wanted));
    return opened.at(-1);
  };
}"""


async def test_file_is_sent_unchanged(gateway: GatewayServer, service: ContractService) -> None:
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


async def test_microphone_is_resampled_to_16_khz(
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
    received = np.frombuffer(service.script.streams[0].audio, "<i2")[16000:48000]
    spectrum = np.abs(np.fft.rfft(received * np.hanning(len(received)))) ** 2
    around = slice(1000 * 2 - 20, 1000 * 2 + 20)  # two bins a hertz
    assert spectrum[around].sum() > 0.95 * spectrum.sum()


async def test_microphone_can_be_chosen_after_permission(
    gateway: GatewayServer, service: ContractService, tmp_path: Path
) -> None:
    quiet = tmp_path / "quiet.wav"
    quiet.write_bytes(wav_of(np.zeros(16000 * 5, dtype=np.float32)))
    async with open_page(url_of(gateway), microphone=quiet) as page:
        await page.evaluate(RECORD_MICROPHONE_REQUESTS)
        await page.click("#start")
        await until(lambda: service.script.streams and service.script.streams[0].audio)
        await page.click("#start")
        await expect(page.locator("#start")).to_have_attribute("data-state", "idle")
        assert await page.evaluate("requested.at(-1).deviceId ?? null") is None

        await page.click("#open-settings")
        options = page.get_by_label("Microphone").locator("option")
        await expect(options.nth(2)).to_be_attached()  # the browser takes a moment to name them
        name, chosen = await options.last.inner_text(), await options.last.get_attribute("value")
        await page.get_by_label("Microphone").select_option(label=name)
        await page.click("#close-settings")
        await page.click("#start")
        await until(lambda: len(service.script.streams) == 2 and service.script.streams[1].audio)
        assert await page.evaluate("requested.at(-1).deviceId.exact") == chosen
        assert await page.evaluate("opened.at(-1).getAudioTracks()[0].getSettings().deviceId") == chosen
        await page.click("#start")
        await expect(page.locator("#start")).to_have_attribute("data-state", "idle")

        await page.click("#open-settings")
        await expect(page.get_by_label("Microphone")).to_have_value(chosen or "")


async def test_recording_can_be_sent_in_real_time(gateway: GatewayServer, service: ContractService) -> None:
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


async def test_denied_microphone_shows_an_error(gateway: GatewayServer, service: ContractService) -> None:
    async with open_page(url_of(gateway)) as page:
        await page.click("#start")
        await expect(page.locator("#trouble-title")).to_have_text("The microphone was not allowed.")
        await expect(page.locator("#start")).to_have_text("Start")
    assert not service.script.streams


async def test_page_without_https_still_accepts_files(gateway: GatewayServer, service: ContractService) -> None:
    flags = ["--host-resolver-rules=MAP captions.example 127.0.0.1"]
    # Chromium logs that it ignores a header reserved to https pages.
    async with open_page(url_of(gateway, "captions.example"), more_flags=flags, expected="Opener-Policy") as page:
        await page.click("#start")
        await expect(page.locator("#trouble-advice")).to_contain_text("over https or from localhost")
        await transcribe(page)
        await expect(page.locator("#finals li")).to_have_count(1)


async def test_non_audio_file_shows_an_error(gateway: GatewayServer, service: ContractService, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no sound")
    async with open_page(url_of(gateway)) as page:
        await transcribe(page, tmp_path / "notes.txt")
        await expect(page.locator("#trouble-title")).to_have_text("This file can't be read.")


async def test_cancelled_start_ignores_a_late_permission(gateway: GatewayServer, service: ContractService) -> None:
    async with open_page(url_of(gateway), microphone=SPEECH) as page:
        # The permission stays open until the test answers it.
        await page.evaluate(
            """() => {
                const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
                const permission = new Promise((resolve) => { window.allow = resolve; });
                navigator.mediaDevices.getUserMedia = async (wish) => { await permission; return ask(wish); };
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


async def test_resampler_keeps_speech_and_suppresses_aliases(gateway: GatewayServer, service: ContractService) -> None:
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
