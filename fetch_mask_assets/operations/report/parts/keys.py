"""The keys, the rows under each, and the links from old tokens to new ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Self

from fetch_mask_assets.operations.report.part import (
    Block,
    Judgement,
    Source,
    WarehousePart,
    broken,
    notice,
    shown_code,
    table,
)


@dataclass(frozen=True, slots=True)
class ReportedKey:
    """A key by its id; `rows` are tokens or sealed bodies under it. Never key material."""

    keyset: str
    key_id: int
    first_used_at: datetime | None
    retired_at: datetime | None
    rows: int

    @property
    def status(self) -> str:
        """The key's status in the registry."""
        if self.first_used_at is None:
            return "not registered"
        return "retired" if self.retired_at else "in use"


@dataclass(frozen=True, slots=True)
class LinkCount:
    """The links of a field, from tokens and from MD5 digests."""

    field: str
    tokens: int
    digests: int


@dataclass(frozen=True, slots=True)
class Keys(WarehousePart):
    """The registered keys and the keys that rows are under."""

    name: ClassVar[str] = "keys"
    title: ClassVar[str] = "Keys"
    promise: ClassVar[str] = "Every token and every sealed message is under a registered key."
    about: ClassVar[str] = (
        "Keys by id, with the rows (for quarantine: sealed messages) under each. Key material is"
        " in no database and not in this report. Links lead from old tokens to new ones after a"
        " rotation, so that equal values stay equal."
    )

    keys: tuple[ReportedKey, ...]
    links: tuple[LinkCount, ...]

    @classmethod
    def read(cls, source: Source) -> Self:
        """Read the facts."""
        links = source.rows(LinkCount, _LINKS)
        return cls(
            source.rows(ReportedKey, _KEYS),
            tuple(replace(each, field=shown_code(each.field)) for each in links),
        )

    def figure(self) -> str:
        """Return the numbers that matter most."""
        return f"{sum(each.status == 'in use' for each in self.keys):,} keys in use"

    def judgements(self) -> Iterator[Judgement]:
        """Return the conditions of findings."""
        for key in self.keys:
            name = f"key {key.key_id} of {key.keyset}"
            yield broken(
                key.status == "not registered",
                f"{key.rows} rows are under {name}, which is not registered.",
            )
            yield notice(
                key.status == "retired" and key.rows,
                f"{key.rows} rows are under {name}, which is retired.",
            )
        digests = sum(each.digests for each in self.links)
        yield notice(
            digests,
            f"{digests} links from MD5 digests are kept. Their readers can reverse them: drop them"
            " with `fetch-mask upgrade-md5`.",
        )

    def details(self) -> Iterator[Block]:
        """Return the tables behind the figure."""
        yield from table("Keys", self.keys)
        yield from table("Links", self.links)


# The registry's keys, and the keys that only rows show.
_KEYS = """
SELECT wanted.keyset, key.key_id, key.first_used_at, key.retired_at,
       coalesce(key.key_rows, 0) AS rows
FROM unnest(%(keysets)s::text[]) WITH ORDINALITY AS wanted (keyset, place)
CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT key_id, first_used_at, retired_at
        FROM login_ingest.masking_key WHERE masking_key.keyset = wanted.keyset
    ) AS registered FULL JOIN login_ingest.rows_by_key(wanted.keyset) AS used USING (key_id)
) AS key
ORDER BY wanted.place, key.first_used_at NULLS LAST, key.key_id
"""

_LINKS = """
SELECT of_field AS field, tokens, digests FROM login_ingest.link_counts() ORDER BY of_field
"""
