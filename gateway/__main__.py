"""Entry point of `stt-gateway`."""

from __future__ import annotations

from protos.stt.v1.extras import needs_extra


def main() -> None:
    with needs_extra("stt-gateway", "gateway"):
        from gateway.command import main as run
    run()


if __name__ == "__main__":
    main()
