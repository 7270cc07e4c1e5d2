"""The chain is computed anew, and whatever was done to it is found at its place."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetch_mask_assets.audit.chain import AuditRow, row_hash, verify_chain

NOON = datetime(2024, 2, 29, 12, 0, 0, 5, UTC)


def chain_of(count: int) -> list[AuditRow]:
    rows: list[AuditRow] = []
    before = b""
    for number in range(1, count + 1):
        row = AuditRow(
            number, NOON, "ann", "unmask.reveal", f'{{"request": {number}}}', before, b""
        )
        rows.append(hashed(row))
        before = rows[-1].hash
    return rows


def hashed(row: AuditRow) -> AuditRow:
    return replace(row, hash=row_hash(row) or b"")


def test_the_hash_is_the_one_worked_out_by_hand() -> None:
    row = AuditRow(7, NOON, "ann", "find.search", "{}", b"\x01\x02", b"")
    text = b"\x01\x027\n2024-02-29T12:00:00.000005\nann\nfind.search\n{}"
    assert row_hash(row) == hashlib.sha256(text).digest()


def test_the_hash_does_not_depend_on_the_time_zone_that_a_time_is_written_in() -> None:
    row = chain_of(1)[0]
    there = replace(row, at=NOON.astimezone(timezone(timedelta(hours=-7))))
    assert row_hash(there) == row.hash


def test_a_time_without_fraction_has_its_six_digits() -> None:
    row = AuditRow(1, NOON.replace(microsecond=0), "ann", "find.search", "{}", b"", b"")
    text = b"1\n2024-02-29T12:00:00.000000\nann\nfind.search\n{}"
    assert row_hash(row) == hashlib.sha256(text).digest()


def test_an_empty_audit_is_whole_unless_a_hash_was_noted() -> None:
    assert verify_chain([]).is_whole
    assert not verify_chain([], b"noted").is_whole


def test_an_untouched_chain_is_whole_and_ends_with_its_last_hash() -> None:
    rows = chain_of(5)
    chain = verify_chain(rows)
    assert (chain.is_whole, chain.rows, chain.last_hash) == (True, 5, rows[-1].hash)


@pytest.mark.parametrize(
    "change",
    [
        {"at": NOON + timedelta(microseconds=1)},
        {"at": None},
        {"actor": "bob"},
        {"action": "unmask.approve"},
        {"detail": "{}"},
        {"hash": bytes(32)},
        {"previous_hash": bytes(32)},
    ],
)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_an_edited_row_is_found_at_its_place(change: dict[str, object], place: int) -> None:
    rows = chain_of(5)
    rows[place] = replace(rows[place], **change)  # type: ignore[arg-type]  # one field, its own type
    chain = verify_chain(rows)
    assert chain.broken
    assert (chain.broken.audit_id, chain.rows) == (place + 1, place)


def test_an_edited_row_with_a_new_hash_is_found_at_the_next() -> None:
    rows = chain_of(5)
    rows[2] = hashed(replace(rows[2], actor="bob"))
    broken = verify_chain(rows).broken
    assert broken
    assert broken.audit_id == 4
    assert "the row before it was edited" in broken.reason


@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_deleted_row_is_found_where_it_was(place: int) -> None:
    rows = chain_of(5)
    del rows[place]
    broken = verify_chain(rows).broken
    assert broken
    assert broken.audit_id == place + 2
    assert f"row {place + 1} was deleted" in broken.reason


def test_a_row_that_took_the_place_of_a_deleted_one_is_found() -> None:
    rows = chain_of(5)
    del rows[2]
    rows = [replace(row, audit_id=number) for number, row in enumerate(rows, start=1)]
    broken = verify_chain(rows).broken
    assert broken
    assert broken.audit_id == 3


def test_an_inserted_row_is_found() -> None:
    rows = chain_of(5)
    stray = hashed(AuditRow(3, NOON, "bob", "find.search", "{}", rows[1].hash, b""))
    later = [replace(row, audit_id=row.audit_id + 1) for row in rows[2:]]
    broken = verify_chain([*rows[:2], stray, *later]).broken
    assert broken
    assert broken.audit_id == 4


def test_the_words_of_a_row_cannot_move_between_its_fields() -> None:
    row = hashed(AuditRow(1, NOON, "ann", "find.search", "one\ntwo", b"", b""))
    moved = replace(row, action="find.search\none", detail="two")
    assert verify_chain([row]).is_whole
    assert verify_chain([moved]).broken


def test_a_cut_at_the_end_shows_only_against_a_noted_hash() -> None:
    rows = chain_of(5)
    noted = rows[-1].hash
    assert verify_chain(rows[:3]).is_whole
    assert not verify_chain(rows[:3], noted).is_whole
    assert verify_chain(rows, noted).is_whole
    assert verify_chain(chain_of(9), noted).is_whole


def test_a_chain_that_was_computed_anew_shows_only_against_a_noted_hash() -> None:
    noted = chain_of(3)[-1].hash
    before = b""
    forged = []
    for row in chain_of(5):
        forged.append(hashed(replace(row, actor="bob", previous_hash=before)))
        before = forged[-1].hash
    assert verify_chain(forged).is_whole
    assert not verify_chain(forged, noted).has_expected


@given(st.text(), st.text(), st.text())
def test_whatever_a_row_says_another_word_gives_another_hash(
    person: str, detail: str, other: str
) -> None:
    row = AuditRow(1, NOON, person.replace("\n", ""), "find.search", detail, b"", b"")
    if other != detail:
        assert row_hash(row) != row_hash(replace(row, detail=other))
