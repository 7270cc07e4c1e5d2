"""The login queue: receiving, deleting, handing back, sending, and its errors."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets.pipeline.batch.frames import RAW_SCHEMA
from fetch_mask_assets.pipeline.queue.backlog import QueueDepth
from fetch_mask_assets.pipeline.queue.limits import DrainEnd, DrainLimits
from fetch_mask_assets.pipeline.queue.login_queue import (
    LoginQueue,
    QueueSettings,
    connect_queue,
)
from fetch_mask_assets.pipeline.queue.sqs.batch_requests import BatchResult
from fetch_mask_assets_tests.support.logins import bodies, body, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mypy_boto3_sqs import SQSClient

    from fetch_mask_assets.local_stack.stack import Stack
    from fetch_mask_assets.pipeline.queue.sqs.client import SqsClient

CANARY = "203.0.113.77"


@pytest.fixture
def queue(sqs: SQSClient, queue_url: str) -> Iterator[LoginQueue]:
    """The test's own queue, with long polls of a second."""
    with closing(_Shared(sqs)) as client, closing(_queue(client, queue_url)) as connected:
        yield connected


def test_several_receivers_take_a_backlog_exactly_once(
    sqs: SQSClient, queue_url: str, queue: LoginQueue
) -> None:
    sent = send(sqs, queue_url, bodies(250))
    received = queue.receive(_limits(messages=1_000))
    assert sorted(received.raw["message_id"]) == sorted(sent)
    assert sorted(received.raw["body"]) == sorted(bodies(250))
    assert received.raw.schema == RAW_SCHEMA
    assert received.end is DrainEnd.DRY
    assert received.requests >= 25
    assert received.seconds > 0


def test_several_receivers_take_a_queue_with_ordered_groups_exactly_once(
    stack: Stack, sqs: SQSClient
) -> None:
    """A group with a message in flight gives none: what is deleted lets the next ones come."""
    attributes: Any = {"FifoQueue": "true"}
    url = sqs.create_queue(QueueName=f"{uuid4().hex}.fifo", Attributes=attributes)["QueueUrl"]
    sent = [_send_in_group(sqs, url, number % 5, f"{number}") for number in range(30)]
    settings = QueueSettings(url=url, client_options=_client_options(stack))
    received: list[str] = []
    with connect_queue(settings) as queue:
        while batch := queue.receive(_limits(messages=25, empty_receives=2)).raw.rows():
            received += [message_id for message_id, *_ in batch]
            done = queue.delete(message_id for message_id, *_ in batch)
            assert done == BatchResult(succeeded=len(batch), failed=0)
    assert sorted(received) == sorted(sent)


def test_no_more_messages_are_received_than_the_limit(
    sqs: SQSClient, queue_url: str, queue: LoginQueue
) -> None:
    send(sqs, queue_url, bodies(40))
    received = queue.receive(_limits(messages=27))
    assert received.raw.height == 27
    assert received.end is DrainEnd.MESSAGES
    assert queue.depth() == QueueDepth(waiting=13, in_flight=27, delayed=0)


def test_bytes_end_a_batch(sqs: SQSClient, queue_url: str) -> None:
    send(sqs, queue_url, ["x" * 1_000] * 40)
    with closing(_queue(_Shared(sqs), queue_url, receivers=1)) as queue:
        received = queue.receive(_limits(bytes=15_000))
    assert received.end is DrainEnd.BYTES
    assert 15 <= received.raw.height <= 25


def test_time_ends_a_batch(sqs: SQSClient, queue_url: str, queue: LoginQueue) -> None:
    send(sqs, queue_url, bodies(3))
    received = queue.receive(_limits(seconds=0.5, empty_receives=1_000))
    assert received.end is DrainEnd.TIME
    assert received.raw.height == 3


def test_an_empty_queue_gives_an_empty_frame_of_the_same_schema(queue: LoginQueue) -> None:
    received = queue.receive(_limits())
    assert received.raw.is_empty()
    assert received.raw.schema == RAW_SCHEMA
    assert received.end is DrainEnd.DRY


@pytest.mark.parametrize("receivers", [1, 4])
def test_an_empty_answer_does_not_end_a_batch(
    sqs: SQSClient, queue_url: str, receivers: int
) -> None:
    send(sqs, queue_url, bodies(30))
    client = _EmptyFirst(sqs, times=3)
    with closing(_queue(client, queue_url, receivers=receivers)) as queue:
        received = queue.receive(_limits(messages=30, empty_receives=8))
    assert received.raw.height == 30
    assert client.times < 0


