"""Turns and leases: who has one makes others wait, and who has no grant can hold none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from fetch_mask_assets.operations.md5_upgrade.postgres import UpgradeRunningError, upgrade_lease
from fetch_mask_assets.postgres import migrate
from fetch_mask_assets_tests.support.people import person, sqlstate

if TYPE_CHECKING:
    from typing import LiteralString

DENIED = "42501"
NOT_IN_TIME = "55P03"
LOADER, RECOVERY = "login_ingest_loader", "login_ingest_recovery"

RECORD = "SELECT login_ingest.record_audit('a', '{}')"
TAKE_REGISTRY = "SELECT login_ingest.acquire_lock('registry')"
TAKE_LINKS = "SELECT login_ingest.acquire_lock('links')"
WORK = {"audit": RECORD, "links": TAKE_LINKS, "registry": TAKE_REGISTRY}
SOON = "SET lock_timeout = '100ms'"


def ask(url: str, statement: LiteralString) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize("name", WORK)
def test_one_transaction_at_a_time_has_a_turn(database_url: str, name: str) -> None:
    with psycopg.connect(database_url) as first:
        first.execute(WORK[name].encode())
        assert sqlstate(database_url, SOON, WORK[name]) == NOT_IN_TIME
        for other in WORK.keys() - {name}:
            assert sqlstate(database_url, SOON, WORK[other]) is None
        first.rollback()
        assert sqlstate(database_url, SOON, WORK[name]) is None


def test_links_from_md5_are_dropped_while_no_other_transaction_writes_links(
    database_url: str,
) -> None:
    with psycopg.connect(database_url) as writer:
        writer.execute(TAKE_LINKS)
        drop = "SELECT login_ingest.drop_md5_links()"
        assert sqlstate(database_url, SOON, drop) == NOT_IN_TIME
        writer.rollback()
        assert sqlstate(database_url, SOON, drop) is None


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM login_ingest.named_lock FOR UPDATE",
        "SELECT name FROM login_ingest.named_lock FOR KEY SHARE",
        "LOCK TABLE login_ingest.named_lock IN ACCESS SHARE MODE",
        "LOCK TABLE login_ingest.lease IN ACCESS SHARE MODE",
        "LOCK TABLE login_ingest.schema_version IN SHARE UPDATE EXCLUSIVE MODE",
        "SELECT login_ingest.wait_for_lock('audit')",
        "SELECT login_ingest.acquire_lock('audit')",
        "SELECT login_ingest.acquire_lock('logins')",
        "SELECT login_ingest.acquire_lock('md5_upgrade')",
        "INSERT INTO login_ingest.named_lock VALUES ('mine', 9, '{}')",
        "DELETE FROM login_ingest.lease",
    ],
)
@pytest.mark.parametrize("role", [LOADER, RECOVERY, "login_ingest_analyst", "login_ingest_auditor"])
def test_no_role_holds_a_turn_but_by_what_it_may_do(
    database_url: str, role: str, statement: str
) -> None:
    with person(database_url, role) as eve:
        assert sqlstate(eve.url, statement) == DENIED


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (LOADER, TAKE_LINKS),
        (LOADER, "SELECT login_ingest.acquire_lease('md5_upgrade')"),
        ("login_ingest_analyst", TAKE_REGISTRY),
        ("login_ingest_auditor", TAKE_REGISTRY),
        ("login_ingest_auditor", RECORD),
    ],
)
def test_a_role_takes_no_turn_that_it_does_not_need(
    database_url: str, role: str, statement: str
) -> None:
    with person(database_url, role) as eve:
        assert sqlstate(eve.url, statement) == DENIED


def test_a_login_without_grants_that_locks_all_it_can_makes_nobody_wait(database_url: str) -> None:
    with person(database_url) as mallory, psycopg.connect(mallory.url) as connection:
        for number in (7264014, 7264015, 7264016, 7264017, 7264040):
            connection.execute("SELECT pg_advisory_lock(%s)", [number])
        assert sqlstate(mallory.url, "SELECT * FROM login_ingest.named_lock FOR UPDATE") == DENIED
        for statement in WORK.values():
            assert sqlstate(database_url, SOON, statement) is None, statement
        with upgrade_lease(database_url):
            migrate.upgrade(database_url)


def test_no_function_of_ours_waits_for_an_advisory_lock(database_url: str) -> None:
    waiting = ask(
        database_url,
        "SELECT proname FROM pg_proc WHERE pronamespace = 'login_ingest'::regnamespace"
        " AND prosrc ~ 'pg_advisory'",
    )
    assert waiting == []


def test_a_turn_that_there_is_not_is_refused(database_url: str) -> None:
    assert sqlstate(database_url, "SELECT login_ingest.wait_for_lock('lunch')") == "22023"
    assert sqlstate(database_url, "SELECT login_ingest.acquire_lock('lunch')") == DENIED
    assert sqlstate(database_url, "SELECT login_ingest.acquire_lease('audit')") == "22023"


def test_an_upgrade_that_waits_for_another_holds_nobody_off(database_url: str) -> None:
    with person(database_url, RECOVERY) as alice, upgrade_lease(alice.url):
        for statement in WORK.values():
            assert sqlstate(database_url, SOON, statement) is None, statement
        assert ask(database_url, "SELECT actor FROM login_ingest.lease") == [(alice.name,)]


def test_a_lease_that_was_seen_cannot_be_kept_from_the_next(database_url: str) -> None:
    with person(database_url, RECOVERY) as alice, person(database_url) as mallory:
        with upgrade_lease(alice.url):
            seen = ask(
                mallory.url,
                "SELECT classid::bigint << 32 | objid::bigint FROM pg_locks"
                " WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()",
            )
            beacons = ask(database_url, "SELECT session_token FROM login_ingest.lease")
            assert set(beacons) <= set(seen)
        with psycopg.connect(mallory.url) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", beacons[0])
            with upgrade_lease(alice.url):
                pass


def test_a_lease_ends_with_its_session_however_that_ends(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as first:
        assert first.execute("SELECT login_ingest.acquire_lease('md5_upgrade')").fetchall() == [
            (True,)
        ]
        with pytest.raises(UpgradeRunningError, match="under way"), upgrade_lease(database_url):
            pass
        ask(database_url, f"SELECT pg_terminate_backend({first.info.backend_pid}, 5000)")
        with upgrade_lease(database_url):
            pass
