"""The check that keysets are the ones that the table's tokens were made with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import combinations

from fetch_mask_assets.keys.keyset_change import KeyState

CheckValues = Mapping[str, Mapping[int, bytes]]
"""For each keyset by name, the check value of each of its keys by id."""


class KeyStatus(StrEnum):
    """The status of a key: whether it masks, opens or neither."""

    PRIMARY = "primary"
    ENABLED = "enabled"
    DISABLED = "disabled"
    RETIRED = "retired"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class RegisteredKey:
    """A key in the database's registry; the times are in UTC."""

    first_used_at: datetime
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key with its status and the number of tokens or sealed bodies under it."""

    keyset: str
    key_id: int
    status: KeyStatus
    first_used_at: datetime | None
    rows: int

    @property
    def has_unreadable_rows(self) -> bool:
        """Return whether there are rows that this keyset does not open."""
        return self.rows > 0 and self.status not in {KeyStatus.PRIMARY, KeyStatus.ENABLED}


class RetiredCheckValue(bytes):
    """The check value of a retired key: a keyset may be without it."""

    __slots__ = ()


def key_conflicts(registered: CheckValues, present: CheckValues) -> tuple[str, ...]:
    """The reasons why these keysets must not be used with this database; empty if they may.

    A keyset may have keys that are not registered yet. It must have every registered key that is
    not retired, no other key under a registered id, and no key of another keyset.
    """
    return (*_absent_or_other(registered, present), *_shared(present))


def retired_primaries(
    retired: Collection[tuple[str, int]], primaries: Mapping[str, int]
) -> tuple[str, ...]:
    """The keysets that would mask with a retired key, given the ids of their primary keys."""
    return tuple(
        f"the primary key of the keyset of {name}, {key_id}, is retired"
        for name, key_id in primaries.items()
        if (name, key_id) in retired
    )


def key_rows(
    name: str,
    states: Iterable[KeyState],
    registered: Mapping[int, RegisteredKey],
    rows: Mapping[int, int],
) -> tuple[KeyRow, ...]:
    """The keys of one keyset, those in the keyset first.

    `registered` and `rows` are by key id: the registry, and how many rows are under the key.
    """
    by_id = {state.key_id: state for state in states}
    return tuple(
        KeyRow(
            keyset=name,
            key_id=key_id,
            status=_status(by_id.get(key_id), registered.get(key_id)),
            first_used_at=registered[key_id].first_used_at if key_id in registered else None,
            rows=rows.get(key_id, 0),
        )
        for key_id in dict.fromkeys((*by_id, *registered, *rows))
    )


def _status(state: KeyState | None, registered: RegisteredKey | None) -> KeyStatus:
    if state and state.is_primary:
        return KeyStatus.PRIMARY
    if registered and registered.retired_at:
        return KeyStatus.RETIRED
    if state is None:
        return KeyStatus.ABSENT
    return KeyStatus.ENABLED if state.is_enabled else KeyStatus.DISABLED


def _absent_or_other(registered: CheckValues, present: CheckValues) -> Iterator[str]:
    for name, checks in registered.items():
        for key_id, check in checks.items():
            found = present.get(name, {}).get(key_id)
            if found is None:
                if not isinstance(check, RetiredCheckValue):
                    yield f"the keyset of {name} lacks key {key_id}, which is registered"
            elif found != check:
                yield f"the keyset of {name} has another key under the id {key_id}"


def _shared(present: CheckValues) -> Iterator[str]:
    for (one, checks), (other, others) in combinations(sorted(present.items()), 2):
        if set(checks.values()) & set(others.values()):
            yield f"the keysets of {one} and {other} share a key"
