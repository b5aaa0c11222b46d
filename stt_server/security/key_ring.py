"""Who is calling: the allow-list of Bearer keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from stt_server.config.values import ApiKey
from stt_server.errors import Unauthenticated

_ADVICE = "send 'Authorization: Bearer KEY' with a key of the service's API_KEYS"


class KeyRing:
    """The keys that callers may send, each with a name for logs and metrics.

    Only digests are kept: neither an error nor a dump of this object holds a key.
    """

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        """A key without a name is called `key1`, `key2`, ... by its position. Raises ValueError where two keys have
        the same name or are the same."""
        self._digests = tuple((_digest(key.key.encode()), key.name or f"key{n}") for n, key in enumerate(keys, start=1))
        if len({digest for digest, _ in self._digests}) < len(keys):
            raise ValueError("the same key is there twice")
        if len({name for _, name in self._digests}) < len(keys):
            raise ValueError("two keys have the same name")

    def identify(self, authorization: str | bytes | Sequence[str | bytes] | None) -> str | None:
        """The name of the key that the caller sent, or None where the list is empty (open to everyone).

        Args:
            authorization: the value of the header or metadata entry, or all of its values.

        Raises:
            Unauthenticated: no key, several, another scheme, or a key that isn't in the list.
        """
        if not self._digests:
            return None
        sent = _digest(_bearer_token(authorization))
        name: str | None = None
        # Every key is compared, and each in constant time: how long it takes says nothing about the keys.
        for digest, its_name in self._digests:
            if hmac.compare_digest(digest, sent):
                name = its_name
        if name is None:
            raise Unauthenticated(f"unknown key: {_ADVICE}")
        return name


def _bearer_token(authorization: str | bytes | Sequence[str | bytes] | None) -> bytes:
    value = _single(authorization)
    scheme, _, token = value.strip(b" \t").partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip(b" \t"):
        raise Unauthenticated(f"not a Bearer key: {_ADVICE}")
    return token.strip(b" \t")


def _single(authorization: str | bytes | Sequence[str | bytes] | None) -> bytes:
    """The one value as bytes."""
    if authorization is not None and not isinstance(authorization, (str, bytes)):
        if len(authorization) > 1:
            # Proxies differ in which of two they look at; believing either would be a way around one of them.
            raise Unauthenticated(f"several Authorization values: {_ADVICE}")
        authorization = authorization[0] if authorization else None
    if not authorization:
        raise Unauthenticated(f"no key: {_ADVICE}")
    # surrogatepass: whatever a transport decoded can be encoded again, and then simply is no key of ours.
    return authorization if isinstance(authorization, bytes) else authorization.encode("utf-8", "surrogatepass")


def _digest(key: bytes) -> bytes:
    """All of one length, so that comparing them doesn't tell how long a key is."""
    return hashlib.sha256(key).digest()
