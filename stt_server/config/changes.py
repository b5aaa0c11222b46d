"""Compares the configuration in effect with a changed file."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stt_server.config.envfile import read_entries
from stt_server.config.errors import ConfigError
from stt_server.config.schema import KEYS
from stt_server.config.settings import Settings


@dataclass(frozen=True)
class Change:
    """Difference between the settings in effect and those of a changed file."""

    settings: Settings
    """Settings to apply: live keys from the file, the others unchanged."""
    applied: tuple[str, ...]
    """Names of the live keys that differ."""
    waiting: tuple[str, ...]
    """Names of the differing keys that need a restart."""

    @property
    def names_fallback(self) -> bool:
        """Whether a `FALLBACK_*` key is applied."""
        return any(name.startswith("FALLBACK_") for name in self.applied)


def compare(running: Settings, wanted: Settings) -> Change:
    """Split the keys that differ into those that can be applied now and those that need a restart.

    Args:
        running: settings in effect.
        wanted: settings of the changed file.
    """
    differing = [
        key
        for key in KEYS
        if running.service in key.services and getattr(running, key.field_name) != getattr(wanted, key.field_name)
    ]
    live = {key.field_name: getattr(wanted, key.field_name) for key in differing if key.live}
    return Change(
        replace(running, **live, warnings=wanted.warnings),
        tuple(key.name for key in differing if key.live),
        tuple(key.name for key in differing if not key.live),
    )


def refuse_removed_keys(running: Settings, wanted: Settings, data: bytes, *, source: str) -> None:
    """Refuse a file without an API_KEYS line if keys are in effect: it is probably incomplete.

    Raises:
        ConfigError: applying the file would disable authentication without saying so.
    """
    if running.api_keys and not wanted.api_keys and "API_KEYS" not in read_entries(data.decode(), source):
        problem = "was removed; refusing to disable authentication. Set API_KEYS= to do so deliberately"
        raise ConfigError(source, problem, key="API_KEYS")


def refuse_truncated(before: bytes, data: bytes, *, source: str) -> None:
    """Refuse a file that was cut off within a line: what is left may be valid by chance.

    A file cut off between two lines can't be told from one whose last lines were deleted.

    Args:
        before: content of the file in effect.
        data: content of the changed file.

    Raises:
        ConfigError: `data` is a prefix of `before` and has no newline at its end.
    """
    if data and before.startswith(data) and before[len(data) :].strip() and not data.endswith((b"\n", b"\r")):
        problem = "the file is truncated within this line; if lines were deleted, end it with a newline"
        raise ConfigError(source, problem, line=data.count(b"\n") + 1)
