"""Whether keysets are the ones that the table's tokens were made with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

CheckValues = Mapping[str, Mapping[int, bytes]]
"""For each keyset by name, the check value of each of its keys by id."""


class RetiredCheckValue(bytes):
    """The check value of a retired key: a keyset may be without it."""

    __slots__ = ()


def key_conflicts(registered: CheckValues, present: CheckValues) -> tuple[str, ...]:
    """Why these keysets must not be used with this database; empty if they may.

    A keyset may have keys that are not registered yet; it must have every key that is and is not
    retired, no other key under an id that is, and share none with another keyset.
    """
    return (*_absent_or_other(registered, present), *_shared(present))


def retired_primaries(registered: CheckValues, primaries: Mapping[str, int]) -> tuple[str, ...]:
    """Which keysets, given by the id of their primary key, would mask with a retired key."""
    return tuple(
        f"key {key_id} is the primary key of the keyset of {name}, and it is retired"
        for name, key_id in primaries.items()
        if isinstance(registered.get(name, {}).get(key_id), RetiredCheckValue)
    )


def _absent_or_other(registered: CheckValues, present: CheckValues) -> Iterator[str]:
    for name, checks in registered.items():
        for key_id, check in checks.items():
            found = present.get(name, {}).get(key_id)
            if found is None:
                if not isinstance(check, RetiredCheckValue):
                    yield f"the keyset of {name} lacks key {key_id}, which the database knows"
            elif found != check:
                yield f"the keyset of {name} has another key under the id {key_id}"


def _shared(present: CheckValues) -> Iterator[str]:
    for (one, checks), (other, others) in combinations(sorted(present.items()), 2):
        if set(checks.values()) & set(others.values()):
            yield f"the keysets of {one} and {other} share a key"