def test_as_many_empty_answers_in_a_row_as_the_limit_end_a_batch(
    sqs: SQSClient, queue_url: str
) -> None:
    send(sqs, queue_url, bodies(5))
    with closing(_queue(_EmptyFirst(sqs, times=3), queue_url, receivers=1)) as queue:
        received = queue.receive(_limits(empty_receives=3))
    assert received.raw.is_empty()
    assert received.end is DrainEnd.DRY
    assert received.requests == 3


def test_the_frame_has_the_time_of_sending_and_the_count_of_receives(
    sqs: SQSClient, queue_url: str, queue: LoginQueue
) -> None:
    send(sqs, queue_url, bodies(1))
    first = _receive_raw(sqs, queue_url, visibility=0)[0]
    line = queue.receive(_limits(messages=1)).raw.row(0, named=True)
    assert line["receive_count"] == 2
    assert line["sent_at"].timestamp() * 1_000 == int(first["Attributes"]["SentTimestamp"])
    assert abs(line["sent_at"] - datetime.now(UTC)) < timedelta(minutes=5)


def test_deleted_messages_are_gone(sqs: SQSClient, queue_url: str, queue: LoginQueue) -> None:
    send(sqs, queue_url, bodies(25))
    raw = queue.receive(_limits(messages=25)).raw
    settled = queue.delete(raw["message_id"])
    assert settled == BatchResult(succeeded=25, failed=0)
    assert queue.depth() == QueueDepth(0, 0, 0)


def test_a_delete_that_the_service_fails_is_tried_again(sqs: SQSClient, queue_url: str) -> None:
    send(sqs, queue_url, bodies(3))
    client = _FailsEntries(sqs, times=1, sender_fault=False)
    with closing(_queue(client, queue_url)) as queue:
        raw = queue.receive(_limits(messages=3)).raw
        assert queue.delete(raw["message_id"]) == BatchResult(succeeded=3, failed=0)
        assert queue.depth() == QueueDepth(0, 0, 0)
    assert [len(entries) for entries in client.requests] == [3, 1]


def test_a_delete_that_the_service_keeps_failing_is_left(sqs: SQSClient, queue_url: str) -> None:
    send(sqs, queue_url, bodies(3))
    client = _FailsEntries(sqs, times=1_000, sender_fault=False)
    with closing(_queue(client, queue_url)) as queue:
        raw = queue.receive(_limits(messages=3)).raw
        assert queue.delete(raw["message_id"]) == BatchResult(succeeded=2, failed=1)
        assert queue.depth().in_flight == 1
    assert 2 <= len(client.requests) <= 6


def test_a_delete_that_is_the_senders_fault_is_left_at_once(sqs: SQSClient, queue_url: str) -> None:
    send(sqs, queue_url, bodies(3))
    client = _FailsEntries(sqs, times=1, sender_fault=True)
    with closing(_queue(client, queue_url)) as queue:
        raw = queue.receive(_limits(messages=3)).raw
        assert queue.delete(raw["message_id"]) == BatchResult(succeeded=2, failed=1)
    assert [len(entries) for entries in client.requests] == [3]


@pytest.mark.parametrize(
    "silence",
    [{}, {"Successful": []}, {"Failed": [{"Id": "7", "SenderFault": True}]}],
    ids=["not SQS", "nothing named", "another named"],
)
def test_what_an_answer_does_not_name_is_tried_again_and_then_left(
    sqs: SQSClient, queue_url: str, silence: dict[str, Any]
) -> None:
    client = _KeepsSilent(sqs, silence, times=1_000)
    with closing(_queue(client, queue_url)) as queue:
        send(sqs, queue_url, bodies(2))
        raw = queue.receive(_limits(messages=2)).raw
        assert queue.delete(raw["message_id"]) == BatchResult(succeeded=0, failed=2)
        assert list(queue.send(["x", "y"])) == [BatchResult(succeeded=0, failed=2)]
    assert [len(entries) for entries in client.requests] == [2] * 8


