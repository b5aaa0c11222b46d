"""`stt-primary`: the small model, which asks the fallback where it is unsure."""

from __future__ import annotations

import sys

from gateway.embedded import make_gateway
from stt_server.serve import run


def main() -> None:
    sys.exit(run("primary", make_gateway))


if __name__ == "__main__":
    main()
