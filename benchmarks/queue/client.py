"""Starts the plain SQS server, fills its queue and reads its counts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.queue.certificate import HOST, write_certificate
from benchmarks.queue.server import LOOPBACK


@dataclass(frozen=True, slots=True)
class QueueKind:
    """The latency of a queue's answers, and whether it has TLS."""

    latency_ms: float = 0
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """The messages of the queue, and the requests that it has answered."""

    waiting: int
    in_flight: int
    requests: int


@dataclass(frozen=True, slots=True)
class BenchmarkQueue:
    """A running server."""

    endpoint: str
    orders_port: int
    ca_bundle: str

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings that lead a process to the queue."""
        settings = {
            "LOGIN_QUEUE_URL": f"{self.endpoint}/000000000000/logins",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
        }
        return settings | ({"AWS_CA_BUNDLE": self.ca_bundle} if self.ca_bundle else {})

    def fill(self, messages: int) -> None:
        """Puts new messages on the queue."""
        self._order("Fill", {"Messages": messages})

    def account(self) -> Account:
        """The counts of now."""
        counts = self._order("Account", {})
        return Account(counts["waiting"], counts["in_flight"], counts["requests"])

    def _order(self, name: str, order: Mapping[str, Any]) -> Any:  # noqa: ANN401 (JSON)
        connection = HTTPConnection(LOOPBACK, self.orders_port)
        try:
            headers = {"X-Amz-Target": f"Benchmark.{name}"}
            connection.request("POST", "/", json.dumps(order), headers)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def running_queue(kind: QueueKind) -> Iterator[BenchmarkQueue]:
    """A server in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        certificate = Path(directory) / "certificate.pem"
        options = ["--latency-ms", str(kind.latency_ms)]
        if kind.tls:
            write_certificate(certificate)
            options += ["--certificate", str(certificate)]
        command = [sys.executable, "-m", "benchmarks.queue.server", *options]
        with subprocess.Popen(  # noqa: S603 (our own module)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            yield _connected(process, str(certificate) if kind.tls else "")


def _connected(process: subprocess.Popen[str], ca_bundle: str) -> BenchmarkQueue:
    if process.stdout is None:
        raise ValueError("the process has no pipe to read from.")
    ports = json.loads(process.stdout.readline())
    host = f"https://{HOST}" if ca_bundle else f"http://{LOOPBACK}"
    return BenchmarkQueue(f"{host}:{ports['port']}", ports["orders_port"], ca_bundle)
