"""`stt-fallback`: the larger model, called by the primary."""

from __future__ import annotations

import signal
import sys

from protos.stt.v1.extras import needs_extra
from stt_server.lifecycle.cpu_libraries import configure_cpu_libraries


def main() -> None:
    # SIGHUP means reload. Until the handler is installed, after a second of imports, the default would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    configure_cpu_libraries()
    with needs_extra("stt-fallback", "server"):
        from gateway.embedded import make_gateway
        from stt_server.lifecycle.run import run

    sys.exit(run("fallback", make_gateway))


if __name__ == "__main__":
    main()
