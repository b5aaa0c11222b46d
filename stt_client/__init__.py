"""Client SDK: `SttClient` (asyncio), `SyncSttClient` (blocking), `SttPool` (several services), the `stt` command."""

from stt_client.channel import Tls
from stt_client.client import SttClient
from stt_client.errors import SttError
from stt_client.pool import SttPool
from stt_client.request import AudioFormat, Samples
from stt_client.results import (
    Limits,
    Metrics,
    Progress,
    Routing,
    Segment,
    SettledSegments,
    Status,
    Timings,
    TranscribeEvent,
    Transcript,
    Word,
)
from stt_client.streaming.results import FLUSH, Final, Flush, Interim, SpeechEvent, StreamEvent
from stt_client.sync import SyncSttClient
from stt_client.telemetry import CallRecord, LatencyStats

__all__ = [
    "FLUSH",
    "AudioFormat",
    "CallRecord",
    "Final",
    "Flush",
    "Interim",
    "LatencyStats",
    "Limits",
    "Metrics",
    "Progress",
    "Routing",
    "Samples",
    "Segment",
    "SettledSegments",
    "SpeechEvent",
    "Status",
    "StreamEvent",
    "SttClient",
    "SttError",
    "SttPool",
    "SyncSttClient",
    "Timings",
    "Tls",
    "TranscribeEvent",
    "Transcript",
    "Word",
]
