"""An SQS server that costs little: `python -m benchmarks.queue.server`.

It answers receives from messages that are rendered in advance, after a fixed latency, with or
without TLS. It has one queue. A received message stays in flight until it is deleted or its
visibility timeout is changed to 0; no timeout runs out. On a second port it takes orders:
`Benchmark.Fill` puts messages on the queue, `Benchmark.Account` returns the counts.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.queue.messages import message_json

LOOPBACK = "127.0.0.1"

_HEAD_END = b"\r\n\r\n"
_MAX_MESSAGES = 10
_NO_OPERATION = b'{"__type": "com.amazonaws.sqs#UnsupportedOperation", "message": "not served"}'

Request = dict[str, Any]
Respond = Callable[[bytes], None]


class PlainQueue:
    """The messages of the queue, and the number of requests by operation."""

    def __init__(self, latency_seconds: float) -> None:
        """An empty queue whose answers take this long."""
        self._latency_seconds = latency_seconds
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._in_flight: dict[str, bytes] = {}
        self._requests: Counter[str] = Counter()
        self._sent = 0

    def handle(self, target: str, request: Request, respond: Respond) -> None:
        """Handles one request; `respond` is called with the JSON of the answer."""
        service, _, operation = target.partition(".")
        loop = asyncio.get_running_loop()
        if service == "benchmark":
            respond(self._order(operation, request))
            return
        self._requests[operation] += 1
        if operation == "receivemessage" and not self._waiting:
            seconds = request.get("WaitTimeSeconds", 0) + self._latency_seconds
            loop.call_later(seconds, lambda: respond(self._receive(request)))
            return
        answer = self._answer(operation, request)
        if self._latency_seconds:
            loop.call_later(self._latency_seconds, respond, answer)
        else:
            respond(answer)

    def _order(self, operation: str, request: Request) -> bytes:
        if operation == "fill":
            self._fill(request["Messages"])
        return json.dumps(
            {
                "waiting": len(self._waiting),
                "in_flight": len(self._in_flight),
                "requests": sum(self._requests.values()),
                "by_operation": self._requests,
            }
        ).encode()

    def _fill(self, messages: int) -> None:
        now = int(time.time() * 1_000)
        numbers = range(self._sent, self._sent + messages)
        self._waiting.extend(message_json(number, now) for number in numbers)
        self._sent += messages

    def _answer(self, operation: str, request: Request) -> bytes:
        match operation:
            case "receivemessage":
                return self._receive(request)
            case "deletemessagebatch":
                return self._delete(request["Entries"])
            case "deletemessage":
                self._in_flight.pop(request["ReceiptHandle"], None)
                return b"{}"
            case "changemessagevisibilitybatch":
                return self._change_visibility(request["Entries"])
            case "getqueueattributes":
                return self._attributes(request.get("AttributeNames", []))
            case _:
                return _NO_OPERATION

    def _receive(self, request: Request) -> bytes:
        count = min(request.get("MaxNumberOfMessages", 1), _MAX_MESSAGES, len(self._waiting))
        if not count:
            return b"{}"
        taken = [self._waiting.popleft() for _ in range(count)]
        self._in_flight.update(taken)
        return b'{"Messages": [' + b",".join(message for _, message in taken) + b"]}"

    def _delete(self, entries: Sequence[Request]) -> bytes:
        for entry in entries:
            self._in_flight.pop(entry["ReceiptHandle"], None)
        return _all_succeeded(entries)

    def _change_visibility(self, entries: Sequence[Request]) -> bytes:
        for entry in entries:
            handle = entry["ReceiptHandle"]
            if entry["VisibilityTimeout"] == 0 and handle in self._in_flight:
                self._waiting.append((handle, self._in_flight.pop(handle)))
        return _all_succeeded(entries)

    def _attributes(self, names: Sequence[str]) -> bytes:
        attributes = {
            "ApproximateNumberOfMessages": str(len(self._waiting)),
            "ApproximateNumberOfMessagesNotVisible": str(len(self._in_flight)),
            "ApproximateNumberOfMessagesDelayed": "0",
            "MessageRetentionPeriod": "345600",
            "VisibilityTimeout": "30",
        }
        asked = {name: attributes[name] for name in names if name in attributes}
        return json.dumps({"Attributes": attributes if "All" in names else asked}).encode()


def _all_succeeded(entries: Sequence[Request]) -> bytes:
    return json.dumps({"Successful": [{"Id": each["Id"]} for each in entries]}).encode()


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; a client sends the next request after the answer."""

    def __init__(self, queue: PlainQueue) -> None:
        self._queue = queue
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return
        head = self._buffer[:end].lower()
        start = end + len(_HEAD_END)
        length = int(_header(head, b"content-length") or 0)
        if len(self._buffer) < start + length:
            if _header(head, b"expect") == "100-continue" and len(self._buffer) == start:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        body, self._buffer = self._buffer[start : start + length], self._buffer[start + length :]
        self._queue.handle(_header(head, b"x-amz-target"), json.loads(body), self._respond)

    def _respond(self, answer: bytes) -> None:
        status = b"400 Bad Request" if answer is _NO_OPERATION else b"200 OK"
        self._write(
            b"HTTP/1.1 %b\r\nContent-Type: application/x-amz-json-1.0\r\n"
            b"x-amzn-RequestId: 00000000-0000-0000-0000-000000000000\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (status, len(answer), answer)
        )

    def _write(self, data: bytes) -> None:
        if isinstance(self._transport, asyncio.WriteTransport) and not self._transport.is_closing():
            self._transport.write(data)


def _header(head: bytes, name: bytes) -> str:
    _, _, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip().decode("ascii")


async def _serve(latency_seconds: float, certificate: Path | None) -> None:
    loop = asyncio.get_running_loop()
    connection = partial(_Connection, PlainQueue(latency_seconds))
    queue = await loop.create_server(connection, LOOPBACK, 0, ssl=_tls(certificate))
    orders = await loop.create_server(connection, LOOPBACK, 0)
    ports = {"port": _port(queue), "orders_port": _port(orders)}
    click.echo(json.dumps(ports))
    await loop.run_in_executor(None, sys.stdin.read)
    queue.close()
    orders.close()


def _tls(certificate: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


@click.command()
@click.option("--latency-ms", default=0.0, help="Time before each answer.")
@click.option("--certificate", type=Path, help="PEM file with key and certificate, for TLS.")
def main(latency_ms: float, certificate: Path | None) -> None:
    """Serve until the end of standard input, which is that of the process that started this one."""
    asyncio.run(_serve(latency_ms / 1_000, certificate))


if __name__ == "__main__":
    main()
