"""The messages of `TranscribeWithProgress` while a request is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from protos.stt.v1 import speech_pb2 as pb
from stt_server.progress import Progress
from stt_server.request import Transcript
from stt_server.rpc.convert import duration, segment_of

INTERVAL_S = 2.0
"""Longest time between two messages; the contract allows 5 s. Seconds."""


async def progress_messages(
    progress: Progress, answer: Coroutine[Any, Any, Transcript]
) -> AsyncGenerator[pb.TranscribeWithProgressResponse, None]:
    """Yield the messages until the answer is there, the result excepted; the last one if it fails, too.

    Closing the generator cancels the answer.

    Args:
        answer: runs the request that `progress` belongs to.

    Raises:
        SttError: the answer's, once all settled segments have been sent.
    """
    answering = asyncio.ensure_future(answer)
    changing = asyncio.ensure_future(progress.changed())
    sent = 0
    try:
        while True:
            done = answering.done()
            if segments := progress.segments[sent:]:
                sent += len(segments)
                settled = pb.SettledSegments(segments=[segment_of(segment, model) for segment, model in segments])
                yield pb.TranscribeWithProgressResponse(segments=settled)
            yield pb.TranscribeWithProgressResponse(progress=_progress(progress))
            if done:
                answering.result()
                return
            if changing.done():
                changing = asyncio.ensure_future(progress.changed())
            await asyncio.wait((answering, changing), timeout=INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        changing.cancel()
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


def _progress(progress: Progress) -> pb.Progress:
    known = progress.audio_duration
    return pb.Progress(
        audio_duration=None if known is None else duration(known), audio_settled=duration(progress.audio_settled)
    )
