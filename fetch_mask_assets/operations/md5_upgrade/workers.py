"""Search on all cores, one process for each. Workers receive digests and spans, no values."""

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
from fetch_mask_assets.operations.md5_upgrade.search import DigestSet, search_span
from fetch_mask_assets.operations.md5_upgrade.spaces import Space
from fetch_mask_assets.operations.md5_upgrade.spans import Span


class SearchError(FetchMaskError):
    """A search was interrupted; its recorded progress is kept."""


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def search_spans(
    space: Space, spans: Sequence[Span], targets: DigestSet, cores: int
) -> Generator[tuple[Span, list[int]]]:
    """Yield each span, in order, with the numbers of the texts whose digest is in the set.

    Closing the iterator ends the search after the spans under way.

    Raises:
        SearchError: a worker died.
    """
    # Spawned, not forked: the libraries of this process have threads.
    pool = ProcessPoolExecutor(cores, get_context("spawn"), initializer=_start, initargs=(targets,))
    try:
        yield from zip(spans, pool.map(_search, repeat(space), spans), strict=False)
    except BrokenProcessPool:
        raise SearchError(
            "a worker process died, possibly for lack of memory. Run the command again: it"
            " continues where it stopped. --cores 1 needs the least memory."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


# The worker's copy, sent once and not with each span.
_targets: list[DigestSet] = []


def _start(targets: DigestSet) -> None:
    # The parent handles Ctrl-C. A parent that was killed cannot end its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_exit_with_parent, daemon=True).start()
    _targets[:] = [targets]


def _exit_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _search(space: Space, span: Span) -> list[int]:
    return search_span(space, span, _targets[0])
