"""Opens recordings, to read them in blocks of 16-bit samples."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stt_client.recordings import decoding, wav
from stt_client.recordings.decoding import INSTALL, NotDecodable, pyav
from stt_client.recordings.wav import Int16, PcmLayout
from stt_client.request import AudioFormat

ALL_RATES_HZ = (4000, 192_000)
"""Sample rates that services accept in a file: lowest and highest."""


class DecoderMissing(Exception):
    """The recording needs PyAV, which is not installed."""

    def __init__(self) -> None:
        super().__init__(f"formats other than plain WAV need PyAV: {INSTALL}")


@dataclass(frozen=True)
class Source:
    """A recording that can be opened several times."""

    audio: Path | bytes
    raw: AudioFormat | None = None
    """Format of headerless audio; None: a file with a header."""

    @property
    def size(self) -> int:
        """Bytes. Raises OSError."""
        return len(self.audio) if isinstance(self.audio, bytes) else self.audio.stat().st_size

    def open(self) -> BinaryIO:
        """Raises OSError."""
        return io.BytesIO(self.audio) if isinstance(self.audio, bytes) else self.audio.open("rb")

    def seconds(self) -> float | None:
        """Duration, as far as the header states it; None: not known. Raises OSError."""
        with self.open() as file:
            layout = self._layout(file)
            if layout is not None:
                return wav.seconds_of(layout, file)
            file.seek(0)
            return decoding.stated_seconds(file)

    def read(self, rates: tuple[int, int]) -> Reading:
        """Open the recording and read its beginning.

        Args:
            rates: sample rates to read as they are, in hertz: lowest and highest. Others are resampled to 16 kHz.

        Raises:
            NotDecodable: it isn't a recording, or its codec isn't known.
            DecoderMissing: it needs PyAV, which is not installed.
            OSError: the file can't be read.
        """
        file = self.open()
        try:
            layout = self._layout(file)
            plain = layout is not None and rates[0] <= layout.sample_rate <= rates[1]
            if not plain and pyav() is None:
                raise DecoderMissing
            if layout is None:
                file.seek(0)
                channels, blocks = decoding.decoded(file)
                return Reading(decoding.SAMPLE_RATE, channels, _closing(file, blocks))
            blocks = wav.blocks_of(file, layout)
            if not plain:
                blocks = decoding.resampled(blocks, layout.sample_rate, layout.channels)
            rate = layout.sample_rate if plain else decoding.SAMPLE_RATE
            return Reading(rate, layout.channels, _closing(file, blocks))
        except BaseException:
            file.close()
            raise

    def _layout(self, file: BinaryIO) -> PcmLayout | None:
        if self.raw is not None:
            return PcmLayout(self.raw.sample_rate, self.raw.channels, self.raw.encoding)
        return wav.find_wav(file)


@dataclass(frozen=True)
class Reading:
    """A recording that is being read."""

    sample_rate: int
    """Hertz."""
    channels: int
    blocks: Iterator[Int16]
    """Of shape (frames, channels); read once."""


def source_of(audio: str | os.PathLike[str] | bytes, raw: AudioFormat | None) -> Source:
    """Describe the audio of a call."""
    return Source(audio if isinstance(audio, bytes) else Path(audio), raw)


def _closing(file: BinaryIO, blocks: Iterator[Int16]) -> Iterator[Int16]:
    with file:
        yield from blocks


__all__ = ["ALL_RATES_HZ", "DecoderMissing", "NotDecodable", "Reading", "Source", "source_of"]
