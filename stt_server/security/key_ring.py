"""The allow-list of API keys, sent as Bearer tokens."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from stt_server.config.values import ApiKey
from stt_server.errors import Unauthenticated

_ADVICE = "send 'Authorization: Bearer KEY' with a key of the service's API_KEYS"


class KeyRing:
    """The accepted API keys, each with a name for logs and metrics.

    Stores digests only: neither errors nor dumps of this object reveal a key.
    """

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        """
        Args:
            keys: a key without a name is named `key1`, `key2`, ... after its position; none: access is open.

        Raises:
            ValueError: duplicate key or name.
        """
        self._digests = tuple((_digest(key.key.encode()), key.name or f"key{n}") for n, key in enumerate(keys, start=1))
        if len({digest for digest, _ in self._digests}) < len(keys):
            raise ValueError("duplicate key")
        if len({name for _, name in self._digests}) < len(keys):
            raise ValueError("duplicate key name")

    def identify(self, authorization: str | bytes | Sequence[str | bytes] | None) -> str | None:
        """Name of the caller's key; None if no keys are configured.

        Args:
            authorization: value of the Authorization header or metadata entry, or all of its values.

        Raises:
            Unauthenticated: no value, several, not a Bearer token, or an unknown key.
        """
        if not self._digests:
            return None
        sent = _digest(_bearer_token(authorization))
        name: str | None = None
        # Compares all keys, each in constant time, so that timing reveals nothing about them.
        for digest, key_name in self._digests:
            if hmac.compare_digest(digest, sent):
                name = key_name
        if name is None:
            raise Unauthenticated(f"unknown key: {_ADVICE}")
        return name


def _bearer_token(authorization: str | bytes | Sequence[str | bytes] | None) -> bytes:
    value = _single(authorization)
    scheme, _, token = value.strip(b" \t").partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip(b" \t"):
        raise Unauthenticated(f"Authorization is not a Bearer token: {_ADVICE}")
    return token.strip(b" \t")


def _single(authorization: str | bytes | Sequence[str | bytes] | None) -> bytes:
    """The single value as bytes. Raises Unauthenticated if there are none or several."""
    if authorization is not None and not isinstance(authorization, (str, bytes)):
        if len(authorization) > 1:
            # Proxies differ in which of several values they check; accepting one would allow bypassing them.
            raise Unauthenticated(f"more than one Authorization value: {_ADVICE}")
        authorization = authorization[0] if authorization else None
    if not authorization:
        raise Unauthenticated(f"missing Authorization: {_ADVICE}")
    # surrogatepass: any decoded header can be encoded; an invalid one just matches no key.
    return authorization if isinstance(authorization, bytes) else authorization.encode("utf-8", "surrogatepass")


def _digest(key: bytes) -> bytes:
    """SHA-256 of a key: equal lengths, so that comparing reveals no key's length."""
    return hashlib.sha256(key).digest()
