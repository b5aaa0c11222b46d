"""Mutated inputs: files of a corpus with a few changes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
"""Numbers at the limits of sizes and counts."""

_LONGEST = 1 << 16
"""Longest run of bytes that is removed."""

Change = Callable[[bytearray, int, int, bytes], None]


def _flip(data: bytearray, at: int, number: int, other: bytes) -> None:
    data[at] ^= 1 << number % 8


def _set(data: bytearray, at: int, number: int, other: bytes) -> None:
    data[at] = number % 256


def _put(data: bytearray, at: int, number: int, other: bytes) -> None:
    """Overwrite with a number of 2, 4 or 8 bytes in either byte order."""
    value = _NUMBERS[number % len(_NUMBERS)]
    form = ("<H", ">H", "<I", ">I", "<Q", ">Q")[number // 16 % 6]
    size = struct.calcsize(form)
    data[at : at + size] = struct.pack(form, value & (1 << 8 * size) - 1)


def _cut_out(data: bytearray, at: int, number: int, other: bytes) -> None:
    del data[at : at + 1 + number % _LONGEST]


def _repeat(data: bytearray, at: int, number: int, other: bytes) -> None:
    part = data[at : at + 1 + number % 256]
    data[at:at] = part * (1 + number // 256 % 16)


def _truncate(data: bytearray, at: int, number: int, other: bytes) -> None:
    del data[at:]


def _splice(data: bytearray, at: int, number: int, other: bytes) -> None:
    """Continue with another file."""
    data[at:] = other[number % (len(other) or 1) :]


def _insert(data: bytearray, at: int, number: int, other: bytes) -> None:
    """Insert a part of another file."""
    first = number % (len(other) or 1)
    data[at:at] = other[first : first + number // 7 % 512]


_CHANGES: tuple[Change, ...] = (_flip, _set, _put, _put, _cut_out, _repeat, _truncate, _splice, _insert)


def mutated(seeds: Sequence[bytes], most_changes: int = 8) -> st.SearchStrategy[bytes]:
    """One of `seeds` with up to `most_changes` changes, half of them within the first 128 bytes."""
    numbers = st.integers(0, 2**32 - 1)
    change = st.tuples(st.sampled_from(_CHANGES), numbers, numbers, st.booleans(), st.sampled_from(seeds))
    return st.builds(_apply, st.sampled_from(seeds), st.lists(change, max_size=most_changes))


def _apply(seed: bytes, changes: list[tuple[Change, int, int, bool, bytes]]) -> bytes:
    data = bytearray(seed)
    for change, place, number, in_header, other in changes:
        if data:
            change(data, place % (min(len(data), 128) if in_header else len(data)), number, other)
    return bytes(data)
