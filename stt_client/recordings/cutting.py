"""Cuts a recording into parts, at pauses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stt_client.recordings.wav import Int16

WINDOW_S = 0.02
"""Length of the windows in which energy is measured. Seconds."""
ZONE_S = 30.0
"""Stretch before the latest possible cut that is searched for a pause first. Seconds."""
PAUSE_S = 0.3
"""A pause at least as long ends the search within the zone; a shorter one starts it in half of the part. Seconds."""
SHORTEST_PAUSE_S = 0.1
"""Shorter gaps are not pauses: the cut is made in the quietest window instead. Seconds."""
REMAINDER_S = 1.0
"""Shortest last part: a shorter one would hardly contain a word. Seconds."""

_PAUSE_LEVEL = 0.25
"""Highest level of a pause, between the quiet (0) and the loud (1) windows of the stretch, in decibels."""
_FLOOR_DB = -90.0
"""Level of digital silence, about that of the last bit."""


@dataclass(frozen=True, eq=False)
class Part:
    """A stretch of a recording."""

    index: int
    start: int
    """First frame in the recording."""
    samples: Int16
    """Shape (frames, channels)."""


def cut(blocks: Iterable[Int16], sample_rate: int, max_frames: int) -> Iterator[Part]:
    """Yield parts of at most `max_frames` frames that together are the recording: nothing is left out or repeated.

    Holds about one part in memory. The same samples and limits give the same parts.

    Args:
        max_frames: at least two seconds.
    """
    remainder = round(REMAINDER_S * sample_rate)
    pending: list[Int16] = []
    count = index = start = 0
    for block in blocks:
        pending.append(block)
        count += len(block)
        while count >= max_frames + remainder:
            samples = np.concatenate(pending)
            end = find_cut(samples[:max_frames], sample_rate)
            yield Part(index, start, samples[:end])
            pending, count = [samples[end:].copy()], count - end
            index, start = index + 1, start + end
    while count:
        samples = np.concatenate(pending)
        # Between `max_frames` and a remainder more: the last cut leaves the remainder at least.
        end = count if count <= max_frames else find_cut(samples[: count - remainder], sample_rate)
        yield Part(index, start, samples[:end])
        pending, count = [samples[end:]], count - end
        index, start = index + 1, start + end


def find_cut(samples: Int16, sample_rate: int) -> int:
    """Frame at which to cut `samples`: in the middle of the longest pause near the end.

    The last `ZONE_S` seconds are searched, then the second half. Without a pause, as in music, it is the middle of
    the quietest `WINDOW_S` seconds, in which hardly a sound is cut.
    """
    window = max(1, round(WINDOW_S * sample_rate))
    half = len(samples) // 2
    zone = max(half, len(samples) - round(ZONE_S * sample_rate))
    levels = _levels(samples[zone:], window)
    begin, length = _longest_pause(levels)
    if length * WINDOW_S < PAUSE_S and zone > half:
        wide = _levels(samples[half:], window)
        wide_begin, wide_length = _longest_pause(wide)
        if wide_length > length:
            zone, begin, length = half, wide_begin, wide_length
    if length * WINDOW_S < SHORTEST_PAUSE_S:
        begin, length = int(np.argmin(levels)), 1
        zone = max(half, len(samples) - round(ZONE_S * sample_rate))
    return zone + begin * window + length * window // 2


def _levels(samples: Int16, window: int) -> npt.NDArray[np.float64]:
    """Level of each window in decibels of full scale: of the loudest channel, as channels may cancel in a mix."""
    count = max(1, len(samples) // window)
    shaped = samples[: count * window].reshape(count, -1, samples.shape[1])
    # In blocks of windows: squares of the whole stretch would take four times its memory.
    power = np.concatenate([np.mean(np.square(part, dtype=np.float32), axis=1) for part in np.array_split(shaped, 64)])
    level = 10 * np.log10(np.maximum(power.max(axis=1).astype(np.float64) / 32768.0**2, 1e-12))
    floored: npt.NDArray[np.float64] = np.maximum(level, _FLOOR_DB)
    return floored


def _longest_pause(levels: npt.NDArray[np.float64]) -> tuple[int, int]:
    """First window and number of windows of the longest quiet run; of equal ones the last. Length 0: there is none."""
    quiet, loud = np.percentile(levels, (10, 99))
    is_quiet = levels <= quiet + _PAUSE_LEVEL * (loud - quiet)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], is_quiet, [False])).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    lengths = ends - begins
    if not len(lengths):
        return 0, 0
    longest = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
    return int(begins[longest]), int(lengths[longest])
