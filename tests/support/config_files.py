"""Model folders, configuration files and default values for tests of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from stt_server.config import KEYS, ConfigError, Role, Settings, parse
from stt_server.testing.services import MODEL_KEYS, make_model_folder


def make_model(folder: Path) -> Path:
    """Folder that the configuration accepts as a CTranslate2 model."""
    return make_model_folder(folder / "whisper-test")


def default_of(key: str, service: Role) -> str:
    """Default value of a configuration key as text; empty if it has none."""
    return next(each.default_for(service) or "" for each in KEYS if each.name == key)


class Reader:
    """Parser of lines behind a valid first one, the model's path: what it is given starts at line 2."""

    def __init__(self, model: Path) -> None:
        self.model = model

    def __call__(self, lines: str = "", service: Role = "primary") -> Settings:
        return parse(f"{MODEL_KEYS[service]}={self.model}\n{lines}", service, source="stt.env")

    def error(self, lines: str, service: Role = "primary") -> str:
        """Message of the expected `ConfigError`, which must be one line."""
        with pytest.raises(ConfigError) as caught:
            self(lines, service)
        message = str(caught.value)
        assert "\n" not in message
        return message
