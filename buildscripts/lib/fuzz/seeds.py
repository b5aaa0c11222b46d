"""Valid files of the corpus: one per container and codec, and some forms and configurations."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event

from buildscripts.lib.fuzz.targets import BOUNDARY, MODEL
from stt_server.audio import SAMPLE_RATE
from stt_server.testing import hostile_files as hostile
from stt_server.testing.audio_samples import chirp, chunk, encode, extensible, riff, wav_header

_ENCODED = (
    *((f"wav-{codec}", "wav", f"pcm_{codec}", 8_000, "mono") for codec in ("u8", "s16le", "s24le", "f32le", "f64le")),
    *(
        (f"wav-{codec}", "wav", codec, 8_000, "mono")
        for codec in ("pcm_mulaw", "pcm_alaw", "adpcm_ms", "adpcm_ima_wav")
    ),
    ("flac", "flac", "flac", 16_000, "stereo"),
    ("mp3", "mp3", "libmp3lame", 16_000, "mono"),
    ("mp2", "mp2", "mp2", 16_000, "mono"),
    ("adts", "adts", "aac", 16_000, "mono"),
    ("ogg-opus", "ogg", "libopus", 48_000, "mono"),
    ("ogg-vorbis", "ogg", "vorbis", 16_000, "stereo"),
    ("ogg-flac", "ogg", "flac", 16_000, "mono"),
    ("m4a-aac", "ipod", "aac", 16_000, "mono"),
    ("m4a-alac", "ipod", "alac", 16_000, "stereo"),
    ("mov-pcm", "mov", "pcm_s16be", 8_000, "mono"),
    ("webm-opus", "webm", "libopus", 48_000, "mono"),
    ("mkv-flac", "matroska", "flac", 16_000, "mono"),
    ("mkv-aac", "matroska", "aac", 16_000, "5.1"),
    *((f"wav-{codec}", "wav", codec, 8_000, "mono") for codec in ("g722", "g726", "g723_1", "adpcm_yamaha")),
    *((f"aiff-{codec}", "aiff", codec, 8_000, "mono") for codec in ("pcm_s16be", "pcm_s24be", "adpcm_ima_qt")),
    *((f"au-{codec}", "au", codec, 8_000, "mono") for codec in ("pcm_s16be", "pcm_mulaw", "g726le")),
    *((f"caf-{codec}", "caf", codec, 8_000, "stereo") for codec in ("pcm_s16le", "alac", "adpcm_ima_qt")),
    ("w64", "w64", "pcm_s16le", 8_000, "mono"),
    *((f"asf-{codec}", "asf", codec, 22_050, "mono") for codec in ("wmav1", "wmav2")),
    *((name, name, "libopencore_amrnb", 8_000, "mono") for name in ("amr", "3gp")),
    *((name, name, name, 48_000, "mono") for name in ("ac3", "eac3")),
    *((f"ts-{codec}", "mpegts", codec, 48_000, "mono") for codec in ("aac", "mp2", "ac3")),
    *((f"flv-{codec}", "flv", codec, 22_050, "mono") for codec in ("aac", "adpcm_swf", "nellymoser")),
    *((f"avi-{codec}", "avi", codec, 22_050, "mono") for codec in ("pcm_s16le", "libmp3lame", "adpcm_ms")),
)

_BIT_RATES = {"libopencore_amrnb": 12_200, "g723_1": 6_300, "wmav1": 32_000, "wmav2": 32_000}
"""Bits per second, for encoders that refuse the default."""


def decoder() -> dict[str, bytes]:
    files = {}
    for name, container, codec, rate, layout in _ENCODED:
        samples = chirp(0.2, rate)
        channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
        bits = _BIT_RATES.get(codec)
        files[name] = encode(np.tile(samples, (channels, 1)), rate, container, codec, layout=layout, bit_rate=bits)
    pcm = (chirp(0.05) * 32767).astype("<i2").tobytes()
    files |= {
        "wav-rf64": encode(chirp(0.05), SAMPLE_RATE, "wav", "pcm_s16le", muxer={"rf64": "always"}),
        "wav-extensible": riff(chunk(b"LIST", b"odd"), chunk(b"fmt ", extensible(1, 16, 16)), chunk(b"data", pcm)),
        "wav-streamed": wav_header(SAMPLE_RATE, 1, 0xFFFFFFFF) + pcm,
        "wav-flac": hostile.wav_around_a_flac()[:4000],
        "mp4-fragmented": encode(chirp(0.2), SAMPLE_RATE, "mp4", "aac", muxer={"movflags": "frag_keyframe+empty_moov"}),
        "mp3-tagged": encode(chirp(0.1), SAMPLE_RATE, "mp3", "libmp3lame", title="title " * 20),
        "mp3-cut": files["mp3"][301:],
        "aac-behind-zeros": bytes(100) + files["adts"],
        "mov-without-ftyp": files["mov-pcm"][:4] + b"skip" + files["mov-pcm"][8:],
        "mov-alias": hostile.mov_alias("canary.wav"),
        "wav-rifx": b"RIFX\0\0\0\x44WAVEfmt \0\0\0\x10"
        + struct.pack(">HHIIHH", 1, 1, 8000, 16000, 2, 16)
        + b"data\0\0\0\x20"
        + pcm[:32],
        "amr-wide": b"#!AMR-WB\n" + b"\x7c" * 20,
        "gsm": hostile.SIGNATURES["gsm"],
        "avi-film": hostile.silent_film("avi"),
        "flac-silence": hostile.flac_of_silence(30),
        "mp4-film": hostile.silent_film(),
        "mp4-huge-index": hostile.mp4_with_a_huge_index(),
        "mkv-nested": hostile.nested_elements(300),
        "mp4-nested": hostile.nested_boxes(300),
        "id3-nested": hostile.nested_tags(300),
        "ogg-streams": hostile.endless_streams(4000),
        "mkv-clusters": hostile.endless_clusters(2000),
        "playlist": hostile.playlists("/etc/hostname")[2],
    }
    return files


def _part(name: str, content: bytes, more: str = "") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form() -> dict[str, bytes]:
    part, end = _part, f"--{BOUNDARY}--\r\n".encode()
    audio = part("audio", b"RIFF" + bytes(40), '; filename="a.wav"\r\nContent-Type: audio/wav')
    return {
        "audio": audio + end,
        "all": audio
        + part("language", b"en")
        + part("candidate_languages", b"en,de")
        + part("task", b"translate")
        + part("prompt", "Grüße".encode())
        + part("hotwords", b"one,two")
        + part("word_timestamps", b"true")
        + part("routing", b"primary")
        + part("response_format", b"srt")
        + end,
        "unknown": audio + part("model", b"x") + end,
        "star": part("audio", b"x", "; filename*=UTF-8''na%C3%AFve.wav") + end,
    }


def openai_form() -> dict[str, bytes]:
    part, end = _part, f"--{BOUNDARY}--\r\n".encode()
    file = part("file", b"RIFF" + bytes(40), '; filename="a.wav"\r\nContent-Type: audio/wav')
    return {
        "file": part("model", b"whisper-1") + file + end,
        "all": part("response_format", b"verbose_json")
        + part("languages[]", b"en")
        + part("languages[]", b"de")
        + part("keywords", b"one,two")
        + part("timestamp_granularities[]", b"word")
        + part("temperature", b"0.2")
        + part("prompt", "Grüße".encode())
        + file
        + part("chunking_strategy[type]", b"server_vad")
        + part("known_speaker_references[]", b"data:audio/wav;base64,UklGRg==")
        + part("routing", b"primary")
        + end,
        "stream": file + part("stream", b"true") + part("language", b"German") + end,
        "hot": file + part("temperature", b"2") + end,
        "file-skipped": part("other", bytes(200), '; filename="b.bin"') + file + end,
    }


def content_type() -> dict[str, bytes]:
    return {
        "plain": f"multipart/form-data; boundary={BOUNDARY}".encode(),
        "quoted": b'multipart/form-data; charset=utf-8; boundary="a b; c=\\"d"',
        "other": b"application/x-www-form-urlencoded",
        "continued": b"multipart/form-data; boundary*0=a; boundary*1*=UTF-8'en'b%20c",
    }


def config() -> dict[str, bytes]:
    root = Path(__file__).parents[3]
    honest = (root / "configs" / "stt_primary.env").read_bytes()
    keys = b"\n".join(line for line in honest.splitlines() if line and not line.startswith(b"#"))
    return {
        "keys": keys,
        "quotes": b"export CT2_SMALL_PATH='" + MODEL + b'\'\nAPI_KEYS="web:k#1,batch:k=2" # two\nLOG_LEVEL=debug\n',
        "crlf": b"\xef\xbb\xbfCT2_SMALL_PATH=" + MODEL + b"\r\nHOST=::1\r\nFALLBACK_URL=grpcs://f:50052\r\n",
    }


def realtime() -> dict[str, bytes]:
    audio_input = {
        "format": {"type": "audio/pcm", "rate": 16000},
        "transcription": {"model": "x", "language": "de-DE", "languages": ["en"], "keywords": ["a, b"], "prompt": "ä"},
        "turn_detection": {"type": "server_vad", "silence_duration_ms": 700, "threshold": 0.5},
        "noise_reduction": {"type": "near_field"},
    }
    older = {"input_audio_format": "g711_ulaw", "input_audio_transcription": None, "turn_detection": None}
    update = {"type": "session.update", "session": {"type": "transcription", "audio": {"input": audio_input}}}
    append = {"type": "input_audio_buffer.append", "audio": "AAEC", "event_id": "event_1"}
    commit, clear = ({"type": f"input_audio_buffer.{what}"} for what in ("commit", "clear"))
    return {
        "session": _lines(update, append, commit, clear),
        "older": _lines({"type": "transcription_session.update", "session": older}, append),
        "nulls": _lines({"type": "session.update", "session": {"audio": None}}, {"type": "session.update"}),
        "unknown": _lines({"type": "response.create", "event_id": 5}, [], 1.5),
    }


def _lines(*events: object) -> bytes:
    return "\n".join(json.dumps(event, ensure_ascii=False) for event in events).encode()


def wyoming() -> dict[str, bytes]:
    return {
        "utterance": b"".join(
            _event(event)
            for event in (
                Transcribe(language="de", transcript_names=["Küche", "Anna"]).event(),
                AudioStart(16_000, 2, 1).event(),
                AudioChunk(16_000, 2, 1, bytes(64)).event(),
                AudioStop().event(),
            )
        ),
        "describe": _event(Event("describe")),
        "ping": b'{"type": "ping", "data": {"text": "\\u00e4"}}\n',
        "both": b'{"type": "x", "data": {"a": 1}, "data_length": 8}\n{"b": 2}',
    }


def _event(event: Event) -> bytes:
    data, payload = json.dumps(event.data).encode(), event.payload or b""
    header = {"type": event.type, "data_length": len(data), "payload_length": len(payload)}
    return json.dumps(header).encode() + b"\n" + data + payload


def write(folder: Path) -> int:
    """Write all seeds below `folder`, keeping other files; return the number of bytes written."""
    total = 0
    for name, make in (
        ("decoder", decoder),
        ("form", form),
        ("openai_form", openai_form),
        ("content_type", content_type),
        ("config", config),
        ("realtime", realtime),
        ("wyoming", wyoming),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, data in make().items():
            (folder / name / file).write_bytes(data)
            total += len(data)
    return total
