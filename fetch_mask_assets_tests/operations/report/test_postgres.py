"""What a report says of a real warehouse, read by somebody who may only audit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.keys.keyset import open_keyring
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets.operations.erasure.order import ErasureOrder
from fetch_mask_assets.operations.erasure.postgres import Erasures
from fetch_mask_assets.operations.erasure.subjects import Subjects
from fetch_mask_assets.operations.report import postgres as report_facts
from fetch_mask_assets.operations.report.postgres import ReportReader, RetentionDays, WarehouseFacts
from fetch_mask_assets.operations.report.report import WITHHELD, Period, Unreadable
from fetch_mask_assets.operations.unmasking.postgres import Unmasking
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready
from fetch_mask_assets_tests.support.factories import new_keysets
from fetch_mask_assets_tests.support.logins import body, masked_batch, register
from fetch_mask_assets_tests.support.people import Person, person

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetch_mask_assets.keys.keyset import Keyring

CANARY_IP = "203.0.113.77"
CANARY_DEVICE = "canary-device-815"
DAYS = RetentionDays(quarantine=90, runs=14)
PARTS = ("balance", "keys", "quarantine", "erasures", "retention", "requests", "audit")


@pytest.fixture
def keyring(database_url: str) -> Keyring:
    """Keys that the database knows."""
    keys = open_keyring(new_keysets())
    require_ready(LoginDatabase(database_url), keys)
    return keys


@pytest.fixture
def auditor(database_url: str) -> Iterator[Person]:
    """Somebody who may audit, and nothing else."""
    with person(database_url, "login_ingest_auditor") as somebody:
        yield somebody


def commit(url: str, keyring: Keyring, texts: list[str]) -> str:
    run_id = str(uuid4())
    masked = masked_batch(keyring, texts)
    register(url, keyring)
    LoginDatabase(url).commit_batch(BatchToCommit(run_id, masked, lambda _: b""))
    return run_id


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def facts(who: Person, expected: bytes | None = None) -> WarehouseFacts:
    now = datetime.now(UTC) + timedelta(minutes=1)
    reader = ReportReader(who.url, DAYS)
    return reader.facts(Period(now - timedelta(days=1), now), expected)


def test_the_auditor_reads_every_part(database_url: str, keyring: Keyring, auditor: Person) -> None:
    commit(database_url, keyring, [body(1), body(2), "junk"])

    found = facts(auditor)

    assert [name for name in PARTS if isinstance(getattr(found, name), Unreadable)] == []
    assert found.person == auditor.name
    assert not isinstance(found.balance, Unreadable)
    assert (found.balance.whole.received, found.balance.whole.loaded) == (3, 2)
    assert found.balance.in_period == found.balance.whole
    [line] = found.balance.batches
    assert (line.received, line.quarantined, line.ledger, line.holds) == (3, 1, 3, True)
    assert (found.balance.ledger_rows, found.balance.unbalanced) == (3, ())
    assert (found.balance.table.rows, found.balance.table.missing) == (2, 0)
    assert not isinstance(found.keys, Unreadable)
    assert {(each.keyset, each.status, each.rows) for each in found.keys.keys} == {
        ("ip", "in use", 2),
        ("device_id", "in use", 2),
        ("quarantine", "in use", 1),
    }
    assert not isinstance(found.quarantine, Unreadable)
    [reason] = found.quarantine.reasons
    assert (reason.reason, reason.messages, reason.in_period) == ("not_json", 1, 1)


def test_a_batch_whose_ledger_lacks_a_line_is_shown_by_itself(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1)])
    commit(database_url, keyring, [body(2), body(3)])
    execute(database_url, "DELETE FROM login_ingest.ledger WHERE message_id ="
                          " (SELECT max(message_id)"
        " FROM login_ingest.ledger WHERE batch_id = 2)")  # fmt: skip

    balance = facts(auditor).balance

    assert not isinstance(balance, Unreadable)
    [line] = balance.unbalanced
    assert (line.batch_id, line.loaded, line.ledger) == (2, 2, 1)
    assert (balance.whole.unbalanced, balance.ledger_rows) == (1, 2)


def test_ledger_lines_without_a_batch_and_rows_of_others_are_seen(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1)])
    execute(database_url, "INSERT INTO login_ingest.ledger VALUES ('stray', 99, now(), NULL)")
    execute(database_url, "INSERT INTO user_logins (user_id, masked_ip) VALUES ('u', 'plain')")

    balance = facts(auditor).balance

    assert not isinstance(balance, Unreadable)
    assert (balance.ledger_rows, balance.whole.ledger) == (2, 1)
    assert (balance.table.foreign, balance.table.untokened) == (1, 1)


def test_many_batches_are_shown_by_day(
    database_url: str, keyring: Keyring, auditor: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_facts, "MAX_BATCHES", 1)
    for number in range(2):
        commit(database_url, keyring, [body(number)])

    balance = facts(auditor).balance

    assert not isinstance(balance, Unreadable)
    assert balance.batches == ()
    assert sum(each.batches for _, each in balance.days) == 2


def test_batches_before_the_period_count_in_the_whole_alone(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1)])
    execute(database_url, "UPDATE login_ingest.batch SET committed_at = now() - interval '2 days'")

    balance = facts(auditor).balance

    assert not isinstance(balance, Unreadable)
    assert (balance.whole.batches, balance.in_period.batches, balance.batches) == (1, 0, ())


def test_an_erased_user_is_accounted_for_and_certified(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1, user_id="erin"), body(2)])
    with person(database_url, "login_ingest_recovery") as steward:
        order = ErasureOrder("e-1", Subjects("user", ("erin",)), "asked", f"mail of {CANARY_IP}")
        Erasures(steward.url).erase(order, keyring, lambda _: None)
        found = facts(auditor)

    assert not isinstance(found.balance, Unreadable)
    table = found.balance.table
    assert (table.rows, table.loaded, table.erased, table.missing, table.foreign) == (1, 2, 1, 0, 0)
    assert not isinstance(found.erasures, Unreadable)
    [certificate] = found.erasures.shown
    assert (certificate.kind, certificate.logins, certificate.verified) == ("user", 1, True)
    assert (certificate.person, certificate.ticket) == (steward.name, WITHHELD)
    assert "erin" not in repr(found)


def test_an_erased_ip_leaves_its_row_and_no_token(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1, ip=CANARY_IP)])
    with person(database_url, "login_ingest_recovery") as steward:
        order = ErasureOrder("e-2", Subjects("ip", (CANARY_IP,)), "asked", "SEC-1")
        Erasures(steward.url).erase(order, keyring, lambda _: None)

    balance = facts(auditor).balance

    assert not isinstance(balance, Unreadable)
    assert (balance.table.rows, balance.table.missing, balance.table.without_ip) == (1, 0, 1)


def test_unmaskings_have_their_state_and_never_their_tokens(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    token = keyring.masker("ip").mask(CANARY_IP)
    with (
        person(database_url, "login_ingest_recovery") as ann,
        person(database_url, "login_ingest_recovery") as bob,
    ):
        number = Unmasking(ann.url).request([token], "takeover", "SEC-12", 10)
        Unmasking(ann.url).request([token], "takeover", CANARY_DEVICE, 10)
        Unmasking(bob.url).approve(number, 5)
        Unmasking(ann.url).reveal(number)
        Unmasking(ann.url).reveal(number)
        found = facts(auditor)

    assert not isinstance(found.requests, Unreadable)
    newest, oldest = found.requests.shown
    assert (newest.state, newest.ticket, newest.reveals) == ("waiting", WITHHELD, 0)
    assert (oldest.state, oldest.ticket, oldest.reveals) == ("approved", "SEC-12", 2)
    assert (oldest.requester, oldest.approver, oldest.tokens) == (ann.name, bob.name, 1)
    assert token not in repr(found)
    assert CANARY_DEVICE not in repr(found)


def test_a_broken_chain_is_found_at_its_row(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    del keyring
    with person(database_url, "login_ingest_recovery") as ann:
        for _ in range(3):
            execute(ann.url, "SELECT login_ingest.record_audit('find', '{}')")
    execute(database_url, "ALTER TABLE login_ingest.audit DISABLE TRIGGER append_only")
    execute(database_url, "UPDATE login_ingest.audit SET actor = 'eve' WHERE audit_id = 2")

    audit = facts(auditor).audit

    assert not isinstance(audit, Unreadable)
    assert audit.chain.broken
    assert (audit.chain.broken.audit_id, audit.rows) == (2, 3)


def test_rows_that_were_cut_off_are_found_by_a_noted_hash(
    database_url: str, auditor: Person
) -> None:
    with person(database_url, "login_ingest_recovery") as ann:
        for _ in range(2):
            execute(ann.url, "SELECT login_ingest.record_audit('find', '{}')")
    last = list(Audit(database_url).rows())[-1].hash
    execute(database_url, "ALTER TABLE login_ingest.audit DISABLE TRIGGER append_only")
    execute(database_url, "DELETE FROM login_ingest.audit WHERE audit_id = 2")

    audit = facts(auditor, last).audit

    assert not isinstance(audit, Unreadable)
    assert (audit.chain.broken, audit.chain.has_expected) == (None, False)


def test_messages_that_should_be_gone_are_overdue(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, ["junk", "more junk"])
    execute(
        database_url,
        "UPDATE login_ingest.quarantine SET quarantined_at = now() - interval '92 days'"
        " WHERE message_id = (SELECT min(message_id) FROM login_ingest.quarantine)",
    )

    retention = facts(auditor).retention

    assert not isinstance(retention, Unreadable)
    assert retention.overdue == 1


def test_a_database_that_is_down_makes_every_part_unreadable() -> None:
    nobody = Person(
        "nobody", f"postgresql://someone:{CANARY_DEVICE}@127.0.0.1:{free_port()}/logins"
    )

    found = facts(nobody)

    assert all(isinstance(getattr(found, name), Unreadable) for name in PARTS)
    assert CANARY_DEVICE not in repr(found)


def test_a_part_that_is_refused_does_not_take_the_others_with_it(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1)])
    execute(database_url, "REVOKE SELECT ON login_ingest.erasure FROM login_ingest_auditor")

    found = facts(auditor)

    unreadable = {name for name in PARTS if isinstance(getattr(found, name), Unreadable)}
    assert unreadable == {"balance", "erasures"}
    assert "42501" in repr(found.erasures)


def test_the_loader_learns_from_a_report_no_more_than_it_knows(
    database_url: str, keyring: Keyring
) -> None:
    commit(database_url, keyring, [body(1)])
    with person(database_url, "login_ingest_loader") as loader:
        found = facts(loader)

    readable = {name for name in PARTS if not isinstance(getattr(found, name), Unreadable)}
    assert readable == set()
