"""Store of log records: OTLP over HTTP, as the collector's `otlphttp` exporter sends it."""

from __future__ import annotations

import gzip
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs


class LogStore:
    """Keeps all records that it receives."""

    def __init__(self) -> None:
        self.received: queue.Queue[ResourceLogs] = queue.Queue()
        """Records of one resource each."""
        self.url = ""


@contextmanager
def storing_logs() -> Iterator[LogStore]:
    """Run a store on a free port of 127.0.0.1."""
    store = LogStore()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            known = self.path == "/v1/logs"
            for group in ExportLogsServiceRequest.FromString(body).resource_logs if known else ():
                store.received.put(group)
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the tests' output stays readable."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        store.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            thread.join()
