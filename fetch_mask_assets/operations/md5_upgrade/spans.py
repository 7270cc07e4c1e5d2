"""Spans of the numbers of a space: subtracted, split for workers, merged for the record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_PIECES = 1_024
_MIN_PIECE = 2**20
_MAX_PIECE = 2**26


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The numbers from `start` up to and without `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        """Return the count of numbers."""
        return self.stop - self.start


def subtract_spans(spans: Iterable[Span], done: Iterable[Span]) -> list[Span]:
    """Return the parts of `spans` that no span of `done` covers."""
    remaining = list(spans)
    for each in done:
        remaining = [part for span in remaining for part in _subtract(span, each)]
    return remaining


def split_spans(spans: Iterable[Span], space_size: int) -> list[Span]:
    """Split spans into pieces that workers share and between which a search can stop.

    Args:
        spans: the spans to split.
        space_size: the number of values of the whole space, which sets the length of a piece.
    """
    step = min(max(space_size // _PIECES, _MIN_PIECE), _MAX_PIECE)
    return [
        Span(start, min(start + step, span.stop))
        for span in spans
        for start in range(span.start, span.stop, step)
    ]


def recordable_spans(done: Iterable[Span]) -> list[Span]:
    """Merge adjacent spans and leave out short ones.

    A short span takes no time to try again, and a record of it would identify the values found.
    """
    merged: list[Span] = []
    for span in sorted(done):
        if merged and merged[-1].stop == span.start:
            merged[-1] = Span(merged[-1].start, span.stop)
        else:
            merged.append(span)
    return [span for span in merged if len(span) >= _MIN_PIECE]


def _subtract(span: Span, done: Span) -> Iterator[Span]:
    parts = (
        Span(span.start, min(span.stop, done.start)),
        Span(max(span.start, done.stop), span.stop),
    )
    yield from (part for part in parts if part.start < part.stop)
