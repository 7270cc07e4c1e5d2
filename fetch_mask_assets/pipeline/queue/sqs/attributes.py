"""Attributes of a queue: its counts, its retention and its redrive policy."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from fetch_mask_assets.aws import translate_aws_errors
from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.pipeline.queue.backlog import QueueDepth
from fetch_mask_assets.pipeline.queue.dead_letters import (
    RedrivePolicy,
    RetentionPolicy,
    redrive_policy,
)
from fetch_mask_assets.pipeline.queue.sqs.client import SqsClient
from fetch_mask_assets.pipeline.queue.sqs.protocol import NOT_SQS


def read_depth(client: SqsClient, url: str) -> QueueDepth:
    """The approximate counts of a queue.

    Raises:
        QueueError: the queue cannot be read.
    """
    with translate_errors("GetQueueAttributes"):
        answer = client.get_queue_attributes(
            QueueUrl=url,
            AttributeNames=[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
                "ApproximateNumberOfMessagesDelayed",
            ],
        )
    attributes = _attributes(answer)
    return QueueDepth(
        waiting=_number(attributes, "ApproximateNumberOfMessages"),
        in_flight=_number(attributes, "ApproximateNumberOfMessagesNotVisible"),
        delayed=_number(attributes, "ApproximateNumberOfMessagesDelayed"),
    )


def read_retention(client: SqsClient, url: str) -> RetentionPolicy:
    """The retention of a queue and its redrive policy.

    Raises:
        QueueError: the queue cannot be read.
    """
    with translate_errors("GetQueueAttributes"):
        answer = client.get_queue_attributes(
            QueueUrl=url, AttributeNames=["MessageRetentionPeriod", "RedrivePolicy"]
        )
        attributes = _attributes(answer)
        return RetentionPolicy(
            retention_seconds=_number(attributes, "MessageRetentionPeriod"),
            redrive=redrive_policy(attributes.get("RedrivePolicy")),
        )


def find_dead_letter_url(client: SqsClient, policy: RedrivePolicy) -> str:
    """The URL of the dead-letter queue that a redrive policy names.

    Raises:
        QueueError: there is no such queue, or the lookup is refused.
    """
    with translate_errors("GetQueueUrl", _NO_DEAD_LETTERS):
        answer = client.get_queue_url(
            QueueName=policy.queue_name, QueueOwnerAWSAccountId=policy.account
        )
    url = answer.get("QueueUrl")
    if not isinstance(url, str):
        raise QueueError(f"SQS GetQueueUrl answers without a URL: {NOT_SQS}")
    return url


_NO_QUEUE = "Check LOGIN_QUEUE_URL: there is no such queue."
_REMEDIES = {"NonExistentQueue": _NO_QUEUE, "QueueDoesNotExist": _NO_QUEUE}
_NO_TARGET = "The redrive policy of the login queue names a dead-letter queue that does not exist."
_NO_DEAD_LETTERS = {"NonExistentQueue": _NO_TARGET, "QueueDoesNotExist": _NO_TARGET}


def translate_errors(
    operation: str, remedies: Mapping[str, str] = _REMEDIES
) -> AbstractContextManager[None]:
    """Turns errors of an SQS operation into `QueueError`."""
    return translate_aws_errors(f"SQS {operation}", QueueError, remedies)


def _attributes(answer: Mapping[str, Any]) -> Mapping[str, str]:
    attributes = answer.get("Attributes")
    return attributes if isinstance(attributes, dict) else {}


def _number(attributes: Mapping[str, str], name: str) -> int:
    try:
        return int(attributes[name])
    except (KeyError, TypeError, ValueError):
        raise QueueError(
            f"SQS GetQueueAttributes answers without a number for {name}: {NOT_SQS}"
        ) from None
