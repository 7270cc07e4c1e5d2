"""Attributes of a queue: its counts, its retention and its redrive policy."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from fetch_mask_assets.aws import translate_aws_errors
from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.pipeline.queue.backlog import QueueDepth
from fetch_mask_assets.pipeline.queue.dead_letters import (
    RedrivePolicy,
    RetentionPolicy,
    redrive_policy,
)

if TYPE_CHECKING:  # the stubs are for the type checker alone and are not installed with us
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType


def read_depth(client: SQSClient, url: str) -> QueueDepth:
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
    attributes = answer.get("Attributes", {})
    return QueueDepth(
        waiting=_number(attributes, "ApproximateNumberOfMessages"),
        in_flight=_number(attributes, "ApproximateNumberOfMessagesNotVisible"),
        delayed=_number(attributes, "ApproximateNumberOfMessagesDelayed"),
    )


def read_retention(client: SQSClient, url: str) -> RetentionPolicy:
    """The retention of a queue and its redrive policy.

    Raises:
        QueueError: the queue cannot be read.
    """
    with translate_errors("GetQueueAttributes"):
        answer = client.get_queue_attributes(
            QueueUrl=url, AttributeNames=["MessageRetentionPeriod", "RedrivePolicy"]
        )
        attributes = answer.get("Attributes", {})
        return RetentionPolicy(
            retention_seconds=_number(attributes, "MessageRetentionPeriod"),
            redrive=redrive_policy(attributes.get("RedrivePolicy")),
        )


def find_dead_letter_url(client: SQSClient, policy: RedrivePolicy) -> str:
    """The URL of the dead-letter queue that a redrive policy names.

    Raises:
        QueueError: there is no such queue, or the lookup is refused.
    """
    with translate_errors("GetQueueUrl", _NO_DEAD_LETTERS):
        answer = client.get_queue_url(
            QueueName=policy.queue_name, QueueOwnerAWSAccountId=policy.account
        )
    return answer["QueueUrl"]


_NO_QUEUE = "Check LOGIN_QUEUE_URL: there is no such queue."
_REMEDIES = {"NonExistentQueue": _NO_QUEUE, "QueueDoesNotExist": _NO_QUEUE}
_NO_TARGET = "The redrive policy of the login queue names a dead-letter queue that does not exist."
_NO_DEAD_LETTERS = {"NonExistentQueue": _NO_TARGET, "QueueDoesNotExist": _NO_TARGET}


def translate_errors(
    operation: str, remedies: Mapping[str, str] = _REMEDIES
) -> AbstractContextManager[None]:
    """Turns errors of an SQS operation into `QueueError`."""
    return translate_aws_errors(f"SQS {operation}", QueueError, remedies)


def _number(attributes: Mapping[QueueAttributeNameType, str], name: QueueAttributeNameType) -> int:
    try:
        return int(attributes[name])
    except (KeyError, ValueError):
        raise QueueError(
            f"SQS GetQueueAttributes answers without a number for {name}: check LOGIN_QUEUE_URL and"
            " AWS_ENDPOINT_URL; the server there is not SQS."
        ) from None
