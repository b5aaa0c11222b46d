"""The limit of decoded audio: who waits, and for whom."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from stt_server.admission.audio_budget import AudioBudget, Holding
from stt_server.admission.audio_length import most_audio
from stt_server.audio import AudioFormat
from stt_server.request import Upload
from stt_server.testing.audio_samples import CONTAINER, chirp, encode

HOUR = 3600.0


class Requests:
    """Requests that ask for room, and those that have it."""

    def __init__(self) -> None:
        self.budget = AudioBudget(HOUR)
        self._open = [ExitStack() for _ in range(10)]
        self.shares: list[Holding] = [stack.enter_context(self.budget.holding()) for stack in self._open]
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def ask(self, number: int, seconds: float) -> None:
        self.tasks[number] = asyncio.ensure_future(self.shares[number].expect(seconds))
        await self.turn()

    async def end(self, number: int) -> None:
        self._open[number].close()
        await self.turn()

    async def turn(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    @property
    def admitted(self) -> list[int]:
        return [number for number, task in self.tasks.items() if task.done() and not task.cancelled()]


async def test_the_third_hour_waits_for_one_of_the_others() -> None:
    requests = Requests()
    for number in range(4):
        await requests.ask(number, HOUR)
    assert requests.admitted == [0, 1]
    await requests.end(1)
    assert requests.admitted == [0, 1, 2]
    assert requests.budget.held == 2 * HOUR


async def test_a_command_does_not_wait_for_hours() -> None:
    requests = Requests()
    for number in range(3):
        await requests.ask(number, HOUR)
    await requests.ask(3, 10.0)
    assert requests.admitted == [0, 1, 3]


async def test_a_recording_that_is_shorter_than_expected_makes_room() -> None:
    requests = Requests()
    for number in range(2):
        await requests.ask(number, HOUR)
    await requests.ask(2, HOUR / 2)
    assert requests.admitted == [0, 1]
    requests.shares[0].settle(60.0)
    await requests.turn()
    assert requests.admitted == [0, 1, 2]


async def test_eight_channels_of_an_hour_fit_alone() -> None:
    requests = Requests()
    await requests.ask(0, 8 * HOUR)
    await requests.ask(1, HOUR)
    assert requests.admitted == [0]
    await requests.end(0)
    assert requests.admitted == [0, 1]


async def test_a_request_that_leaves_the_queue_takes_no_room() -> None:
    requests = Requests()
    for number in range(4):
        await requests.ask(number, HOUR)
    requests.tasks[2].cancel()
    await requests.end(0)
    assert requests.admitted == [0, 1, 3]
    await requests.end(1)
    await requests.end(3)
    assert requests.budget.held == 0.0


def test_length_of_plain_audio_is_known_before_decoding() -> None:
    data = bytes(2 * 2 * 8000 * 60)
    format = AudioFormat("linear16", 8000, 2)
    assert most_audio(Upload(data, format), HOUR) == 60.0
    assert most_audio(Upload(data, format, separate_channels=True), HOUR) == 120.0
    wav = encode(chirp(2.0), 16_000, "wav", "pcm_s16le")
    assert 2.0 <= most_audio(Upload(wav, CONTAINER, separate_channels=True), HOUR) < 2.1


def test_length_of_compressed_audio_is_not_underestimated() -> None:
    for container, codec in (("flac", "flac"), ("ogg", "libopus"), ("mp3", "libmp3lame")):
        data = encode(chirp(20.0, 48_000), 48_000, container, codec)
        assert most_audio(Upload(data, CONTAINER), HOUR) >= 20.0
    assert most_audio(Upload(bytes(16 << 20), CONTAINER), HOUR) == HOUR
