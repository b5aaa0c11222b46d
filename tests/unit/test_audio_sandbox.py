"""Strangers' files are decoded in children that can do no harm and be done no harm that lasts."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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
from stt_server.testing.paths import ROOT
from tests.support.services import until

BOUNDS = DecodeLimits(max_seconds=60, max_bytes=16 << 20)
BOMB = flac_of_silence(26 * 3600)
GOOD = encode(chirp(2.0, 44_100), 44_100, "flac", "flac")


@asynccontextmanager
async def pool(
    count: int = 1, bounds: DecodeLimits = BOUNDS, on_death: Callable[[ExitReason], None] = lambda death: None
) -> AsyncIterator[DecoderPool]:
    children = DecoderPool(count, bounds, on_death)
    try:
        await children.start()
        yield children
    finally:
        await children.close()


def good(audio: object) -> bool:
    return np.array_equal(audio, decode(GOOD, CONTAINER, max_seconds=60))  # type: ignore[arg-type]


def ended(pid: int) -> bool:
    """Whether a child of this process can be waited for, and waits for that."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def cpu_ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


async def at_work(children: DecoderPool) -> int:
    """A child that computes, and has for 50 ms."""
    before = {pid: cpu_ticks(pid) for pid in children.pids}
    found: list[int] = []

    def look() -> bool:
        found.extend(pid for pid, ticks in before.items() if cpu_ticks(pid) >= ticks + 5)
        return bool(found)

    await until(look)
    return found[0]


@pytest.mark.parametrize(
    ("container", "codec"), [("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus"), ("ipod", "aac")]
)
async def test_a_child_gives_what_decoding_here_gives(container: str, codec: str) -> None:
    data = encode(chirp(5.0, 48_000), 48_000, container, codec)
    async with pool() as children:
        np.testing.assert_array_equal(await children.decode(data), decode(data, CONTAINER, max_seconds=60))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"OggS" + bytes(400), UnsupportedAudio),
        (encode(silence(0.5), 48_000, "matroska", "ac3"), UnsupportedAudio),
        (encode(silence(90), SAMPLE_RATE, "flac", "flac"), AudioTooLong),
        (wav_header(8_000, 1, 0, bits=8, tag=7)[:44], EmptyAudio),
        (wav_header(8, 1, 400, bits=8, tag=7) + bytes(400), InvalidArgument),
    ],
)
async def test_a_child_refuses_as_decoding_here_does_and_lives_on(data: bytes, error: type[SttError]) -> None:
    with pytest.raises(error) as here:
        decode(data, CONTAINER, max_seconds=60)
    async with pool() as children:
        before = children.pids
        with pytest.raises(error) as there:
            await children.decode(data)
        assert there.value.message == here.value.message
        assert good(await children.decode(GOOD))
        assert children.pids == before


async def test_a_child_has_nothing_and_can_get_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "of the service")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener, (tmp_path / "file").open("w") as file:
        for inherited in (listener, file):
            os.set_inheritable(inherited.fileno(), True)
        async with pool() as children:
            proc = Path(f"/proc/{children.pids[0]}")
            assert sorted(entry.name for entry in (proc / "fd").iterdir()) == ["0", "1", "2"]
            limits = dict(re.findall(r"^(.+?)  +\S+ +(\S+) ", (proc / "limits").read_text(), re.MULTILINE))
            hard = {name: limits[f"Max {name}"] for name in ("open files", "processes", "file size", "core file size")}
            assert hard == {"open files": "3", "processes": "0", "file size": "0", "core file size": "0"}
            assert int(limits["Max address space"]) < 1 << 30
            status = (proc / "status").read_text()
            assert ("NoNewPrivs:\t1" in status, "Seccomp:\t2" in status) == (True, True)
            assert b"SECRET" not in (proc / "environ").read_bytes()
            assert str((proc / "cwd").readlink()).endswith(" (deleted)")
            assert [path.name for path in tmp_path.iterdir()] == ["file"]


