"""The service under attack by the hostile tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.faults.hostile import KEY


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A primary with a key. Afterwards it must exit cleanly, without unexpected lines in its log."""
    keys: dict[str, object] = {"API_KEYS": f"web:{KEY}", "MAX_UPLOAD_MB": 1, "MAX_AUDIO_SECONDS": 60}
    keys |= {"WYOMING_PORT": 0, "WYOMING_API_KEY": KEY}
    service = ServiceProcess("primary", tmp_path_factory.mktemp("attacked"), keys, Script())
    with running(service):
        yield service
        assert service.stop() == 0
        log = service.log_text()
        assert KEY not in log
        assert "Traceback" not in log, log[log.index("Traceback") - 1000 :][:4000]
