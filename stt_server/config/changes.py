"""What of a changed file a running service takes up, and what waits for a restart."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stt_server.config.envfile import read_entries
from stt_server.config.errors import ConfigError
from stt_server.config.schema import KEYS
from stt_server.config.settings import Settings


@dataclass(frozen=True)
class Change:
    """From the settings that are in effect to those of a changed file."""

    settings: Settings
    """What is to be in effect: the live keys as the file has them, all others as they were."""
    taken: tuple[str, ...]
    """Names of the live keys that differ."""
    waiting: tuple[str, ...]
    """Names of the keys that differ and wait for a restart."""

    @property
    def names_fallback(self) -> bool:
        """Whether it says anything new of the fallback."""
        return any(name.startswith("FALLBACK_") for name in self.taken)


def change(running: Settings, wanted: Settings) -> Change:
    """What it means for a service that runs with `running` that its file now says `wanted`."""
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


def refuse_to_open(running: Settings, wanted: Settings, data: bytes, *, source: str) -> None:
    """A file that has lost its line of keys is taken for half of one.

    Raises:
        ConfigError: it would open a service to everyone that had keys, without saying so.
    """
    if running.api_keys and not wanted.api_keys and "API_KEYS" not in read_entries(data.decode(), source):
        problem = "is gone, which would open the service to everyone: write API_KEYS= if that is meant"
        raise ConfigError(source, problem, key="API_KEYS")


def refuse_torn(before: bytes, data: bytes, *, source: str) -> None:
    """Of a file that was cut off, what is left may well be a configuration, and a line may lack its end.

    Raises:
        ConfigError: `data` is the beginning of what was taken up before, and ends without an end of its line. (Who
            deletes the last lines of a file leaves one there; where it was cut at such an end, nothing tells.)
    """
    if data and before.startswith(data) and before[len(data) :].strip() and not data.endswith((b"\n", b"\r")):
        raise ConfigError(source, "the file was cut off within this line", line=data.count(b"\n") + 1)
