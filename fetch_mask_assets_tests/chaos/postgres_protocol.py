"""As much of Postgres's wire protocol as it takes to see statements, COPY data and COMMIT.

Belongs here: pure parsing. Does not belong here: sockets, faults.
Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

COPY_DATA = b"d"
COMMAND_COMPLETE = b"C"
READY_FOR_QUERY = b"Z"
STARTUP = b""

_QUERY = b"Q"
_PARSE = b"P"
_LENGTH = 4
_ENCRYPTION_REQUESTS = frozenset({80877103, 80877104})  # SSL, GSSAPI


@dataclass(frozen=True, slots=True)
class PgMessage:
    """One message: its type, and all its bytes. The type of start-up messages is empty."""

    kind: bytes
    raw: bytes

    @property
    def payload(self) -> bytes:
        """What follows the type and the length."""
        return self.raw[len(self.kind) + _LENGTH :]

    @property
    def asks_for_encryption(self) -> bool:
        """Whether a client asks to encrypt the connection before it starts."""
        return (
            self.kind == STARTUP
            and struct.unpack("!i", self.payload[:4])[0] in _ENCRYPTION_REQUESTS
        )

    @property
    def statement(self) -> str | None:
        """The SQL text of a client's message; parameters are never in it."""
        if self.kind == _QUERY:
            return self.payload.partition(b"\0")[0].decode()
        if self.kind == _PARSE:
            return self.payload.split(b"\0")[1].decode()
        return None

    @property
    def completes_commit(self) -> bool:
        """Whether a server's message says that a transaction was committed."""
        return self.kind == COMMAND_COMPLETE and self.payload == b"COMMIT\0"

    @property
    def is_idle(self) -> bool:
        """Whether a server's message says that no transaction is open."""
        return self.kind == READY_FOR_QUERY and self.payload == b"I"


class MessageSplitter:
    """Splits one direction of a connection into messages."""

    def __init__(self, *, starts: bool) -> None:
        """`starts`: the direction begins with start-up messages, which have no type."""
        self._starts = starts
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[PgMessage]:
        """The messages that these bytes complete."""
        self._buffer += data
        while message := self._next():
            yield message

    def _next(self) -> PgMessage | None:
        typed = 0 if self._starts else 1
        if len(self._buffer) < typed + _LENGTH:
            return None
        (length,) = struct.unpack_from("!i", self._buffer, typed)
        if len(self._buffer) < typed + length:
            return None
        raw = bytes(self._buffer[: typed + length])
        del self._buffer[: typed + length]
        message = PgMessage(raw[:typed], raw)
        if self._starts and not message.asks_for_encryption:
            self._starts = False
        return message
