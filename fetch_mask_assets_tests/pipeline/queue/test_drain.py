"""The drain: how many receive at once, and what ends them."""

from __future__ import annotations

import threading
import time

import pytest

from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.pipeline.queue.drain import Drain
from fetch_mask_assets.pipeline.queue.limits import SLOW_SECONDS, DrainEnd, DrainLimits
from fetch_mask_assets.pipeline.queue.sqs.delivery import Delivery

RECEIVERS = 32
_SECONDS = 30


def test_an_empty_queue_is_asked_as_often_as_empty_answers_end_the_batch() -> None:
    drain = Drain(lambda _most: [], _limits())

    drain.run(RECEIVERS)

    assert drain.requests == 2
    assert drain.end is DrainEnd.DRY


def test_an_empty_queue_is_asked_by_several_receivers_at_once() -> None:
    together = threading.Barrier(2, timeout=_SECONDS)

    def receive(_most: int) -> list[Delivery]:
        together.wait()
        return []

    drain = Drain(receive, _limits())
    drain.run(RECEIVERS)

    assert drain.requests == 2


def test_no_receive_begins_while_the_active_ones_may_end_the_batch() -> None:
    """One answer comes a moment before the other: a third wait would double the drain."""
    calls, other = iter(range(10**6)), threading.Event()

    def receive(_most: int) -> list[Delivery]:
        if next(calls) == 0:
            other.wait(0.2)
        return []

    drain = Drain(receive, _limits())
    drain.run(RECEIVERS)

    assert drain.requests == 2


def test_all_receivers_receive_at_once_while_slow_answers_have_messages() -> None:
    together = threading.Barrier(RECEIVERS, timeout=_SECONDS)
    calls = iter(range(10**6))

    def receive(most: int) -> list[Delivery]:
        # The first answers let the others begin; the next are given when all have asked.
        call = next(calls)
        if call < RECEIVERS:
            time.sleep(2 * SLOW_SECONDS)
        elif call < 2 * RECEIVERS:
            together.wait()
        return _deliveries(most)

    drain = Drain(receive, _limits(messages=RECEIVERS * 100))
    drain.run(RECEIVERS)

    assert drain.received.whole().height == RECEIVERS * 100
    assert drain.end is DrainEnd.MESSAGES


def test_one_receiver_drains_a_queue_too() -> None:
    answers = [_deliveries(10), [], _deliveries(3), [], []]
    drain = Drain(lambda _most: answers.pop(0), _limits())

    drain.run(1)

    assert drain.received.whole().height == 13
    assert drain.requests == 5
    assert drain.end is DrainEnd.DRY


def test_many_receivers_do_not_go_beyond_the_bytes_of_a_batch() -> None:
    drain = Drain(lambda most: _deliveries(most, size=1_000), _limits(bytes=100_500))

    drain.run(RECEIVERS)

    assert drain.received.whole()["body"].str.len_bytes().sum() == 101_000
    assert drain.end is DrainEnd.BYTES


def test_a_receive_that_fails_stops_every_receiver() -> None:
    calls = iter(range(10**6))

    def receive(most: int) -> list[Delivery]:
        if next(calls) == 100:
            raise QueueError("refused")
        return _deliveries(most)

    drain = Drain(receive, _limits(messages=10**6))
    with pytest.raises(QueueError, match="refused"):
        drain.run(RECEIVERS)

    assert drain.received.whole().height < 10 * (100 + RECEIVERS)


def test_a_receiver_that_cannot_start_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their messages could not be used, and the failure would come late."""
    start, started = threading.Thread.start, iter(range(10**6))

    def start_few(thread: threading.Thread) -> None:
        if next(started) == 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_few)
    drain = Drain(_deliveries, _limits(messages=10**5))
    with pytest.raises(RuntimeError, match="start new thread"):
        drain.run(RECEIVERS)

    assert drain.received.whole().height < 10**5


def _deliveries(number: int, size: int = 10) -> list[Delivery]:
    return [Delivery("id", "handle", 0, 1, "x" * size)] * number


def _limits(
    messages: int = 1_000,
    bytes: int = 2**30,  # noqa: A002 (the limit's name)
) -> DrainLimits:
    return DrainLimits(messages, bytes, seconds=60, empty_receives=2)
