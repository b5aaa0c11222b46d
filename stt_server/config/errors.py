"""The error raised for invalid configuration."""

from __future__ import annotations


class ConfigError(Exception):
    """Configuration that the service can't start with.

    The message is one line that names the file, the line, the key, and what was expected. It never contains a secret.
    """

    def __init__(self, source: str, problem: str, *, line: int | None = None, key: str | None = None) -> None:
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {problem}" if key is None else f"{where}: {key}: {problem}")
        self.source = source
        """Path of the file as it was given."""
        self.line = line
        """Line number from 1; None if no line is at fault (missing key or file)."""
        self.key = key
        """None if no key is at fault."""


class FileChangedError(ConfigError):
    """A file was replaced while it was read; reading it again may succeed."""
