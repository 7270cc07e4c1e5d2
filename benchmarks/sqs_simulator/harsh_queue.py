"""An SQS server with faults, over HTTP: `HarshQueue`.

It has visibility time-outs, receive counts, redrive and the in-flight limit of SQS, carries out the
faults of a `FaultPlan`, and records the messages that were sent, handed out and deleted.

    with HarshQueue() as queue:
        url = queue.create("logins", dead_letters="dead", max_receives=5)
        ids = queue.send("logins", ["..."])
        queue.plan = FaultPlan((Fault(kind=Kind.LOST, chance=0.1),), seed=7)
        queue.on("DeleteMessageBatch", lambda call: process.kill(), nth=2)
        ...  # a process with `queue.environment("logins")`
        queue.plan = FaultPlan()  # the fault is over

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Self
from uuid import uuid4

import boto3
from botocore.config import Config

from benchmarks.sqs_simulator.queue_faults import Fault, FaultKind, FaultPlan
from benchmarks.sqs_simulator.queue_store import Counts, Delivery, Message, QueueStore
from benchmarks.sqs_simulator.sqs_protocol import (
    LOOPBACK,
    Answer,
    AwsError,
    Call,
    SqsServer,
    as_json,
    asked,
    failed,
    md5,
    named,
    require_batch,
    require_handle,
)

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

REGION = "us-east-1"
CREDENTIAL = "harsh"
IN_FLIGHT_LIMIT = 120_000

_ACCOUNT = "000000000000"
_ARN = f"arn:aws:sqs:{REGION}:{_ACCOUNT}:"
_VISIBILITY = "30"
_RETENTION = "345600"
_POLL_SLICE_SECONDS = 0.25


class Moment(StrEnum):
    """When a hook is called: before a call takes effect, or once its answer has been sent."""

    ARRIVES = "arrives"
    ANSWERED = "answered"


@dataclass(slots=True)
class Life:
    """The truth about one message; times are seconds of the server's clock."""

    message_id: str
    queue: str
    body: str = field(repr=False)
    sent_at: float
    handed_out: int = 0
    deleted_at: float | None = None
    redriven_from: str | None = None
    """The id under which it was sent first, if a redrive gave it a new one."""

    @property
    def sent_on(self) -> date:
        """The UTC day on which it was sent."""
        return datetime.fromtimestamp(self.sent_at, UTC).date()


@dataclass(slots=True)
class _Hook:
    operation: str
    do: Callable[[Call], object]
    nth: int | None
    moment: Moment
    seen: int = 0


