"""Admission of calls: the service is ready, the key is known, the rate limit is kept, the queue is not full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from protos.stt.v1.wire import AUTHORIZATION, X_FORWARDED_FOR
from stt_server.config import Settings
from stt_server.errors import NotReady
from stt_server.lifecycle.readiness import Readiness
from stt_server.rpc.call_state import CallState, values_of
from stt_server.security.addresses import client_address, is_trusted
from stt_server.security.key_ring import KeyRing
from stt_server.security.rate_limit import RateLimiter

Context = grpc.aio.ServicerContext[Any, Any]


class AccessControl:
    """Admits or refuses calls before their messages are read."""

    def __init__(self, settings: Settings, readiness: Readiness, check_queue: Callable[[], None]) -> None:
        """
        Args:
            check_queue: raises Overloaded while the queue is full. Called only when ready.
        """
        self._readiness = readiness
        self._check_queue = check_queue
        self._keys = KeyRing(settings.api_keys)
        self._limiter = RateLimiter(settings.rate_limit_rps, settings.rate_limit_burst)
        self._trusted_proxies = settings.trusted_proxies

    def apply(self, settings: Settings) -> None:
        """Apply changed settings to new calls. Rate-limit buckets keep their level."""
        self._keys = KeyRing(settings.api_keys)
        self._limiter.change(settings.rate_limit_rps, settings.rate_limit_burst)
        self._trusted_proxies = settings.trusted_proxies

    def is_trusted(self, context: Context) -> bool:
        """Whether a call comes from a Unix socket or from one of TRUSTED_PROXIES."""
        return is_trusted(context.peer(), self._trusted_proxies)

    def admit_stream(self, call: CallState, context: Context) -> None:
        """Admit a live stream and take a token from the bucket of its key, or of its address where it has no key.

        Raises:
            Unauthenticated: no key, or an unknown one.
            NotReady: the service is starting or stopping.
            RateLimited: the bucket is empty.
        """
        self._limiter.take(self._identify(call, context))

    def admit_upload(self, call: CallState, context: Context) -> None:
        """Admit a unary call, as `admit_stream` admits a stream, unless the queue is full.

        Raises:
            Overloaded: the queue is full.
            Unauthenticated, NotReady, RateLimited: as `admit_stream`.
        """
        self.admit_stream(call, context)
        self._check_queue()

    def check_upload(self, call: CallState, context: Context) -> None:
        """Raise what `admit_upload` would raise now, without taking a token."""
        self._limiter.check(self._identify(call, context))
        self._check_queue()

    def _identify(self, call: CallState, context: Context) -> str:
        """Check key and readiness, note the key's name, and return the caller's rate-limit bucket."""
        metadata = context.invocation_metadata() or ()
        call.key_name = self._keys.identify(values_of(metadata, AUTHORIZATION))
        if not self._readiness.ready:
            raise NotReady(f"the service is {self._readiness.state}; retry later or use another server")
        if call.key_name is not None:
            return f"key:{call.key_name}"
        forwarded = ",".join(values_of(metadata, X_FORWARDED_FOR)) or None
        return f"address:{client_address(context.peer(), forwarded, self._trusted_proxies)}"
