"""The `stt` command as a process: signals, pipes and terminals."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

import pytest

from tests.support.contract_script import Script
from tests.support.contract_service import serving

WAIT_S = 30


async def stt(*arguments: str | Path, stdin: int = DEVNULL, stdout: int = PIPE, stderr: int = PIPE) -> Process:
    command = [sys.executable, "-m", "stt_client.cli", *map(str, arguments)]
    return await asyncio.create_subprocess_exec(*command, stdin=stdin, stdout=stdout, stderr=stderr)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    return path


def read_terminal(master: int) -> bytes:
    """Read everything written to the terminal until its other end is closed."""
    seen = b""
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:  # EIO is the end of a terminal on Linux.
            return seen
        if not chunk:
            return seen
        seen += chunk


async def test_ctrl_c_exits_with_130_and_cancels_the_call(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = Script(hold=asyncio.Event())
    async with serving(script) as served:
        process = await stt("transcribe", file, "--output", out, "--server", served.target)
        await asyncio.wait_for(script.started.wait(), WAIT_S)
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), WAIT_S)
        await asyncio.wait_for(script.cancelled.wait(), WAIT_S)
    assert process.returncode == 130
    assert stderr == b"stt: interrupted\n"
    assert not out.exists()


async def test_ctrl_c_while_reading_standard_input_exits_with_130() -> None:
    reading, writing = os.pipe()
    process = await stt("transcribe", "-", "--server", "127.0.0.1:1", stdin=reading)
    os.close(reading)
    # A pipe buffers 64 KiB: the write returns only once the process reads.
    await asyncio.to_thread(os.write, writing, bytes(256 * 1024))
    process.send_signal(signal.SIGINT)
    _, stderr = await asyncio.wait_for(process.communicate(), WAIT_S)
    os.close(writing)
    assert process.returncode == 130
    assert stderr == b"stt: interrupted\n"


async def test_a_recording_is_read_from_a_pipe() -> None:
    async with serving() as served:
        process = await stt("transcribe", "-", "--server", served.target, stdin=PIPE)
        stdout, stderr = await asyncio.wait_for(process.communicate(bytes(range(256))), WAIT_S)
    assert (process.returncode, stdout, stderr) == (0, b"hello world\n", b"")
    assert served.script.requests[0].audio == bytes(range(256))


async def test_no_progress_bar_without_a_terminal(file: Path) -> None:
    async with serving() as served:
        process = await stt("transcribe", file, "--server", served.target)
        stdout, stderr = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert (stdout, stderr) == (b"hello world\n", b"")


async def test_the_progress_bar_leaves_standard_output_clean(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    master, terminal = pty.openpty()
    async with serving() as served:
        process = await stt("transcribe", file, "--server", served.target, stderr=terminal)
        os.close(terminal)
        shown = await asyncio.wait_for(asyncio.to_thread(read_terminal, master), WAIT_S)
        stdout, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    os.close(master)
    assert stdout == b"hello world\n"
    assert b"Transcribing" in shown
    assert b"1/1" in shown
    assert b"hello world" not in shown


async def test_a_broken_output_pipe_ends_the_command_quietly(file: Path) -> None:
    hold = asyncio.Event()
    script = Script(hold=hold)
    reading, writing = os.pipe()
    async with serving(script) as served:
        process = await stt("transcribe", file, "--server", served.target, stdout=writing)
        os.close(writing)
        await asyncio.wait_for(script.started.wait(), WAIT_S)
        os.close(reading)
        hold.set()
        _, stderr = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert process.returncode == 1
    assert stderr == b""
