"""Who may call: the service is ready, the key is known, the rate is kept."""

from __future__ import annotations

from collections.abc import Sequence

from protos.stt.v1.wire import AUTHORIZATION, X_FORWARDED_FOR
from stt_server.config import Network, Settings
from stt_server.errors import NotReady
from stt_server.lifecycle.readiness import Readiness
from stt_server.rpc.call_state import CallState, Metadata, values_of
from stt_server.security.addresses import client_address
from stt_server.security.key_ring import KeyRing
from stt_server.security.rate_limit import RateLimiter


class Guard:
    """Lets callers in, by rules that may change while it does."""

    def __init__(
        self, readiness: Readiness, keys: KeyRing, limiter: RateLimiter, trusted_proxies: Sequence[Network]
    ) -> None:
        self._readiness = readiness
        self._keys = keys
        self._limiter = limiter
        self._trusted = trusted_proxies

    def follow(self, settings: Settings) -> None:
        """From now on callers are let in by `settings`; the buckets of the rate limit stay as full as they are."""
        self._keys = KeyRing(settings.api_keys)
        self._limiter.change(settings.rate_limit_rps, settings.rate_limit_burst)
        self._trusted = settings.trusted_proxies

    def check(self, call: CallState, metadata: Metadata, peer: str) -> None:
        """Checks what `admit` checks, without taking a token. Raises the same."""
        self._identify(call, metadata)
        self._limiter.check(self._bucket(call, metadata, peer))

    def _identify(self, call: CallState, metadata: Metadata) -> None:
        call.key_name = self._keys.identify(values_of(metadata, AUTHORIZATION))
        if not self._readiness.ready:
            raise NotReady(f"the service is {self._readiness.state}; try again, or another one")

    def admit(self, call: CallState, metadata: Metadata, peer: str) -> None:
        """Admits a call: takes one token from the bucket of its key, or of its address where it has no key.

        Raises:
            Unauthenticated: no key, or a wrong one.
            NotReady: the service is starting or stopping.
            RateLimited: the bucket is empty.
        """
        self._identify(call, metadata)
        self._limiter.take(self._bucket(call, metadata, peer))

    def _bucket(self, call: CallState, metadata: Metadata, peer: str) -> str:
        if call.key_name is not None:
            return f"key:{call.key_name}"
        forwarded = ",".join(values_of(metadata, X_FORWARDED_FOR)) or None
        return f"address:{client_address(peer, forwarded, self._trusted)}"
