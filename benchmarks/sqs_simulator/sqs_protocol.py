"""The AWS JSON protocol of SQS over HTTP: calls in, answers and errors out.

Belongs here: the server, its connections and how they break, and AWS's shapes and error codes.
Does not belong here: what a queue does with a call (`harsh_queue`).
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from uuid import uuid4

from benchmarks.sqs_simulator.queue_faults import Fault, FaultKind
from benchmarks.sqs_simulator.queue_store import Delivery

LOOPBACK = "127.0.0.1"

_MAX_ENTRIES = 10

Answer = dict[str, Any]
"""A request or an answer, as JSON."""


class DropCallError(Exception):
    """Raised by a hook on ARRIVES: the call does nothing and gets no answer."""


class AwsError(Exception):
    """A call is answered with one of AWS's errors, by its code."""

    def __init__(self, code: str) -> None:
        """Takes the code that boto3 will show."""
        super().__init__(code)
        self.code = code


@dataclass(slots=True)
class Call:
    """One call: its operation, its number under the present plan, and what it concerns."""

    operation: str
    number: int
    request: Answer = field(repr=False)
    faults: Mapping[FaultKind, Fault] = field(default_factory=dict)
    message_ids: Sequence[str] = ()
    """Of the messages that the call names by receipt handle, or that its answer hands out."""


class Service(Protocol):
    """A service that answers calls."""

    errors: list[BaseException]

    def begin(self, operation: str, request: Answer) -> Call:
        """A call has arrived."""

    def answer(self, call: Call) -> Answer:
        """The answer to a call."""

    def end(self, call: Call) -> None:
        """A call has been answered."""

    def meets(self, call: Call, kind: FaultKind) -> bool:
        """Return whether a call has a fault."""


# By the code that boto3 shows: HTTP status, and the shape's name where it is another.
_ERRORS: Mapping[str, tuple[int, str]] = {
    "InternalError": (500, "InternalFailure"),
    "ServiceUnavailable": (503, "ServiceUnavailable"),
    "RequestThrottled": (403, "RequestThrottled"),
    "ThrottlingException": (400, "ThrottlingException"),
    "AccessDenied": (403, "AccessDeniedException"),
    "QueueDoesNotExist": (400, "QueueDoesNotExist"),
    "OverLimit": (403, "OverLimit"),
}
_QUERY_CODES = {
    "QueueDoesNotExist": "AWS.SimpleQueueService.NonExistentQueue",
    "BatchEntryIdsNotDistinct": "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
    "EmptyBatchRequest": "AWS.SimpleQueueService.EmptyBatchRequest",
    "MessageNotInflight": "AWS.SimpleQueueService.MessageNotInflight",
    "TooManyEntriesInBatchRequest": "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
    "UnsupportedOperation": "AWS.SimpleQueueService.UnsupportedOperation",
}
_SERVER_STATUS = 500


class SqsServer(ThreadingHTTPServer):
    """Serves a `Service` on a free port of the loopback interface."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, service: Service) -> None:
        """Listens at once; `serve_forever` serves."""
        self.service = service
        self._connections: set[socket.socket] = set()
        super().__init__((LOOPBACK, 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (socketserver's own)
        """Remember the connection."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 (socketserver's own)
        """Forget the connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close every connection too."""
        super().server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (socketserver's own)
        """A client that is gone is no error of ours; all else is in `errors`."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: SqsServer

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the client was killed while it was sending
            self.close_connection = True
            return
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        try:
            self._serve(operation, json.loads(body))
        except DropCallError:
            self.close_connection = True
        except ConnectionError:  # the client is gone, perhaps killed by a hook
            self.close_connection = True
        except BaseException as error:
            self.server.service.errors.append(error)
            raise

    def _serve(self, operation: str, request: Answer) -> None:
        service = self.server.service
        call = service.begin(operation, request)
        if service.meets(call, FaultKind.RESET):
            self._reset()
            return
        try:
            answer, status, code = service.answer(call), 200, ""
        except AwsError as error:
            answer, status, code = _refusal(error.code)
        if service.meets(call, FaultKind.LOST):
            self.close_connection = True
            return
        self._send(answer, status, code)
        service.end(call)

    def _send(self, answer: Answer, status: int, code: str) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("x-amzn-RequestId", str(uuid4()))
        if code:
            fault = "Receiver" if status >= _SERVER_STATUS else "Sender"
            self.send_header("x-amzn-query-error", f"{_QUERY_CODES.get(code, code)};{fault}")
        self.end_headers()
        self.wfile.write(content)

    def _reset(self) -> None:
        # Closing with a linger of no seconds sends a reset in place of an orderly end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Requests hold message bodies: none is printed."""


def _refusal(code: str) -> tuple[Answer, int, str]:
    status, shape = _ERRORS.get(code, (400, code))
    return {"__type": f"com.amazonaws.sqs#{shape}", "message": f"{code}, on purpose."}, status, code


# Of the id, the number of the receive and a random part.
_SEPARATORS_OF_HANDLE = 2


def require_handle(handle: str) -> None:
    """Refuses what is no receipt handle of this server."""
    if handle.count(":") != _SEPARATORS_OF_HANDLE:
        raise AwsError("ReceiptHandleIsInvalid")


def require_batch(entries: Sequence[Answer]) -> None:
    """Refuses batches that AWS refuses as a whole."""
    if not entries:
        raise AwsError("EmptyBatchRequest")
    if len(entries) > _MAX_ENTRIES:
        raise AwsError("TooManyEntriesInBatchRequest")
    if len({entry["Id"] for entry in entries}) != len(entries):
        raise AwsError("BatchEntryIdsNotDistinct")


def failed(entry: Answer, code: str, *, is_sender: bool) -> Answer:
    """An entry of a batch that failed."""
    reason = {"Code": code, "Message": f"{code}, on purpose.", "SenderFault": is_sender}
    return {"Id": entry["Id"], **reason}


def as_json(delivery: Delivery, names: Sequence[str]) -> Answer:
    """A message as a receive answers it, with the attributes that were asked for."""
    attributes = {
        "SentTimestamp": str(int(delivery.sent_at * 1_000)),
        "ApproximateReceiveCount": str(delivery.receives),
        "ApproximateFirstReceiveTimestamp": str(int(delivery.first_received_at * 1_000)),
    }
    return {
        "MessageId": delivery.message_id,
        "ReceiptHandle": delivery.handle,
        "MD5OfBody": md5(delivery.body),
        "Body": delivery.body,
        "Attributes": asked(attributes, names),
    }


def asked(attributes: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Those of the attributes that were asked for."""
    return {key: text for key, text in attributes.items() if key in names or "All" in names}


def named(request: Answer) -> list[str]:
    """The ids of the messages that a request names by receipt handle."""
    entries = [request, *request.get("Entries", [])]
    return [each["ReceiptHandle"].partition(":")[0] for each in entries if "ReceiptHandle" in each]


def md5(body: str) -> str:
    """The digest by which a client could check a body."""
    return hashlib.md5(body.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
