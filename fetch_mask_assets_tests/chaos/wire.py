"""A TCP proxy before Postgres that breaks real connections: `Wire`.

It delays, cuts, resets or swallows after so many bytes in either direction, or at a moment of the
protocol: before the server sees COMMIT, or after it has answered and before the client knows.

    with Wire(database_url) as wire:
        url = wire.url(database_url)
        wire.on(Moment.COMMIT_ANSWERED, lambda event: Order.CUT, nth=1, within=LEDGER)
        wire.plan = WirePlan((WireFault(kind=Order.RESET, chance=0.2, most_bytes=5_000),), seed=7)
        ...
        wire.plan = WirePlan()  # the fault is over
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from fetch_mask_assets_tests.chaos.postgres_protocol import (
    COPY_DATA,
    MessageSplitter,
    PgMessage,
)

LOOPBACK = "127.0.0.1"
LEDGER = "login_ingest.ledger (sent_at, message_id, batch_id)"
"""Part of the COPY and of the INSERT into the ledger; each commit of a batch has one of them."""
ROWS = "COPY user_logins"
"""The statement after that one, which writes the rows."""

_CHUNK = 65_536
_NO_ENCRYPTION = b"N"


class Moment(StrEnum):
    """What the proxy sees pass, before it passes it on."""

    CONNECTED = "connected"
    STATEMENT = "statement"
    COPY_DATA = "copy data"
    COMMIT_SENT = "commit sent"
    COMMIT_ANSWERED = "commit answered"


class WireAction(StrEnum):
    """What becomes of the message, and of its connection."""

    PASS = "pass"  # noqa: S105 (no password)
    CUT = "cut"
    RESET = "reset"
    SWALLOW = "swallow"
    """Nothing passes any more in either direction, and the connection stays open."""


class Direction(StrEnum):
    """Where bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


@dataclass(frozen=True, slots=True)
class Event:
    """A moment of one connection, with the statements of the transaction that is open."""

    moment: Moment
    connection: int
    statements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WireFault:
    """A fault that a connection meets by `chance`, or because its number is in `connections`.

    It comes after a number of bytes in one direction, drawn up to `most_bytes`. A connection that
    only gets slower has the order PASS: each of its chunks waits for `seconds`.
    """

    kind: WireAction
    direction: Direction = Direction.TO_SERVER
    chance: float = 0.0
    connections: tuple[int, ...] = ()
    most_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class WirePlan:
    """The faults of the wire; equal plans choose alike for the n-th connection."""

    faults: tuple[WireFault, ...] = ()
    seed: int = 0

    def met_by(self, connection: int) -> tuple[tuple[WireFault, int], ...]:
        """The faults that a connection meets, each with the number of bytes before it."""
        drawn = [(fault, self._dice(connection, i)) for i, fault in enumerate(self.faults)]
        return tuple(
            (fault, dice.randint(0, fault.most_bytes))
            for fault, dice in drawn
            if dice.random() < fault.chance or connection in fault.connections
        )

    def _dice(self, connection: int, index: int) -> random.Random:
        return random.Random(f"{self.seed}/{connection}/{index}")  # noqa: S311 (faults, not secrets)


@dataclass(slots=True)
class _Hook:
    moment: Moment
    do: Callable[[Event], WireAction | None]
    nth: int | None
    within: str
    seen: int = 0


