"""The audit takes rows at its end and no other change, and an edit behind its back is found."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from fetch_mask_assets.audit.chain import AuditRow, Chain, row_hash, verify_chain
from fetch_mask_assets.audit.postgres import Audit, record
from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.postgres.sessions import RECORD, open_session
from fetch_mask_assets_tests.support.people import Person, person, sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADER = "login_ingest_loader"
ANALYST = "login_ingest_analyst"
RECOVERY = "login_ingest_recovery"
AUDITOR = "login_ingest_auditor"
OWNER = "login_ingest_owner"
DETAIL = {"what": "naïve ☃ \U0001f600 \\ \"quoted\" 'too'\nsecond line", "number": 1.5}

CHANGES = (
    "UPDATE login_ingest.audit SET actor = 'somebody'",
    "UPDATE login_ingest.audit SET actor = actor WHERE false",
    "DELETE FROM login_ingest.audit",
    "TRUNCATE login_ingest.audit",
    "ALTER TABLE login_ingest.audit DISABLE TRIGGER append_only",
    "ALTER TABLE login_ingest.audit DISABLE TRIGGER ALL",
    "DROP TRIGGER append_only ON login_ingest.audit",
    "SET session_replication_role = replica",
    "ALTER TABLE login_ingest.audit DROP CONSTRAINT no_line_feed",
    "ALTER TABLE login_ingest.audit RENAME TO other",
    "ALTER TABLE login_ingest.audit ADD COLUMN more text",
    "CREATE TRIGGER t BEFORE INSERT ON login_ingest.audit EXECUTE FUNCTION refuse_audit_change()",
    "CREATE RULE more AS ON INSERT TO login_ingest.audit DO INSTEAD NOTHING",
    "DROP TABLE login_ingest.audit",
    "DROP SCHEMA login_ingest CASCADE",
    "ALTER SCHEMA login_ingest RENAME TO other",
)

EDIT_WITH_NEW_HASH = (
    "UPDATE login_ingest.audit SET actor = 'somebody', hash = login_ingest.audit_hash("
    "previous_hash, audit_id, at, 'somebody', action, detail) WHERE audit_id = 3"
)


@pytest.fixture
def ann(database_url: str) -> Iterator[Person]:
    """Somebody who may record."""
    with person(database_url, RECOVERY) as somebody:
        yield somebody


def append(url: str, count: int = 1) -> None:
    for _ in range(count):
        with open_session(url, RECORD, "append") as connection:
            record(connection, "find.search", DETAIL)


def alter(database_url: str, *statements: str) -> None:
    """Does something as a superuser, past the trigger."""
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE login_ingest.audit DISABLE TRIGGER append_only")
        for statement in statements:
            connection.execute(statement.encode())
        connection.execute("ALTER TABLE login_ingest.audit ENABLE TRIGGER append_only")


def verified(url: str) -> Chain:
    return verify_chain(Audit(url).rows())


def test_what_the_database_hashes_is_what_is_computed_here(database_url: str, ann: Person) -> None:
    append(ann.url, 5)
    chain = verified(ann.url)
    assert (chain.is_whole, chain.rows) == (True, 5)
    with psycopg.connect(database_url) as connection:
        last = connection.execute(
            "SELECT hash FROM login_ingest.audit ORDER BY audit_id DESC LIMIT 1"
        ).fetchone()
    assert last == (chain.last_hash,)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu", "UTC"])
def test_neither_time_zone_nor_date_style_of_a_person_changes_a_hash(
    database_url: str, ann: Person, zone: str
) -> None:
    alter(
        database_url,
        f"ALTER ROLE {ann.name} SET TimeZone = '{zone}'",
        f"ALTER ROLE {ann.name} SET DateStyle = 'SQL, DMY'",
        f"ALTER ROLE {ann.name} SET bytea_output = 'escape'",
    )
    with psycopg.connect(ann.url) as connection:
        connection.execute("SELECT login_ingest.record_audit('find.search', '{}')")
    append(ann.url)
    assert verified(ann.url).is_whole


def test_rows_say_who_when_and_what(ann: Person) -> None:
    append(ann.url)
    (row,) = Audit(ann.url).rows()
    assert (row.audit_id, row.actor, row.action) == (1, ann.name, "find.search")
    assert row.at
    assert abs(datetime.now(UTC) - row.at) < timedelta(minutes=1)


def test_the_newest_rows_come_oldest_first(ann: Person) -> None:
    append(ann.url, 3)
    assert [row.audit_id for row in Audit(ann.url).newest(2)] == [2, 3]


def test_rows_recorded_at_once_follow_one_another(ann: Person) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, [ann.url] * 24))
    assert (verified(ann.url).is_whole, verified(ann.url).rows) == (True, 24)


def test_a_transaction_that_is_rolled_back_leaves_no_gap(ann: Person) -> None:
    append(ann.url)
    with psycopg.connect(ann.url) as connection:
        record(connection, "find.search", {})
        connection.rollback()
    append(ann.url)
    assert (verified(ann.url).is_whole, verified(ann.url).rows) == (True, 2)


def test_nobody_signs_in_anothers_name(database_url: str, ann: Person) -> None:
    with person(database_url, RECOVERY, ann.name) as eve, psycopg.connect(eve.url) as connection:
        for role in (RECOVERY, ann.name):
            connection.execute(f"SET ROLE {role}".encode())
            record(connection, "find.search", {})
        connection.commit()
        assert {row.actor for row in Audit(eve.url).rows()} == {eve.name}
    for statement in (
        "INSERT INTO login_ingest.audit VALUES (1, now(), 'bob', 'find.search', '{}', '', '')",
        f"SET SESSION AUTHORIZATION {ann.name}",
        "SET SESSION AUTHORIZATION postgres",
        f"SET ROLE {OWNER}",
    ):
        with person(database_url, RECOVERY) as eve:
            assert sqlstate(eve.url, statement) == "42501", statement


def test_an_action_is_one_line(ann: Person) -> None:
    assert sqlstate(ann.url, "SELECT login_ingest.record_audit(E'find\\nmore', '')") == "23514"


@pytest.mark.parametrize("role", [LOADER, ANALYST, RECOVERY, AUDITOR])
def test_nobody_changes_the_audit_or_what_guards_it(
    database_url: str, ann: Person, role: str
) -> None:
    append(ann.url, 2)
    with person(database_url, role) as eve:
        for statement in CHANGES:
            assert sqlstate(eve.url, statement) == "42501", statement
            assert sqlstate(eve.url, f"SET ROLE {role}", statement) == "42501", statement
    assert verified(database_url).rows == 2


def test_not_even_the_owner_changes_the_audit(database_url: str, ann: Person) -> None:
    append(ann.url, 2)
    with person(database_url, OWNER) as administrator:
        for statement in CHANGES:
            assert sqlstate(administrator.url, statement) == "42501", statement
            assert sqlstate(administrator.url, f"SET ROLE {OWNER}", statement) == "42501", statement
            # A superuser gives up its rights with its role, but for what a session may set.
            if not statement.startswith("SET"):
                assert sqlstate(database_url, f"SET ROLE {OWNER}", statement) == "42501", statement
    assert verified(database_url).rows == 2


@pytest.mark.parametrize("role", [LOADER, ANALYST, AUDITOR])
def test_who_may_not_record_does_not(database_url: str, role: str) -> None:
    with person(database_url, role) as eve:
        statement = "SELECT login_ingest.record_audit('find.search', '{}')"
        assert sqlstate(eve.url, statement) == "42501"


@pytest.mark.parametrize("role", [LOADER, ANALYST])
def test_who_may_not_read_the_audit_does_not(database_url: str, role: str) -> None:
    with person(database_url, role) as eve, pytest.raises(DatabaseError, match="42501"):
        list(Audit(eve.url).rows())


def test_a_superuser_is_stopped_by_the_trigger_until_it_is_disabled(
    database_url: str, ann: Person
) -> None:
    append(ann.url)
    for statement in CHANGES[:4]:
        assert sqlstate(database_url, statement) == "42501"


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        ("UPDATE login_ingest.audit SET actor = 'somebody' WHERE audit_id = 3", 3),
        ("UPDATE login_ingest.audit SET detail = detail || ' ' WHERE audit_id = 1", 1),
        ("UPDATE login_ingest.audit SET at = at + interval '1 us' WHERE audit_id = 5", 5),
        ("UPDATE login_ingest.audit SET at = 'infinity' WHERE audit_id = 2", 2),
        ("UPDATE login_ingest.audit SET at = '4000-01-01 BC' WHERE audit_id = 2", 2),
        ("UPDATE login_ingest.audit SET hash = '' WHERE audit_id = 4", 4),
        ("DELETE FROM login_ingest.audit WHERE audit_id = 1", 2),
        ("DELETE FROM login_ingest.audit WHERE audit_id = 3", 4),
        ("UPDATE login_ingest.audit SET audit_id = 6 WHERE audit_id = 3", 4),
        (EDIT_WITH_NEW_HASH, 4),
    ],
)
def test_an_edit_behind_the_tools_back_is_found_at_its_place(
    database_url: str, ann: Person, edit: str, place: int
) -> None:
    append(ann.url, 5)
    alter(database_url, edit)
    chain = verified(ann.url)
    assert chain.broken
    assert chain.broken.audit_id == place
    assert [row.audit_id for row in Audit(ann.url).newest(9)]


def test_rows_that_follow_an_edit_do_not_hide_it(database_url: str, ann: Person) -> None:
    append(ann.url, 3)
    alter(database_url, "UPDATE login_ingest.audit SET action = 'nothing' WHERE audit_id = 2")
    append(ann.url, 3)
    broken = verified(ann.url).broken
    assert broken
    assert broken.audit_id == 2


def test_an_audit_is_read_whole_though_it_is_longer_than_a_reading(
    database_url: str, ann: Person
) -> None:
    with psycopg.connect(ann.url) as connection:
        connection.execute(
            "SELECT login_ingest.record_audit('find.search', i::text)"
            " FROM generate_series(1, 2500) AS i"
        )
    assert (verified(database_url).is_whole, verified(database_url).rows) == (True, 2500)


def test_an_audit_that_cannot_be_read_is_an_error(ann: Person, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE login_ingest.audit RENAME TO gone")
    with pytest.raises(DatabaseError):
        list(Audit(ann.url).rows())


def test_the_hash_of_a_row_is_the_databases_own(database_url: str) -> None:
    at = datetime(2024, 2, 29, 1, 2, 3, 40, UTC)
    row = AuditRow(9, at, "ann", "find.search", "a\nb", b"\x00\xff", b"")
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT login_ingest.audit_hash(%s, 9, %s, 'ann', 'find.search', %s)",
            [row.previous_hash, at, row.detail],
        ).fetchone()
    assert found == (row_hash(row),)
