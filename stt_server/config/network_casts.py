"""Casts for addresses, gRPC targets, origins and API keys."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

from stt_server.config.casts import Cast, comma_list, secret
from stt_server.config.values import ApiKey, FallbackTarget, Network

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"({_LABEL}\.)*{_LABEL}\.?")
_KEY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]@]+):(?P<port>[0-9]{1,5})")
_GRPC_TARGET = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):\S+")


def is_host(text: str) -> bool:
    """Whether `text` is an IP address or a host name, without port or brackets."""
    try:
        ip_address(text)
    except ValueError:
        # A name whose last label is numeric is a mistyped address.
        last = text.rstrip(".").rpartition(".")[2]
        return len(text) <= 253 and bool(_HOST_NAME.fullmatch(text)) and not last.isdigit()
    return True


def _read_host(text: str) -> str:
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not is_host(host):
        raise ValueError
    return host


host = Cast("an address or a host name, without a port", _read_host)


def _read_network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise ValueError from None
    raise ValueError(f"{text} has host bits set; for the network write {loose}")


networks = comma_list(_read_network, "addresses and networks such as 10.0.0.0/8, comma-separated")


def _read_origin(text: str) -> str:
    if text == "*":
        return text
    match = _URL.fullmatch(text)
    if not match or match["scheme"] not in ("http", "https") or match["rest"] not in ("", "/"):
        raise ValueError
    with_port = _AUTHORITY.fullmatch(match["authority"])
    if not is_host((with_port["host"] if with_port else match["authority"]).strip("[]")):
        raise ValueError
    return f"{match['scheme']}://{match['authority'].lower()}"


origins = comma_list(_read_origin, "origins such as https://app.example.org, comma-separated, or *")


def _is_host_and_port(text: str) -> bool:
    match = _AUTHORITY.fullmatch(text)
    return match is not None and 0 < int(match["port"]) <= 65535 and is_host(match["host"].strip("[]"))


def _http_hint(scheme: str, authority: str) -> str:
    with_port = _AUTHORITY.fullmatch(authority)
    host = with_port["host"] if with_port else authority
    host = host if is_host(host.strip("[]")) else "host"
    grpc = "grpcs" if scheme == "https" else "grpc"
    return f"the fallback speaks gRPC; write {grpc}://{host}:50052 (its GRPC_PORT)"


def _read_target(text: str) -> FallbackTarget:
    url = _URL.fullmatch(text)
    scheme = url["scheme"].lower() if url else ""
    if url and scheme in ("http", "https"):
        raise ValueError(_http_hint(scheme, url["authority"]))
    if url and scheme in ("grpc", "grpcs"):
        if not _is_host_and_port(url["authority"]) or url["rest"] not in ("", "/"):
            raise ValueError
        return FallbackTarget(f"dns:///{url['authority']}", tls=scheme == "grpcs")
    if _GRPC_TARGET.fullmatch(text):
        return FallbackTarget(text, tls=False)
    if not _is_host_and_port(text):
        raise ValueError
    return FallbackTarget(f"dns:///{text}", tls=False)


target = Cast("grpc://host:port, grpcs://host:port (TLS), or a gRPC target such as dns:///name:port", _read_target)


def _read_otlp(text: str) -> str:
    url = _URL.fullmatch(text)
    if not url or url["scheme"] not in ("http", "https") or url["rest"] not in ("", "/"):
        raise ValueError
    if not _is_host_and_port(url["authority"]):
        raise ValueError
    return f"{url['scheme']}://{url['authority']}"


otlp = Cast("http://host:port or https://host:port (TLS); usually port 4317", _read_otlp)


def _read_api_key(text: str) -> ApiKey:
    name, colon, key = text.partition(":")
    if not colon:
        name, key = "", text
    if colon and not _KEY_NAME.fullmatch(name):
        raise ValueError("a key name has at most 64 letters, digits, '.', '_' and '-'")
    return ApiKey(name, secret(key))


def _read_api_keys(text: str) -> tuple[ApiKey, ...]:
    read: tuple[ApiKey, ...] = _API_KEY_LIST(text)
    keys = tuple(ApiKey(key.name or f"key{n}", key.key) for n, key in enumerate(read, start=1))
    if len({key.name for key in keys}) < len(keys):
        raise ValueError("duplicate key name (unnamed keys are named key1, key2, ... by position)")
    if len({key.key for key in keys}) < len(keys):
        raise ValueError("duplicate API key")
    return keys


_API_KEY_LIST = comma_list(_read_api_key, "keys or name:key pairs, comma-separated; printable ASCII without spaces")
api_keys = Cast(_API_KEY_LIST.expected, _read_api_keys)
