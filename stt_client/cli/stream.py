"""`stt stream`: speech in, text out while it is said."""

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

from stt_client.cli.advice import explain
from stt_client.cli.connection import UsageError, add_connection, options_of, positive, servers_of
from stt_client.cli.live_audio import Clock, LiveAudio, of_file, of_standard_input, paced
from stt_client.cli.live_view import View
from stt_client.cli.microphone import of_microphone
from stt_client.cli.recordings import STDIN
from stt_client.cli.speech_options import add_speech, raw_format_of, speech_of
from stt_client.errors import ELSEWHERE, SttError
from stt_client.pool import SttPool
from stt_client.streaming.options import StreamOptions
from stt_client.streaming.results import FLUSH, Flush
from stt_client.telemetry import CallRecord

_EPILOG = """\
examples:
  stt stream --mic
  stt stream talk.wav --realtime
  stt stream talk.wav --srt > talk.srt
  ffmpeg -v error -i URL -f s16le -ac 1 -ar 16000 - | stt stream - --rate 16000 --json

On a terminal, Enter ends the utterance at once. Ctrl-C ends the audio and waits for the last text; once more ends all.
"""
_LOST = frozenset(error.type for error in ELSEWHERE)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "stream",
        help="transcribe live speech",
        description="Transcribes speech while it is said. A connection that is lost is made again.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", metavar="FILE|-", help="a recording, or - for headerless standard input")
    parser.add_argument("--mic", action="store_true", help="listen to the microphone (pip install 'stt-pair[mic]')")
    parser.add_argument("--device", metavar="NAME|NUMBER", help="which microphone (default: the system's)")
    parser.add_argument("--realtime", action="store_true", help="send a recording as fast as it was spoken")
    speech = add_speech(parser)
    speech.add_argument(
        "--endpoint-silence", type=positive, metavar="SECONDS", help="silence that ends an utterance (default: 0.6)"
    )
    speech.add_argument("--single-utterance", action="store_true", help="end after the first utterance")
    speech.add_argument("--no-interim", action="store_true", help="only the text that is final")
    output = parser.add_argument_group("output").add_mutually_exclusive_group()
    for format_, what in (
        ("json", "a line of JSON for each event"),
        ("srt", "SubRip subtitles, at the end"),
        ("vtt", "WebVTT subtitles, at the end"),
    ):
        output.add_argument(f"--{format_}", action="store_const", const=format_, dest="format", help=what)
    add_connection(parser, timeout=None, timeout_help="longest time for all of it (default: no limit)")
    parser.set_defaults(run=run, parser=parser, format="txt")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns the exit status: 0, or 1 if the stream failed. Raises UsageError."""
    servers = servers_of(arguments)
    if arguments.mic == (arguments.file is not None):
        raise UsageError("give a FILE, - for standard input, or --mic")
    if arguments.realtime and arguments.mic:
        raise UsageError("--realtime paces a recording; a microphone needs none")
    if arguments.raw_encoding and not arguments.raw_rate:
        raise UsageError("--raw-encoding needs --rate HZ")
    if arguments.file == STDIN and not arguments.raw_rate:
        raise UsageError("standard input is headerless: say its sample rate by --rate HZ")
    if arguments.mic and arguments.raw_rate:
        raise UsageError("--rate describes a headerless FILE or standard input, not a microphone")
    return asyncio.run(_stream(arguments, servers))


async def _stream(arguments: argparse.Namespace, servers: list[str], clock: Clock | None = None) -> int:
    name = arguments.file or "microphone"
    try:
        audio = _audio_of(arguments)
    except OSError as error:
        print(f"stt: {name}: {explain(error, name)}", file=sys.stderr)
        return 1
    chunks = paced(audio, clock or Clock()) if arguments.realtime else audio.chunks
    view = View(arguments.format)

    def told(record: CallRecord) -> None:
        if record.error_type in _LOST:
            view.note(f"no connection to {record.target} ({record.error_type})")

    failure = ""
    with view, _controls(view, keys=arguments.file != STDIN) as controls:
        options = options_of(arguments)
        options["telemetry"] = told
        async with SttPool(servers, **options) as pool:
            stream = pool.stream(controls.governed(chunks), encoding=audio.format, **_options(arguments))
            try:
                async with aclosing(stream) as events:
                    async for event in events:
                        view.show(event)
            except BrokenPipeError:
                raise  # the reader of the output has enough; `main` knows what to do
            except (SttError, OSError) as error:
                failure = explain(error, name)
    if failure:
        print(f"stt: {name}: {failure}", file=sys.stderr)
    return 1 if failure else 0


def _audio_of(arguments: argparse.Namespace) -> LiveAudio:
    raw = raw_format_of(arguments)
    if arguments.mic:
        return of_microphone(arguments.device)
    if arguments.file == STDIN:
        assert raw is not None  # noqa: S101 - `run` has seen to it
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
    return cast(StreamOptions, {**speech_of(arguments), **options})


class _Controls:
    """Ctrl-C and Enter, as they reach the audio."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[Flush | None] = asyncio.Queue()

    def end(self) -> None:
        """The audio is over."""
        self._asked.put_nowait(None)

    def flush(self) -> None:
        """The utterance is over."""
        self._asked.put_nowait(FLUSH)

    async def governed(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes | Flush, None]:
        """The audio, with what was asked in between."""

        async def next_chunk() -> bytes | None:
            return await anext(chunks, None)

        chunk: asyncio.Task[bytes | None] | None = None
        asked = asyncio.create_task(self._asked.get())
        try:
            while True:
                chunk = chunk or asyncio.create_task(next_chunk())
                await asyncio.wait([chunk, asked], return_when=asyncio.FIRST_COMPLETED)
                if asked.done():
                    if (flush := asked.result()) is None:
                        return
                    asked = asyncio.create_task(self._asked.get())
                    yield flush
                if chunk.done():
                    if (audio := chunk.result()) is None:
                        return
                    chunk = None
                    yield audio
        finally:
            for task in (chunk, asked):
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            await chunks.aclose()


@contextlib.contextmanager
def _controls(view: View, *, keys: bool) -> Iterator[_Controls]:
    """The first Ctrl-C ends the audio, the next one interrupts. `keys`: Enter flushes, if there is a keyboard."""
    loop, controls = asyncio.get_running_loop(), _Controls()

    def interrupted() -> None:
        loop.remove_signal_handler(signal.SIGINT)  # the next one is Python's own
        controls.end()
        view.note("waiting for the last text; Ctrl-C again to end at once")

    def entered() -> None:
        if sys.stdin.readline():
            controls.flush()
        else:
            loop.remove_reader(sys.stdin)  # Ctrl-D: nobody will press a key again

    # Signals are for a main thread; a program that runs this in another one has its own way to end it.
    signals = threading.current_thread() is threading.main_thread()
    keyboard = keys and sys.stdin is not None and sys.stdin.isatty()
    if signals:
        loop.add_signal_handler(signal.SIGINT, interrupted)
    if keyboard:
        loop.add_reader(sys.stdin, entered)
    try:
        yield controls
    finally:
        if keyboard:
            loop.remove_reader(sys.stdin)
        if signals:
            loop.remove_signal_handler(signal.SIGINT)
