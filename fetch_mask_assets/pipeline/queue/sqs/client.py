"""A client of SQS: the operations that the product needs, with boto3's arguments and answers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 (botocore's name)
    HTTPClientError,
)
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from fetch_mask_assets.pipeline.queue.sqs.endpoint import resolve_endpoint
from fetch_mask_assets.pipeline.queue.sqs.protocol import parse_response, request_headers
from fetch_mask_assets.pipeline.queue.sqs.transport import Transport

if TYPE_CHECKING:
    from tenacity import RetryCallState

Answer = dict[str, Any]
"""The answer of SQS, as boto3 gives it, without `ResponseMetadata`."""


class SqsClient:
    """Signed requests over kept connections; any number of threads can call it at once.

    Every operation takes boto3's arguments and raises boto3's errors, without their messages, after
    as many attempts as botocore's standard mode makes. An answer that is not from SQS is a
    `QueueError`.
    """

    def __init__(self, transport: Transport, max_attempts: int) -> None:
        """`max_attempts` counts the first attempt too."""
        self._transport = transport
        self._attempts = Retrying(
            retry=retry_if_exception(is_retryable),
            stop=stop_after_attempt(max_attempts),
            wait=_wait,
            reraise=True,
        )

    def receive_message(self, **request: Any) -> Answer:  # noqa: ANN401 (boto3's arguments)
        """ReceiveMessage. Messages of an answer that is lost stay hidden until their time-out."""
        return self._call("ReceiveMessage", request)

    def delete_message_batch(self, **request: Any) -> Answer:  # noqa: ANN401 (as above)
        """DeleteMessageBatch."""
        return self._call("DeleteMessageBatch", request)

    def change_message_visibility_batch(self, **request: Any) -> Answer:  # noqa: ANN401 (as above)
        """ChangeMessageVisibilityBatch."""
        return self._call("ChangeMessageVisibilityBatch", request)

    def send_message_batch(self, **request: Any) -> Answer:  # noqa: ANN401 (as above)
        """SendMessageBatch."""
        return self._call("SendMessageBatch", request)

    def get_queue_attributes(self, **request: Any) -> Answer:  # noqa: ANN401 (as above)
        """GetQueueAttributes."""
        return self._call("GetQueueAttributes", request)

    def get_queue_url(self, **request: Any) -> Answer:  # noqa: ANN401 (as above)
        """GetQueueUrl."""
        return self._call("GetQueueUrl", request)

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def _call(self, operation: str, request: Answer) -> Answer:
        body = json.dumps(request).encode()
        try:
            return self._try(operation, body)
        except (ClientError, BotoCoreError) as error:
            failures = [error]
        # tenacity takes a third of the CPU of a call, so it begins with the failure of the first.
        return self._attempts(self._try_unless_failed, failures, operation, body)

    def _try_unless_failed(self, failures: list[Exception], operation: str, body: bytes) -> Answer:
        if failures:
            raise failures.pop()
        return self._try(operation, body)

    def _try(self, operation: str, body: bytes) -> Answer:
        return parse_response(operation, self._transport.post(_headers(operation), body))


_headers = cache(request_headers)

# botocore.retries.standard: the lists of its checkers.
_TRANSIENT_CODES = {"RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete"}
_THROTTLING_CODES = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottledException",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "TransactionInProgressException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "LimitExceededException",
    "RequestThrottled",
    "SlowDown",
    "PriorRequestNotComplete",
    "EC2ThrottledException",
}
_TRANSIENT_STATUSES = {500, 502, 503, 504}
_THROTTLING_STATUS = 429


def is_retryable(error: BaseException) -> bool:
    """Return whether botocore's standard mode tries again after this error."""
    if not isinstance(error, ClientError):
        return isinstance(error, (ConnectionError, HTTPClientError))
    return (
        is_throttled(error)
        or error.response["Error"]["Code"] in _TRANSIENT_CODES
        or error.response["ResponseMetadata"]["HTTPStatusCode"] in _TRANSIENT_STATUSES
    )


def is_throttled(error: BaseException | None) -> bool:
    """Return whether this error asks for fewer requests."""
    return isinstance(error, ClientError) and (
        error.response["Error"]["Code"] in _THROTTLING_CODES
        or error.response["ResponseMetadata"]["HTTPStatusCode"] == _THROTTLING_STATUS
    )


_WAIT = wait_random_exponential(multiplier=0.05, max=20)
_WAIT_IF_THROTTLED = wait_random_exponential(multiplier=1, max=20)


def _wait(state: RetryCallState) -> float:
    """Seconds until the next attempt, by botocore's rule."""
    error = state.outcome.exception() if state.outcome else None
    return (_WAIT_IF_THROTTLED if is_throttled(error) else _WAIT)(state)


def connect_client(
    options: Mapping[str, Any], *, connect_seconds: int, read_seconds: int, max_attempts: int
) -> SqsClient:
    """A client by these options of a boto3 client, and for the rest by botocore's rules.

    Raises:
        BotoCoreError: the region, the profile or a part of the credentials is missing.
        ValueError: the URL of the endpoint is malformed.
    """
    endpoint = resolve_endpoint(options, os.environ)
    return SqsClient(Transport(endpoint, connect_seconds, read_seconds), max_attempts)
