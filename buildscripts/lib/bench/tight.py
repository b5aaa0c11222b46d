"""`bench tight`: how many short clips, such as single words cut tight, are detected as speech and give a text.

FOLDER holds WAV files, also in folders: each of `--shortest` to `--longest` seconds counts. Telephone prompts have many
letters, digits and words of this length: Debian's packages asterisk-core-sounds-{en,es,fr,it,ru}-wav, unpacked with
`dpkg -x`. Clips are evaluated as uploads and as live streams, each alone and between silence. With `--model`, they
are also recognized, with the language detected.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from buildscripts.lib.bench.engine import model_folder
from stt_server.audio import SAMPLE_RATE, AudioFormat, Chunk, decode, split
from stt_server.audio.mono import FloatArray
from stt_server.engine.loading import ModelOptions
from stt_server.engine.types import DecodeOptions
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.errors import EmptyAudio
from stt_server.streaming.events import ENDPOINT_SILENCE, SpeechStarted
from stt_server.streaming.segmenter import UtteranceSegmenter

LINEAR16 = AudioFormat("linear16", SAMPLE_RATE, 1)
SILENCE_S = 1.0
"""Silence before and after a clip, where there is any, in seconds."""


def clips(folder: Path, shortest: float, longest: float) -> Iterator[FloatArray]:
    """Recordings of this many seconds, mono at 16 kHz."""
    for path in sorted(folder.rglob("*.wav")):
        try:
            samples = decode(path.read_bytes(), AudioFormat(), max_seconds=3600)
        except EmptyAudio:
            continue
        if shortest <= len(samples) / SAMPLE_RATE < longest:
            yield samples


def upload_chunks(samples: FloatArray) -> list[Chunk]:
    """The chunks of a recording that may be speech."""
    return split(samples, vad_filter=True)


def stream_chunks(samples: FloatArray) -> list[Chunk]:
    """The utterances of a live stream that ends after the recording."""
    segmenter = UtteranceSegmenter(LINEAR16, ENDPOINT_SILENCE)
    data = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    found = []
    for events in (segmenter.add(data), segmenter.finish()):
        found += [segmenter.chunk(event.bounds) for event in events if not isinstance(event, SpeechStarted)]
    return found


def in_silence(samples: FloatArray) -> FloatArray:
    return np.pad(samples, round(SILENCE_S * SAMPLE_RATE))


WAYS: dict[str, Callable[[FloatArray], list[Chunk]]] = {
    "upload": upload_chunks,
    "upload, in silence": lambda samples: upload_chunks(in_silence(samples)),
    "stream": stream_chunks,
    "stream, in silence": lambda samples: stream_chunks(in_silence(samples)),
}


def has_text(model: WhisperRecognizer, chunks: Sequence[Chunk]) -> bool:
    """Whether any chunk gives a text that is returned."""
    return any(model.recognize(chunk, DecodeOptions()).text for chunk in chunks)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench tight", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--shortest", type=float, default=0.1, help="seconds; default: 0.1")
    parser.add_argument("--longest", type=float, default=0.6, help="seconds; default: 0.6")
    parser.add_argument("--model", type=model_folder, help="base, tiny.en, ... or a model folder")
    args = parser.parse_args(argv)
    found = list(clips(args.folder, args.shortest, args.longest))
    print(f"{len(found)} clips of {args.shortest} to {args.longest} s")
    model = WhisperRecognizer(ModelOptions(args.model, args.model.name, compute_type="int8")) if args.model else None
    for way, chunks_of in WAYS.items():
        chunks = [chunks_of(samples) for samples in found]
        certain = sum(any(chunk.speech_certain for chunk in own) for own in chunks)
        line = f"{way}: {sum(map(bool, chunks))} detected, {certain} of them certainly"
        if model is not None:
            line += f"; {sum(has_text(model, own) for own in chunks)} give a text"
        print(line, flush=True)
    return 0
