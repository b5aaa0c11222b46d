"""What there is to know of one key of a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from stt_server.config.casts import Cast
from stt_server.config.values import Role

_BOTH: tuple[Role, ...] = ("primary", "fallback")


@dataclass(frozen=True)
class Key:
    """One key."""

    name: str
    cast: Cast
    default: str | None
    """As it would be written in the file; empty: nothing set. None: the key is required."""
    meaning: str
    fallback_default: str | None = None
    """The fallback's default, where it isn't the primary's."""
    services: tuple[Role, ...] = _BOTH
    """Where the key has an effect. Elsewhere it is accepted, with a warning."""
    secret: bool = False
    """The value is never printed."""
    live: bool = False
    """A change is taken up by a running service; else it waits for a restart."""
    field: str = ""
    """Name of the field in `Settings`; empty: the key's name in lower case."""
    default_means: str = ""
    """What an empty default stands for."""

    @property
    def field_name(self) -> str:
        """Name of the field in `Settings` that holds the value."""
        return self.field or self.name.lower()

    def default_for(self, service: Role) -> str | None:
        """The default as it would be written in that service's file; None: required there."""
        if service == "fallback" and self.fallback_default is not None:
            return self.fallback_default
        return self.default
