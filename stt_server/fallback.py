"""`stt-fallback`: the larger model, which the primary asks."""

from __future__ import annotations

import sys

from gateway.embedded import make_gateway
from stt_server.serve import run


def main() -> None:
    sys.exit(run("fallback", make_gateway))


if __name__ == "__main__":
    main()
