"""What a call to the service carries on behalf of a caller."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from gateway.http.errors import Refusal
from gateway.http.headers import authorization_of, forwarded_for
from protos.stt.v1.wire import AUTHORIZATION, X_FORWARDED_FOR

Metadata = list[tuple[str, str]]


def call_metadata(connection: HTTPConnection) -> Metadata:
    """The caller's address, and its key if a header holds one.

    Raises:
        Refusal: unauthenticated: the header can't be a key of ours.
    """
    metadata = [(X_FORWARDED_FOR, forwarded_for(connection))]
    try:
        authorization = authorization_of(connection.headers)
    except ValueError:
        raise Refusal("unauthenticated", "The Authorization header holds no usable key.") from None
    if authorization is not None:
        metadata.append((AUTHORIZATION, authorization))
    return metadata
