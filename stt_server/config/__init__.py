"""The configuration of a service, read from an `.env` file; the process environment has no part in it.

`docs/configuration.md` lists the keys; `keys.KEYS` is the table that everything here follows.
"""

from stt_server.config.errors import ConfigError
from stt_server.config.key import Key
from stt_server.config.load import config_path, load, parse
from stt_server.config.schema import KEYS
from stt_server.config.settings import Settings
from stt_server.config.values import ApiKey, FallbackTarget, Network, Role

__all__ = [
    "KEYS",
    "ApiKey",
    "ConfigError",
    "FallbackTarget",
    "Key",
    "Network",
    "Role",
    "Settings",
    "config_path",
    "load",
    "parse",
]
