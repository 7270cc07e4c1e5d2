"""Drains a queue with several receivers at once, until the batch is complete."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock, Semaphore

from fetch_mask_assets.pipeline.queue.limits import (
    SLOW_SECONDS,
    DrainEnd,
    DrainLimits,
    DrainProgress,
    drain_end,
    next_claim,
)
from fetch_mask_assets.pipeline.queue.raw_frames import RawFrames
from fetch_mask_assets.pipeline.queue.sqs.delivery import Delivery


class Drain:
    """Receivers that share one count of received and claimed messages.

    At first, as many of them receive as empty answers end the batch, so an empty queue costs one
    wait and few requests. After each slow answer with messages one more receiver begins, so their
    number doubles with each round trip while the queue has messages. More receivers than quick
    answers keep busy would only wait for each other.
    """

    def __init__(self, receive: Callable[[int], list[Delivery]], limits: DrainLimits) -> None:
        """`receive` receives at most as many messages as it is given."""
        self._receive = receive
        self._limits = limits
        self._lock = Lock()
        self._turns = Semaphore(limits.empty_receives)
        self._progress = DrainProgress()
        self._stopped = False
        self._started = time.monotonic()
        self.received = RawFrames()
        self.requests = 0

    @property
    def seconds(self) -> float:
        """Seconds since the drain began."""
        return time.monotonic() - self._started

    @property
    def end(self) -> DrainEnd:
        """Why the drain ended."""
        return drain_end(self._limits, self._progress) or DrainEnd.TIME

    def run(self, receivers: int) -> None:
        """Receives until a limit is reached; the first failure stops every receiver."""
        with ThreadPoolExecutor(receivers) as pool:
            try:
                for future in [pool.submit(self._loop) for _ in range(receivers)]:
                    future.result()
            except BaseException:  # also an interrupt of this thread stops the others
                self._stopped = True
                raise

    def _loop(self) -> None:
        try:
            while self._take_turn():
                pass
        except BaseException:
            self._stopped = True
            raise
        finally:
            self._turns.release()  # so that the next receiver ends too

    def _take_turn(self) -> bool:
        """Receives once when it may; returns whether the batch goes on."""
        self._turns.acquire()
        claim = self._claim()
        if claim:
            asked = self.seconds
            deliveries = self._receive(claim)
            is_slow = self.seconds - asked > SLOW_SECONDS
            self._add(claim, deliveries)
            self._turns.release(2 if deliveries and is_slow else 1)
        return claim is not None

    def _claim(self) -> int | None:
        """The number of messages to receive; 0 for none at present, None for none any more."""
        with self._lock:
            self._progress = replace(self._progress, seconds=self.seconds)
            if self._stopped or drain_end(self._limits, self._progress):
                return None
            claim = next_claim(self._limits, self._progress)
            if claim:
                self._progress = replace(
                    self._progress,
                    claimed=self._progress.claimed + claim,
                    active=self._progress.active + 1,
                )
                self.requests += 1
            return claim

    def _add(self, claim: int, deliveries: list[Delivery]) -> None:
        sizes = [delivery.body_bytes for delivery in deliveries]
        with self._lock:
            self.received.extend(deliveries)
            before = self._progress
            self._progress = replace(
                before,
                messages=before.messages + len(deliveries),
                claimed=before.claimed - claim,
                active=before.active - 1,
                bytes=before.bytes + sum(sizes),
                largest=max([before.largest, *sizes]),
                empty_receives=0 if deliveries else before.empty_receives + 1,
            )
