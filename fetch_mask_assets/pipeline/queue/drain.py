"""Drains a queue with several receivers at once, until the batch is complete."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

from fetch_mask_assets.pipeline.queue.limits import (
    DrainEnd,
    DrainLimits,
    DrainProgress,
    drain_end,
    next_claim,
)

if TYPE_CHECKING:  # the stubs are for the type checker alone and are not installed with us
    from mypy_boto3_sqs.type_defs import MessageTypeDef


class Drain:
    """Receivers that share one count of received and claimed messages."""

    def __init__(self, receive: Callable[[int], list[MessageTypeDef]], limits: DrainLimits) -> None:
        """`receive` receives at most as many messages as it is given."""
        self._receive = receive
        self._limits = limits
        self._lock = Lock()
        self._progress = DrainProgress()
        self._stopped = False
        self._started = time.monotonic()
        self.messages: list[MessageTypeDef] = []
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
            futures = [pool.submit(self._loop) for _ in range(receivers)]
            try:
                for future in futures:
                    future.result()
            except BaseException:  # also an interrupt of this thread stops the others
                self._stopped = True
                raise

    def _loop(self) -> None:
        try:
            while claim := self._claim():
                self._add(claim, self._receive(claim))
        except BaseException:
            self._stopped = True
            raise

    def _claim(self) -> int:
        with self._lock:
            self._progress = replace(self._progress, seconds=self.seconds)
            if self._stopped or drain_end(self._limits, self._progress):
                return 0
            claim = next_claim(self._limits, self._progress)
            self._progress = replace(self._progress, claimed=self._progress.claimed + claim)
            self.requests += 1
            return claim

    def _add(self, claim: int, messages: list[MessageTypeDef]) -> None:
        with self._lock:
            self.messages.extend(messages)
            before = self._progress
            self._progress = replace(
                before,
                messages=before.messages + len(messages),
                claimed=before.claimed - claim,
                bytes=before.bytes + sum(map(_body_bytes, messages)),
                empty_receives=0 if messages else before.empty_receives + 1,
            )


def _body_bytes(message: MessageTypeDef) -> int:
    return len(message["Body"].encode("utf-8", "surrogatepass"))
