"""How the libraries that compute on the CPU use it: CTranslate2 and its OpenMP."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

SPINS = 1000
"""Checks before a waiting thread sleeps: some 10 microseconds, so that the threads of one inference rarely sleep."""
FAST_AVX512 = frozenset({"avx512f", "avx512cd", "avx512dq", "avx512bw", "avx512vl", "avx512_vbmi2"})
"""Flags of processors whose clock hardly drops with AVX-512: Intel's from Ice Lake on, AMD's from Zen 4 on.

CTranslate2's kernels need all but the last one, which Skylake and Cascade Lake lack.
"""


set_here: set[str] = set()
"""Environment variables that `configure_cpu_libraries` has set in this process. Its child processes inherit them."""


def configure_cpu_libraries() -> None:
    """Set what serves this service best, unless the environment says otherwise.

    Must be called before CTranslate2 is imported: its OpenMP reads the environment then.
    """
    for name, value in (_waiting() | _instruction_set()).items():
        os.environ[name] = value
        set_here.add(name)


def _waiting() -> dict[str, str]:
    """Let OpenMP's threads sleep soon while they wait.

    By default an OpenMP thread spins for milliseconds while it waits for the other threads of its inference. If one of
    them has lost its core to another program, the others burn processor time until it gets the core back.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return {}
    # With the policy `active`, since OpenMP checks 100 times only if there are more threads than cores.
    wanted = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": str(SPINS)}
    # For Intel's and LLVM's OpenMP, which know no such number and would spin forever by that policy.
    return wanted if "KMP_BLOCKTIME" in os.environ else {**wanted, "KMP_BLOCKTIME": "0"}


def _instruction_set() -> dict[str, str]:
    """Have CTranslate2's own kernels (softmax, quantization, activations) use AVX-512, which it never does by itself.

    Source: CTranslate2's pull request 1108. MKL and oneDNN choose their instructions themselves.
    """
    wanted = "CT2_FORCE_CPU_ISA" not in os.environ and has_fast_avx512()
    return {"CT2_FORCE_CPU_ISA": "AVX512"} if wanted else {}


def has_fast_avx512(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this is Linux on an x86-64 processor with `FAST_AVX512`."""
    if platform.machine() != "x86_64":
        return False
    with contextlib.suppress(OSError), cpu_info.open(encoding="utf-8", errors="replace") as lines:
        return any(line.startswith("flags") and set(line.split()) >= FAST_AVX512 for line in lines)
    return False
