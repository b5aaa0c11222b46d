"""How the threads of one inference wait for each other."""

from __future__ import annotations

import os


def wait_passively() -> None:
    """Let OpenMP's threads sleep instead of spinning while they wait, unless the environment says otherwise.

    By default they spin for a moment. While another program has the core that one of them needs, the others spin all
    the time that they have. Must be called before CTranslate2 is imported: its OpenMP reads the environment then.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