def test_what_an_answer_names_at_last_is_done(sqs: SQSClient, queue_url: str) -> None:
    client = _KeepsSilent(sqs, {}, times=2)
    with closing(_queue(client, queue_url)) as queue:
        assert list(queue.send(["x", "y"])) == [BatchResult(succeeded=2, failed=0)]
        assert queue.depth().waiting == 2


def test_every_other_delete_is_sent_though_one_request_is_refused(
    sqs: SQSClient, queue_url: str
) -> None:
    send(sqs, queue_url, bodies(30))
    client = _Refuses(sqs, "delete_message_batch", "ServiceUnavailable", times=1)
    with closing(_queue(client, queue_url)) as queue:
        raw = queue.receive(_limits(messages=30)).raw
        with pytest.raises(QueueError, match="delete_message_batch: ServiceUnavailable"):
            queue.delete(raw["message_id"])
        assert queue.depth().in_flight == 10


def test_what_is_handed_back_stays_away_longer_the_oftener_it_was_received(
    sqs: SQSClient, queue_url: str
) -> None:
    client = _Records(sqs, "change_message_visibility_batch")
    with closing(_queue(client, queue_url, receivers=1)) as queue:
        for earlier_receives in range(4):
            send(sqs, queue_url, [f"{earlier_receives}"])
            for _ in range(earlier_receives):
                _receive_raw(sqs, queue_url, visibility=0)
            queue.receive(_limits(messages=1))
        queue.release()
    [entries] = client.requests
    assert [entry["VisibilityTimeout"] for entry in entries] == [5, 10, 20, 40]


def test_a_message_that_came_twice_is_handed_back_by_its_newest_handle_whichever_is_seen_last(
    sqs: SQSClient, queue_url: str
) -> None:
    send(sqs, queue_url, bodies(1))
    old, new = (_receive_raw(sqs, queue_url, visibility=seconds) for seconds in (0, 300))
    client = _HandsOut(sqs, [new, old])
    with closing(_queue(client, queue_url, receivers=1)) as queue:
        queue.receive(_limits(messages=2))
    [[handed_back]] = client.requests
    assert handed_back["ReceiptHandle"] == new[0]["ReceiptHandle"] != old[0]["ReceiptHandle"]
    assert handed_back["VisibilityTimeout"] == 10


@pytest.mark.parametrize(
    ("counts", "newest"), [((2, 1), 0), ((1, 2), 1), ((1, 1), 1), ((1, 3, 3, 2), 2)]
)
def test_a_message_that_came_several_times_is_deleted_once_by_its_newest_handle(
    sqs: SQSClient, queue_url: str, counts: tuple[int, ...], newest: int
) -> None:
    """It is the one with the greatest receive count, and of equal ones the last."""
    send(sqs, queue_url, bodies(1))
    [message] = _receive_raw(sqs, queue_url)
    answers = [[_delivered_again(message, f"{n}", count)] for n, count in enumerate(counts)]
    client = _HandsOut(sqs, answers, recorded="delete_message_batch")
    with closing(_queue(client, queue_url, receivers=1)) as queue:
        queue.delete(queue.receive(_limits(messages=len(counts))).raw["message_id"])
    [[deleted]] = client.requests
    assert deleted["ReceiptHandle"] == f"{newest}"


def test_closing_hands_back_what_is_held(sqs: SQSClient, queue_url: str) -> None:
    sent = send(sqs, queue_url, bodies(3))
    with closing(_queue(_Shared(sqs), queue_url)) as queue:
        queue.receive(_limits(messages=3))
    found: list[str] = []
    while answer := _receive_raw(sqs, queue_url, wait=7):  # the first delay is five seconds
        found += [message["MessageId"] for message in answer]
        if len(found) == 3:
            break
    assert sorted(found) == sorted(sent)


def test_closing_does_not_hand_back_what_was_deleted(sqs: SQSClient, queue_url: str) -> None:
    send(sqs, queue_url, bodies(4))
    answer = _receive_raw(sqs, queue_url)
    client = _HandsOut(sqs, [answer])
    with closing(_queue(client, queue_url)) as queue:
        raw = queue.receive(_limits(messages=4)).raw
        queue.delete(raw.head(3)["message_id"])
    [[handed_back]] = client.requests
    assert handed_back["ReceiptHandle"] == _handles(answer)[raw["message_id"][3]]


def test_closing_with_nothing_held_asks_nothing(sqs: SQSClient, queue_url: str) -> None:
    client = _Records(sqs, "change_message_visibility_batch")
    with closing(_queue(client, queue_url)):
        pass
    assert client.requests == []


