"""The pool of confined decoder processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from stt_server.audio import SAMPLE_RATE, decode
from stt_server.audio.mono import SampleBuffer
from stt_server.audio.sandbox import messages
from stt_server.audio.sandbox import pool as pool_module
from stt_server.audio.sandbox.pool import DecoderPool
from stt_server.audio.sandbox.worker import DecodeLimits, ExitReason
from stt_server.errors import AudioTooLong, EmptyAudio, Internal, InvalidArgument, SttError, UnsupportedAudio
from stt_server.testing.audio_samples import CONTAINER, chirp, encode, silence, wav_header
from stt_server.testing.hostile_files import flac_of_silence, mp4_with_a_huge_index
from tests.support.decoders import GOOD, good, pool
from tests.support.services import until

BOMB = flac_of_silence(26 * 3600)


def ended(pid: int) -> bool:
    """Whether a child process has exited; leaves it to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def cpu_ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


async def busy_worker(decoders: DecoderPool) -> int:
    """Wait for a worker that has used 50 ms of processor time since now; its process id."""
    before = {pid: cpu_ticks(pid) for pid in decoders.pids}
    found: list[int] = []

    def look() -> bool:
        found.extend(pid for pid, ticks in before.items() if cpu_ticks(pid) >= ticks + 5)
        return bool(found)

    await until(look)
    return found[0]


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        *(("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus"), ("ipod", "aac")),
        *(("aiff", "adpcm_ima_qt"), ("caf", "alac"), ("w64", "pcm_s16le"), ("au", "pcm_mulaw"), ("wav", "g722")),
        *(("mpegts", "aac"), ("flv", "aac"), ("avi", "ac3"), ("eac3", "eac3"), ("ac3", "ac3")),
    ],
)
async def test_result_equals_decoding_in_process(container: str, codec: str) -> None:
    data = encode(chirp(5.0, 48_000), 48_000, container, codec)
    async with pool() as decoders:
        np.testing.assert_array_equal((await decoders.decode(data))[0], decode(data, CONTAINER, max_seconds=60))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"OggS" + bytes(400), UnsupportedAudio),
        (encode(silence(0.5), 48_000, "matroska", "tta"), UnsupportedAudio),
        (encode(silence(90), SAMPLE_RATE, "flac", "flac"), AudioTooLong),
        (wav_header(8_000, 1, 0, bits=8, tag=7)[:44], EmptyAudio),
        (wav_header(8, 1, 400, bits=8, tag=7) + bytes(400), InvalidArgument),
    ],
)
async def test_errors_equal_decoding_in_process_and_keep_the_worker(data: bytes, error: type[SttError]) -> None:
    with pytest.raises(error) as here:
        decode(data, CONTAINER, max_seconds=60)
    async with pool() as decoders:
        before = decoders.pids
        with pytest.raises(error) as there:
            await decoders.decode(data)
        assert there.value.message == here.value.message
        assert good(await decoders.decode(GOOD))
        assert decoders.pids == before


async def test_huge_index_is_rejected_within_the_memory_limit() -> None:
    async with pool() as decoders:
        with pytest.raises(UnsupportedAudio):
            await decoders.decode(mp4_with_a_huge_index())
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{decoders.pids[0]}/status").read_text())
        assert peak
        assert int(peak[1]) < 512 << 10
        assert good(await decoders.decode(GOOD))


@dataclass(frozen=True)
class TightLimits(DecodeLimits):
    """Limits below what the longest recording needs."""

    cpu_seconds: int = 100
    wall_seconds: float = 100.0
    extra_memory: int = 256 << 20


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (TightLimits(90_000, 1 << 20, cpu_seconds=1), "cpu"),
        (TightLimits(90_000, 1 << 20, wall_seconds=0.3), "time"),
    ],
)
async def test_worker_over_its_limits_is_replaced_and_its_file_rejected(
    limits: DecodeLimits, reason: ExitReason
) -> None:
    died: list[ExitReason] = []
    async with pool(limits=limits, on_death=died.append) as decoders:
        with pytest.raises(UnsupportedAudio, match="can't be decoded"):
            await decoders.decode(BOMB)
        assert died == [reason]
        assert good(await decoders.decode(GOOD))


async def test_worker_out_of_memory_is_replaced_and_its_file_rejected() -> None:
    died: list[ExitReason] = []
    async with pool(limits=TightLimits(60, 64 << 20, extra_memory=40 << 20), on_death=died.append) as decoders:
        with pytest.raises(UnsupportedAudio, match="can't be decoded"):
            await decoders.decode(GOOD + bytes(48 << 20))
        assert died == ["memory"]
        assert good(await decoders.decode(GOOD))


