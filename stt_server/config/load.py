"""Loads `Settings` from an `.env` file."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from envparse import NOTSET, ConfigurationError

from protos.stt.v1.spans import UNAVAILABLE, exportable
from stt_server import build
from stt_server.config.envfile import Entry, FileEnv, read_entries
from stt_server.config.errors import ConfigError
from stt_server.config.schema import KEYS, Key
from stt_server.config.settings import Settings
from stt_server.config.values import FallbackTarget, Role

_BY_NAME: Mapping[str, Key] = {key.name: key for key in KEYS}
MAX_FILE_BYTES = 1024 * 1024
"""Larger files are refused."""
_SHORT_KEY = 16
"""Characters. Shorter API keys cause a warning."""


def config_path(service: Role, environ: Mapping[str, str]) -> Path:
    """Path of the service's file: CONFIG_PATH of `environ`, else `stt_<service>.env` in the working directory."""
    return Path(environ.get("CONFIG_PATH") or f"stt_{service}.env")


def load(path: Path, service: Role) -> Settings:
    """Load settings from the file at `path`. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    return read(data, service, source=str(path))


def unreadable(path: Path, error: OSError) -> ConfigError:
    """Error for a file that is missing or can't be read."""
    hint = "; set CONFIG_PATH to its location" if isinstance(error, FileNotFoundError) else ""
    return ConfigError(str(path), f"can't read the configuration: {error.strerror}{hint}")


