"""A fake of the module `pynvml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class ScriptedError(Exception):
    """Replaces `pynvml.NVMLError`."""


@dataclass
class FakeNvml:
    """Fake NVML with one set of values per board; functions in `failing` raise."""

    NVMLError: type[Exception] = ScriptedError
    uuids: tuple[str, ...] = ("GPU-aaaa-1", "GPU-aabb-2", "GPU-cccc-3")
    failing: set[str] = field(default_factory=set)
    mig: bool = False
    calls: list[str] = field(default_factory=list)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise ScriptedError(f"{name}: Not Supported")

    def nvmlInit(self) -> None:
        self._called("nvmlInit")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if not 0 <= index < len(self.uuids):
            raise ScriptedError("Invalid Argument")
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return self.uuids[handle]

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"Board {handle}"

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        self._called("nvmlDeviceGetMigMode")
        return [int(self.mig), int(self.mig)]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        self._called("nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=10 * handle, memory=1)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        self._called("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(used=512 * 2**20, total=24564 * 2**20, free=0)
