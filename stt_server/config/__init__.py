"""Configuration of a service, read from an `.env` file only: the process environment is ignored.

`schema.KEYS` defines the keys; `docs/configuration.md` documents them.
"""

from stt_server.config.errors import ConfigError, FileChangedError
from stt_server.config.load import config_path, load, parse
from stt_server.config.schema import KEYS, Key
from stt_server.config.settings import Settings
from stt_server.config.values import ApiKey, FallbackTarget, Network, Role

__all__ = [
    "KEYS",
    "ApiKey",
    "ConfigError",
    "FallbackTarget",
    "FileChangedError",
    "Key",
    "Network",
    "Role",
    "Settings",
    "config_path",
    "load",
    "parse",
]
