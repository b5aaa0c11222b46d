"""Audio kept for resending, and the pauses between attempts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from stt_client import Flush
from stt_client.streaming import resume
from stt_client.streaming.audio_source import AudioSource
from tests.support.letter_stream import FORMAT, RATE, WAIT_S


async def drain(source: AudioSource, count: int) -> list[bytes | Flush | None]:
    return [await source.next() for _ in range(count)]


def seconds(*counts: int) -> AsyncIterator[bytes | Flush]:
    async def made() -> AsyncIterator[bytes | Flush]:
        for count in counts:
            yield bytes(count * RATE * 2)

    return made()


async def test_long_silence_is_kept_only_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_client.streaming.audio_source.KEPT_BYTES", 0)
    source = AudioSource(seconds(*[7] * 20), FORMAT, keep=True)
    await drain(source, 20)
    assert await source.next() is None
    assert 140 - 60 - 7 <= source.rewind() <= 140 - 60
    kept = [item for item in await drain(source, 9) if isinstance(item, bytes)]
    assert 60 * RATE * 2 <= sum(map(len, kept)) <= 67 * RATE * 2
    await source.close()


async def test_audio_of_an_unfinished_utterance_is_never_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_client.streaming.audio_source.KEPT_BYTES", 0)
    source = AudioSource(seconds(*[7] * 20), FORMAT, keep=True)
    source.cover(0.0, needed=True)
    await drain(source, 9)
    waiting = asyncio.create_task(source.next())
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    source.cover(30.0, needed=False)
    assert isinstance(await asyncio.wait_for(waiting, WAIT_S), bytes)
    await source.close()


async def test_kept_audio_begins_at_a_frame_boundary() -> None:
    async def odd() -> AsyncIterator[bytes | Flush]:
        for _ in range(3):
            yield bytes(range(1, 8))

    source = AudioSource(odd(), FORMAT, keep=True)
    await drain(source, 3)
    source.cover(4.5 / RATE, needed=False)
    assert source.rewind() == 4 / RATE
    assert await source.next() == bytes([2, 3, 4, 5, 6, 7])
    await source.close()


def test_pauses_grow_up_to_a_limit_and_end() -> None:
    attempts = resume.Attempts(resume.Backoff(first_s=1, most_s=4, rounds=5))
    pauses = [attempts.next_pause("a", 1) for _ in range(6)]
    assert pauses.pop() is None
    for pause, most in zip(pauses, (1, 2, 4, 4, 4)):
        assert pause is not None and most / 2 <= pause <= most
    attempts.progress()
    assert attempts.next_pause("a", 2) == 0.0
    assert attempts.failed == {"a"}
    first = attempts.next_pause("b", 2)
    assert first is not None and 0.5 <= first <= 1
