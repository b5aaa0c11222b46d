"""A real pair with TLS on every connection, and its certificates."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from stt_server.testing.scripted_model import Script
from stt_server.testing.services import GatewayProcess, ServiceProcess, running
from tests.faults.steady import NO_RETRY
from tests.support.certificates import Pair, authority, signed

KEY = "a-key-0123456789"
THEIRS = "the fallback says"


class Mounted:
    """Files as Kubernetes mounts a Secret: links through `..data`, which is replaced atomically."""

    def __init__(self, folder: Path, files: dict[str, Path]) -> None:
        self._folder = folder
        self._version = 0
        self._files: dict[str, bytes] = {}
        folder.mkdir()
        self.swap(files)
        for name in files:
            (folder / name).symlink_to(f"..data/{name}")

    def __getitem__(self, name: str) -> Path:
        return self._folder / name

    def swap(self, files: dict[str, Path]) -> None:
        """Replace the contents of `files` atomically."""
        self._files |= {name: path.read_bytes() for name, path in files.items()}
        self._version += 1
        version = self._folder / f"..{self._version}"
        version.mkdir()
        for name, data in self._files.items():
            (version / name).write_bytes(data)
        fresh = self._folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self._folder / "..data")


@dataclass(frozen=True)
class Deployment:
    """Mutual TLS everywhere; the fallback also requires a key."""

    folder: Path
    authority: Pair
    """Authority that signed all certificates."""
    client: Pair
    """Client certificate of callers."""
    primary: ServiceProcess
    primary_files: Mounted
    """Its `server.pem`, `server.key`, `callers.pem`, `to-fallback.pem` and `to-fallback.key`."""
    fallback: ServiceProcess
    gateway: int
    """Port of a standalone gateway, for callers without a certificate."""
    gateway_files: Mounted
    """Its `server.pem`, `server.key`, `client.pem` and `client.key`."""

    def credentials(self, client: Pair | None = None, ca: Path | None = None) -> grpc.ChannelCredentials:
        shown = client or self.client
        trusted = (ca or self.authority.cert).read_bytes()
        return grpc.ssl_channel_credentials(trusted, shown.key.read_bytes(), shown.cert.read_bytes())

    def channel(self, client: Pair | None = None) -> grpc.aio.Channel:
        """Open a channel to the primary."""
        return grpc.aio.secure_channel(self.primary.target, self.credentials(client), NO_RETRY)

    def context(self, client: Pair | None = None, *, bare: bool = False) -> ssl.SSLContext:
        """HTTPS client; `bare`: without a client certificate."""
        context = ssl.create_default_context(cafile=str(self.authority.cert))
        if not bare:
            shown = client or self.client
            context.load_cert_chain(shown.cert, shown.key)
        return context


@contextmanager
def deployment(folder: Path) -> Iterator[Deployment]:
    """Start the pair, and wait until it is ready."""
    ca = authority(folder, "authority")
    pairs = {name: signed(folder, name, ca) for name in ("server", "client", "to-fallback", "gateway")}
    files = {"server.pem": pairs["server"].cert, "server.key": pairs["server"].key, "callers.pem": ca.cert}
    towards = {"to-fallback.pem": pairs["to-fallback"].cert, "to-fallback.key": pairs["to-fallback"].key}
    mounted = Mounted(folder / "primary-tls", files | towards)
    tls: dict[str, object] = {"VAD_FILTER": "false", "TLS_CLIENT_CA": ca.cert}
    served = {"TLS_CERT": pairs["server"].cert, "TLS_KEY": pairs["server"].key, "API_KEYS": f"primary:{KEY}"}
    fallback = ServiceProcess("fallback", folder / "fallback", tls | served, Script(text=THEIRS))
    with running(fallback):
        keys = tls | {
            "TLS_CERT": mounted["server.pem"],
            "TLS_KEY": mounted["server.key"],
            "TLS_CLIENT_CA": mounted["callers.pem"],
            "FALLBACK_URL": f"grpcs://localhost:{fallback.grpc_port}",
            "FALLBACK_API_KEY": KEY,
            "FALLBACK_CA": ca.cert,
            "FALLBACK_CERT": mounted["to-fallback.pem"],
            "FALLBACK_KEY": mounted["to-fallback.key"],
        }
        primary = ServiceProcess("primary", folder / "primary", keys, Script())
        with running(primary):
            own = {"server.pem": pairs["gateway"].cert, "server.key": pairs["gateway"].key}
            shown = Mounted(
                folder / "gateway-tls", own | {"client.pem": pairs["client"].cert, "client.key": pairs["client"].key}
            )
            to_service = ("--ca", ca.cert, "--cert", shown["client.pem"], "--key", shown["client.key"])
            to_callers = ("--tls-cert", shown["server.pem"], "--tls-key", shown["server.key"])
            arguments = tuple(map(str, (*to_service, *to_callers)))
            gateway = GatewayProcess(folder / "gateway", f"grpcs://localhost:{primary.grpc_port}", arguments)
            with running(gateway):
                yield Deployment(folder, ca, pairs["client"], primary, mounted, fallback, gateway.port, shown)