def test_closing_with_a_queue_that_refuses_warns_and_goes_on(
    sqs: SQSClient, queue_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    send(sqs, queue_url, bodies(1))
    client = _Refuses(sqs, "change_message_visibility_batch", "AccessDenied", times=1)
    with closing(_queue(client, queue_url)) as queue:
        queue.receive(_limits(messages=1))
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "AccessDenied" in record.getMessage()
    assert CANARY not in record.getMessage()


def test_what_other_receivers_took_is_handed_back_when_one_fails(
    sqs: SQSClient, queue_url: str
) -> None:
    send(sqs, queue_url, bodies(30))
    client = _RefusesReceiveAfter(sqs, receives=2)
    with (
        pytest.raises(QueueError, match="ReceiveMessage: InternalError"),
        closing(_queue(client, queue_url, receivers=2)) as queue,
    ):
        queue.receive(_limits(messages=30))
    assert client.received
    handed_back = {entry["ReceiptHandle"] for entries in client.requests for entry in entries}
    assert handed_back == client.received


def test_a_missing_queue_is_an_error_with_its_code_and_a_remedy(
    sqs: SQSClient, queue_url: str
) -> None:
    with closing(_queue(_Shared(sqs), f"{queue_url}-missing")) as queue:
        for call in (queue.depth, lambda: queue.receive(_limits())):
            with pytest.raises(QueueError, match=r"NonExistentQueue.*LOGIN_QUEUE_URL"):
                call()


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("get_queue_attributes", "GetQueueAttributes"),
        ("receive_message", "ReceiveMessage"),
        ("send_message_batch", "send_message_batch"),
    ],
)
def test_denied_access_is_an_error_with_its_code_and_without_what_aws_quotes(
    sqs: SQSClient, queue_url: str, operation: str, name: str
) -> None:
    with closing(_queue(_Refuses(sqs, operation, "AccessDenied", times=99), queue_url)) as queue:
        calls: dict[str, Callable[[], object]] = {
            "get_queue_attributes": queue.depth,
            "receive_message": lambda: queue.receive(_limits()),
            "send_message_batch": lambda: list(queue.send([body(1, ip=CANARY)])),
        }
        with pytest.raises(QueueError, match=rf"{name}: AccessDenied\..*credentials") as caught:
            calls[operation]()
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("attributes", "missing"),
    [
        ({}, ("MessageRetentionPeriod", "ApproximateNumberOfMessages")),
        (
            {"MessageRetentionPeriod": "long", "ApproximateNumberOfMessages": "many"},
            ("MessageRetentionPeriod", "ApproximateNumberOfMessages"),
        ),
    ],
)
def test_an_answer_without_the_numbers_of_a_queue_is_an_error_that_names_them(
    sqs: SQSClient, queue_url: str, attributes: dict[str, str], missing: tuple[str, str]
) -> None:
    queue = _queue(_Answers(sqs, attributes), queue_url)
    for ask, name in zip((queue.retention, queue.depth), missing, strict=True):
        with pytest.raises(QueueError, match=f"without a number for {name}"):
            ask()


def test_a_server_that_does_not_answer_is_an_error_with_a_remedy(stack: Stack) -> None:
    url = f"http://127.0.0.1:{free_port()}/000000000000/login-events"
    options = {**_client_options(stack), "endpoint_url": url}
    nowhere = QueueSettings(url=url, max_attempts=1, client_options=options)
    with (
        connect_queue(nowhere) as queue,
        pytest.raises(QueueError, match=r"EndpointConnectionError.*LOGIN_QUEUE_URL"),
    ):
        queue.depth()


def test_sending_fills_requests_of_ten_messages(sqs: SQSClient, queue_url: str) -> None:
    client = _Records(sqs, "send_message_batch")
    with closing(_queue(client, queue_url)) as queue:
        settled = list(queue.send(bodies(25)))
    assert settled == [BatchResult(10, 0), BatchResult(10, 0), BatchResult(5, 0)]
    assert [len(entries) for entries in client.requests] == [10, 10, 5]
    counts = Counter(entry["MessageBody"] for entries in client.requests for entry in entries)
    assert counts == Counter(bodies(25))