def in_a_child(close: str, program: str) -> str:
    """What `program` has to say after `close` has put the fence around it: its output, last error, or signal."""
    code = (
        "import os, resource, signal, socket\n"
        "from stt_server.audio.sandbox.confinement import *\n"
        f"{close}(64 << 20, os.getppid())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + program],
        env={"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.PIPE,
    )
    if done.returncode < 0:
        return str(done.returncode)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("open('/etc/passwd')", "Too many open files"),
        ("open('/tmp/x', 'w')", "Too many open files"),
        ("socket.socket()", "Too many open files"),
        ("os.pipe()", "Too many open files"),
        ("os.dup(0)", "Too many open files"),
        ("os.close(0); os.write(os.open('/dev/shm', os.O_TMPFILE | os.O_RDWR), b'x')", "File too large"),
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9)); print(os.getuid() == 0)", "not allowed to raise"),
        ("os.fork()", "Resource temporarily unavailable"),
        ("import threading; threading.Thread(target=print).start()", "can't start new thread"),
        ("bytearray(128 << 20)", "MemoryError"),
        ("os.kill(os.getpid(), signal.SIGTERM); print('still here')", "still here"),
    ],
)
def test_the_limits_hold(program: str, said: str) -> None:
    if os.getuid() == 0 and any(name in program for name in ("RLIMIT_NOFILE", "fork", "Thread")):
        pytest.skip("root is above these limits")
    assert said in in_a_child("set_limits", program)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("os.close(0); os.open('/etc/passwd', os.O_RDONLY)", "not permitted"),
        ("os.close(0); socket.socket()", "not permitted"),
        ("os.close(0); os.pipe()", "not permitted"),
        ("os.fork()", "not permitted"),
        ("os.execv('/bin/true', ['true'])", "not permitted"),
        ("os.kill(os.getppid(), 0)", "not permitted"),
        ("os.unlink('/tmp/none')", "not permitted"),
        ("os.listdir('/')", "not permitted"),
        ("resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (9, 9))", "not permitted"),
        ("print(len(bytearray(16 << 20)))", str(16 << 20)),
        ("grant_cpu(1)\nwhile True: pass", str(-signal.SIGXCPU)),
    ],
)
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no filter of calls for this machine")
def test_what_has_got_hold_of_a_child_can_make_no_call_to_harm(program: str, said: str) -> None:
    assert said in in_a_child("confine", program)


async def test_a_child_is_not_stopped_by_what_stops_a_service() -> None:
    async with pool() as children:
        before = children.pids
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(before[0], number)
        assert good(await children.decode(GOOD))
        assert children.pids == before


async def test_an_index_that_asks_for_gigabytes_gets_none() -> None:
    async with pool() as children:
        with pytest.raises(UnsupportedAudio):
            await children.decode(mp4_with_a_huge_index())
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{children.pids[0]}/status").read_text())
        assert peak
        assert int(peak[1]) < 512 << 10
        assert good(await children.decode(GOOD))


@dataclass(frozen=True)
class Tight(DecodeLimits):
    """Less than the longest recording takes."""

    cpu_seconds: int = 100
    wall_seconds: float = 100.0
    extra_memory: int = 256 << 20


@pytest.mark.parametrize(
    ("bounds", "death"),
    [
        (Tight(90_000, 1 << 20, cpu_seconds=1), "cpu"),
        (Tight(90_000, 1 << 20, wall_seconds=0.3), "time"),
    ],
)
async def test_worker_over_its_limits_is_replaced_and_its_file_rejected(
    bounds: DecodeLimits, death: ExitReason
) -> None:
    died: list[ExitReason] = []
    async with pool(bounds=bounds, on_death=died.append) as children:
        with pytest.raises(UnsupportedAudio, match="can't be decoded"):
            await children.decode(BOMB)
        assert died == [death]
        assert good(await children.decode(GOOD))


async def test_a_child_without_memory_is_replaced_and_its_file_refused() -> None:
    died: list[ExitReason] = []
    async with pool(bounds=Tight(60, 64 << 20, extra_memory=40 << 20), on_death=died.append) as children:
        with pytest.raises(UnsupportedAudio, match="can't be decoded"):
            await children.decode(GOOD + bytes(48 << 20))
        assert died == ["memory"]
        assert good(await children.decode(GOOD))


