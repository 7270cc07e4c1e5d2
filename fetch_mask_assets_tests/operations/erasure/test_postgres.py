"""Erasure: in every table, counted, verified, repeatable, without a trace of the value."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.keyset_change import disabled
from fetch_mask_assets.keys.links import TokenLink
from fetch_mask_assets.keys.postgres import write_links
from fetch_mask_assets.operations.erasure import postgres as module
from fetch_mask_assets.operations.erasure.certificate import Certificate
from fetch_mask_assets.operations.erasure.order import ErasureOrder
from fetch_mask_assets.operations.erasure.postgres import Erasures
from fetch_mask_assets.operations.erasure.subjects import parse_subjects
from fetch_mask_assets.operations.quarantine.messages import MessageFilter
from fetch_mask_assets.operations.quarantine.postgres import Quarantine
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.support.factories import rotated
from fetch_mask_assets_tests.support.kinds import BOTH_KINDS
from fetch_mask_assets_tests.support.logins import body, masked_batch, register
from fetch_mask_assets_tests.support.people import Person, person, sqlstate
from fetch_mask_assets_tests.support.warehouse import load, quarantine_bodies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IP = "203.0.113.77"
DEVICE_ID = "canary-device-4711"
USER = "canary-user-4711"


@pytest.fixture(scope="module")
def keysets() -> dict[str, str]:
    """Keysets for the whole module."""
    return {name: new_keyset(name) for name in KEYSET_NAMES}


@pytest.fixture(scope="module")
def keyring(keysets: dict[str, str]) -> Keyring:
    """Their keyring."""
    return open_keyring(keysets)


@pytest.fixture(scope="module")
def newer_keyring(keysets: dict[str, str]) -> Keyring:
    """The keyring after a rotation; the old keys still read."""
    return open_keyring(
        keysets | {name: rotated(keysets[name], name) for name in ("ip", "device_id")}
    )


@pytest.fixture
def steward(database_url: str) -> Iterator[Person]:
    """A member of login_ingest_recovery, and of nothing else."""
    with person(database_url, "login_ingest_recovery") as member:
        yield member


@pytest.mark.parametrize(
    ("kind", "value", "column", "other"),
    [
        ("ip", IP, "masked_ip", "masked_device_id"),
        ("device_id", DEVICE_ID, "masked_device_id", "masked_ip"),
    ],
)
def test_the_tokens_of_a_value_are_erased_under_every_key_and_the_rows_stay(  # noqa: PLR0913, PLR0917 (a case and its fixtures)
    kind: str,
    value: str,
    column: str,
    other: str,
    database_url: str,
    steward: Person,
    keyring: Keyring,
    newer_keyring: Keyring,
) -> None:
    ours = body(1, ip=IP, device_id=DEVICE_ID)
    load(database_url, keyring, [ours, body(2)])
    load(database_url, newer_keyring, [ours, body(3)])

    certificate = _erase(steward, newer_keyring, kind, value)

    assert (certificate.logins, certificate.remaining_rows, certificate.verified) == (2, 0, True)
    assert _count(database_url, "user_logins") == 4
    assert _count(database_url, f"user_logins WHERE {column} IS NULL") == 2
    assert _count(database_url, f"user_logins WHERE {other} IS NULL") == 0
    assert LoginDatabase(database_url).non_token_rows() == 0


def test_a_value_under_a_disabled_key_is_erased(
    database_url: str, steward: Person, keyring: Keyring, keysets: dict[str, str]
) -> None:
    """A retired key is in the keyset, disabled, and can be brought back."""
    load(database_url, keyring, [body(1, ip=IP), body(2)])
    newer = rotated(keysets["ip"], "ip")
    retired = disabled("ip", newer, keyring.masker("ip").primary_key_id)

    certificate = _erase(steward, open_keyring(keysets | {"ip": retired}), "ip", IP)

    assert (certificate.logins, certificate.verified) == (1, True)
    assert _count(database_url, "user_logins WHERE masked_ip IS NULL") == 1


def test_rows_under_an_unknown_key_leave_the_certificate_unverified(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    stranger = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    load(database_url, stranger, [body(1, ip=IP)])

    certificate = _erase(steward, keyring, "ip", IP)

    assert (certificate.logins, certificate.unreadable_rows, certificate.verified) == (0, 1, False)
    # The database sees them too, without a keyset.
    assert certificate.unsearched_rows == 1


def test_an_md5_digest_is_erased_with_its_matches(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    digest = hashlib.md5(IP.encode(), usedforsecurity=False).hexdigest()
    _run(
        database_url,
        f"INSERT INTO user_logins (user_id, masked_ip) VALUES ('u', '{digest}'), ('v', 'other')",
        "INSERT INTO login_ingest.md5_match (field, new_token, digest)"
        f" VALUES ('ip', '{keyring.masker('ip').mask(IP)}', '{digest}')",
    )

    certificate = _erase(steward, keyring, "ip", IP)

    assert (certificate.logins, certificate.verified) == (1, True)
    assert _rows(database_url, "SELECT user_id FROM user_logins WHERE masked_ip IS NULL") == [
        ("u",)
    ]
    assert _count(database_url, "login_ingest.md5_match") == 0


def test_rows_under_a_lost_key_are_found_by_their_links(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    lost = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    load(database_url, lost, [body(1, ip=IP), body(2)])
    load(database_url, keyring, [body(3, ip=IP)])
    between = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    register(database_url, between)
    middle = between.masker("ip").mask(IP)
    links = [
        TokenLink("ip", lost.masker("ip").mask(IP), middle),
        TokenLink("ip", middle, keyring.masker("ip").mask(IP)),
        TokenLink(
            "ip", lost.masker("ip").mask("192.0.2.2"), keyring.masker("ip").mask("192.0.2.2")
        ),
        TokenLink(
            "device_id", lost.masker("device_id").mask("x"), keyring.masker("device_id").mask("x")
        ),
    ]
    with psycopg.connect(database_url) as connection:
        for link in links:
            write_links(connection, [link])

    certificate = _erase(steward, keyring, "ip", IP)

    # The value of the other row under the lost key is unknown, so nothing is certified.
    assert (certificate.logins, certificate.links, certificate.unreadable_rows) == (2, 2, 1)
    assert not certificate.verified
    assert _count(database_url, "login_ingest.token_link") == 2
    assert _count(database_url, "user_logins WHERE masked_ip IS NULL") == 2


def test_quarantined_messages_with_the_value_are_erased_and_counted(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    kept = quarantine_bodies(database_url, keyring, ['{"ip": "203.0.113.7"}', "junk"])
    quarantine_bodies(
        database_url,
        keyring,
        [f'{{"ip": "::ffff:{IP}"}}', f'{{"ip": "{IP}', json.dumps({IP: 1})],
    )

    certificate = _erase(steward, keyring, "ip", IP)

    assert (certificate.messages, certificate.verified) == (3, True)
    assert _waiting(database_url) == kept
    balance = Quarantine(steward.url).balance()
    assert (balance.erased, balance.waiting, balance.is_balanced) == (3, 2, True)


@BOTH_KINDS
def test_rows_and_messages_of_a_user_are_erased_and_not_loaded_again(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    texts = [body(1, user_id=USER), body(2), body(3, user_id=USER)]
    ids = load(database_url, keyring, texts)
    broken = json.dumps({"user_id": USER})
    quarantine_bodies(database_url, keyring, [broken])

    certificate = _erase(steward, keyring, "user", USER)

    assert (certificate.logins, certificate.messages, certificate.verified) == (2, 1, True)
    assert _rows(database_url, "SELECT user_id FROM user_logins") == [("user-2",)]
    again = commit_batch(
        database_url,
        BatchToCommit(str(uuid4()), masked_batch(keyring, texts, ids), lambda _id: b""),
    )
    assert again.already_known == 3
    assert _count(database_url, "user_logins") == 1


def test_requests_to_unmask_lose_the_tokens_of_the_value_only(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    mine, other = keyring.masker("ip").mask(IP), keyring.masker("ip").mask("192.0.2.1")
    with psycopg.connect(steward.url) as connection:
        connection.execute(
            "SELECT login_ingest.create_unmask_request(%s, 'why', 'T-1', 10)", [[mine, other]]
        )

    certificate = _erase(steward, keyring, "ip", IP)

    assert (certificate.unmask_requests, certificate.verified) == (1, True)
    assert _rows(database_url, "SELECT tokens FROM login_ingest.unmask_request") == [([other],)]


def test_several_values_make_one_certificate(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    load(database_url, keyring, [body(number) for number in range(5)])

    certificate = _erase(steward, keyring, "ip", "192.0.2.1", "192.0.2.2", "198.51.100.1")

    assert (certificate.subjects, certificate.logins, certificate.verified) == (3, 2, True)


def test_the_certificate_and_the_audit_have_actor_and_reason_without_the_value(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    load(database_url, keyring, [body(1, ip=IP)])
    quarantine_bodies(database_url, keyring, [f"junk {IP}"])

    certificate = _erase(steward, keyring, "ip", IP)

    texts = (certificate.actor, certificate.kind, certificate.reason, certificate.ticket)
    assert texts == (steward.name, "ip", "asked for", "T-1")
    assert certificate.finished_at is not None
    audit = _rows(
        database_url, "SELECT actor, action, detail FROM login_ingest.audit ORDER BY audit_id"
    )
    assert [action for _, action, _ in audit] == [
        "erase.begin",
        "erase.apply",
        "erase.apply",
        "erase.finish",
    ]
    assert {name for name, _, _ in audit} == {steward.name}
    token = keyring.masker("ip").mask(IP)
    records = (_rows(database_url, "SELECT * FROM login_ingest.erasure"), audit, certificate)
    assert IP not in repr(records)
    assert token not in repr(records)


@BOTH_KINDS
def test_an_erasure_runs_in_steps_and_completes_one_that_was_killed(
    database_url: str, steward: Person, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    load(database_url, keyring, [body(number, ip=IP) for number in range(7)])
    quarantine_bodies(database_url, keyring, [f"junk {IP}"])
    with pytest.raises(KeyboardInterrupt):
        _erase(steward, keyring, "ip", IP, on_progress=_dies_at("quarantined"))

    [unfinished] = _rows(
        database_url, "SELECT logins, finished_at, verified FROM login_ingest.erasure"
    )
    assert unfinished == (7, None, False)
    assert Quarantine(steward.url).balance().is_balanced

    certificate = _erase(steward, keyring, "ip", IP)

    assert (certificate.logins, certificate.messages, certificate.verified) == (0, 1, True)
    steps = _count(database_url, 'login_ingest.audit WHERE detail LIKE \'%"place" : "logins"%\'')
    assert steps == 4


def test_a_connection_that_dies_at_a_commit_counts_nothing_twice(
    database_url: str, steward: Person, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(database_url, keyring, [body(number, ip=IP) for number in range(3)])
    quarantine_bodies(database_url, keyring, [f"junk {IP}"])
    real = psycopg.Connection.commit
    seen: list[int] = []

    def unclear(connection: psycopg.Connection) -> None:
        real(connection)
        seen.append(1)
        if len(seen) % 2:
            connection.close()
            raise psycopg.OperationalError(IP)

    monkeypatch.setattr(psycopg.Connection, "commit", unclear)
    certificate = _erase(steward, keyring, "ip", IP)

    assert (certificate.logins, certificate.messages, certificate.verified) == (3, 1, True)


def test_a_subject_that_arrives_meanwhile_is_erased_in_another_round(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    ids = quarantine_bodies(database_url, keyring, ["junk"])
    with psycopg.connect(database_url) as connection:
        sealed = keyring.sealer.seal(body(1, ip=IP), ids[0])
        connection.execute("UPDATE login_ingest.quarantine SET sealed_body = %s", [sealed])

    def replays(text: str) -> None:
        if text == "Round 1: quarantined messages":
            list(Quarantine(steward.url).replay("r", MessageFilter(), keyring))

    certificate = _erase(steward, keyring, "ip", IP, on_progress=replays)

    assert (certificate.logins, certificate.messages, certificate.verified) == (1, 0, True)
    assert _count(database_url, "user_logins WHERE masked_ip IS NULL") == 1


def test_subjects_that_keep_arriving_leave_the_certificate_unverified(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    def comes(text: str) -> None:
        if "left" in text:
            load(database_url, keyring, [body(1, ip=IP)])

    certificate = _erase(steward, keyring, "ip", IP, on_progress=comes)

    assert (certificate.remaining_rows, certificate.verified) == (1, False)
    assert certificate.finished_at is not None


def test_an_unreadable_body_leaves_the_certificate_unverified(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    quarantine_bodies(database_url, keyring, ["junk"])
    _run(database_url, "UPDATE login_ingest.quarantine SET sealed_body = 'x'")

    certificate = _erase(steward, keyring, "ip", IP)

    assert _left(certificate) == (0, 0, 0, 1)
    assert not certificate.verified
    assert _count(database_url, "login_ingest.quarantine") == 1


def test_an_erasure_that_finds_nothing_is_verified(steward: Person, keyring: Keyring) -> None:
    certificate = _erase(steward, keyring, "device_id", DEVICE_ID)

    assert (certificate.logins, certificate.verified) == (0, True)


def test_partitions_are_erased_like_any_other_table(
    database_url: str, steward: Person, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 1)
    _run(
        database_url,
        "DROP VIEW login_ingest.user_logins_linked CASCADE",
        "ALTER TABLE user_logins RENAME TO before",
        "CREATE TABLE user_logins (LIKE before) PARTITION BY HASH (user_id)",
        *(
            f"CREATE TABLE part_{part} PARTITION OF user_logins"
            f" FOR VALUES WITH (MODULUS 3, REMAINDER {part})"
            for part in range(3)
        ),
        "GRANT ALL ON user_logins TO login_ingest_owner",
        "GRANT SELECT ON user_logins TO login_ingest_recovery",
    )
    load(database_url, keyring, [body(number, ip=IP) for number in range(9)] + [body(10)])

    assert _erase(steward, keyring, "ip", IP).logins == 9
    assert _erase(steward, keyring, "user", "user-3").logins == 1
    assert _count(database_url, "user_logins WHERE masked_ip IS NULL") == 8


def test_erasing_needs_the_recovery_role_and_an_erasure_of_the_same_actor(
    database_url: str, steward: Person
) -> None:
    calls = [
        "SELECT login_ingest.begin_erasure('e', 'ip', 1, 'r', 't')",
        "SELECT login_ingest.erase_tokens('e', 'ip', ARRAY['x'], 1)",
        "SELECT login_ingest.erase_users('e', ARRAY['x'], 1)",
        "SELECT login_ingest.erase_links('e', 'ip', ARRAY['x'])",
        "SELECT login_ingest.erase_requests('e', ARRAY['x'])",
        "SELECT login_ingest.erase_quarantined('e', ARRAY['x'])",
        "SELECT login_ingest.erase_matches('e', 'ip', ARRAY['x'])",
        "SELECT login_ingest.count_remaining('ip', ARRAY['x'])",
        "SELECT login_ingest.record_erased('e', 'logins', 1)",
        "SELECT login_ingest.unsearched_rows('ip', ARRAY['x'], 1)",
    ]
    for role in ("login_ingest_loader", "login_ingest_analyst", "login_ingest_auditor"):
        with person(database_url, role) as other:
            assert [sqlstate(other.url, each) for each in calls] == ["42501"] * len(calls)
    with psycopg.connect(steward.url) as connection:
        connection.execute(calls[0].encode())
    assert [sqlstate(steward.url, each) for each in calls[1:7]] == [None] * 6
    assert [sqlstate(steward.url, each) for each in calls[8:]] == ["42501"] * 2
    assert sqlstate(steward.url, "DELETE FROM user_logins") == "42501"
    with person(database_url, "login_ingest_recovery") as other:
        assert [sqlstate(other.url, each) for each in calls[1:7]] == ["42501"] * 6


@pytest.mark.parametrize(
    ("kind", "keys", "subjects"),
    [
        ("ip", ["ours"], 1),  # nothing was erased
        ("ip", ["stranger"], 1),  # a token of another key
        ("ip", ["ip:" + "A" * 50], 1),  # an invented one
        ("ip", ["ours", "stranger"], 2),  # fewer than the subjects under the rows' key
        ("user", [USER], 1),
    ],
)
def test_no_certificate_is_verified_by_invented_numbers(  # noqa: PLR0913, PLR0917 (a case and its fixtures)
    kind: str,
    keys: list[str],
    subjects: int,
    database_url: str,
    steward: Person,
    keyring: Keyring,
) -> None:
    stranger = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    load(database_url, keyring, [body(1, ip=IP, user_id=USER)])
    tokens = {"ours": keyring.masker("ip").mask(IP), "stranger": stranger.masker("ip").mask(IP)}

    named = [tokens.get(key, key) for key in keys]

    assert _finish_by_hand(steward, kind, subjects, named, (0, 0, 0, 0)) == "False"
    assert _count(database_url, "login_ingest.erasure WHERE verified") == 0


@pytest.mark.parametrize(
    ("keys", "counts"),
    [
        ([], (0, 0, 0, 0)),
        (["device_id:" + "A" * 50], (0, 0, 0, 0)),
        (["ip:x", "ip:x"], (0, 0, 0, 0)),
        (["ip:x", "ip:y"], (0, -1, 0, 0)),
        (["ip:x", "ip:y"], (0, 0, -1, 0)),
        (["ip:x", "ip:y"], (0, 0, 0, -1)),
        (["ip:x", "ip:y"], (None, 0, 0, 0)),
        (["ip:x", "ip:y"], (0, 0, 0, None)),
    ],
)
def test_a_certificate_requires_a_key_for_each_subject_and_every_count(
    database_url: str, steward: Person, keys: list[str], counts: tuple[int | None, ...]
) -> None:
    assert _finish_by_hand(steward, "ip", 2, keys, counts) == "22023"
    assert _count(database_url, "login_ingest.erasure WHERE verified") == 0


def test_the_database_counts_links_requests_matches_and_unexamined_messages(
    database_url: str, steward: Person, keyring: Keyring
) -> None:
    token = keyring.masker("ip").mask(IP)
    quarantine_bodies(database_url, keyring, ["junk", "junk"])
    _run(
        database_url,
        "INSERT INTO login_ingest.md5_match (field, new_token, digest)"
        f" VALUES ('ip', '{token}', '{'0' * 32}')",
        "INSERT INTO login_ingest.token_link (field, old_token, new_token)"
        f" VALUES ('ip', 'ip:old', '{token}')",
        "INSERT INTO login_ingest.unmask_request (requester, reason, ticket, tokens)"
        f" VALUES ('x', 'x', 'x', ARRAY['{token}'])",
    )

    assert _finish_by_hand(steward, "ip", 1, [token], (1, 0, 0, 0)) == "False"

    assert _rows(
        database_url,
        "SELECT remaining_rows, waiting_messages, unreadable_messages, verified"
        " FROM login_ingest.erasure",
    ) == [(3, 2, 1, False)]


def test_the_old_way_to_finish_is_gone(steward: Person) -> None:
    call = "SELECT login_ingest.finish_erasure('e', 0, 0)"
    assert sqlstate(steward.url, call) == "42883"


def test_an_unreachable_database_gives_no_certificate(keyring: Keyring) -> None:
    order = ErasureOrder("e", parse_subjects("ip", [IP]), "r", "t")
    with pytest.raises(DatabaseError) as caught:
        Erasures("postgresql://127.0.0.1:1/x").erase(order, keyring, lambda _text: None)

    assert IP not in str(caught.value)


def _erase(
    steward: Person,
    keyring: Keyring,
    kind: str,
    *values: str,
    on_progress: Callable[[str], None] = lambda _text: None,
) -> Certificate:
    order = ErasureOrder(str(uuid4()), parse_subjects(kind, values), "asked for", "T-1")
    return Erasures(steward.url).erase(order, keyring, on_progress)


def _finish_by_hand(
    steward: Person, kind: str, subjects: int, keys: list[str], counts: tuple[int | None, ...]
) -> str:
    """Call the functions of the database by hand; returns the result or the SQLSTATE."""
    with psycopg.connect(steward.url, autocommit=True) as connection:
        connection.execute(
            "SELECT login_ingest.begin_erasure('e', %s, %s, 'r', 't')", [kind, subjects]
        )
        try:
            row = connection.execute(
                "SELECT login_ingest.finish_erasure('e', %s::text[], %s, %s, %s, %s)",
                [keys, *counts],
            ).fetchone()
        except psycopg.Error as error:
            return str(error.sqlstate)
    assert row is not None
    return str(row[0])


def _left(certificate: Certificate) -> tuple[int | None, ...]:
    return (
        certificate.remaining_rows,
        certificate.remaining_messages,
        certificate.unreadable_rows,
        certificate.unreadable_messages,
    )


def _dies_at(words: str) -> Callable[[str], None]:
    def on_progress(text: str) -> None:
        if words in text:
            raise KeyboardInterrupt

    return on_progress


def _waiting(url: str) -> list[str]:
    rows = _rows(url, "SELECT message_id FROM login_ingest.quarantine ORDER BY 1")
    return [message_id for (message_id,) in rows]


def _count(url: str, what: str) -> int:
    return int(_rows(url, f"SELECT count(*) FROM {what}")[0][0])


def _rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
