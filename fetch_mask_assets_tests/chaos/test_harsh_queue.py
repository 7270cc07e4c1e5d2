"""The harsh queue keeps SQS's own rules, meets its plan, and knows the truth."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError

from benchmarks.sqs_simulator.harsh_queue import HarshQueue, Moment
from benchmarks.sqs_simulator.queue_faults import Fault, FaultKind, FaultPlan
from benchmarks.sqs_simulator.queue_store import Counts
from benchmarks.sqs_simulator.sqs_protocol import Call, DropCallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_sqs import SQSClient

NAME = "logins"
DEAD = "dead"


@pytest.fixture
def queue() -> Iterator[HarshQueue]:
    """A server with one queue and its dead-letter queue."""
    with HarshQueue() as server:
        server.create(NAME, dead_letters=DEAD, max_receives=3)
        yield server
    assert server.errors == []


@pytest.fixture
def sqs(queue: HarshQueue) -> Iterator[SQSClient]:
    """A client that tries each call once."""
    client = queue.client()
    yield client
    client.close()


# SQS's own rules


def test_what_is_sent_is_received_and_deleted(queue: HarshQueue, sqs: SQSClient) -> None:
    sent = sqs.send_message(QueueUrl=queue.url(NAME), MessageBody="ü😀\n")["MessageId"]
    [message] = _receive(queue, sqs)
    assert (message["MessageId"], message["Body"]) == (sent, "ü😀\n")
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert abs(int(message["Attributes"]["SentTimestamp"]) / 1_000 - queue.now()) < 60
    assert queue.counts(NAME) == Counts(in_flight=1)
    assert queue.lives[sent].deleted_at is None
    sqs.delete_message(QueueUrl=queue.url(NAME), ReceiptHandle=message["ReceiptHandle"])
    assert queue.counts(NAME) == Counts()
    assert queue.lives[sent].deleted_at is not None
    assert queue.lives[sent].handed_out == 1


def test_batches_send_and_delete(queue: HarshQueue, sqs: SQSClient) -> None:
    entries: Any = [{"Id": str(number), "MessageBody": "x"} for number in range(10)]
    assert (
        len(sqs.send_message_batch(QueueUrl=queue.url(NAME), Entries=entries)["Successful"]) == 10
    )
    answer = _delete(queue, sqs, _receive(queue, sqs))
    assert len(answer["Successful"]) == 10
    assert queue.on_queue(NAME) == {}


def test_a_hidden_message_shows_when_its_visibility_has_run_out(
    queue: HarshQueue, sqs: SQSClient
) -> None:
    queue.send(NAME, ["x"])
    assert len(_receive(queue, sqs, visibility=600)) == 1
    assert _receive(queue, sqs) == []
    queue.pass_time(599)
    assert _receive(queue, sqs) == []
    queue.pass_time(2)
    [again] = _receive(queue, sqs)
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"


def test_visibility_runs_out_in_real_time_during_a_long_poll(
    queue: HarshQueue, sqs: SQSClient
) -> None:
    queue.send(NAME, ["x"])
    _receive(queue, sqs, visibility=1)
    assert len(_receive(queue, sqs, wait=5)) == 1


def test_a_long_poll_ends_when_a_message_is_sent(queue: HarshQueue, sqs: SQSClient) -> None:
    timer = threading.Timer(0.2, queue.send, (NAME, ["x"]))
    timer.start()
    assert len(_receive(queue, sqs, wait=20)) == 1
    timer.join()


def test_changed_visibility_hands_a_message_back(queue: HarshQueue, sqs: SQSClient) -> None:
    queue.send(NAME, ["x"])
    [message] = _receive(queue, sqs, visibility=600)
    sqs.change_message_visibility_batch(
        QueueUrl=queue.url(NAME),
        Entries=[{"Id": "0", "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}],
    )
    assert len(_receive(queue, sqs)) == 1


def test_the_visibility_of_a_message_that_is_not_in_flight_cannot_be_changed(
    queue: HarshQueue, sqs: SQSClient
) -> None:
    queue.send(NAME, ["x"])
    [message] = _receive(queue, sqs, visibility=0)
    entry: Any = {"Id": "0", "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 9}
    answer = sqs.change_message_visibility_batch(QueueUrl=queue.url(NAME), Entries=[entry])
    assert [each["SenderFault"] for each in answer["Failed"]] == [True]


def test_a_delete_with_an_old_handle_succeeds_and_deletes_nothing(
    queue: HarshQueue, sqs: SQSClient
) -> None:
    queue.send(NAME, ["x"])
    old = _receive(queue, sqs, visibility=0)
    new = _receive(queue, sqs)
    assert len(_delete(queue, sqs, old)["Successful"]) == 1
    assert len(queue.on_queue(NAME)) == 1
    _delete(queue, sqs, new)
    assert queue.on_queue(NAME) == {}


def test_a_message_received_too_often_goes_to_the_dead_letters_under_its_id_and_time(
    queue: HarshQueue, sqs: SQSClient
) -> None:
    [sent] = queue.send(NAME, ["x"], sent_at=1_700_000_000.5)
    for _ in range(3):
        assert len(_receive(queue, sqs, visibility=0)) == 1
    assert _receive(queue, sqs) == []
    [dead] = _receive(queue, sqs, name=DEAD)
    assert dead["MessageId"] == sent
    assert dead["Attributes"]["SentTimestamp"] == "1700000000500"


def test_a_redrive_gives_new_ids_and_the_truth_knows_the_old_ones(
    queue: HarshQueue, sqs: SQSClient
) -> None:
    queue.create("other")
    [sent] = queue.send(DEAD, ["x"])
    moved = queue.redrive_back(DEAD, NAME)
    [message] = _receive(queue, sqs)
    assert message["MessageId"] == moved[sent] != sent
    assert queue.lives[moved[sent]].redriven_from == sent


def test_no_more_messages_are_in_flight_than_the_limit() -> None:
    with HarshQueue(in_flight_limit=5) as queue:
        queue.create(NAME)
        queue.send(NAME, ["x"] * 20)
        client = queue.client()
        assert len(_receive(queue, client, visibility=600)) == 10
        assert _receive(queue, client, wait=1) == []
        with pytest.raises(ClientError, match="OverLimit"):
            _receive(queue, client)
        client.close()


def test_a_queue_that_is_not_there_is_awss_own_error(queue: HarshQueue, sqs: SQSClient) -> None:
    with pytest.raises(sqs.exceptions.QueueDoesNotExist) as caught:
        _receive(queue, sqs, name="nowhere")
    assert caught.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"


def test_a_queue_can_be_made_looked_up_purged_and_deleted(
    queue: HarshQueue, sqs: SQSClient
) -> None:
    url = sqs.create_queue(QueueName="more", Attributes={"VisibilityTimeout": "7"})["QueueUrl"]
    assert sqs.get_queue_url(QueueName="more")["QueueUrl"] == url
    queue.send("more", ["x"])
    sqs.purge_queue(QueueUrl=url)
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert (answer["VisibilityTimeout"], answer["ApproximateNumberOfMessages"]) == ("7", "0")
    sqs.delete_queue(QueueUrl=url)
    assert queue.counts("more") == Counts()
    with pytest.raises(ClientError, match="NonExistentQueue"):
        sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])


# Faults


def test_an_empty_answer_comes_despite_a_backlog(queue: HarshQueue, sqs: SQSClient) -> None:
    queue.send(NAME, ["x"])
    queue.plan = _plan(FaultKind.EMPTY, "ReceiveMessage", calls=(1,))
    assert _receive(queue, sqs) == []
    assert len(_receive(queue, sqs)) == 1


def test_a_short_poll_sees_a_part(queue: HarshQueue, sqs: SQSClient) -> None:
    queue.send(NAME, ["x"] * 10)
    queue.plan = _plan(FaultKind.PART, "ReceiveMessage", chance=1, share=0.3)
    assert len(_receive(queue, sqs)) == 3


def test_messages_come_out_of_order(queue: HarshQueue, sqs: SQSClient) -> None:
    sent = queue.send(NAME, ["x"] * 50)
    queue.plan = _plan(FaultKind.SHUFFLE, "ReceiveMessage", chance=1)
    got = [each["MessageId"] for _ in range(5) for each in _receive(queue, sqs)]
    assert sorted(got) == sorted(sent)
    assert got != sent


def test_a_duplicate_is_handed_out_while_it_is_held(queue: HarshQueue, sqs: SQSClient) -> None:
    [sent] = queue.send(NAME, ["x"])
    queue.plan = _plan(FaultKind.EARLY, "ReceiveMessage", calls=(1,))
    assert len(_receive(queue, sqs)) == len(_receive(queue, sqs)) == 1
    assert queue.lives[sent].handed_out == 2


def test_a_lost_answer_has_taken_effect(queue: HarshQueue, sqs: SQSClient) -> None:
    [sent] = queue.send(NAME, ["x"])
    queue.plan = _plan(FaultKind.LOST, "ReceiveMessage", calls=(1,))
    with pytest.raises(ConnectionClosedError):
        _receive(queue, sqs, visibility=600)
    assert queue.counts(NAME) == Counts(in_flight=1)
    assert queue.lives[sent].handed_out == 1


def test_a_reset_has_taken_no_effect(queue: HarshQueue, sqs: SQSClient) -> None:
    queue.send(NAME, ["x"])
    queue.plan = _plan(FaultKind.RESET, "ReceiveMessage", calls=(1,))
    with pytest.raises(HTTPClientError):
        _receive(queue, sqs)
    assert queue.counts(NAME) == Counts(waiting=1)
    assert queue.met == {("ReceiveMessage", FaultKind.RESET): 1}


def test_a_slow_call_takes_effect_late(queue: HarshQueue, sqs: SQSClient) -> None:
    queue.plan = _plan(FaultKind.SLOW, "SendMessage", calls=(1,), seconds=0.2)
    before = queue.now()
    sqs.send_message(QueueUrl=queue.url(NAME), MessageBody="x")
    assert queue.now() - before >= 0.2


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("InternalError", 500),
        ("ServiceUnavailable", 503),
        ("RequestThrottled", 403),
        ("ThrottlingException", 400),
        ("AccessDenied", 403),
    ],
)
def test_a_refusal_has_awss_format(
    queue: HarshQueue, sqs: SQSClient, code: str, status: int
) -> None:
    queue.send(NAME, ["x"])
    queue.plan = _plan(FaultKind.REFUSED, chance=1, code=code)
    with pytest.raises(ClientError) as caught:
        _receive(queue, sqs)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert queue.counts(NAME) == Counts(waiting=1)


@pytest.mark.parametrize("is_senders", [True, False])
def test_a_part_of_a_batch_fails_inside_a_good_answer(
    queue: HarshQueue,
    sqs: SQSClient,
    is_senders: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    queue.send(NAME, ["x"] * 10)
    received = _receive(queue, sqs)
    queue.plan = _plan(
        FaultKind.ENTRIES, "DeleteMessageBatch", chance=1, share=0.3, is_senders_fault=is_senders
    )
    answer = _delete(queue, sqs, received)
    assert len(answer["Successful"]) == 7
    assert [each["SenderFault"] for each in answer["Failed"]] == [is_senders] * 3
    assert len(queue.on_queue(NAME)) == 3


def test_an_answer_is_silent_about_a_part_of_a_batch_that_had_no_effect(
    queue: HarshQueue, sqs: SQSClient
) -> None:
    queue.send(NAME, ["x"] * 10)
    received = _receive(queue, sqs)
    queue.plan = _plan(FaultKind.SILENT, "DeleteMessageBatch", calls=(1, 2), share=0.3)
    answer = _delete(queue, sqs, received)
    named = {int(each["Id"]) for each in answer["Successful"]}
    assert len(named) == 7
    assert "Failed" not in answer
    left = [message for number, message in enumerate(received) if number not in named]
    assert set(queue.on_queue(NAME)) == {message["MessageId"] for message in left}
    _delete(queue, sqs, left)
    assert len(_delete(queue, sqs, left)["Successful"]) == 3
    assert queue.on_queue(NAME) == {}


def test_a_stale_delete_succeeds_and_deletes_nothing(queue: HarshQueue, sqs: SQSClient) -> None:
    queue.send(NAME, ["x"] * 3)
    received = _receive(queue, sqs)
    queue.plan = _plan(FaultKind.STALE, "DeleteMessageBatch", chance=1)
    assert len(_delete(queue, sqs, received)["Successful"]) == 3
    assert len(queue.on_queue(NAME)) == 3


def test_counts_lag(queue: HarshQueue, sqs: SQSClient) -> None:
    queue.plan = _plan(FaultKind.LAG, "GetQueueAttributes", chance=1, seconds=60)
    assert _waiting(queue, sqs) == 0
    queue.send(NAME, ["x"])
    assert _waiting(queue, sqs) == 0
    queue.pass_time(61)
    assert _waiting(queue, sqs) == 1


def test_one_seed_chooses_alike_and_another_otherwise() -> None:
    def choices(seed: int) -> list[bool]:
        plan = FaultPlan((Fault(kind=FaultKind.LOST, chance=0.5),), seed)
        return [bool(plan.met_by("ReceiveMessage", number)) for number in range(100)]

    assert choices(1) == choices(1) != choices(2)
    assert 20 < sum(choices(1)) < 80


# Hooks


def test_hooks_are_called_at_the_nth_call_before_and_after(
    queue: HarshQueue, sqs: SQSClient
) -> None:
    seen: list[tuple[str, int, list[str]]] = []

    def note(moment: str) -> Any:  # noqa: ANN401 (a callback)
        return lambda call: seen.append(
            (moment, queue.counts(NAME).in_flight, list(call.message_ids))
        )

    [first, second] = queue.send(NAME, ["x", "y"])
    queue.on("ReceiveMessage", note("before"), nth=2)
    queue.on("ReceiveMessage", note("after"), nth=2, moment=Moment.ANSWERED)
    for _ in range(2):
        _receive(queue, sqs, at_most=1)
    _wait_until_answered(queue, seen)
    assert seen == [("before", 1, []), ("after", 2, [second])]
    assert first != second


def test_a_hook_can_leave_a_call_unheard(queue: HarshQueue, sqs: SQSClient) -> None:
    def refuse(_call: Call) -> None:
        raise DropCallError

    queue.send(NAME, ["x"])
    queue.on("ReceiveMessage", refuse, nth=1)
    with pytest.raises(ConnectionClosedError):
        _receive(queue, sqs)
    assert queue.counts(NAME) == Counts(waiting=1)
    assert len(_receive(queue, sqs)) == 1


def test_a_client_that_is_killed_while_it_sends_does_nothing(queue: HarshQueue) -> None:
    host, _, port = queue.endpoint.removeprefix("http://").partition(":")
    head = b"POST / HTTP/1.1\r\nX-Amz-Target: AmazonSQS.PurgeQueue\r\nContent-Length: 9\r\n\r\n"
    queue.send(NAME, ["x"])
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head + b"{")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""

    assert queue.counts(NAME) == Counts(waiting=1)


def test_a_delete_names_its_messages_to_the_hook(queue: HarshQueue, sqs: SQSClient) -> None:
    named: list[str] = []
    sent = queue.send(NAME, ["x"] * 4)
    queue.on("DeleteMessageBatch", lambda call: named.extend(call.message_ids))
    _delete(queue, sqs, _receive(queue, sqs))
    assert sorted(named) == sorted(sent)


def _plan(kind: FaultKind, operation: str = "*", **how: Any) -> FaultPlan:  # noqa: ANN401 (a fault's own fields)
    return FaultPlan((Fault(kind=kind, operation=operation, **how),), seed=1)


def _receive(  # noqa: PLR0913 (SQS's own parameters)
    queue: HarshQueue,
    sqs: SQSClient,
    *,
    name: str = NAME,
    at_most: int = 10,
    wait: int = 0,
    visibility: int = 30,
) -> list[Any]:
    answer = sqs.receive_message(
        QueueUrl=queue.url(name),
        MaxNumberOfMessages=at_most,
        WaitTimeSeconds=wait,
        VisibilityTimeout=visibility,
        MessageSystemAttributeNames=["All"],
    )
    return answer.get("Messages", [])


def _delete(queue: HarshQueue, sqs: SQSClient, messages: list[Any]) -> Any:  # noqa: ANN401 (boto3's answer)
    entries: Any = [
        {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
        for number, message in enumerate(messages)
    ]
    return sqs.delete_message_batch(QueueUrl=queue.url(NAME), Entries=entries)


def _waiting(queue: HarshQueue, sqs: SQSClient) -> int:
    answer = sqs.get_queue_attributes(
        QueueUrl=queue.url(NAME), AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def _wait_until_answered(queue: HarshQueue, seen: list[Any]) -> None:
    # The hook on an answer runs after the client has it.
    for _ in range(500):
        if len(seen) == 2:
            return
        threading.Event().wait(0.01)
    pytest.fail(f"no hook was called after {sum(queue.calls.values())} calls")
