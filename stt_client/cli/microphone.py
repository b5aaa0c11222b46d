"""Audio of `stt stream` from a microphone. Requires the extra `mic` (sounddevice)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import AsyncGenerator
from types import ModuleType
from typing import Any

from stt_client.cli.errors import UsageError
from stt_client.cli.live_audio import CHUNK_S, RATES_HZ, LiveAudio
from stt_client.request import AudioFormat

RATE_HZ = 16_000
"""Sample rate, unless the device doesn't support it."""
BUFFERED_S = 300.0
"""Seconds of audio buffered while the service can't be reached; beyond that the oldest is dropped."""


def of_microphone(device: str | None) -> LiveAudio:
    """Record until the iterator is closed.

    Args:
        device: number or part of the name of a sounddevice device; None: the system's default.

    Raises:
        UsageError: sounddevice or PortAudio is not installed, or there is no such device.
    """
    sounddevice = _sounddevice()
    number_or_name = int(device) if device and device.isdigit() else device
    try:
        found = sounddevice.query_devices(number_or_name, "input")
        rate = _rate_of(sounddevice, number_or_name, found)
    except (sounddevice.PortAudioError, ValueError) as error:
        names = ", ".join(
            f"{number}: {each['name']}"
            for number, each in enumerate(sounddevice.query_devices())
            if each["max_input_channels"] > 0
        )
        available = f"Available: {names}." if names else "No microphone found."
        raise UsageError(f"--mic: can't open microphone ({' '.join(str(error).split())}). {available}") from None
    return LiveAudio(AudioFormat("linear16", rate), _listen(sounddevice, number_or_name, rate))


def _sounddevice() -> ModuleType:
    try:
        import sounddevice
    except ImportError:
        raise UsageError(
            "--mic requires sounddevice: pip install 'stt-pair[mic]'. Or pipe audio from a recorder: "
            f"arecord -q -f S16_LE -r {RATE_HZ} -t raw | stt stream - --rate {RATE_HZ}"
        ) from None
    except OSError as error:
        raise UsageError(
            f"--mic: {error}. Install it: apt-get install libportaudio2 (Debian), brew install portaudio (macOS)"
        ) from None
    return sounddevice  # type: ignore[no-any-return]


def _rate_of(sounddevice: Any, device: int | str | None, found: dict[str, Any]) -> int:
    """16 kHz, or the device's default rate if it doesn't support that."""
    try:
        sounddevice.check_input_settings(device=device, channels=1, dtype="int16", samplerate=RATE_HZ)
    except sounddevice.PortAudioError:
        own: int = round(found["default_samplerate"])
        if not RATES_HZ[0] <= own <= RATES_HZ[1]:
            raise ValueError(f"its sample rate is {own} Hz") from None
        return own
    return RATE_HZ


async def _listen(sounddevice: Any, device: int | str | None, rate: int) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    waiting: deque[bytes] = deque(maxlen=round(BUFFERED_S / CHUNK_S))
    more = asyncio.Event()

    def take(chunk: bytes) -> None:
        if len(waiting) == waiting.maxlen:
            print("stt: the service is too slow; dropping the oldest audio", file=sys.stderr)
        waiting.append(chunk)
        more.set()

    def on_block(data: Any, frames: int, when: Any, status: Any) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(take, bytes(data))

    block = round(CHUNK_S * rate)
    with sounddevice.RawInputStream(
        samplerate=rate, device=device, channels=1, dtype="int16", blocksize=block, callback=on_block
    ):
        while True:
            while waiting:
                yield waiting.popleft()
            more.clear()
            await more.wait()
