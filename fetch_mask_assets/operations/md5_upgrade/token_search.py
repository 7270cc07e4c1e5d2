"""Find the values behind a field's MD5 digests, and record their tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets.masking.fields import MAX_TOKEN_LENGTH
from fetch_mask_assets.operations.md5_upgrade.md5 import md5
from fetch_mask_assets.operations.md5_upgrade.postgres import DigestTable
from fetch_mask_assets.operations.md5_upgrade.search import DigestSet, digest_set
from fetch_mask_assets.operations.md5_upgrade.spaces import Search
from fetch_mask_assets.operations.md5_upgrade.spans import Span, split_spans, subtract_spans
from fetch_mask_assets.operations.md5_upgrade.values_file import read_values
from fetch_mask_assets.operations.md5_upgrade.workers import search_spans

_MATCHES_PER_RECORD = 20_000
_SECONDS_PER_RECORD = 5.0
_VALUES_PER_READ = 50_000


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """The values to try for a field: spaces, a file of known values; and the cores to use."""

    searches: tuple[Search, ...]
    values_file: Path | None
    cores: int

    @property
    def size(self) -> int:
        """The number of values of the spaces."""
        return sum(search.size for search in self.searches)


def remaining_plan(table: DigestTable, plan: SearchPlan) -> SearchPlan:
    """Return a plan without the spans that an interrupted upgrade has searched.

    Raises:
        DatabaseError: the searched spans cannot be read.
    """
    searches = tuple(
        Search(each.space, tuple(subtract_spans(each.spans, table.searched_spans(each.space))))
        for each in plan.searches
    )
    return replace(plan, searches=searches)


def clear_progress(table: DigestTable, plan: SearchPlan) -> None:
    """Delete the record of a plan's searched spans, once the upgrade is complete.

    Raises:
        DatabaseError: some of the record is not deleted.
    """
    for search in plan.searches:
        table.clear_progress(search)


def find_tokens(
    table: DigestTable, masker: FieldMasker, plan: SearchPlan, on_progress: Callable[[int], None]
) -> int:
    """Find the values of digests and record their tokens; return the number of digests found.

    Args:
        table: the field's digests.
        masker: makes the tokens.
        plan: the values to try, from `remaining_plan`.
        on_progress: called with the number of values tried since the last call.

    Raises:
        DatabaseError: the database refused; recorded matches are kept.
        ValuesFileError: the file of values cannot be read; recorded matches are kept.
        SearchError: a worker died; recorded matches are kept.
    """
    recorder = _MatchRecorder(table)
    finder = _ValueFinder(digest_set(table.digests()))
    for search in plan.searches:
        for span, values in finder.search_space(search, plan.cores):
            recorder.add(_tokens(masker, values), search.space.name, span)
            on_progress(len(span))
        recorder.flush()
    for values in finder.search_file(plan.values_file):
        recorder.add(_tokens(masker, values))
    recorder.flush()
    return recorder.count


def count_recoverable(digests: bytes, plan: SearchPlan, on_progress: Callable[[int], None]) -> int:
    """Return the number of digests that `find_tokens` would find, without a write.

    Args:
        digests: concatenated digests, 16 bytes each.
        plan: the values to try.
        on_progress: called with the number of values tried since the last call.

    Raises:
        ValuesFileError: the file of values cannot be read.
        SearchError: a worker died.
    """
    finder = _ValueFinder(digest_set(digests))
    for search in plan.searches:
        for span, _ in finder.search_space(search, plan.cores):
            on_progress(len(span))
    for _ in finder.search_file(plan.values_file):
        pass
    return finder.count


class _ValueFinder:
    """Finds one value for each digest, and stops when every digest has one."""

    def __init__(self, targets: DigestSet) -> None:
        self._targets = targets
        self._is_found: NDArray[np.bool_] = np.zeros(len(targets), np.bool_)
        self.count = 0

    def search_space(self, search: Search, cores: int) -> Iterator[tuple[Span, list[str]]]:
        spans = split_spans(search.spans, search.space.size)
        if self._is_complete() or not spans:
            return
        found = search_spans(search.space, spans, self._targets, min(cores, len(spans)))
        for span, numbers in found:
            yield span, self._new(map(search.space.text, numbers))
            if self._is_complete():
                found.close()
                return

    def search_file(self, path: Path | None) -> Iterator[list[str]]:
        values = read_values(path) if path and not self._is_complete() else iter(())
        while chunk := list(islice(values, _VALUES_PER_READ)):
            yield self._new(chunk)

    def _is_complete(self) -> bool:
        return self.count == len(self._targets)

    def _new(self, values: Iterable[str]) -> list[str]:
        return [value for value in values if self._is_new(value)]

    def _is_new(self, value: str) -> bool:
        index = self._targets.index(md5(value))
        if index is None or self._is_found[index]:
            return False
        self._is_found[index] = True
        self.count += 1
        return True


class _MatchRecorder:
    """Buffers tokens and searched spans, and records them every few thousand or few seconds."""

    def __init__(self, table: DigestTable) -> None:
        self._table = table
        self._tokens: dict[bytes, str] = {}
        self._space = ""
        self._spans: dict[Span, int] = {}
        self._flushed_at = time.monotonic()
        self.count = 0

    def add(self, tokens: Mapping[bytes, str], space: str = "", span: Span | None = None) -> None:
        self._tokens.update(tokens)
        self._space = space
        if span:
            self._spans[span] = len(tokens)
        if len(self._tokens) >= _MATCHES_PER_RECORD or self._age >= _SECONDS_PER_RECORD:
            self.flush()

    def flush(self) -> None:
        if self._tokens or self._spans:
            self._table.record_matches(self._tokens, self._space, self._spans)
        self.count += len(self._tokens)
        self._tokens, self._spans = {}, {}
        self._flushed_at = time.monotonic()

    @property
    def _age(self) -> float:
        return time.monotonic() - self._flushed_at


def _tokens(masker: FieldMasker, values: Sequence[str]) -> dict[bytes, str]:
    """Return tokens by digest, without the values that are not valid for the field."""
    tokens = {md5(value): _token(masker, value) for value in values}
    return {digest: token for digest, token in tokens.items() if token}


def _token(masker: FieldMasker, value: str) -> str | None:
    try:
        token = masker.mask(value)
    except ValueError:
        return None
    return token if len(token) <= MAX_TOKEN_LENGTH else None
