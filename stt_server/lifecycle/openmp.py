"""How the threads of one inference wait for each other."""

from __future__ import annotations

import os

SPINS = 1000
"""Checks before a waiting thread sleeps: some 10 microseconds, so that the threads of one inference rarely sleep."""


def wait_briefly() -> None:
    """Let OpenMP's threads sleep soon while they wait, unless the environment says otherwise.

    By default an OpenMP thread spins for milliseconds while it waits for the other threads of its inference. If one of
    them has lost its core to another program, the others burn processor time until it gets the core back. Must be
    called before CTranslate2 is imported, since its OpenMP reads the environment then.
    """
    if "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "active"  # else 100 checks if there are more threads than cores
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
        # For Intel's and LLVM's OpenMP, which know no such number and would spin forever by that policy.
        os.environ.setdefault("KMP_BLOCKTIME", "0")
