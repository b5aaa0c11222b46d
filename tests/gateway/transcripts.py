"""Transcript that the scripted service of the gateway's tests returns, and its trailing metadata."""

from __future__ import annotations

from protos.stt.v1 import speech_pb2
from tests.support.contract_messages import duration, word

TIMES = {
    "x-queue-wait-ms": "1.5",
    "x-primary-infer-ms": "120.0",
    "x-fallback-infer-ms": "0.0",
    "x-total-ms": "123.4",
}
ROUTED = {
    "x-fallback-used": "false",
    "x-conf-below": "true",
    "x-lang-check-applicable": "true",
    "x-final-model": "whisper-tiny",
    "x-route-reason": "low_logprob,few_words",
}


def two_segments() -> speech_pb2.TranscribeResponse:
    """German and Chinese, the first segment with words."""
    return speech_pb2.TranscribeResponse(
        text="Grüße, Welt. 你好。",
        language="de",
        language_probability=0.75,
        audio_duration=duration(3.25),
        segments=[
            _segment(0.5, 1.75, "Grüße, Welt.", [word(0.5, 0.9, " Grüße", 0.9)]),
            _segment(2.0, 3.25, "你好。", []),
        ],
        routing=speech_pb2.Routing(
            final_model="whisper-tiny",
            confidence_below=True,
            language_check_applicable=True,
            reasons=[speech_pb2.ROUTE_REASON_LOW_LOGPROB, speech_pb2.ROUTE_REASON_FEW_WORDS],
            primary_confidence=0.5,
        ),
        timings=speech_pb2.Timings(
            queue_wait=duration(0.0015),
            primary_infer=duration(0.12),
            fallback_infer=duration(0),
            total=duration(0.1234),
        ),
    )


def _segment(start: float, end: float, text: str, words: list[speech_pb2.Word]) -> speech_pb2.Segment:
    return speech_pb2.Segment(
        start=duration(start),
        end=duration(end),
        text=text,
        avg_logprob=-0.5,
        no_speech_prob=0.125,
        compression_ratio=1.25,
        model="whisper-tiny",
        words=words,
    )