async def test_a_child_killed_at_work_costs_its_caller_the_file_and_nobody_else_anything() -> None:
    died: list[ExitReason] = []
    async with pool(2, Tight(90_000, 1 << 20), died.append) as children:
        lost = asyncio.ensure_future(children.decode(BOMB))
        victim = await at_work(children)
        answered = [asyncio.ensure_future(children.decode(GOOD)) for _ in range(6)]
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(UnsupportedAudio):
            await lost
        assert all(map(good, await asyncio.gather(*answered)))
        assert died == ["killed"]
        await until(lambda: len(children.pids) == 2)
        assert victim not in children.pids


async def test_a_crash_is_told_from_a_kill() -> None:
    died: list[ExitReason] = []
    async with pool(bounds=Tight(90_000, 1 << 20), on_death=died.append) as children:
        lost = asyncio.ensure_future(children.decode(BOMB))
        os.kill(await at_work(children), signal.SIGSEGV)
        with pytest.raises(UnsupportedAudio):
            await lost
        assert died == ["crashed"]


async def test_a_child_killed_while_idle_costs_nobody_anything() -> None:
    died: list[ExitReason] = []
    async with pool(on_death=died.append) as children:
        (idle,) = children.pids
        os.kill(idle, signal.SIGKILL)
        await until(lambda: ended(idle))
        assert good(await children.decode(GOOD))
        assert died == ["killed"]


async def test_a_caller_who_leaves_frees_the_child() -> None:
    died: list[ExitReason] = []
    async with pool(bounds=Tight(90_000, 1 << 20), on_death=died.append) as children:
        leaving = asyncio.ensure_future(children.decode(BOMB))
        waiting = asyncio.ensure_future(children.decode(BOMB))
        await at_work(children)
        waiting.cancel()
        leaving.cancel()
        assert good(await asyncio.wait_for(children.decode(GOOD), 20))
        assert died == ["abandoned"]


async def test_children_are_replaced_after_so_many_files_or_so_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[ExitReason] = []
    async with pool(on_death=died.append) as children:
        for name, most in (("_MAX_FILES", 2), ("_MAX_GROWTH", 0)):
            monkeypatch.setattr(pool_module, name, most)
            (before,) = children.pids
            for _ in range(3):
                assert good(await children.decode(GOOD))
            assert before not in children.pids
        assert died == []


async def test_a_service_without_memory_for_one_file_decodes_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool() as children:
        before = children.pids
        with monkeypatch.context() as patch:
            patch.setattr(SampleBuffer, "add_bytes", Mock(side_effect=MemoryError))
            with pytest.raises(Internal):
                await children.decode(GOOD)
        assert good(await children.decode(GOOD))
        assert children.pids != before


async def test_where_no_child_can_be_had_it_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool() as children:
        with monkeypatch.context() as broken:
            broken.setattr("sys.executable", "/nowhere/python")
            os.kill(children.pids[0], signal.SIGKILL)
            await until(lambda: ended(children.pids[0]))
            with pytest.raises(Internal):
                await children.decode(GOOD)
        assert good(await children.decode(GOOD))


@pytest.mark.parametrize("program", ["/nowhere/python", "/bin/false"])
async def test_a_service_that_can_have_no_child_does_not_start(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", program)
    with pytest.raises(OSError):
        async with pool():
            pass


async def test_closing_ends_every_child_at_once_even_one_at_work() -> None:
    async with pool(2, Tight(90_000, 1 << 20)) as children:
        pids = children.pids
        busy = asyncio.ensure_future(children.decode(BOMB))
        await at_work(children)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(asyncio.CancelledError):
        await busy


async def test_what_goes_wrong_in_a_child_is_logged_without_the_files_content(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "stt_server.audio.sandbox.pool")
    async with pool() as children:
        with pytest.raises(UnsupportedAudio):
            await children.decode(b"OggS" + b"said in confidence" * 100)
    assert "container.py:" in caplog.text
    assert "EOFError" in caplog.text
    assert "confidence" not in caplog.text


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"type": "internal", "message": "x", "frames": []}', b"\xff", b'{"type": []}']
)
def test_what_no_child_of_ours_says_is_not_believed(content: bytes) -> None:
    with pytest.raises(ValueError):
        messages.unpack_error(content)