def test_sending_keeps_each_request_within_a_mebibyte(sqs: SQSClient, queue_url: str) -> None:
    client = _Records(sqs, "send_message_batch")
    texts = ["ä" * 125_000, "a" * 250_000, "b" * 250_000, "c" * 250_000, "d" * 50_000, "e"]
    with closing(_queue(client, queue_url)) as queue:
        settled = list(queue.send(texts))
    assert sum(each.succeeded + each.failed for each in settled) == 6
    assert [[entry["MessageBody"][0] for entry in entries] for entries in client.requests] == [
        ["ä", "a", "b", "c"],
        ["d", "e"],
    ]


def test_debug_logging_shows_no_body(
    stack: Stack, sqs: SQSClient, queue_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="botocore")
    options = _client_options(stack)
    settings = QueueSettings(url=queue_url, receivers=1, client_options=options)
    with connect_queue(settings) as queue:
        assert list(queue.send([body(1, ip=CANARY)])) == [BatchResult(1, 0)]
        raw = queue.receive(_limits(messages=1)).raw
        assert CANARY in raw["body"][0]
    assert CANARY not in caplog.text
    assert sqs.meta.region_name not in {None, ""}


def test_settings_do_not_show_credentials() -> None:
    settings = QueueSettings(url="url", client_options={"aws_secret_access_key": CANARY})
    assert CANARY not in repr(settings)


