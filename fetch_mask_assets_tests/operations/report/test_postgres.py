"""A report of a real warehouse, read by a member of the auditor role."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.keys.keyset import open_keyring
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets.operations.erasure.order import ErasureOrder
from fetch_mask_assets.operations.erasure.postgres import Erasures
from fetch_mask_assets.operations.erasure.subjects import Subjects
from fetch_mask_assets.operations.report import postgres as report_postgres
from fetch_mask_assets.operations.report.part import WITHHELD, Period, Unreadable
from fetch_mask_assets.operations.report.parts import PARTS
from fetch_mask_assets.operations.report.postgres import ReportReader, RetentionDays
from fetch_mask_assets.operations.report.report import Report
from fetch_mask_assets.operations.unmasking.postgres import Unmasking
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
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
NAMES = {part.name for part in PARTS} - {"checks"}


@pytest.fixture
def keyring(database_url: str) -> Keyring:
    """Registered keys."""
    keys = open_keyring(new_keysets())
    require_ready(LoginDatabase(database_url), keys)
    return keys


@pytest.fixture
def auditor(database_url: str) -> Iterator[Person]:
    """A member of the auditor role, and of no other."""
    with person(database_url, "login_ingest_auditor") as member:
        yield member


def commit(url: str, keyring: Keyring, texts: list[str]) -> str:
    run_id = str(uuid4())
    masked = masked_batch(keyring, texts)
    register(url, keyring)
    commit_batch(url, BatchToCommit(run_id, masked, lambda _: b""))
    return run_id


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def read(by: Person, expected: bytes | None = None) -> Report:
    now = datetime.now(UTC) + timedelta(minutes=1)
    period = Period(now - timedelta(days=1), now)
    reader = ReportReader(by.url, DAYS)
    return reader.read(period, Unreadable("not read here."), at=now, expected_hash=expected)


def part(made: Report, name: str) -> Any:  # noqa: ANN401 (the facts of any part)
    found = made.facts[name]
    assert not isinstance(found, Unreadable), found
    return found


def unreadable(made: Report) -> set[str]:
    return {name for name in NAMES if isinstance(made.facts[name], Unreadable)}


def test_the_auditor_reads_every_part(database_url: str, keyring: Keyring, auditor: Person) -> None:
    commit(database_url, keyring, [body(1), body(2), "junk"])

    found = read(auditor)

    assert unreadable(found) == set()
    assert found.provenance.actor == auditor.name
    balance = part(found, "balance")
    assert (balance["totals"]["received"], balance["totals"]["loaded"]) == (3, 2)
    assert balance["period_totals"] == balance["totals"]
    [row] = balance["batches"]
    assert (row["received"], row["quarantined"], row["ledger_messages"], row["is_balanced"]) == (
        3,
        1,
        3,
        True,
    )
    assert (balance["ledger"]["messages"], balance["unbalanced_batches"]) == (3, [])
    assert (balance["user_logins"]["rows"], balance["user_logins"]["missing_rows"]) == (2, 0)
    keys = part(found, "keys")["keys"]
    assert [(each["keyset"], each["status"], each["rows"]) for each in keys] == [
        ("ip", "in use", 2),
        ("device_id", "in use", 2),
        ("quarantine", "in use", 1),
    ]
    [reason] = part(found, "quarantine")["reasons"]
    assert (reason["reason"], reason["messages"], reason["messages_in_period"]) == (
        "not_json",
        1,
        1,
    )


def test_a_batch_whose_ledger_lacks_a_row_is_listed(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1)])
    commit(database_url, keyring, [body(2), body(3)])
    execute(database_url, "DELETE FROM login_ingest.ledger WHERE message_id ="
                          " (SELECT max(message_id)"
        " FROM login_ingest.ledger WHERE batch_id = 2)")  # fmt: skip

    balance = part(read(auditor), "balance")

    [row] = balance["unbalanced_batches"]
    assert (row["batch_id"], row["loaded"], row["ledger_messages"]) == (2, 2, 1)
    assert (balance["totals"]["unbalanced"], balance["ledger"]["messages"]) == (1, 2)


def test_ledger_rows_without_a_batch_and_unrecorded_logins_are_counted(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1)])
    execute(database_url, "INSERT INTO login_ingest.ledger VALUES (now(), 99, 'stray')")
    execute(database_url, "INSERT INTO user_logins (user_id, masked_ip) VALUES ('u', 'plain')")

    balance = part(read(auditor), "balance")

    assert (balance["ledger"]["messages"], balance["totals"]["ledger_messages"]) == (2, 1)
    logins = balance["user_logins"]
    assert (logins["unrecorded_rows"], logins["non_token_rows"]) == (1, 1)


def test_many_batches_are_shown_by_day(
    database_url: str, keyring: Keyring, auditor: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_postgres, "MAX_BATCHES", 1)
    for number in range(2):
        commit(database_url, keyring, [body(number)])

    found = part(read(auditor), "balance")

    assert found["batches"] == []
    assert sum(each["batches"] for each in found["days"]) == 2


def test_batches_before_the_period_count_in_the_totals_only(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1)])
    execute(database_url, "UPDATE login_ingest.batch SET committed_at = now() - interval '2 days'")

    balance = part(read(auditor), "balance")

    assert (balance["totals"]["batches"], balance["period_totals"]["batches"]) == (1, 0)
    assert balance["batches"] == []


def test_an_erased_user_is_accounted_for_and_certified(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1, user_id="erin"), body(2)])
    with person(database_url, "login_ingest_recovery") as steward:
        order = ErasureOrder("e-1", Subjects("user", ("erin",)), "asked", f"mail of {CANARY_IP}")
        Erasures(steward.url).erase(order, keyring, lambda _: None)
        found = read(auditor)

    table = part(found, "balance")["user_logins"]
    assert (table["rows"], table["loaded"], table["erased"]) == (1, 2, 1)
    assert (table["missing_rows"], table["unrecorded_rows"]) == (0, 0)
    [certificate] = part(found, "erasures")["certificates"]
    assert (certificate["kind"], certificate["logins"], certificate["verified"]) == (
        "user",
        1,
        True,
    )
    assert (certificate["actor"], certificate["ticket"]) == (steward.name, WITHHELD)
    assert "erin" not in repr(found)


def test_a_certificate_in_the_report_has_every_count_that_decides_it(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    with person(database_url, "login_ingest_recovery") as steward:
        order = ErasureOrder("e-3", Subjects("ip", (CANARY_IP,)), "asked", "SEC-1")
        Erasures(steward.url).erase(order, keyring, lambda _: None)
        execute(
            database_url,
            "UPDATE login_ingest.erasure SET verified = false, md5_matches = 1,"
            " unmask_requests = 2, messages = 3, remaining_rows = 4, remaining_messages = 5,"
            " unsearched_rows = 6, unreadable_rows = 7, unreadable_messages = 8",
        )

    erasures = part(read(auditor), "erasures")

    [certificate], [search] = erasures["certificates"], erasures["searches_after_erasure"]
    assert (certificate["messages"], certificate["verified"]) == (3, False)
    assert list(search.values())[1:] == [1, 2, 4, 5, 6, 7, 8]


def test_an_erased_ip_leaves_its_row_and_no_token(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1, ip=CANARY_IP)])
    with person(database_url, "login_ingest_recovery") as steward:
        order = ErasureOrder("e-2", Subjects("ip", (CANARY_IP,)), "asked", "SEC-1")
        Erasures(steward.url).erase(order, keyring, lambda _: None)

    balance = part(read(auditor), "balance")

    assert (balance["user_logins"]["rows"], balance["user_logins"]["missing_rows"]) == (1, 0)
    assert balance["null_token_rows"] == [
        {"field": "device_id", "rows": 0},
        {"field": "ip", "rows": 1},
    ]


def test_requests_have_their_state_and_never_their_tokens(
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
        found = read(auditor)

    reveals = {each["request_id"]: each["times"] for each in part(found, "audit")["reveals"]}
    newest, oldest = part(found, "requests")["requests"]
    assert (newest["state"], newest["ticket"], reveals.get(newest["request_id"], 0)) == (
        "waiting",
        WITHHELD,
        0,
    )
    assert (oldest["state"], oldest["ticket"], reveals[oldest["request_id"]]) == (
        "approved",
        "SEC-12",
        2,
    )
    assert (oldest["requester"], oldest["approver"], oldest["tokens"]) == (ann.name, bob.name, 1)
    assert token not in repr(found)
    assert CANARY_DEVICE not in repr(found)


def test_a_broken_chain_is_found_at_its_row(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    del keyring
    with person(database_url, "login_ingest_recovery") as ann:
        for _ in range(3):
            execute(ann.url, "SELECT login_ingest.record_audit('find.search', '{}')")
    execute(database_url, "ALTER TABLE login_ingest.audit DISABLE TRIGGER append_only")
    execute(database_url, "UPDATE login_ingest.audit SET actor = 'eve' WHERE audit_id = 2")

    audit = part(read(auditor), "audit")

    assert (audit["chain"]["broken_at"], audit["chain"]["rows"]) == (2, 3)


def test_a_cut_audit_is_found_by_a_noted_hash(database_url: str, auditor: Person) -> None:
    with person(database_url, "login_ingest_recovery") as ann:
        for _ in range(2):
            execute(ann.url, "SELECT login_ingest.record_audit('find.search', '{}')")
    last = list(Audit(database_url).rows())[-1].hash
    execute(database_url, "ALTER TABLE login_ingest.audit DISABLE TRIGGER append_only")
    execute(database_url, "DELETE FROM login_ingest.audit WHERE audit_id = 2")

    audit = part(read(auditor, last), "audit")

    assert (audit["chain"]["broken_at"], audit["chain"]["has_expected"]) == (None, False)


def test_messages_beyond_their_retention_are_overdue(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, ["junk", "more junk"])
    execute(
        database_url,
        "UPDATE login_ingest.quarantine SET quarantined_at = now() - interval '92 days'"
        " WHERE message_id = (SELECT min(message_id) FROM login_ingest.quarantine)",
    )

    retention = part(read(auditor), "retention")

    assert retention["ages"]["overdue"] == 1


def test_a_database_that_is_down_makes_every_part_unreadable() -> None:
    nobody = Person(
        "nobody", f"postgresql://someone:{CANARY_DEVICE}@127.0.0.1:{free_port()}/logins"
    )

    found = read(nobody)

    assert unreadable(found) == NAMES
    assert isinstance(found.provenance.actor, Unreadable)
    assert CANARY_DEVICE not in repr(found)


def test_a_part_that_is_refused_does_not_take_the_others_with_it(
    database_url: str, keyring: Keyring, auditor: Person
) -> None:
    commit(database_url, keyring, [body(1)])
    execute(database_url, "REVOKE SELECT ON login_ingest.erasure FROM login_ingest_auditor")

    found = read(auditor)

    assert unreadable(found) == {"balance", "erasures"}
    assert "42501" in repr(found.facts["erasures"])


def test_a_report_of_the_loader_has_no_readable_part(database_url: str, keyring: Keyring) -> None:
    commit(database_url, keyring, [body(1)])
    with person(database_url, "login_ingest_loader") as loader:
        found = read(loader)

    assert unreadable(found) == NAMES