class HarshQueue:
    """A server with any number of queues, on a free port of the loopback interface."""

    def __init__(self, *, in_flight_limit: int = IN_FLIGHT_LIMIT) -> None:
        """Listens from the start; serves once it is entered as a context."""
        self.in_flight_limit = in_flight_limit
        self.lives: dict[str, Life] = {}
        self.met: Counter[tuple[str, FaultKind]] = Counter()
        """The number of times that each operation had each fault."""
        self.calls: Counter[str] = Counter()
        """Calls by operation, since the start."""
        self.limited = 0
        """The number of receives that returned nothing because of the in-flight limit."""
        self.errors: list[BaseException] = []
        """Failures of this server itself, and of hooks; a test expects none."""
        self._changed = threading.Condition()
        self._queues: dict[str, QueueStore] = {}
        self._hooks: list[_Hook] = []
        self._plan = FaultPlan()
        self._numbers: Counter[str] = Counter()
        self._passed = 0.0
        self._old_counts: dict[str, tuple[float, Counts]] = {}
        self._server = SqsServer(self)

    def __enter__(self) -> Self:
        """Serves until the end of the block."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends every connection."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """The URL of the server."""
        return f"http://{LOOPBACK}:{self._server.server_port}"

    @property
    def plan(self) -> FaultPlan:
        """The faults of calls; setting it counts the calls anew, from 1."""
        return self._plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        with self._changed:
            self._plan = plan
            self._numbers.clear()

    def url(self, name: str) -> str:
        """The URL of a queue."""
        return f"{self.endpoint}/{_ACCOUNT}/{name}"

    def environment(self, name: str) -> dict[str, str]:
        """The settings that lead a process to a queue of this server."""
        return {
            "LOGIN_QUEUE_URL": self.url(name),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": CREDENTIAL,
            "AWS_SECRET_ACCESS_KEY": CREDENTIAL,
        }

    def client(self) -> SQSClient:
        """A client that tries each call once."""
        return boto3.client(
            "sqs",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=CREDENTIAL,
            aws_secret_access_key=CREDENTIAL,
            config=Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1}),
        )

    def create(self, name: str, *, dead_letters: str | None = None, max_receives: int = 5) -> str:
        """Makes a queue, with its dead-letter queue if that has a name; the queue's URL."""
        attributes = {}
        if dead_letters:
            self.create(dead_letters)
            policy = {
                "deadLetterTargetArn": _ARN + dead_letters,
                "maxReceiveCount": max_receives,
            }
            attributes["RedrivePolicy"] = json.dumps(policy)
        with self._changed:
            self._create(name, attributes)
        return self.url(name)

    def send(self, name: str, bodies: Iterable[str], *, sent_at: float | None = None) -> list[str]:
        """Puts messages on a queue without HTTP; their ids. `sent_at` is a Unix time."""
        with self._changed:
            store = self._queues[name]
            return [self._put(store, body, sent_at=sent_at) for body in bodies]

    def counts(self, name: str) -> Counts:
        """The true counts of a queue; none of a queue that was deleted."""
        with self._changed:
            store = self._queues.get(name)
            return store.counts(self.now()) if store else Counts()

    def in_flight(self, name: str) -> set[str]:
        """The ids of the messages that are in flight now."""
        with self._changed:
            store = self._queues.get(name)
            return store.in_flight(self.now()) if store else set()

    def on_queue(self, name: str) -> dict[str, str]:
        """The bodies of the messages on a queue now, hidden or not, by message id."""
        with self._changed:
            store = self._queues.get(name)
            messages = store.messages.values() if store else ()
            return {message.message_id: message.body for message in messages}

    def deleted(self) -> set[str]:
        """The ids of the messages that were deleted, from whichever queue."""
        with self._changed:
            return {life.message_id for life in self.lives.values() if life.deleted_at is not None}

    def handed_out(self) -> dict[str, int]:
        """The number of times that messages were handed out, by their ids; without those at 0."""
        with self._changed:
            lives = self.lives.values()
            return {life.message_id: life.handed_out for life in lives if life.handed_out}

    def on(
        self,
        operation: str,
        do: Callable[[Call], object],
        *,
        nth: int | None = None,
        moment: Moment = Moment.ARRIVES,
    ) -> None:
        """Calls `do` at the n-th call of an operation from now on; at each, without `nth`.

        The call waits for it, and goes on afterwards unless it raises `DropCallError`.
        """
        with self._changed:
            self._hooks.append(_Hook(operation, do, nth, moment))

    def forget_hooks(self) -> None:
        """No hook is called any more."""
        with self._changed:
            self._hooks.clear()

    def pass_time(self, seconds: float) -> None:
        """Moves the server's clock on: visibility and delays run out at once."""
        with self._changed:
            self._passed += seconds
            self._changed.notify_all()

    def redrive_back(self, dead_letters: str, name: str) -> dict[str, str]:
        """Moves the dead letters back as the console does; their new ids by the old ones."""
        with self._changed:
            source, target = self._queues[dead_letters], self._queues[name]
            return {
                message_id: self._redrive(source.remove(message_id), target)
                for message_id in list(source.messages)
            }

    def now(self) -> float:
        """The server's clock, as a Unix time."""
        return time.time() + self._passed

    # Calls

    def begin(self, operation: str, request: Answer) -> Call:
        """Numbers a call, finds its faults, and calls the hooks on its arrival."""
        with self._changed:
            self.calls[operation] += 1
            self._numbers[operation] += 1
            number = self._numbers[operation]
            call = Call(operation, number, request, self._plan.met_by(operation, number))
            call.message_ids = named(request)
        self._call_hooks(call, Moment.ARRIVES)
        return call

    def answer(self, call: Call) -> Answer:
        """Does what a call asks for.

        Raises:
            AwsError: it is refused.
        """
        slow = self._fault(call, FaultKind.SLOW)
        if slow:
            time.sleep(slow.seconds)
        refused = self._fault(call, FaultKind.REFUSED)
        if refused:
            raise AwsError(refused.code)
        operation = self._OPERATIONS.get(call.operation)
        if operation is None:
            raise AwsError("UnsupportedOperation")
        with self._changed:
            return operation(self, call)

    def end(self, call: Call) -> None:
        """Calls the hooks on an answered call."""
        self._call_hooks(call, Moment.ANSWERED)

    def meets(self, call: Call, kind: FaultKind) -> bool:
        """Return whether a call has a fault; it is counted in `met`."""
        return self._fault(call, kind) is not None

    def _fault(self, call: Call, kind: FaultKind) -> Fault | None:
        fault = call.faults.get(kind)
        if fault:
            with self._changed:
                self.met[call.operation, kind] += 1
        return fault

    def _call_hooks(self, call: Call, moment: Moment) -> None:
        due = []
        with self._changed:
            for hook in self._hooks:
                if (hook.operation, hook.moment) == (call.operation, moment):
                    hook.seen += 1
                    due += [hook] if hook.nth in {None, hook.seen} else []
        for hook in due:
            hook.do(call)

    # Operations, each under the lock

    def _create_queue(self, call: Call) -> Answer:
        self._create(call.request["QueueName"], call.request.get("Attributes", {}))
        return {"QueueUrl": self.url(call.request["QueueName"])}

    def _get_queue_url(self, call: Call) -> Answer:
        return {"QueueUrl": self.url(self._named_store(call.request["QueueName"]).name)}

    def _list_queues(self, _call: Call) -> Answer:
        return {"QueueUrls": [self.url(name) for name in self._queues]}

    def _delete_queue(self, call: Call) -> Answer:
        del self._queues[self._store(call).name]
        self._changed.notify_all()
        return {}

    def _purge_queue(self, call: Call) -> Answer:
        self._store(call).purge()
        return {}

    def _set_queue_attributes(self, call: Call) -> Answer:
        self._set_attributes(self._store(call), call.request.get("Attributes", {}))
        return {}

    def _get_queue_attributes(self, call: Call) -> Answer:
        store = self._store(call)
        counts = self._lagging_counts(store, call)
        attributes = {
            "VisibilityTimeout": _VISIBILITY,
            "MessageRetentionPeriod": _RETENTION,
            **store.attributes,
            "QueueArn": _ARN + store.name,
            "ApproximateNumberOfMessages": str(counts.waiting),
            "ApproximateNumberOfMessagesNotVisible": str(counts.in_flight),
            "ApproximateNumberOfMessagesDelayed": str(counts.delayed),
        }
        return {"Attributes": asked(attributes, call.request.get("AttributeNames", []))}

    def _lagging_counts(self, store: QueueStore, call: Call) -> Counts:
        lag, now = self._fault(call, FaultKind.LAG), self.now()
        then, counts = self._old_counts.get(store.name, (0.0, Counts()))
        if lag is None or now - then > lag.seconds:
            then, counts = now, store.counts(now)
            self._old_counts[store.name] = (then, counts)
        return counts

    def _send_message(self, call: Call) -> Answer:
        return self._sent(self._store(call), call.request)

    def _send_message_batch(self, call: Call) -> Answer:
        store = self._store(call)
        return self._each(call, lambda entry: self._sent(store, entry))

    def _sent(self, store: QueueStore, entry: Answer) -> Answer:
        body = entry["MessageBody"]
        message_id = self._put(store, body, delay=entry.get("DelaySeconds", 0))
        return {"MessageId": message_id, "MD5OfMessageBody": md5(body)}

    def _receive_message(self, call: Call) -> Answer:
        store, request = self._store(call), call.request
        wait = request.get("WaitTimeSeconds", 0)
        if self.meets(call, FaultKind.EMPTY):
            return {}
        self._wait_for_message(store, self.now() + wait)
        self._store(call)  # it may have been deleted meanwhile
        if store.counts(self.now()).in_flight >= self.in_flight_limit:
            self.limited += 1
            if wait:
                return {}
            raise AwsError("OverLimit")
        deliveries = self._take(store, call)
        call.message_ids = [delivery.message_id for delivery in deliveries]
        names = request.get("MessageSystemAttributeNames") or request.get("AttributeNames", [])
        messages = [as_json(delivery, names) for delivery in deliveries]
        return {"Messages": messages} if messages else {}

    def _wait_for_message(self, store: QueueStore, until: float) -> None:
        while (now := self.now()) < until and store.name in self._queues:
            if store.has_waiting(now):
                return
            shown = store.next_shown_at()
            soonest = min(until, shown) if shown else until
            self._changed.wait(max(0.001, min(soonest - now, _POLL_SLICE_SECONDS)))

    def _take(self, store: QueueStore, call: Call) -> list[Delivery]:
        now = self.now()
        dice = self._plan.dice(call.operation, call.number)
        waiting = store.counts(now).waiting
        at_most = call.request.get("MaxNumberOfMessages", 1)
        part, early = self._fault(call, FaultKind.PART), self._fault(call, FaultKind.EARLY)
        rotate = dice.randrange(waiting) if waiting and self.meets(call, FaultKind.SHUFFLE) else 0
        hide = float(call.request.get("VisibilityTimeout", self._visibility(store)))
        deliveries = store.take(
            min(at_most, round(part.share * waiting)) if part else at_most,
            now,
            early.seconds if early else hide,
            rotate,
        )
        if FaultKind.SHUFFLE in call.faults:
            dice.shuffle(deliveries)
        for delivery in deliveries:
            self.lives[delivery.message_id].handed_out += 1
        return deliveries

    def _delete_message(self, call: Call) -> Answer:
        self._delete(call, self._store(call), call.request["ReceiptHandle"])
        return {}

    def _delete_message_batch(self, call: Call) -> Answer:
        store = self._store(call)
        return self._each(call, lambda entry: self._delete(call, store, entry["ReceiptHandle"]))

    def _delete(self, call: Call, store: QueueStore, handle: str) -> Answer:
        require_handle(handle)
        message = store.holder(handle)
        # As on AWS: an old handle, or that of a message that is gone, deletes nothing and is fine.
        if message and not self.meets(call, FaultKind.STALE):
            store.remove(message.message_id)
            self.lives[message.message_id].deleted_at = self.now()
        return {}

    def _change_visibility(self, call: Call) -> Answer:
        self._hide(self._store(call), call.request)
        return {}

    def _change_visibility_batch(self, call: Call) -> Answer:
        store = self._store(call)
        return self._each(call, lambda entry: self._hide(store, entry))

    def _hide(self, store: QueueStore, entry: Answer) -> Answer:
        require_handle(entry["ReceiptHandle"])
        message = store.holder(entry["ReceiptHandle"])
        if message is None or not store.is_in_flight(message, self.now()):
            raise AwsError("MessageNotInflight")
        store.hide(message, self.now(), entry.get("VisibilityTimeout", int(_VISIBILITY)))
        self._changed.notify_all()
        return {}

    def _each(self, call: Call, do: Callable[[Answer], Answer]) -> Answer:
        """Does a batch entry by entry; what the plan or AWS's rules fail is told apart."""
        entries = call.request["Entries"]
        require_batch(entries)
        chosen = self._chosen(call, FaultKind.ENTRIES, len(entries))
        silent = self._chosen(call, FaultKind.SILENT, len(entries))
        done: list[Answer] = []
        failures: list[Answer] = []
        for index, entry in enumerate(entries):
            if index in silent:
                continue
            try:
                if index in chosen:
                    fault = call.faults[FaultKind.ENTRIES]
                    failures.append(failed(entry, fault.code, is_sender=fault.is_senders_fault))
                else:
                    done.append({"Id": entry["Id"], **do(entry)})
            except AwsError as error:
                failures.append(failed(entry, error.code, is_sender=True))
        return {"Successful": done} | ({"Failed": failures} if failures else {})

    def _chosen(self, call: Call, kind: FaultKind, entries: int) -> set[int]:
        fault = self._fault(call, kind)
        if fault is None:
            return set()
        dice = self._plan.dice(call.operation, call.number, kind)
        return set(dice.sample(range(entries), max(1, min(entries, round(fault.share * entries)))))

    # Queues and messages, under the lock

    def _create(self, name: str, attributes: Mapping[str, str]) -> None:
        store = self._queues.setdefault(name, QueueStore(name, {}))
        self._set_attributes(store, attributes)

    def _set_attributes(self, store: QueueStore, attributes: Mapping[str, str]) -> None:
        store.attributes.update(attributes)
        policy = json.loads(store.attributes.get("RedrivePolicy") or "{}")
        if policy:
            target = policy["deadLetterTargetArn"].removeprefix(_ARN)
            store.max_receives = int(policy["maxReceiveCount"])
            store.dead_letters = lambda message: self._named_store(target).put(message, self.now())

    def _store(self, call: Call) -> QueueStore:
        return self._named_store(call.request["QueueUrl"].rpartition("/")[2])

    def _named_store(self, name: str) -> QueueStore:
        if name not in self._queues:
            raise AwsError("QueueDoesNotExist")
        return self._queues[name]

    def _visibility(self, store: QueueStore) -> str:
        return store.attributes.get("VisibilityTimeout", _VISIBILITY)

    def _put(
        self,
        store: QueueStore,
        body: str,
        *,
        sent_at: float | None = None,
        delay: float = 0.0,
    ) -> str:
        now = self.now()
        message = Message(str(uuid4()), body, now if sent_at is None else sent_at)
        self.lives[message.message_id] = Life(message.message_id, store.name, body, message.sent_at)
        store.put(message, now, delay)
        self._changed.notify()
        return message.message_id

    def _redrive(self, message: Message, target: QueueStore) -> str:
        new_id = self._put(target, message.body)
        first = self.lives[message.message_id].redriven_from or message.message_id
        self.lives[new_id].redriven_from = first
        return new_id

    _OPERATIONS: ClassVar[Mapping[str, Callable[[HarshQueue, Call], Answer]]] = {
        "CreateQueue": _create_queue,
        "GetQueueUrl": _get_queue_url,
        "ListQueues": _list_queues,
        "DeleteQueue": _delete_queue,
        "PurgeQueue": _purge_queue,
        "SetQueueAttributes": _set_queue_attributes,
        "GetQueueAttributes": _get_queue_attributes,
        "SendMessage": _send_message,
        "SendMessageBatch": _send_message_batch,
        "ReceiveMessage": _receive_message,
        "DeleteMessage": _delete_message,
        "DeleteMessageBatch": _delete_message_batch,
        "ChangeMessageVisibility": _change_visibility,
        "ChangeMessageVisibilityBatch": _change_visibility_batch,
    }
