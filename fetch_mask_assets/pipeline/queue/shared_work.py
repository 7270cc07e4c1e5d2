"""Pieces of work that several threads share, as many threads as the work keeps busy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

from fetch_mask_assets.pipeline.queue.limits import SLOW_SECONDS

_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")


class SharedWork(Generic[_Piece, _Result]):
    """One thread at first; each slow piece lets one more begin.

    Threads that share quick pieces would only wait for each other.
    """

    def __init__(self, pieces: Iterator[_Piece], do: Callable[[_Piece], _Result]) -> None:
        """`do` does one piece; any number of threads can call it at once."""
        self._pieces = pieces
        self._do = do
        self._lock = Lock()
        self._results: list[_Result] = []
        self._workers: list[Future[None]] = []

    def run(self, max_threads: int) -> list[_Result]:
        """The results in any order; raises the first failure once all other pieces are done."""
        with ThreadPoolExecutor(max_threads) as pool:
            self._begin(pool)
            for worker in self._workers:  # grows meanwhile
                worker.exception()
        for worker in self._workers:
            worker.result()
        return self._results

    def _begin(self, pool: ThreadPoolExecutor) -> None:
        self._workers.append(pool.submit(self._work, pool))

    def _work(self, pool: ThreadPoolExecutor) -> None:
        for piece in iter(self._next, None):
            started = time.monotonic()
            try:
                self._results.append(self._do(piece))
            except BaseException:
                self._begin(pool)  # goes on with the other pieces
                raise
            if time.monotonic() - started > SLOW_SECONDS:
                self._begin(pool)

    def _next(self) -> _Piece | None:
        with self._lock:
            return next(self._pieces, None)
