"""Shared work: how many threads do it, and that a failure leaves no piece undone."""

from __future__ import annotations

import threading
import time

import pytest

from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.pipeline.queue.limits import SLOW_SECONDS
from fetch_mask_assets.pipeline.queue.shared_work import SharedWork

THREADS = 8
_SECONDS = 30


def test_quick_pieces_are_done_one_after_another() -> None:
    threads: set[int] = set()

    def do(piece: int) -> int:
        threads.add(threading.get_ident())
        return piece

    assert SharedWork(iter(range(100)), do).run(1) == list(range(100))
    assert len(threads) == 1


def test_slow_pieces_are_done_at_once() -> None:
    together = threading.Barrier(THREADS, timeout=_SECONDS)

    def do(piece: int) -> int:
        # The first pieces let the other threads begin; the next are done when all have begun.
        if piece < THREADS - 1:
            time.sleep(2 * SLOW_SECONDS)
        else:
            together.wait()
        return piece

    pieces = range(2 * THREADS - 1)
    assert sorted(SharedWork(iter(pieces), do).run(THREADS)) == list(pieces)


def test_a_failed_piece_is_raised_after_all_others_were_done() -> None:
    done: list[int] = []

    def do(piece: int) -> None:
        if piece in {3, 7}:
            raise QueueError(f"piece {piece} is refused")
        done.append(piece)

    with pytest.raises(QueueError, match="piece 3 is refused"):
        SharedWork(iter(range(10)), do).run(THREADS)

    assert sorted(done) == [0, 1, 2, 4, 5, 6, 8, 9]


def test_no_pieces_have_no_results() -> None:
    assert SharedWork(iter([]), str).run(THREADS) == []
