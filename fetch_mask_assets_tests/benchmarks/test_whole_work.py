"""A round that does not do the whole work is refused."""

from __future__ import annotations

from dataclasses import dataclass

import boto3
import psycopg
import pytest

from benchmarks.arena import Seat
from benchmarks.databases import DatabaseKind, ServerCpu, scratch_database
from benchmarks.processes import Usage
from benchmarks.queue.client import BenchmarkQueue, QueueKind, running_queue
from benchmarks.stages import Contender
from fetch_mask_assets import settings
from fetch_mask_assets.local_stack.stack import Stack

_CONTENDER = Contender("test", table="user_logins")


@dataclass(frozen=True, slots=True)
class _Thief:
    """Takes messages from the queue, writes rows, and perhaps forgets some of either."""

    queue: BenchmarkQueue
    database_url: str
    received: int
    deleted: int
    rows: int

    def run(self) -> Usage:
        """Does what it was told."""
        client = boto3.client(
            "sqs",
            endpoint_url=self.queue.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 (no secret)
        )
        url = self.queue.environment["LOGIN_QUEUE_URL"]
        answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=self.received)
        for message in answer["Messages"][: self.deleted]:
            client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                "INSERT INTO user_logins SELECT FROM generate_series(1, %s)", [self.rows]
            )
        return Usage(cpu_seconds=1, wall_seconds=2, peak_bytes=3)

    def profile(self) -> None:
        """Nothing to see."""


@pytest.mark.parametrize(
    ("received", "deleted", "rows", "complaint"),
    [
        (5, 5, 5, ""),
        (5, 5, 4, "4 rows of 5 were written, and 0 messages are left on the queue"),
        (5, 5, 6, "6 rows of 5 were written, and 0 messages are left on the queue"),
        (5, 4, 5, "5 rows of 5 were written, and 1 messages are left on the queue"),
        (4, 4, 5, "5 rows of 5 were written, and 1 messages are left on the queue"),
    ],
)
def test_a_round_with_a_message_or_a_row_too_few_or_too_many_is_refused(
    received: int, deleted: int, rows: int, complaint: str, stack: Stack
) -> None:
    server = stack.environment[settings.DATABASE_URL]
    with scratch_database(server, DatabaseKind.TABLE) as url, running_queue(QueueKind()) as queue:
        thief = _Thief(queue, url, received, deleted, rows)
        seat = Seat(_CONTENDER, thief, url, queue, ServerCpu(server), messages=5)
        if complaint:
            with pytest.raises(RuntimeError, match=complaint):
                seat.round()
        else:
            done = seat.round()

            assert (done.messages, done.requests) == (5, 6)
            assert (done.cpu_seconds, done.wall_seconds, done.peak_bytes) == (1, 2, 3)
