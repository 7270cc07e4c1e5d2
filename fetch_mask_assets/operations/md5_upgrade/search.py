"""Searching for digests on all cores: one process for each, told nothing but digests."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import repeat
from multiprocessing import get_context, parent_process
from threading import Thread

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.operations.md5_upgrade.digests import Space, Span, Wanted, search


class SearchError(FetchMaskError):
    """A search broke off; what is recorded of it stays."""


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def search_spans(
    space: Space, spans: Sequence[Span], targets: Wanted, cores: int
) -> Generator[tuple[Span, list[int]]]:
    """For each span, in order, the numbers of the texts whose digest is looked for.

    Closing the iterator ends the search after the spans under way.

    Raises:
        SearchError: a worker died.
    """
    # Spawned, not forked: the libraries of this process have threads.
    pool = ProcessPoolExecutor(cores, get_context("spawn"), initializer=_begin, initargs=(targets,))
    try:
        yield from zip(spans, pool.map(_search, repeat(space), spans), strict=False)
    except BrokenProcessPool:
        raise SearchError(
            "a worker process died, perhaps for want of memory: repeat the command, it goes on"
            " where it stopped. --cores 1 needs the least memory."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


# A worker's own copy: sent once, not with each span.
_looked_for: list[Wanted] = []


def _begin(targets: Wanted) -> None:
    # Ctrl-C is for the parent to answer; and a parent that was killed can end nobody.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    _looked_for[:] = [targets]


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _search(space: Space, span: Span) -> list[int]:
    return search(space, span, _looked_for[0])