class _Shared:
    """The shared client, which one queue must not close for the others."""

    def __init__(self, client: SQSClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (any of the client's methods)
        return getattr(self._client, name)

    def close(self) -> None:
        pass


class _EmptyFirst(_Shared):
    """Answers the first receives with nothing."""

    def __init__(self, client: SQSClient, times: int) -> None:
        super().__init__(client)
        self.times = times
        self._lock = Lock()

    def receive_message(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        with self._lock:
            self.times -= 1
            is_empty = self.times >= 0
        return {} if is_empty else dict(self._client.receive_message(**request))


class _Records(_Shared):
    """Records the entries of one batch operation, and passes them on."""

    def __init__(self, client: SQSClient, operation: str) -> None:
        super().__init__(client)
        self._operation = operation
        self.requests: list[list[dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (any of the client's methods)
        call = super().__getattr__(name)
        if name != self._operation:
            return call

        def recorded(**request: Any) -> Any:  # noqa: ANN401
            self.requests.append(request["Entries"])
            return call(**request)

        return recorded


class _FailsEntries(_Shared):
    """Fails the first entry of a delete, so many times, inside an answer of 200."""

    def __init__(self, client: SQSClient, *, times: int, sender_fault: bool) -> None:
        super().__init__(client)
        self._times = times
        self._sender_fault = sender_fault
        self.requests: list[list[Any]] = []

    def delete_message_batch(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        self.requests.append(request["Entries"])
        self._times -= 1
        if self._times < 0:
            return dict(self._client.delete_message_batch(**request))
        failed, *rest = request["Entries"]
        reason = {"Id": failed["Id"], "SenderFault": self._sender_fault, "Code": "X"}
        if not rest:
            return {"Failed": [reason]}
        answer = self._client.delete_message_batch(QueueUrl=request["QueueUrl"], Entries=rest)
        return {**answer, "Failed": [reason]}


class _KeepsSilent(_Shared):
    """Answers the first batches of deletes and sends with this, and does nothing of them."""

    def __init__(self, client: SQSClient, answer: dict[str, Any], times: int) -> None:
        super().__init__(client)
        self._answer = answer
        self._times = times
        self.requests: list[list[Any]] = []

    def delete_message_batch(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        return self._passed_on(self._client.delete_message_batch, request)

    def send_message_batch(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        return self._passed_on(self._client.send_message_batch, request)

    def _passed_on(self, call: Callable[..., Any], request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(request["Entries"])
        return self._answer if len(self.requests) <= self._times else call(**request)


class _Answers(_Shared):
    """Answers every question for attributes with these."""

    def __init__(self, client: SQSClient, attributes: dict[str, str]) -> None:
        super().__init__(client)
        self._attributes = attributes

    def get_queue_attributes(self, **_request: Any) -> dict[str, Any]:  # noqa: ANN401
        return {"Attributes": self._attributes} if self._attributes else {}


class _Refuses(_Shared):
    """Refuses one operation so many times, quoting a value as AWS does."""

    def __init__(self, client: SQSClient, operation: str, code: str, times: int) -> None:
        super().__init__(client)
        self._refused = (operation, code)
        self._times = times
        self._lock = Lock()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (any of the client's methods)
        operation, code = self._refused
        with self._lock:
            self._times -= name == operation
            refuses = name == operation and self._times >= 0

        def refuse(**_request: Any) -> None:  # noqa: ANN401
            raise ClientError({"Error": {"Code": code, "Message": f"{CANARY} refused"}}, operation)

        return refuse if refuses else super().__getattr__(name)


class _HandsOut(_Records):
    """Answers the first receives with these messages."""

    def __init__(
        self,
        client: SQSClient,
        answers: list[list[dict[str, Any]]],
        recorded: str = "change_message_visibility_batch",
    ) -> None:
        super().__init__(client, recorded)
        self._answers = iter(answers)

    def receive_message(self, **_request: Any) -> dict[str, Any]:  # noqa: ANN401
        return {"Messages": next(self._answers, [])}


class _RefusesReceiveAfter(_Records):
    """Receives so many times, then is refused; keeps what was received."""

    def __init__(self, client: SQSClient, receives: int) -> None:
        super().__init__(client, "change_message_visibility_batch")
        self._receives = receives
        self._lock = Lock()
        self.received: set[str] = set()

    def receive_message(self, **request: Any) -> Any:  # noqa: ANN401
        with self._lock:
            self._receives -= 1
            if self._receives < 0:
                raise ClientError({"Error": {"Code": "InternalError"}}, "ReceiveMessage")
            answer = self._client.receive_message(**request)
            self.received |= {message["ReceiptHandle"] for message in answer.get("Messages", [])}
            return answer


def _queue(client: _Shared, url: str, receivers: int = 4) -> LoginQueue:
    settings = QueueSettings(url=url, receivers=receivers, wait_seconds=1, visibility_seconds=300)
    return LoginQueue(cast("SqsClient", client), settings)


def _limits(
    messages: int = 1_000,
    bytes: int = 2**20,  # noqa: A002 (the limit's name)
    seconds: float = 30,
    empty_receives: int = 4,
) -> DrainLimits:
    return DrainLimits(messages, bytes, seconds, empty_receives)


def _receive_raw(
    sqs: SQSClient, queue_url: str, visibility: int = 300, wait: int = 1
) -> list[dict[str, Any]]:
    answer = sqs.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=10,
        VisibilityTimeout=visibility,
        WaitTimeSeconds=wait,
        MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
    )
    return [dict(message) for message in answer.get("Messages", [])]


def _handles(messages: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {message["MessageId"]: message["ReceiptHandle"] for message in messages}


def _delivered_again(message: dict[str, Any], handle: str, receives: int) -> dict[str, Any]:
    attributes = message["Attributes"] | {"ApproximateReceiveCount": f"{receives}"}
    return message | {"ReceiptHandle": handle, "Attributes": attributes}


def _send_in_group(sqs: SQSClient, url: str, group: int, text: str) -> str:
    answer = sqs.send_message(
        QueueUrl=url, MessageBody=text, MessageGroupId=f"{group}", MessageDeduplicationId=text
    )
    return answer["MessageId"]


def _client_options(stack: Stack) -> dict[str, str]:
    return {
        "endpoint_url": stack.environment["AWS_ENDPOINT_URL"],
        "region_name": stack.environment["AWS_DEFAULT_REGION"],
        "aws_access_key_id": stack.environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": stack.environment["AWS_SECRET_ACCESS_KEY"],
    }


def test_some_of_what_is_held_can_be_put_back_before_the_rest(
    sqs: SQSClient, queue_url: str
) -> None:
    sent = send(sqs, queue_url, bodies(4))
    client = _Records(sqs, "change_message_visibility_batch")
    with closing(_queue(client, queue_url)) as queue:
        queue.receive(_limits(messages=4))
        assert queue.release_messages([sent[1], sent[1]], 0) == BatchResult(succeeded=1, failed=0)
        assert queue.depth() == QueueDepth(waiting=1, in_flight=3, delayed=0)
        assert queue.extend_visibility(600) == BatchResult(succeeded=3, failed=0)
    assert [[each["VisibilityTimeout"] for each in entries] for entries in client.requests] == [
        [0],
        [600] * 3,
        [5] * 3,
    ]