class Wire:
    """A proxy on a free port of the loopback interface."""

    def __init__(self, server_url: str) -> None:
        """Listens from the start, before the server of this URL."""
        parts = urlsplit(server_url)
        self._server = (parts.hostname or LOOPBACK, parts.port or 5432)
        self._listener = socket.create_server((LOOPBACK, 0), backlog=128)
        self._lock = threading.Lock()
        self._hooks: list[_Hook] = []
        self._plan = WirePlan()
        self._number = 0
        self._connections: set[_Connection] = set()
        self._closing = threading.Event()
        self.is_refusing = False
        """Whether new connections are reset at once."""
        self.met: Counter[str] = Counter()
        """How often which fault, or which hook's order, was carried out."""
        self.seen: Counter[Moment] = Counter()
        self.errors: list[BaseException] = []
        """Failures of the proxy itself, and of hooks; a test expects none."""

    def __enter__(self) -> Self:
        """Serves until the end of the block."""
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends every connection."""
        self._closing.set()
        self._thread.join()
        self._listener.close()
        self.break_all()
        for connection in list(self._connections):
            connection.thread.join()

    @property
    def plan(self) -> WirePlan:
        """The faults that new connections meet; setting it counts them anew, from 1."""
        return self._plan

    @plan.setter
    def plan(self, plan: WirePlan) -> None:
        with self._lock:
            self._plan = plan
            self._number = 0

    def url(self, database_url: str) -> str:
        """The URL of a database, by way of the proxy."""
        parts = urlsplit(database_url)
        credentials = parts.netloc.rpartition("@")[0]
        port = self._listener.getsockname()[1]
        return urlunsplit(parts._replace(netloc=f"{credentials}@{LOOPBACK}:{port}"))

    def on(
        self,
        moment: Moment,
        do: Callable[[Event], WireAction | None],
        *,
        nth: int | None = None,
        within: str = "",
    ) -> None:
        """Calls `do` at the n-th moment of its kind from now on; at each, without `nth`.

        `within`: only in transactions with a statement that holds this text. The message waits
        for `do`, and what it returns becomes of it: it passes, if that is nothing.
        """
        with self._lock:
            self._hooks.append(_Hook(moment, do, nth, within))

    def forget_hooks(self) -> None:
        """No hook is called any more."""
        with self._lock:
            self._hooks.clear()

    def break_all(self) -> None:
        """Ends every connection that is open now."""
        for connection in list(self._connections):
            connection.is_broken.set()

    def tell(self, event: Event) -> WireAction:
        """Calls the hooks on a moment, up to the first that orders something; what it orders."""
        due: list[_Hook] = []
        with self._lock:
            self.seen[event.moment] += 1
            for hook in self._hooks:
                if hook.moment is event.moment and _is_within(event, hook.within):
                    hook.seen += 1
                    due += [hook] if hook.nth in {None, hook.seen} else []
        for hook in due:
            order = hook.do(event)
            if order and order is not WireAction.PASS:
                self.count(order)
                return order
        return WireAction.PASS

    def count(self, what: str) -> None:
        """Counts what was carried out."""
        with self._lock:
            self.met[what] += 1

    def _accept(self) -> None:
        while not self._closing.is_set():
            if select.select([self._listener], [], [], 0.05)[0]:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        if self.is_refusing:
            self.count("refused")
            _reset(client)
            return
        try:
            server = socket.create_connection(self._server)
        except OSError:
            _reset(client)
            return
        with self._lock:
            self._number += 1
            number, faults = self._number, self._plan.met_by(self._number)
        connection = _Connection(self, number, client, server, faults)
        self._connections.add(connection)
        connection.thread = threading.Thread(target=self._serve, args=(connection,))
        connection.thread.start()

    def _serve(self, connection: _Connection) -> None:
        try:
            connection.serve()
        except OSError:  # one of the two ends is gone, perhaps killed by a hook
            connection.end(WireAction.CUT)
        except BaseException as error:
            self.errors.append(error)
            connection.end(WireAction.CUT)
            raise
        finally:
            self._connections.discard(connection)


@dataclass(eq=False, slots=True)
class _Connection:
    """One client's connection; served by one thread, so that each message waits for its hooks."""

    wire: Wire
    number: int
    client: socket.socket
    server: socket.socket
    faults: tuple[tuple[WireFault, int], ...]
    thread: threading.Thread = field(default_factory=threading.Thread)
    is_broken: threading.Event = field(default_factory=threading.Event)
    statements: list[str] = field(default_factory=list)
    passed: Counter[Direction] = field(default_factory=Counter)
    is_swallowed: bool = False

    def serve(self) -> None:
        """Passes messages in both directions until one end is gone or an order ends it."""
        from_client, from_server = MessageSplitter(starts=True), MessageSplitter(starts=False)
        order = self._tell(Moment.CONNECTED)
        self.is_swallowed = order is WireAction.SWALLOW
        while order in {WireAction.PASS, WireAction.SWALLOW} and not self.is_broken.is_set():
            for end in select.select([self.client, self.server], [], [], 0.05)[0]:
                data = end.recv(_CHUNK)
                if not data:
                    self.end(WireAction.CUT)
                    return
                is_client = end is self.client
                splitter = from_client if is_client else from_server
                order = self._pass_all(splitter.feed(data), is_client=is_client)
                if order is not WireAction.PASS:
                    break
        self.end(order)

    def end(self, order: WireAction) -> None:
        """Ends both connections; the client's with a reset if that is the order."""
        self.server.close()
        if order is WireAction.RESET:
            _reset(self.client)
        else:
            self.client.close()

    def _pass_all(self, messages: Iterator[PgMessage], *, is_client: bool) -> WireAction:
        for message in messages:
            order = self._from_client(message) if is_client else self._from_server(message)
            self.is_swallowed |= order is WireAction.SWALLOW
            if order in {WireAction.CUT, WireAction.RESET}:
                return order
        return WireAction.PASS

    def _from_client(self, message: PgMessage) -> WireAction:
        if message.asks_for_encryption:
            self.client.sendall(_NO_ENCRYPTION)
            return WireAction.PASS
        order = self._tell_of_client(message)
        return (
            order if order is not WireAction.PASS else self._pass_on(Direction.TO_SERVER, message)
        )

    def _tell_of_client(self, message: PgMessage) -> WireAction:
        if message.kind == COPY_DATA:
            return self._tell(Moment.COPY_DATA)
        if message.statement is None:
            return WireAction.PASS
        is_commit = message.statement.strip().upper() == "COMMIT"
        if not is_commit:
            self.statements.append(message.statement)
        return self._tell(Moment.COMMIT_SENT if is_commit else Moment.STATEMENT)

    def _from_server(self, message: PgMessage) -> WireAction:
        order = self._tell(Moment.COMMIT_ANSWERED) if message.completes_commit else WireAction.PASS
        if message.is_idle:
            self.statements.clear()
        return (
            order if order is not WireAction.PASS else self._pass_on(Direction.TO_CLIENT, message)
        )

    def _tell(self, moment: Moment) -> WireAction:
        return self.wire.tell(Event(moment, self.number, tuple(self.statements)))

    def _pass_on(self, direction: Direction, message: PgMessage) -> WireAction:
        if self.is_swallowed:
            return WireAction.PASS
        target = self.server if direction is Direction.TO_SERVER else self.client
        before = self.passed[direction]
        self.passed[direction] += len(message.raw)
        for fault, at in self.faults:
            if fault.direction is not direction:
                continue
            if fault.kind is WireAction.PASS:
                self.wire.count("slow")
                time.sleep(fault.seconds)
            elif before + len(message.raw) > at:
                target.sendall(message.raw[: max(0, at - before)])
                self.wire.count(f"{fault.kind} {direction}")
                return fault.kind
        target.sendall(message.raw)
        return WireAction.PASS


def _is_within(event: Event, text: str) -> bool:
    return not text or any(text in statement for statement in event.statements)


def _reset(connection: socket.socket) -> None:
    # Closing with a linger of no seconds sends a reset in place of an orderly end.
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
