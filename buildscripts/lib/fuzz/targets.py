"""Fuzz targets for bytes: each must return a result or raise one of its own errors."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart

from gateway.http.errors import Refusal
from gateway.http.multipart import Form, FormReader, FormRules, boundary_of
from gateway.openai.form import TRANSCRIPTION_RULES, TRANSLATION_RULES, parse_transcription, parse_translation
from gateway.openai.realtime.items import error_fields
from gateway.openai.realtime.messages import EventError, UpdateSession, event_id_of, parse_event, parse_message
from gateway.openai.realtime.settings import SessionSettings, update
from gateway.rest.form import RULES, parse_form
from gateway.wyoming.framing import READER_LIMIT, read_event
from gateway.wyoming.messages import audio_format, speech_request
from stt_client.streaming.options import stream_config
from stt_server.audio import AudioFormat, decode_plain
from stt_server.audio.mono import FloatArray
from stt_server.audio.sandbox.worker import DecodeLimits, FileRejected, Worker, WorkerDied
from stt_server.audio.wav import read_wav
from stt_server.config import ConfigError, parse
from stt_server.errors import SttError

CORPUS = Path(__file__).parent / "corpus"
BOUNDS = DecodeLimits(max_seconds=120, max_bytes=1 << 22)
BOUNDARY = "x-boundary"
MODEL = b"/models/whisper-small-ct2"
"""Placeholder for a model's folder in the configurations of the corpus."""

Target = Callable[[bytes], str]
"""Outcome of an input in a word or two. Raises for what must not happen."""


class Decoder:
    """Decodes as the service does: plain WAV in this process, other formats in a child process."""

    def __init__(self) -> None:
        self._child = Worker(BOUNDS)
        self._separate = False

    def __call__(self, data: bytes) -> str:
        self._separate = not self._separate  # in turns: mixed, and each channel by itself
        try:
            plain = decode_plain(data, AudioFormat(), max_seconds=BOUNDS.max_seconds, separate_channels=self._separate)
            channels = plain if plain is not None else self._in_child(data)
        except SttError as error:
            return error.type
        except FileRejected as refused:
            return refused.error.type
        except WorkerDied as died:
            self._child = Worker(BOUNDS)
            if died.reason == "crashed":
                raise
            return f"over {died.reason}"
        for audio in channels:
            assert np.isfinite(audio).all(), "samples that are not finite"
            assert len(audio) <= (BOUNDS.max_seconds + 1) * 16_000
        return "decoded"

    def _in_child(self, data: bytes) -> list[FloatArray]:
        late = threading.Timer(BOUNDS.wall_seconds, self._child.kill, ["time"])
        late.start()
        try:
            return self._child.decode(data, separate_channels=self._separate)
        finally:
            late.cancel()

    def close(self) -> None:
        self._child.close()


def wav(data: bytes) -> str:
    """The WAV parser, which is Python."""
    try:
        return "left to FFmpeg" if read_wav(data) is None else "read"
    except SttError as error:
        return error.type


def form(data: bytes) -> str:
    """The form of `/v1/transcribe`."""
    return _form(data, RULES, parse_form)


def openai_form(data: bytes) -> str:
    """The forms of `/v1/audio`, in turns that depend on the data."""
    if len(data) % 4:
        return _form(data, TRANSCRIPTION_RULES, parse_transcription)
    return _form(data, TRANSLATION_RULES, parse_translation)


def _form(data: bytes, rules: FormRules, parse_fields: Callable[[Form], object]) -> str:
    """A multipart body in pieces whose sizes depend on it."""
    try:
        reader = FormReader(boundary_of(f"multipart/form-data; boundary={BOUNDARY}").strip(), rules, 1 << 16)
        step = 1 + sum(data[:8]) % 97
        for first in range(0, len(data), step):
            reader.feed(data[first : first + step])
        parse_fields(reader.finish())
    except Refusal as refusal:
        assert refusal.field is None or refusal.field in rules.fields | {rules.audio}
        return str(refusal.type)
    return "taken"


def content_type(data: bytes) -> str:
    try:
        boundary_of(data.decode("latin-1"))
    except Refusal as refusal:
        return str(refusal.type)
    return "taken"


def config(data: bytes) -> str:
    """A configuration file; errors must be one line."""
    try:
        parse(data.decode("utf-8", "replace"), "primary")
    except ConfigError as error:
        assert "\n" not in str(error), "an error of more than one line"
        return "refused"
    return "taken"


def wyoming(data: bytes) -> str:
    """The events of one Wyoming connection, up to the first that is refused."""

    async def read() -> str:
        reader = asyncio.StreamReader(limit=READER_LIMIT)
        reader.feed_data(data)
        reader.feed_eof()
        count = 0
        while (event := await read_event(reader)) is not None:
            count += 1
            if Transcribe.is_type(event.type):
                speech_request(event)
            elif AudioStart.is_type(event.type) or AudioChunk.is_type(event.type):
                audio_format(event)
        return f"{min(count, 3)} events"

    try:
        return asyncio.run(read())
    except Refusal as refusal:
        return str(refusal.type)


def realtime(data: bytes) -> str:
    """The messages of one Realtime session, one a line; the settings must be JSON, whatever was taken."""
    settings, taken = SessionSettings(), 0
    for line in data.decode("utf-8", "replace").split("\n"):
        try:
            fields = parse_message(line)
            event_id_of(fields)
            event = parse_event(fields)
            if isinstance(event, UpdateSession):
                settings = update(settings, event.session).settings
                json.dumps((settings.as_dict(), settings.as_older_dict()), allow_nan=False)
                stream_config(settings.format, **settings.stream_options())
            taken += 1
        except EventError as error:
            error_fields("invalid_argument", error.message, code=error.code, param=error.param)
    return "taken" if taken else "refused"


TARGETS = ("decoder", "form", "openai_form", "content_type", "config", "realtime", "wyoming")


@contextmanager
def target(name: str) -> Iterator[Target]:
    if name == "decoder":
        decoder = Decoder()
        try:
            yield decoder
        finally:
            decoder.close()
    elif name == "config":
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.bin").touch()
            yield lambda data: config(data.replace(MODEL, folder.encode()))
    else:
        yield {
            "form": form,
            "openai_form": openai_form,
            "content_type": content_type,
            "realtime": realtime,
            "wyoming": wyoming,
        }[name]


def corpus(name: str) -> dict[str, bytes]:
    """Contents of a corpus by file name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / name).iterdir())}
