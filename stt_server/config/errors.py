"""The one error of reading a configuration."""

from __future__ import annotations


class ConfigError(Exception):
    """A configuration that the service can't start with.

    `str()` of it is one line that names the file, the line, the key and what the key takes. It never holds the value
    of a secret.
    """

    def __init__(self, source: str, problem: str, *, line: int | None = None, key: str | None = None) -> None:
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {problem}" if key is None else f"{where}: {key}: {problem}")
        self.source = source
        """The file, as it was named."""
        self.line = line
        """Counted from 1; None where no line is at fault (a missing key, a missing file)."""
        self.key = key
        """None where no key is at fault."""