def read(data: bytes, service: Role, *, source: str) -> Settings:
    """Load settings from the content of a file; `source` names it in errors. Raises ConfigError."""
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(source, "larger than 1 MiB; expected a configuration file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(source, "not UTF-8 text", line=line) from None
    return parse(text, service, source=source)


def parse(text: str, service: Role, *, source: str = "config") -> Settings:
    """Load settings from the text of a file; `source` names it in errors. Raises ConfigError."""
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigError(source, "contains a NUL character; expected UTF-8 text", line=line)
    entries = read_entries(text, source)
    _refuse_unknown(entries, source)
    return _Reader(entries, service, source).settings()


def _refuse_unknown(entries: Mapping[str, Entry], source: str) -> None:
    for name, entry in entries.items():
        if name not in _BY_NAME:
            near = difflib.get_close_matches(name.upper(), _BY_NAME, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}?" if near else "docs/configuration.md lists all keys"
            raise ConfigError(source, f"unknown key; {hint}", line=entry.line, key=name)


class _Reader:
    """Turns the entries of one file into settings, checks them, and collects warnings."""

    def __init__(self, entries: Mapping[str, Entry], service: Role, source: str) -> None:
        self._entries = entries
        self._service = service
        self._source = source
        self._warnings: list[str] = []
        self._env = FileEnv(
            {name: entry.value for name, entry in entries.items()},
            **{key.name: self._schema_of(key) for key in KEYS},
        )

    def settings(self) -> Settings:
        values: dict[str, Any] = {}
        for key in KEYS:
            value = self._value_of(key)
            if self._service in key.services:
                values[key.field_name] = value
            else:
                values.setdefault(key.field_name, self._default_of(key))
                self._warn_of_no_effect(key)
        settings = Settings(service=self._service, **values)
        self._check_model(settings)
        self._check_files(settings)
        self._check_ports(settings)
        self._check_wyoming(settings)
        self._check_spans(settings)
        self._warn_of_short_keys(settings)
        return replace(
            settings,
            model_name=settings.model_name or _name_of(settings.model_path),
            fallback=self._with_tls(settings),
            server_commit=build.commit() if settings.server_commit == build.UNKNOWN else settings.server_commit,
            warnings=tuple(self._warnings),
        )

    def _schema_of(self, key: Key) -> dict[str, Any]:
        default = key.default_for(self._service)
        return {"cast": key.cast, "default": NOTSET if default is None else default}

    def _default_of(self, key: Key) -> Any:
        """Value of a key that has no effect on this service."""
        return None if key.default is None else key.cast(key.default)

    def _value_of(self, key: Key) -> Any:
        if self._service not in key.services and not self._is_set(key.name):
            return None
        if key.default is None and not self._is_set(key.name):
            raise self._error(key.name, f"required key is missing; expected {key.cast.expected}")
        try:
            return self._env(key.name)
        except ConfigurationError as error:
            raise self._refusal(key, str(error)) from None

    def _refusal(self, key: Key, hint: str) -> ConfigError:
        got = "" if key.secret else f", got {_shown(self._entries[key.name].value)}"
        return self._error(key.name, f"expected {key.cast.expected}{got}{f'; {hint}' if hint else ''}")

    def _error(self, name: str, problem: str) -> ConfigError:
        return ConfigError(self._source, problem, line=self._line(name), key=name)

    def _is_set(self, name: str) -> bool:
        return name in self._entries and self._entries[name].value != ""

    def _line(self, name: str) -> int | None:
        return self._entries[name].line if name in self._entries else None

    def _warn(self, name: str, text: str) -> None:
        self._warnings.append(f"{self._source}:{self._line(name)}: {name}: {text}")

    def _warn_of_no_effect(self, key: Key) -> None:
        if key.name in self._entries:
            self._warn(key.name, f"has no effect on the {self._service}")

    def _warn_of_short_keys(self, settings: Settings) -> None:
        short = [key.name for key in settings.api_keys if len(key.key) < _SHORT_KEY]
        if short:
            advice = f"shorter than {_SHORT_KEY} characters; generate keys with `openssl rand -hex 32`"
            self._warn("API_KEYS", f"{', '.join(short)}: {advice}")

    def _check_model(self, settings: Settings) -> None:
        key = "CT2_SMALL_PATH" if self._service == "primary" else "CT2_MEDIUM_PATH"
        if not _exists(settings.model_path / "model.bin"):
            problem = f"no model.bin in {_shown(str(settings.model_path))}"
            raise self._error(key, f"{problem}; expected {_BY_NAME[key].cast.expected}")

    def _check_files(self, settings: Settings) -> None:
        for name in ("TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA", "FALLBACK_CA", "FALLBACK_CERT", "FALLBACK_KEY"):
            path: Path | None = getattr(settings, name.lower())
            if path is not None and not _exists(path):
                raise self._error(name, f"file not found: {_shown(str(path))}; expected {_BY_NAME[name].cast.expected}")
        self._needs(settings, "TLS_CERT", "TLS_KEY")
        self._needs(settings, "TLS_KEY", "TLS_CERT")
        self._needs(settings, "TLS_CLIENT_CA", "TLS_CERT")
        self._needs(settings, "FALLBACK_CERT", "FALLBACK_KEY")
        self._needs(settings, "FALLBACK_KEY", "FALLBACK_CERT")

    def _needs(self, settings: Settings, name: str, other: str) -> None:
        if getattr(settings, name.lower()) is not None and getattr(settings, other.lower()) is None:
            raise self._error(name, f"requires {other}; set both or neither")

    def _check_ports(self, settings: Settings) -> None:
        if settings.http_port and settings.http_port == settings.grpc_port:
            name = "HTTP_PORT" if self._is_set("HTTP_PORT") else "GRPC_PORT"
            raise self._error(name, f"port {settings.http_port} is used for both gRPC and HTTP; set different ports")
        if settings.wyoming_port and settings.wyoming_port in (settings.grpc_port, settings.http_port):
            raise self._error("WYOMING_PORT", f"port {settings.wyoming_port} is used for gRPC or HTTP; set another")

    def _check_wyoming(self, settings: Settings) -> None:
        if settings.wyoming_port is None:
            return
        if settings.http_port is None:
            raise self._error("WYOMING_PORT", "requires the gateway; set HTTP_PORT to a port, or WYOMING_PORT=off")
        key = settings.wyoming_api_key
        if settings.api_keys and not key:
            raise self._error("WYOMING_API_KEY", "required with WYOMING_PORT and API_KEYS; expected one of API_KEYS")
        if settings.api_keys and key not in [known.key for known in settings.api_keys]:
            self._warn("WYOMING_API_KEY", "is not one of API_KEYS: calls through WYOMING_PORT will be refused")
        if settings.tls_cert is not None:
            self._warn("WYOMING_PORT", "the Wyoming protocol has no TLS; let only trusted callers reach the port")

    def _check_spans(self, settings: Settings) -> None:
        if settings.otlp_endpoint and not exportable():
            raise self._error("OTLP_ENDPOINT", f"{UNAVAILABLE}; or leave the key empty")

    def _with_tls(self, settings: Settings) -> FallbackTarget | None:
        """The fallback's target; without a `grpc(s)://` scheme it uses TLS if FALLBACK_CA or FALLBACK_CERT is set."""
        found = settings.fallback
        given = [name for name in ("FALLBACK_CA", "FALLBACK_CERT") if getattr(settings, name.lower()) is not None]
        if found is None or found.tls or not given:
            return found
        if self._entries["FALLBACK_URL"].value.lower().startswith("grpc://"):
            raise self._error(
                "FALLBACK_URL", f"grpc:// is not encrypted, but {given[0]} is set; write grpcs://host:port"
            )
        return replace(found, tls=True)


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a parent folder without permission
        return False


def _name_of(model_path: Path) -> str:
    """Name of the model's folder, made safe for a header."""
    name = Path(os.path.abspath(model_path)).name  # noqa: PTH100 - resolve() would follow a link named after the model
    return re.sub(r"[^ -~]", "?", name)[:128] or "model"


def _shown(value: str) -> str:
    """A value quoted for one line: shortened, and without the user info of a URL, which may be a password."""
    value = re.sub(r"//[^/@]*@", "//***@", value)
    return repr(value if len(value) <= 80 else f"{value[:77]}...")
