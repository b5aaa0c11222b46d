"""`stt stream` as a process: pipes, terminals, keys and signals."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from protos.stt.v1 import speech_pb2
from tests.client.test_cli_process import WAIT_S, read_terminal, stt
from tests.client.test_cli_stream import write_wav
from tests.support.contract_script import Script
from tests.support.contract_service import serving
from tests.support.letter_stream import RATE, Letters, speech

NOTE = b"stt: waiting for the last text; press Ctrl-C again to exit immediately\n"


async def written(process: Process, audio: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(audio)
    await process.stdin.drain()


async def test_piped_audio_is_transcribed_before_the_pipe_ends() -> None:
    async with serving(Script(stream=Letters())) as served:
        process = await stt("stream", "-", "--rate", str(RATE), "--server", served.target, stdin=PIPE)
        assert process.stdout is not None
        await written(process, speech("abc       "))
        assert await asyncio.wait_for(process.stdout.readline(), WAIT_S) == b"abc\n"
        stdout, stderr = await asyncio.wait_for(process.communicate(speech("de")), WAIT_S)
    assert (process.returncode, stdout, stderr) == (0, b"de\n", b"")


async def test_ctrl_c_ends_the_audio_and_waits_for_the_last_text() -> None:
    letters = Letters()
    async with serving(Script(stream=letters)) as served:
        process = await stt("stream", "-", "--rate", str(RATE), "--server", served.target, stdin=PIPE)
        await written(process, speech("abc"))
        await asyncio.wait_for(letters.got_audio.wait(), WAIT_S)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None and process.stderr is not None
        stdout = await asyncio.wait_for(process.stdout.read(), WAIT_S)
        stderr = await process.stderr.read()
        await asyncio.wait_for(process.wait(), WAIT_S)
    assert (process.returncode, stdout, stderr) == (0, b"abc\n", NOTE)
    assert letters.half_closed.is_set()


async def test_a_second_ctrl_c_exits_immediately_with_130() -> None:
    got_audio = asyncio.Event()

    async def never_done(requests: Any, context: Any) -> AsyncIterator[speech_pb2.StreamTranscribeResponse]:
        async for _ in requests:
            got_audio.set()
        await asyncio.Event().wait()
        yield speech_pb2.StreamTranscribeResponse()

    script = Script(stream=never_done)
    async with serving(script) as served:
        process = await stt("stream", "-", "--rate", str(RATE), "--server", served.target, stdin=PIPE)
        await written(process, speech("abc"))
        await asyncio.wait_for(got_audio.wait(), WAIT_S)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert await asyncio.wait_for(process.stderr.readline(), WAIT_S) == NOTE
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.stderr.read(), WAIT_S) == b"stt: interrupted\n"
        await asyncio.wait_for(process.wait(), WAIT_S)
        await asyncio.wait_for(script.cancelled.wait(), WAIT_S)
    assert process.returncode == 130


@pytest.fixture
def terminal_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.usefixtures("terminal_kind")
async def test_a_terminal_shows_stable_text_bold_and_finals_with_summary(tmp_path: Path) -> None:
    file = write_wav(tmp_path / "talk.wav", speech("abcdef"))
    master, terminal = pty.openpty()
    async with serving(Script(stream=Letters())) as served:
        process = await stt("stream", file, "--server", served.target, stdout=terminal)
        os.close(terminal)
        shown = await asyncio.wait_for(asyncio.to_thread(read_terminal, master), WAIT_S)
        await asyncio.wait_for(process.wait(), WAIT_S)
    os.close(master)
    assert re.search(rb"\x1b\[1mabcd\x1b\[0m\x1b\[2mef\x1b\[0m", shown), shown  # bold, then dim
    plain = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown)
    assert plain.count(b"0:00  abcdef  en tiny") == 1


@pytest.mark.usefixtures("terminal_kind")
async def test_interims_are_shown_on_stderr_if_stdout_is_a_file(tmp_path: Path) -> None:
    file = write_wav(tmp_path / "talk.wav", speech("abcdef"))
    master, terminal = pty.openpty()
    async with serving(Script(stream=Letters())) as served:
        process = await stt("stream", file, "--json", "--server", served.target, stderr=terminal)
        os.close(terminal)
        shown = await asyncio.wait_for(asyncio.to_thread(read_terminal, master), WAIT_S)
        stdout, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    os.close(master)
    assert b"abcdef" in shown
    assert stdout.count(b"\n") == 5
    assert b"\x1b" not in stdout


async def test_enter_ends_the_utterance(tmp_path: Path) -> None:
    """Audio comes from a FIFO that stays open, keys from a terminal."""
    fifo = tmp_path / "talk.raw"
    os.mkfifo(fifo)
    letters = Letters()
    master, terminal = pty.openpty()
    async with serving(Script(stream=letters)) as served:
        process = await stt("stream", fifo, "--rate", str(RATE), "--server", served.target, stdin=terminal)
        os.close(terminal)
        audio = await asyncio.wait_for(asyncio.to_thread(fifo.open, "wb", 0), WAIT_S)
        audio.write(speech("abc"))
        await asyncio.wait_for(letters.got_audio.wait(), WAIT_S)
        os.write(master, b"\n")
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), WAIT_S)
        audio.write(speech("de"))
        audio.close()
        stdout, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    os.close(master)
    # How much of the first word precedes the flush depends on the timing of terminal and pipe.
    assert (line + stdout).replace(b"\n", b"") == b"abcde"
    assert line != b"abcde\n"


async def test_a_broken_output_pipe_ends_the_command_quietly(tmp_path: Path) -> None:
    file = write_wav(tmp_path / "talk.wav", speech("ab       " * 40))
    reading, writing = os.pipe()
    async with serving(Script(stream=Letters())) as served:
        process = await stt("stream", file, "--server", served.target, stdout=writing)
        os.close(writing)
        os.close(reading)
        _, stderr = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert process.returncode == 1
    assert stderr == b""
