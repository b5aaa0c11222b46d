"""How the threads of one inference wait for each other."""

from __future__ import annotations

import os


def wait_passively() -> None:
    """Let OpenMP's threads sleep instead of spinning while they wait, unless the environment says otherwise.

    By default a thread spins while it waits for the others of its inference. If one of them has lost its core to
    another program, the rest burn processor time until it gets the core back. Must be called before CTranslate2 is
    imported, since its OpenMP reads the environment then.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
