"""The certificate of the HTTP side, which can be renewed while it is served."""

from __future__ import annotations

import ssl

from gateway.options import HttpTls


class Certificate:
    """What HTTPS shows and asks for, from the files that `tls` names.

    Raises:
        OSError: a file can't be read, or they don't fit; the text says which.
    """

    def __init__(self, tls: HttpTls) -> None:
        self._tls = tls
        self._now = _context(tls)
        self.context = _context(tls)
        """For the server: it asks `renew`'s latest at each handshake. Reloading files into a context that is in use
        would neither forget an authority nor come through files that don't fit unharmed."""
        self.context.sni_callback = self._choose

    def renew(self) -> None:
        """Reads the files again, for the next handshakes. Connections that are open keep what they have.

        Raises:
            OSError: as the constructor; what was shown before still is.
        """
        self._now = _context(self._tls)

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        """OpenSSL asks once it has read the caller's hello, whether that names a host or not."""
        connection.context = self._now


def _context(tls: HttpTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (tls.cert, tls.key, tls.client_ca):
        if path is not None:
            path.open("rb").close()  # OpenSSL's own error names no file
    try:
        # Without a password function, OpenSSL would ask for an encrypted key's password on the terminal.
        context.load_cert_chain(tls.cert, tls.key, password=lambda: b"")
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
            # A session that goes on with a ticket would not show its certificate again.
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
    except ssl.SSLError as error:
        files = " or ".join(str(path) for path in dict.fromkeys((tls.cert, tls.key, tls.client_ca)) if path is not None)
        raise OSError(f"TLS: {files} is not a PEM file that fits: {error.reason or error}") from error
    return context
