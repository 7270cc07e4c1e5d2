"""A real HTTP server that takes alerts, and notes them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "canary-webhook-secret"  # noqa: S105 (what must not be shown)


@dataclass
class Receiver:
    """What arrived, and the statuses to answer with next; then 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    requests: int = 0
    alerts: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    """A receiver on loopback, for the time of a test."""
    receiver = Receiver(statuses=list(statuses))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            alert = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.requests += 1
            status = receiver.statuses.pop(0) if receiver.statuses else 200
            if status == 200:
                receiver.alerts.append(alert)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.send_header("Location", f"{receiver.url}-elsewhere")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/{SECRET}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
