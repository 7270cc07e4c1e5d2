"""Imports of packages as large as Dagster."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Turns the garbage collector off; the objects that exist at the end are never collected.

    Collections during the import of Dagster, and again at the end of the process, take as long as
    the import itself. Source: https://docs.python.org/3/library/gc.html#gc.freeze
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
