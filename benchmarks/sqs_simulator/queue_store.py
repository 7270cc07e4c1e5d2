"""The messages of one queue: what waits, what is hidden until when, what was deleted.

Belongs here: SQS's own behaviour, without faults, locks or HTTP. Times are seconds of the server's
clock.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import uuid4


@dataclass(slots=True)
class Message:
    """A message on a queue; `handle` is its newest receipt handle."""

    message_id: str
    body: str = field(repr=False)
    sent_at: float
    first_received_at: float = 0.0
    receives: int = 0
    handle: str = ""
    hidden_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as one receive hands it out."""

    message_id: str
    body: str = field(repr=False)
    handle: str
    sent_at: float
    first_received_at: float
    receives: int


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of messages of a queue that wait, are in flight, and are delayed."""

    waiting: int = 0
    in_flight: int = 0
    delayed: int = 0

    @property
    def all(self) -> int:
        """Every message on the queue."""
        return self.waiting + self.in_flight + self.delayed


class QueueStore:
    """One queue. A message received `max_receives` times goes to `dead_letters` instead."""

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        """An empty queue."""
        self.name = name
        self.attributes = attributes
        self.max_receives: int | None = None
        self.dead_letters: Callable[[Message], None] | None = None
        self.messages: dict[str, Message] = {}
        self._visible: deque[str] = deque()
        self._hidden: list[tuple[float, str]] = []
        self._in_flight: set[str] = set()
        self._delayed: set[str] = set()

    def counts(self, now: float) -> Counts:
        """The true counts."""
        self._show_due(now)
        hidden = len(self._in_flight) + len(self._delayed)
        return Counts(len(self.messages) - hidden, len(self._in_flight), len(self._delayed))

    def put(self, message: Message, now: float, delay: float = 0.0) -> None:
        """Adds a message, hidden for `delay` seconds."""
        self.messages[message.message_id] = message
        if delay > 0:
            self._delayed.add(message.message_id)
        self._show_at(message, now + delay, now)

    def take(self, at_most: int, now: float, hide: float, rotate: int = 0) -> list[Delivery]:
        """Hands out waiting messages and hides them; `rotate` starts so far from the oldest."""
        self._show_due(now)
        self._visible.rotate(-rotate)
        taken = list(self._next(at_most))
        for message in taken:
            self._hand_out(message, now, hide)
        return [_delivery(message) for message in taken]

    def holder(self, handle: str) -> Message | None:
        """The message whose newest receipt handle this is."""
        message = self.messages.get(handle.partition(":")[0])
        return message if message and message.handle == handle else None

    def remove(self, message_id: str) -> Message:
        """Takes a message off the queue."""
        self._in_flight.discard(message_id)
        self._delayed.discard(message_id)
        return self.messages.pop(message_id)

    def in_flight(self, now: float) -> set[str]:
        """The ids of the messages that are in flight: received and not deleted."""
        self._show_due(now)
        return set(self._in_flight)

    def is_in_flight(self, message: Message, now: float) -> bool:
        """Return whether a message is in flight: received and not deleted."""
        self._show_due(now)
        return message.message_id in self._in_flight

    def hide(self, message: Message, now: float, seconds: float) -> None:
        """Sets anew for how long a message in flight stays hidden."""
        self._show_at(message, now + seconds, now)

    def next_shown_at(self) -> float | None:
        """When the next hidden message shows; None if none is hidden."""
        return self._hidden[0][0] if self._hidden else None

    def has_waiting(self, now: float) -> bool:
        """Whether a receive would find something."""
        self._show_due(now)
        while self._visible and not self._shows(self._visible[0]):
            self._visible.popleft()
        return bool(self._visible)

    def purge(self) -> None:
        """Takes every message off the queue."""
        for message_id in list(self.messages):
            self.remove(message_id)
        self._visible.clear()
        self._hidden.clear()

    def _next(self, at_most: int) -> Iterable[Message]:
        found: set[str] = set()
        while self._visible and len(found) < at_most:
            message_id = self._visible.popleft()
            if not self._shows(message_id) or message_id in found:
                continue
            message = self.messages[message_id]
            if self.max_receives and self.dead_letters and message.receives >= self.max_receives:
                self.dead_letters(self.remove(message_id))
                continue
            found.add(message_id)
            yield message

    def _hand_out(self, message: Message, now: float, hide: float) -> None:
        message.receives += 1
        message.first_received_at = message.first_received_at or now
        message.handle = f"{message.message_id}:{message.receives}:{uuid4().hex}"
        self._in_flight.add(message.message_id)
        self._show_at(message, now + hide, now)

    def _show_at(self, message: Message, when: float, now: float) -> None:
        message.hidden_until = when
        if when > now:
            heapq.heappush(self._hidden, (when, message.message_id))
        else:
            self._show(message)

    def _show_due(self, now: float) -> None:
        while self._hidden and self._hidden[0][0] <= now:
            when, message_id = heapq.heappop(self._hidden)
            message = self.messages.get(message_id)
            # What was hidden anew, or deleted, has left its old line behind.
            if message and message.hidden_until == when:
                self._show(message)

    def _show(self, message: Message) -> None:
        self._in_flight.discard(message.message_id)
        self._delayed.discard(message.message_id)
        self._visible.append(message.message_id)

    def _shows(self, message_id: str) -> bool:
        return (
            message_id in self.messages
            and message_id not in self._in_flight
            and message_id not in self._delayed
        )


def _delivery(message: Message) -> Delivery:
    return Delivery(
        message.message_id,
        message.body,
        message.handle,
        message.sent_at,
        message.first_received_at,
        message.receives,
    )
