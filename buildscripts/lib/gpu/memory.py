"""Memory of a device: its peak during a block, and a block in which hardly any is left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import numpy as np

READ_EVERY_S = 0.01
_BLOCKS_MIB = (1024, 256, 64, 16)
"""Sizes of the blocks that fill a device, largest first."""

UsedMib = Callable[[], float | None]
"""MiB in use on the device by all processes; None if that can't be read."""


class PeakMemory:
    """Context manager that reads the memory in use until it is left; `mib` is the highest value."""

    def __init__(self, used_mib: UsedMib) -> None:
        self._used_mib = used_mib
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        self.mib: float | None = None
        """Highest value read; None if none could be read."""

    def __enter__(self) -> PeakMemory:
        self._read()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._read()

    def _watch(self) -> None:
        while not self._ended.wait(READ_EVERY_S):
            self._read()

    def _read(self) -> None:
        used = self._used_mib()
        if used is not None:
            self.mib = used if self.mib is None else max(self.mib, used)


@contextmanager
def filled_device() -> Iterator[None]:
    """Hold nearly all of the GPU's free memory during the block."""
    import ctranslate2

    def block(mib: int) -> object:
        host = ctranslate2.StorageView.from_array(np.zeros((mib, 1 << 18), dtype=np.float32))
        return host.to_device(ctranslate2.Device.cuda)

    with filled(block):
        yield


@contextmanager
def filled(allocate: Callable[[int], object]) -> Iterator[None]:
    """Hold blocks of memory during the block: as many of each size as can be had.

    Args:
        allocate: returns a block of so many MiB, or raises RuntimeError if there is no room.
    """
    held: list[object] = []
    for mib in _BLOCKS_MIB:
        while True:
            try:
                held.append(allocate(mib))
            except RuntimeError:
                break
    try:
        yield
    finally:
        held.clear()
