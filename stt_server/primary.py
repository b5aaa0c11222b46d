"""`stt-primary`: the small model, which asks the fallback where it is unsure."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    # A hang-up asks a service to read its file again. Until it listens, which takes the imports a second, a hang-up
    # would end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from gateway.embedded import make_gateway
    from stt_server.lifecycle.run import run

    sys.exit(run("primary", make_gateway))


if __name__ == "__main__":
    main()
