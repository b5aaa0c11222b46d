"""Server plumbing: HTTP/1.1, WebSocket, TLS, uploads, headers, errors, access log."""
