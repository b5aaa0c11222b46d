"""The calls behind Wyoming's events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, field

from wyoming.info import Info

from gateway.http.admission import upload_limit
from gateway.http.caller import Metadata
from gateway.wyoming.messages import SpeechRequest, info_of
from protos.stt.v1.wire import AUTHORIZATION, X_FORWARDED_FOR, new_request_id
from stt_client import AudioFormat, SttClient
from stt_client.request import prepare
from stt_client.results import TranscribeEvent

UseClient = Callable[[], AbstractContextManager[SttClient]]
"""The client to use for one call; it stays open within the context."""


@dataclass
class Utterance:
    """Audio between `audio-start` and `audio-stop`."""

    format: AudioFormat
    request: SpeechRequest = field(default_factory=SpeechRequest)
    """Known at its end: `transcribe` may follow `audio-start`."""
    audio: bytearray = field(default_factory=bytearray, repr=False)
    request_id: str = field(default_factory=new_request_id)
    started: float = field(default_factory=time.monotonic)


class ServiceCalls:
    """Calls on behalf of one caller."""

    def __init__(self, use_client: UseClient, api_key: Callable[[], str], address: str, timeout_s: float) -> None:
        """
        Args:
            api_key: returns the key of the next call; empty: none.
            address: the caller's.
            timeout_s: deadline of a transcription, in seconds.
        """
        self._use_client = use_client
        self._api_key = api_key
        self._address = address
        self._timeout_s = timeout_s

    def _metadata(self) -> Metadata:
        key = self._api_key()
        return [(X_FORWARDED_FOR, self._address), *([(AUTHORIZATION, f"Bearer {key}")] if key else [])]

    async def info(self) -> Info:
        """Describe the service. Raises SttError; Refusal while the model is loading."""
        with self._use_client() as client:
            return info_of(await client.status())

    async def upload_limit(self, utterance: Utterance) -> int:
        """Bytes of audio that the service takes at most.

        Raises:
            SttError: the service would refuse the utterance now, whatever its audio.
        """
        with self._use_client() as client:
            return await upload_limit(client, utterance.request_id, self._metadata())

    async def transcribe(self, utterance: Utterance) -> AsyncGenerator[TranscribeEvent, None]:
        """Transcribe an utterance: yield segments as they are settled, and last the transcript.

        Raises:
            SttError: the call failed.
        """
        with self._use_client() as client:
            message = await prepare(
                bytes(utterance.audio),
                client.max_message_bytes,
                encoding=utterance.format,
                language=utterance.request.language,
                hotwords=utterance.request.hotwords,
            )
            call = client.send_with_progress(
                message,
                deadline=time.monotonic() + self._timeout_s,
                request_id=utterance.request_id,
                metadata=self._metadata(),
            )
            async with aclosing(call) as events:
                async for event in events:
                    yield event
