"""What the tests of the configuration share: a model folder, and files that name it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stt_server.config import ConfigError, Role, Settings, parse

MODEL_KEY: dict[Role, str] = {"primary": "CT2_SMALL_PATH", "fallback": "CT2_MEDIUM_PATH"}


def make_model(folder: Path) -> Path:
    """A folder that looks like a CTranslate2 model to the configuration."""
    model = folder / "whisper-test"
    model.mkdir()
    (model / "model.bin").write_bytes(b"")
    return model


class Reader:
    """Parses lines behind a valid first one: what is given starts at line 2."""

    def __init__(self, model: Path) -> None:
        self.model = model

    def __call__(self, lines: str = "", service: Role = "primary") -> Settings:
        return parse(f"{MODEL_KEY[service]}={self.model}\n{lines}", service, source="stt.env")

    def error(self, lines: str, service: Role = "primary") -> str:
        """The error, which is one line."""
        with pytest.raises(ConfigError) as caught:
            self(lines, service)
        message = str(caught.value)
        assert "\n" not in message
        return message
