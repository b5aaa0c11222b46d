"""`stt stream`: transcribe live speech."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import cast

from stt_client.cli.connection import add_connection, options_of, positive, servers_of
from stt_client.cli.errors import UsageError, explain
from stt_client.cli.live_audio import Clock, LiveAudio, of_file, of_standard_input, paced
from stt_client.cli.live_view import SUBTITLES, View
from stt_client.cli.microphone import of_microphone
from stt_client.cli.recordings import STDIN
from stt_client.cli.speech_options import add_speech, raw_format_of, speech_of
from stt_client.cli.subtitle_options import add_subtitles, layout_of
from stt_client.errors import ELSEWHERE, SttError
from stt_client.pool import SttPool
from stt_client.streaming.options import StreamOptions
from stt_client.streaming.results import FLUSH, Flush, StreamEvent
from stt_client.telemetry import CallRecord

_EPILOG = """\
examples:
  stt stream --mic
  stt stream talk.wav --realtime
  stt stream talk.wav --srt > talk.srt
  ffmpeg -v error -i URL -f s16le -ac 1 -ar 16000 - | stt stream - --rate 16000 --json

On a terminal, Enter ends the current utterance. Ctrl-C (SIGINT) ends the audio and waits for the last text; a second
Ctrl-C exits immediately.
"""
_LOST = frozenset(error.type for error in ELSEWHERE)
"""Error types of a lost connection."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "stream",
        help="transcribe live speech",
        description="Transcribe speech while it is spoken. Reconnects automatically.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", metavar="FILE|-", help="a recording, or - for headerless standard input")
    parser.add_argument("--mic", action="store_true", help="record from the microphone (pip install 'stt-pair[mic]')")
    parser.add_argument("--device", metavar="NAME|NUMBER", help="microphone to use (default: the system's default)")
    parser.add_argument("--realtime", action="store_true", help="send a recording at the speed of playback")
    speech = add_speech(parser)
    speech.add_argument(
        "--endpoint-silence", type=positive, metavar="SECONDS", help="silence that ends an utterance (default: 0.6)"
    )
    speech.add_argument("--single-utterance", action="store_true", help="stop after the first utterance")
    speech.add_argument("--no-interim", action="store_true", help="show final text only")
    output = parser.add_argument_group("output").add_mutually_exclusive_group()
    for format_, what in (
        ("json", "one line of JSON per event"),
        ("srt", "SubRip subtitles, at the end of the stream"),
        ("vtt", "WebVTT subtitles, at the end of the stream"),
    ):
        output.add_argument(f"--{format_}", action="store_const", const=format_, dest="format", help=what)
    add_subtitles(parser)
    add_connection(parser, timeout=None, timeout_help="timeout of the whole stream (default: none)")
    parser.set_defaults(run=run, parser=parser, format="txt")


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit status: 0, or 1 if the stream failed. Raises UsageError."""
    servers = servers_of(arguments)
    if arguments.mic == (arguments.file is not None):
        raise UsageError("no audio, or more than one: give a FILE, - for standard input, or --mic")
    if arguments.realtime and arguments.mic:
        raise UsageError("--realtime applies to recordings, not to --mic; leave it out")
    if arguments.raw_encoding and not arguments.raw_rate:
        raise UsageError("--raw-encoding requires --rate HZ")
    if arguments.mic and arguments.raw_rate:
        raise UsageError("--rate applies to a headerless FILE or standard input, not to --mic; leave it out")
    return asyncio.run(run_stream(arguments, servers))


async def run_stream(arguments: argparse.Namespace, servers: list[str], clock: Clock | None = None) -> int:
    """Stream and show the results. Returns the exit status. Raises UsageError."""
    name = arguments.file or "microphone"
    try:
        audio = _audio_of(arguments)
    except OSError as error:
        print(f"stt: {name}: {explain(error, name)}", file=sys.stderr)
        return 1
    chunks = paced(audio, clock or Clock()) if arguments.realtime else audio.chunks
    view = View(arguments.format, layout_of(arguments))

    def note_lost_connection(record: CallRecord) -> None:
        if record.error_type in _LOST:
            view.note(f"connection to {record.target} lost ({record.error_type})")

    options = options_of(arguments)
    options["telemetry"] = note_lost_connection
    controls = Controls()
    keys = contextlib.nullcontext() if arguments.file == STDIN else _enter_key(controls)
    with view, keys, _interrupts(controls, view):
        async with SttPool(servers, **options) as pool:
            stream = pool.stream(controls.apply(chunks), encoding=audio.format, **_options(arguments))
            failure = await _show_all(stream, view, name)
    if failure:
        print(f"stt: {name}: {failure}", file=sys.stderr)
    return 1 if failure else 0


async def _show_all(stream: AsyncGenerator[StreamEvent, None], view: View, name: str) -> str:
    """Show all events. Returns why the stream failed; empty if it didn't."""
    try:
        async with aclosing(stream) as events:
            async for event in events:
                view.show(event)
    except BrokenPipeError:
        raise  # The reader of the output has exited; `main` handles that.
    except (SttError, OSError) as error:
        return explain(error, name)
    return ""


