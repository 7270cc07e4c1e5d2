"""The client of SQS: the same results, errors and attempts as boto3, and no answer believed."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.retries import standard

from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets.pipeline.queue.sqs.client import SqsClient, connect_client, is_retryable
from fetch_mask_assets.pipeline.queue.sqs.delivery import parse_deliveries
from fetch_mask_assets_tests.support.logins import bodies, body, send
from fetch_mask_assets_tests.support.scripted_server import (
    REQUEST_ID,
    Scripted,
    ScriptedServer,
    tls_context,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mypy_boto3_sqs import SQSClient

    from fetch_mask_assets.local_stack.stack import Stack

CANARY = "203.0.113.77"
KEY, SECRET, TOKEN = "AKIAEXAMPLE", "a/secret+key:with%signs", "a+token/of=many signs"
ATTEMPTS = 3
REQUEST: dict[str, Any] = {"QueueUrl": "http://sqs/000000000000/logins", "WaitTimeSeconds": 1}


def _error(status: int, shape: str, query: str | None = None, fault: str = "Sender") -> Scripted:
    header = {"x-amzn-query-error": f"{query};{fault}"} if query else {}
    content = {"__type": shape, "message": f"{CANARY} refused"}
    return Scripted(status, json.dumps(content).encode(), {**REQUEST_ID, **header})


_HTML = b"<html><body>503 Service Unavailable</body></html>"
ERRORS = {
    "throttled": _error(400, "com.amazonaws.sqs#RequestThrottled", "RequestThrottled"),
    "throttled by the gateway": _error(400, "com.amazon.coral.availability#ThrottlingException"),
    "throttled by status": Scripted(429, b""),
    "internal failure": _error(500, "InternalFailure", "InternalError", "Receiver"),
    "unavailable": _error(503, "ServiceUnavailable", fault="Receiver"),
    "unavailable without a body": Scripted(503, b""),
    "a gateway's page": Scripted(502, _HTML, {}),
    "a gateway that waited": Scripted(504, b"upstream request timeout", {}),
    "a request that took long": _error(408, "RequestTimeout"),
    "not implemented": Scripted(501, b""),
    "expired token": _error(403, "com.amazon.coral.service#ExpiredTokenException"),
    "wrong signature": _error(403, "SignatureDoesNotMatch", "SignatureDoesNotMatch"),
    "clock skew": _error(400, "com.amazon.coral.service#InvalidSignatureException"),
    "request expired": _error(403, "RequestExpired", "RequestExpired"),
    "denied": _error(403, "com.amazon.coral.service#AccessDeniedException", "AccessDenied"),
    "no such queue": _error(
        400, "com.amazonaws.sqs#QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"
    ),
    "no such queue, plain": _error(400, "com.amazonaws.sqs#QueueDoesNotExist"),
    "a type with its URL": _error(400, "QueueDoesNotExist:http://internal.amazon.com/"),
    "over the limit": _error(403, "com.amazonaws.sqs#OverLimit", "OverLimit"),
    "an empty query error": _error(400, "com.amazonaws.sqs#OverLimit", ""),
    "no type": Scripted(400, b"{}"),
    "a proxy's refusal": Scripted(403, b"denied by policy", {}),
    "moved": Scripted(301, b"", {"Location": "http://127.0.0.1:1/"}),
}


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("answer", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("operation", ["receive_message", "get_queue_attributes"])
def test_an_error_has_boto3s_code_after_as_many_attempts(answer: Scripted, operation: str) -> None:
    expected, actual = (_refusal(make, operation, answer) for make in (_boto3_client, _client))

    assert expected == actual


@pytest.mark.usefixtures("no_pauses")
def test_an_answer_that_is_lost_is_boto3s_error_after_as_many_attempts() -> None:
    lost = Scripted(is_lost=True)
    expected, actual = (
        _refusal(make, "receive_message", lost) for make in (_boto3_client, _client)
    )

    assert expected == ("ConnectionClosedError", ATTEMPTS)
    assert expected == actual


def test_an_answer_that_does_not_come_in_time_is_boto3s_error() -> None:
    with ScriptedServer(Scripted(seconds=20)) as server:
        for make in (_boto3_client, _client):
            with pytest.raises(BotoCoreError) as caught:
                make(server.url, attempts=1).receive_message(**REQUEST)
            assert type(caught.value).__name__ == "ReadTimeoutError"
            assert is_retryable(caught.value)


def test_a_server_that_is_not_there_is_boto3s_error() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    for client in (_boto3_client(url, attempts=1), _client(url, attempts=1)):
        with pytest.raises(BotoCoreError) as caught:
            client.receive_message(**REQUEST)
        assert type(caught.value).__name__ == "EndpointConnectionError"


@pytest.mark.usefixtures("no_pauses")
def test_a_truncated_answer_is_asked_for_again() -> None:
    truncated = Scripted(body=b'{"Messages": []}', cut=3)
    with ScriptedServer(truncated, Scripted()) as server:
        assert _client(server.url).receive_message(**REQUEST) == {}
    assert len(server.requests) == 2


@pytest.mark.usefixtures("no_pauses")
def test_answers_that_stay_truncated_are_an_error() -> None:
    truncated = Scripted(body=b'{"Messages": []}', cut=3)
    with ScriptedServer(truncated) as server, pytest.raises(BotoCoreError) as caught:
        _client(server.url).receive_message(**REQUEST)
    assert type(caught.value).__name__ == "ConnectionClosedError"
    assert len(server.requests) == ATTEMPTS


@pytest.mark.usefixtures("no_pauses")
def test_a_fault_that_passes_is_not_seen() -> None:
    answers = (ERRORS["internal failure"], ERRORS["throttled"], Scripted(body=b'{"Messages": []}'))
    with ScriptedServer(*answers) as server:
        assert _client(server.url).receive_message(**REQUEST) == {"Messages": []}
    assert len(server.requests) == 3


def test_a_connection_that_the_server_closed_while_it_was_idle_is_made_anew() -> None:
    with ScriptedServer(Scripted(closes=True)) as server:
        client = _client(server.url, attempts=1)
        assert [client.receive_message(**REQUEST) for _ in range(3)] == [{}] * 3
    assert len(server.requests) == 3


def test_a_request_that_is_lost_with_a_kept_connection_is_sent_once_more_at_once() -> None:
    with ScriptedServer(Scripted(), Scripted(is_lost=True), Scripted()) as server:
        client = _client(server.url, attempts=1)
        assert [client.receive_message(**REQUEST) for _ in range(2)] == [{}] * 2
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        Scripted(body=b""),
        Scripted(body=b"[]"),
        Scripted(body=b"null"),
        Scripted(body=b'{"Messages": [{"Body": "' + CANARY.encode()),
        Scripted(body=_HTML),
        Scripted(body=b"\xff\xfe{}"),
        Scripted(body=b"[" * 100_000),
        Scripted(headers={}),
        Scripted(body=b'{"status": "ok"}', headers={}),
    ],
    ids=["nothing", "list", "null", "cut", "page", "not UTF-8", "deep", "no id", "other service"],
)
def test_an_answer_that_is_not_from_sqs_is_an_error_and_no_empty_queue(answer: Scripted) -> None:
    with ScriptedServer(answer) as server:
        client = _client(server.url)
        with pytest.raises(QueueError, match=r"ReceiveMessage.*not SQS") as caught:
            client.receive_message(**REQUEST)
    assert len(server.requests) == 1
    assert CANARY not in str(caught.value)


_MESSAGE: dict[str, Any] = {
    "MessageId": "id",
    "ReceiptHandle": "handle",
    "Body": CANARY,
    "MD5OfBody": hashlib.md5(CANARY.encode(), usedforsecurity=False).hexdigest(),
    "Attributes": {"SentTimestamp": "1700000000000", "ApproximateReceiveCount": "1"},
}


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in _MESSAGE),
        {"MessageId": 7},
        {"ReceiptHandle": ["handle"]},
        {"Body": 7},
        {"Attributes": {"SentTimestamp": "1700000000000"}},
        {"Attributes": {"SentTimestamp": "now", "ApproximateReceiveCount": "1"}},
        {"MD5OfBody": "0" * 32},
    ],
    ids=str,
)
def test_a_message_that_lacks_a_part_or_was_changed_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(QueueError, match="SQS ReceiveMessage") as caught:
        parse_deliveries({"Messages": [_MESSAGE, {**_MESSAGE, **change}]})
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("messages", [7, "text", {"Body": CANARY}, [7], ["text"], [None]], ids=str)
def test_messages_of_another_type_are_an_error(messages: object) -> None:
    with pytest.raises(QueueError, match="lack a part"):
        parse_deliveries({"Messages": messages})


def test_a_delivery_shows_neither_its_body_nor_its_handle() -> None:
    [delivery] = parse_deliveries({"Messages": [_MESSAGE]})

    assert delivery.body not in repr(delivery)
    assert delivery.receipt_handle not in repr(delivery)


@pytest.mark.usefixtures("no_pauses")
def test_an_error_shows_nothing_that_the_server_quotes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    odd = Scripted(400, json.dumps({"__type": f"{CANARY} x", "message": CANARY}).encode())
    for answer in (ERRORS["denied"], odd, Scripted(is_lost=True)):
        with ScriptedServer(answer) as server:
            client = _client(server.url)
            with pytest.raises((ClientError, BotoCoreError)) as caught:
                client.send_message_batch(QueueUrl="q", Entries=[{"MessageBody": CANARY}])
        assert CANARY not in repr(caught.value) + str(caught.value)
        assert CANARY not in str(getattr(caught.value, "response", ""))
        assert caught.value.__cause__ is None
    assert CANARY not in caplog.text


@pytest.mark.parametrize("token", [None, TOKEN], ids=["lasting keys", "temporary keys"])
def test_a_request_carries_botocores_signature(token: str | None) -> None:
    with ScriptedServer(Scripted()) as server:
        _client(server.url, token=token).send_message_batch(QueueUrl="q", Entries=["gerät"])
    [request] = server.requests

    headers = {name.lower(): value for name, value in request.headers.items()}
    signed, signature = _botocore_signature(f"{server.url}/", headers, request.body, token)

    assert headers.get("x-amz-security-token") == token
    assert (
        f"Credential={KEY}/{headers['x-amz-date'][:8]}/us-east-1/sqs/aws4_request"
        in (headers["authorization"])
    )
    assert f"SignedHeaders={signed}, Signature={signature}" in headers["authorization"]


def test_a_long_request_is_sent_at_once_and_with_botocores_signature() -> None:
    with ScriptedServer(Scripted()) as server:
        _client(server.url).send_message_batch(QueueUrl="q", Entries=["x" * 2**21])
    [request] = server.requests

    headers = {name.lower(): value for name, value in request.headers.items()}
    _, signature = _botocore_signature(f"{server.url}/", headers, request.body, None)

    assert "expect" not in headers
    assert headers["authorization"].endswith(f"Signature={signature}")


def test_a_retry_is_made_for_the_same_errors_as_by_botocore() -> None:
    codes = {
        *vars(standard.ThrottledRetryableChecker)["_THROTTLED_ERROR_CODES"],
        *vars(standard.TransientRetryableChecker)["_TRANSIENT_ERROR_CODES"],
        "AccessDenied",
        "AWS.SimpleQueueService.NonExistentQueue",
        "OverLimit",
        "InvalidSignatureException",
    }
    conditions = standard.StandardRetryConditions(max_attempts=2)
    operation = _boto3_client("http://sqs").meta.service_model.operation_model("ReceiveMessage")
    for code in codes:
        for status in (301, 400, 403, 404, 408, 500, 501, 502, 503, 504, 505):
            error = ClientError(
                {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
                "ReceiveMessage",
            )
            context = standard.RetryContext(
                attempt_number=1,
                operation_model=operation,
                parsed_response=error.response,
                http_response=_Status(status),
            )
            assert is_retryable(error) == conditions.is_retryable(context), (code, status)


def test_a_certificate_of_a_known_authority_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, bundle = tls_context(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    with ScriptedServer(Scripted(), tls=tls) as server:
        for client in (_client(server.url), _boto3_client(server.url)):
            assert "Messages" not in client.receive_message(**REQUEST)
    assert len(server.requests) == 2


@pytest.mark.parametrize("variable", [None, "REQUESTS_CA_BUNDLE"])
def test_a_certificate_of_no_known_authority_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    _, other = tls_context(tmp_path)
    tls, _ = tls_context(tmp_path)
    if variable:
        kept = tmp_path / "other.pem"
        kept.write_bytes(other.read_bytes())
        tls, _ = tls_context(tmp_path)
        monkeypatch.setenv(variable, str(kept))
    _assert_refused(tls)


def test_a_certificate_of_another_host_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, bundle = tls_context(tmp_path, "sqs.example.com")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    _assert_refused(tls)


def test_requests_go_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(Scripted()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        for make in (_boto3_client, _client):
            assert "Messages" not in make("http://sqs.invalid").receive_message(**REQUEST)
    assert [request.path for request in proxy.requests] == ["http://sqs.invalid/"] * 2


def test_requests_go_past_the_proxy_where_the_environment_excludes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ScriptedServer(Scripted()) as server:
        for make in (_boto3_client, _client):
            assert "Messages" not in make(server.url).receive_message(**REQUEST)
    assert [request.path for request in server.requests] == ["/"] * 2


@pytest.mark.parametrize("operation", ["depth", "receive", "send", "delete", "missing"])
def test_the_local_server_answers_as_it_answers_boto3(
    stack: Stack, sqs: SQSClient, queue_url: str, operation: str
) -> None:
    sent = send(sqs, queue_url, bodies(2))
    client = _client(stack.environment["AWS_ENDPOINT_URL"])
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "depth": ("get_queue_attributes", {"AttributeNames": ["All"]}),
        "receive": (
            "receive_message",
            {"MaxNumberOfMessages": 10, "VisibilityTimeout": 0, "WaitTimeSeconds": 1},
        ),
        "send": ("send_message_batch", {"Entries": [{"Id": "a", "MessageBody": body(1)}]}),
        "delete": ("delete_message_batch", {"Entries": [{"Id": "a", "ReceiptHandle": "none"}]}),
        "missing": ("get_queue_attributes", {"QueueUrl": f"{queue_url}-missing"}),
    }
    name, request = calls[operation]
    expected, actual = (
        _shape(_outcome(getattr(each, name), {"QueueUrl": queue_url, **request}))
        for each in (sqs, client)
    )

    assert len(sent) == 2
    assert expected == actual


def _shape(answer: Any) -> Any:  # noqa: ANN401 (JSON)
    """The names and types of an answer, without what differs from call to call."""
    match answer:
        case dict():
            return {
                name: _shape(value) for name, value in answer.items() if name != "ResponseMetadata"
            }
        case list():
            return [_shape(value) for value in answer]
    return type(answer) if isinstance(answer, str) and len(answer) > 3 else answer


def _outcome(call: Any, request: Mapping[str, Any]) -> Any:  # noqa: ANN401 (a client's method)
    try:
        return call(**request)
    except ClientError as error:
        return {"error": error.response["Error"]["Code"], "code": [error.response["Error"]["Code"]]}


class _Status:
    def __init__(self, status: int) -> None:
        self.status_code = status


def _assert_refused(tls: Any) -> None:  # noqa: ANN401 (an SSL context)
    with ScriptedServer(Scripted(), tls=tls) as server:
        for make in (_boto3_client, _client):
            with pytest.raises(BotoCoreError) as caught:
                make(server.url, attempts=1).receive_message(**REQUEST)
            assert type(caught.value).__name__ == "SSLError"
    assert not server.requests


def _refusal(make: Any, operation: str, answer: Scripted) -> tuple[str, int]:  # noqa: ANN401 (a function)
    """The error of a call, and how many requests it made."""
    with ScriptedServer(answer) as server:
        call = getattr(make(server.url), operation)
        request = REQUEST if operation == "receive_message" else {"QueueUrl": REQUEST["QueueUrl"]}
        with pytest.raises((ClientError, BotoCoreError)) as caught:
            call(**request)
    error = caught.value
    name = type(error).__name__
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else name
    return code, len(server.requests)


def _options(url: str, token: str | None) -> dict[str, Any]:
    return {
        "endpoint_url": url,
        "region_name": "us-east-1",
        "aws_access_key_id": KEY,
        "aws_secret_access_key": SECRET,
        **({"aws_session_token": token} if token else {}),
    }


def _client(url: str, attempts: int = ATTEMPTS, token: str | None = None) -> SqsClient:
    options = _options(url, token)
    return connect_client(options, connect_seconds=1, read_seconds=1, max_attempts=attempts)


def _boto3_client(url: str, attempts: int = ATTEMPTS) -> SQSClient:
    retries: Any = {"mode": "standard", "total_max_attempts": attempts}
    config = Config(retries=retries, connect_timeout=1, read_timeout=1)
    return boto3.client("sqs", config=config, **_options(url, None))


def _botocore_signature(
    url: str, headers: Mapping[str, str], content: bytes, token: str | None
) -> tuple[str, str]:
    """The signed headers and the signature that botocore gives a request."""
    signer = SigV4Auth(BotoCredentials(KEY, SECRET, token), "sqs", "us-east-1")
    kept = {
        name: value
        for name, value in headers.items()
        if name in {"content-type", "host"} or name.startswith("x-amz-")
    }
    request = AWSRequest("POST", url, headers=kept, data=content)
    request.context["timestamp"] = kept["x-amz-date"]
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    return signer.signed_headers(signer.headers_to_sign(request)), signature


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No seconds between the attempts."""
    backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(backoff, lambda *_: 0)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