async def test_killed_worker_fails_its_own_file_only() -> None:
    died: list[ExitReason] = []
    async with pool(2, TightLimits(90_000, 1 << 20), died.append) as decoders:
        lost = asyncio.ensure_future(decoders.decode(BOMB))
        victim = await busy_worker(decoders)
        answered = [asyncio.ensure_future(decoders.decode(GOOD)) for _ in range(6)]
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(UnsupportedAudio):
            await lost
        assert all(map(good, await asyncio.gather(*answered)))
        assert died == ["killed"]
        await until(lambda: len(decoders.pids) == 2)
        assert victim not in decoders.pids


async def test_crash_and_kill_have_different_reasons() -> None:
    died: list[ExitReason] = []
    async with pool(limits=TightLimits(90_000, 1 << 20), on_death=died.append) as decoders:
        lost = asyncio.ensure_future(decoders.decode(BOMB))
        os.kill(await busy_worker(decoders), signal.SIGSEGV)
        with pytest.raises(UnsupportedAudio):
            await lost
        assert died == ["crashed"]


async def test_worker_killed_while_idle_fails_no_file() -> None:
    died: list[ExitReason] = []
    async with pool(on_death=died.append) as decoders:
        (idle,) = decoders.pids
        os.kill(idle, signal.SIGKILL)
        await until(lambda: ended(idle))
        assert good(await decoders.decode(GOOD))
        assert died == ["killed"]


async def test_cancelled_call_frees_the_worker() -> None:
    died: list[ExitReason] = []
    async with pool(limits=TightLimits(90_000, 1 << 20), on_death=died.append) as decoders:
        leaving = asyncio.ensure_future(decoders.decode(BOMB))
        waiting = asyncio.ensure_future(decoders.decode(BOMB))
        await busy_worker(decoders)
        waiting.cancel()
        leaving.cancel()
        assert good(await asyncio.wait_for(decoders.decode(GOOD), 20))
        assert died == ["abandoned"]


async def test_worker_is_replaced_after_many_files_or_memory_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[ExitReason] = []
    async with pool(on_death=died.append) as decoders:
        for name, most in (("_MAX_FILES", 2), ("_MAX_GROWTH", 0)):
            monkeypatch.setattr(pool_module, name, most)
            (before,) = decoders.pids
            for _ in range(3):
                assert good(await decoders.decode(GOOD))
            assert before not in decoders.pids
        assert died == []


async def test_out_of_memory_in_the_service_fails_one_file_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool() as decoders:
        before = decoders.pids
        with monkeypatch.context() as patch:
            patch.setattr(SampleBuffer, "add_bytes", Mock(side_effect=MemoryError))
            with pytest.raises(Internal):
                await decoders.decode(GOOD)
        assert good(await decoders.decode(GOOD))
        assert decoders.pids != before


async def test_worker_that_cannot_start_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool() as decoders:
        with monkeypatch.context() as broken:
            broken.setattr("sys.executable", "/nowhere/python")
            os.kill(decoders.pids[0], signal.SIGKILL)
            await until(lambda: ended(decoders.pids[0]))
            with pytest.raises(Internal):
                await decoders.decode(GOOD)
        assert good(await decoders.decode(GOOD))


@pytest.mark.parametrize("program", ["/nowhere/python", "/bin/false"])
async def test_pool_does_not_start_without_workers(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", program)
    with pytest.raises(OSError):
        async with pool():
            pass


async def test_close_ends_all_workers_at_once() -> None:
    async with pool(2, TightLimits(90_000, 1 << 20)) as decoders:
        pids = decoders.pids
        busy = asyncio.ensure_future(decoders.decode(BOMB))
        await busy_worker(decoders)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(asyncio.CancelledError):
        await busy


async def test_decoder_error_is_logged_without_file_content(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "stt_server.audio.sandbox.pool")
    async with pool() as decoders:
        with pytest.raises(UnsupportedAudio):
            await decoders.decode(b"OggS" + b"said in confidence" * 100)
    assert "container.py:" in caplog.text
    assert "EOFError" in caplog.text
    assert "confidence" not in caplog.text


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"type": "internal", "message": "x", "frames": []}', b"\xff", b'{"type": []}']
)
def test_invalid_error_message_is_rejected(content: bytes) -> None:
    with pytest.raises(ValueError):
        messages.unpack_error(content)