def _audio_of(arguments: argparse.Namespace) -> LiveAudio:
    raw = raw_format_of(arguments)
    if arguments.mic:
        return of_microphone(arguments.device)
    if arguments.file == STDIN:
        if raw is None:
            raise UsageError("standard input is headerless; give its sample rate by --rate HZ")
        return of_standard_input(raw)
    return of_file(Path(arguments.file), raw)


def _options(arguments: argparse.Namespace) -> StreamOptions:
    options = StreamOptions(
        interim_results=not arguments.no_interim,
        endpoint_silence=arguments.endpoint_silence,
        single_utterance=arguments.single_utterance,
        timeout=arguments.timeout,
        resume=True,
    )
    if arguments.format in SUBTITLES:
        options["word_timestamps"] = True
    return cast(StreamOptions, {**speech_of(arguments), **options})


class Controls:
    """Effect of Ctrl-C and Enter on the audio."""

    def __init__(self) -> None:
        self._commands: asyncio.Queue[Flush | None] = asyncio.Queue()

    def end(self) -> None:
        """End the audio."""
        self._commands.put_nowait(None)

    def flush(self) -> None:
        """End the current utterance."""
        self._commands.put_nowait(FLUSH)

    async def apply(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes | Flush, None]:
        """Yield the audio, and `FLUSH` where `flush` was called; end early after `end`."""

        async def next_chunk() -> bytes | None:
            return await anext(chunks, None)

        chunk: asyncio.Task[bytes | None] | None = None
        command = asyncio.create_task(self._commands.get())
        try:
            while True:
                chunk = chunk or asyncio.create_task(next_chunk())
                await asyncio.wait([chunk, command], return_when=asyncio.FIRST_COMPLETED)
                if command.done():
                    if (flush := command.result()) is None:
                        return
                    command = asyncio.create_task(self._commands.get())
                    yield flush
                if chunk.done():
                    if (audio := chunk.result()) is None:
                        return
                    chunk = None
                    yield audio
        finally:
            for task in (chunk, command):
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            await chunks.aclose()


@contextlib.contextmanager
def _interrupts(controls: Controls, view: View) -> Iterator[None]:
    """Handle Ctrl-C: the first ends the audio, the second raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():  # has no signals
        yield
        return
    loop, command = asyncio.get_running_loop(), asyncio.current_task()
    count = 0

    def on_interrupt() -> None:
        nonlocal count
        count += 1
        if count == 1:
            controls.end()
            view.note("waiting for the last text; press Ctrl-C again to exit immediately")
        elif command is not None:
            # Not Python's handler for this one: a KeyboardInterrupt raised within a callback of gRPC is dropped there.
            loop.remove_signal_handler(signal.SIGINT)
            command.cancel()

    # Installed even if SIGINT was ignored, as in a background job of a script: it is the signal to finish a stream.
    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    try:
        yield
    except asyncio.CancelledError:
        if count > 1:
            raise KeyboardInterrupt from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextlib.contextmanager
def _enter_key(controls: Controls) -> Iterator[None]:
    """Handle Enter on a terminal: it ends the utterance."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    loop = asyncio.get_running_loop()

    def on_line() -> None:
        if sys.stdin.readline():
            controls.flush()
        else:
            loop.remove_reader(sys.stdin)  # End of input by Ctrl-D.

    loop.add_reader(sys.stdin, on_line)
    try:
        yield
    finally:
        loop.remove_reader(sys.stdin)
