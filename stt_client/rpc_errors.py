"""gRPC's errors become ours, here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc
import grpc.aio

from protos.stt.v1.errors import type_of_bare_status
from protos.stt.v1.wire import X_ERROR_TYPE
from stt_client.errors import SttError, error_of

_REFUSED_TLS = (
    ("certificate has expired", "Its certificate has expired: renew it there, or set this machine's clock."),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "Its certificate isn't signed by an authority that is trusted here: give the one that signed it (--ca FILE, "
        "Tls(ca=...)).",
    ),
    (
        "Hostname Verification Check failed",
        "Its certificate is for another name: call it by one of the certificate's (subjectAltName).",
    ),
    ("WRONG_VERSION_NUMBER", "It doesn't speak TLS on this port: write grpc://, without certificates."),
)
"""What gRPC says of a connection that failed, and what to do about it; the first that is found counts."""

_UNREACHABLE = (
    "Check that the service runs, that this is its gRPC port (50051, not the HTTP port 8081), and that both sides "
    "agree on TLS: grpcs://, and --cert and --key (Tls(cert=..., key=...)) where it asks callers for a certificate."
)


def metadata_of(pairs: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """Trailing metadata as text by lower-case name; binary entries are left out, of repeated ones the last counts."""
    return {name: value for name, value in pairs or () if isinstance(value, str)}


def error_of_rpc(error: grpc.aio.AioRpcError, target: str) -> SttError:
    """The exception of `stt_client.errors` for a failed call.

    The trailer `x-error-type` decides; where there is none the status came from the transport, or from a server
    that isn't ours.
    """
    metadata = metadata_of(error.trailing_metadata())
    details = error.details() or ""
    said = metadata.get(X_ERROR_TYPE)
    if said:
        return error_of(said, metadata.get("x-error-message") or details or said, metadata)
    return _bare_error(error.code(), details, target, metadata)


def _bare_error(code: grpc.StatusCode, details: str, target: str, metadata: Mapping[str, str]) -> SttError:
    # Whoever cancels a call of ours gets a CancelledError: here it is the other side that let go, which gRPC's servers
    # do to a call that reaches them while they stop.
    bare = grpc.StatusCode.UNAVAILABLE if code is grpc.StatusCode.CANCELLED else code
    type_ = type_of_bare_status(bare.name)
    if type_ == "upstream_unavailable":
        message = f"can't reach {target}. {_advice(details)} gRPC says: {details}"
    elif type_ == "deadline_exceeded":
        message = f"no answer from {target} within the time allowed"
    elif type_ == "payload_too_large":
        message = f"the message is larger than {target} or this client takes: {details}"
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        message = f"{target} speaks gRPC, but doesn't offer this method. Check the port. gRPC says: {details}"
    else:
        message = f"{target} answered {code.name}: {details}"
    return error_of(type_, message, metadata)


def _advice(details: str) -> str:
    return next((advice for said, advice in _REFUSED_TLS if said in details), _UNREACHABLE)
