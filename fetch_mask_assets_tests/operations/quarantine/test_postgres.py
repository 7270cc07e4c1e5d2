"""The quarantine: replayed exactly once, discarded and expired with a record and a balance."""

from __future__ import annotations

import json
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from fetch_mask_assets.errors import DatabaseError, RulesBrokenError
from fetch_mask_assets.keys.keyset import open_keyring
from fetch_mask_assets.keys.storage import create_keysets, read_keyring
from fetch_mask_assets.operations.quarantine import postgres as module
from fetch_mask_assets.operations.quarantine.messages import (
    ExpiryRefusedError,
    MessageFilter,
    QuarantineBalance,
)
from fetch_mask_assets.operations.quarantine.postgres import Quarantine
from fetch_mask_assets.operations.quarantine.replay import ReplayResult
from fetch_mask_assets.pipeline.batch import checked_batch
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.postgres.errors import TransientDatabaseError
from fetch_mask_assets_tests.support.factories import new_keysets, rotated
from fetch_mask_assets_tests.support.logins import SENT_AT, body, masked_batch, register
from fetch_mask_assets_tests.support.people import Person, person, sqlstate
from fetch_mask_assets_tests.support.warehouse import quarantine_bodies, quarantine_logins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fetch_mask_assets.keys.keyset import Keyring

ALL = MessageFilter()
CANARY = "canary-4711"


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    """Keys for the whole module."""
    directory = tmp_path_factory.mktemp("keysets")
    create_keysets(directory)
    return read_keyring(directory)


@pytest.fixture
def steward(database_url: str) -> Iterator[Person]:
    """A member of login_ingest_recovery, and of nothing else."""
    with person(database_url, "login_ingest_recovery") as member:
        yield member


@pytest.fixture
def store(steward: Person) -> Quarantine:
    """The quarantine as the steward reaches it."""
    return Quarantine(steward.url)


def test_a_message_that_is_now_a_login_becomes_a_row_and_leaves_the_quarantine(
    database_url: str, steward: Person, store: Quarantine, keyring: Keyring
) -> None:
    quarantine_logins(database_url, keyring, [body(7)])
    bad = quarantine_bodies(database_url, keyring, ["junk"])

    assert list(store.replay("r1", ALL, keyring)) == [ReplayResult(1, 1)]

    rows = _rows(database_url, "SELECT * FROM user_logins")
    expected = ("user-7", "android", keyring.masker("ip").mask("192.0.2.7"))
    device = keyring.masker("device_id").mask("device-00000007")
    assert rows == [(*expected, device, "en_US", 2_003_000, SENT_AT.date())]
    assert rows[0][-1] == date(2024, 2, 29)
    assert _waiting(database_url) == bad
    versions = (
        "SELECT create_date, version_text, app_version, logins FROM login_ingest.version_count"
    )
    assert _rows(database_url, versions) == [(SENT_AT.date(), "2.3.0", 2_003_000, 1)]
    assert _rows(
        database_url, "SELECT replay_id, actor, replayed, still_rejected FROM login_ingest.replay"
    ) == [("r1", steward.name, 1, 1)]
    assert _audit(database_url)[-1] == (
        steward.name,
        "quarantine.replay",
        {"replay_id": "r1", "replayed": 1, "still_rejected": 1},
    )


def test_a_message_that_is_still_rejected_stays_with_its_current_reason(
    database_url: str, store: Quarantine, keyring: Keyring
) -> None:
    [message_id] = quarantine_bodies(database_url, keyring, ['{"user_id": "u"}'])
    _run(database_url, "UPDATE login_ingest.quarantine SET reason = 'blank', field = 'locale'")
    sealed = _rows(database_url, "SELECT sealed_body FROM login_ingest.quarantine")

    list(store.replay("r", ALL, keyring))

    assert _rows(database_url, "SELECT message_id, reason, field FROM login_ingest.quarantine") == [
        (message_id, "missing", "app_version")
    ]
    assert _rows(database_url, "SELECT sealed_body FROM login_ingest.quarantine") == sealed


def test_replays_repeated_load_nothing_twice(
    database_url: str, store: Quarantine, keyring: Keyring
) -> None:
    quarantine_logins(database_url, keyring, [body(number) for number in range(5)])
    for number in range(3):
        list(store.replay(f"r{number}", ALL, keyring))

    assert _logins(database_url) == [(f"user-{number}", 1) for number in range(5)]
    assert store.balance() == QuarantineBalance(5, 5, 0, 0, 0, 0, is_balanced=True)


def test_concurrent_replays_share_the_work_and_load_nothing_twice(
    database_url: str, store: Quarantine, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MESSAGES_AT_ONCE", 7)
    quarantine_logins(database_url, keyring, [body(number) for number in range(100)])
    with ThreadPoolExecutor(4) as pool:
        runs = [
            pool.submit(lambda: list(store.replay(str(uuid4()), ALL, keyring))) for _ in range(4)
        ]
        done = [step for run in runs for step in run.result()]
    # Messages that one has locked are left to it.
    assert sum(step.replayed for step in done) == 100
    assert [count for _, count in _logins(database_url)] == [1] * 100
    assert store.balance() == QuarantineBalance(100, 100, 0, 0, 0, 0, is_balanced=True)


def test_a_connection_that_dies_at_the_commit_loads_nothing_twice(
    database_url: str, store: Quarantine, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantine_logins(database_url, keyring, [body(number) for number in range(5)])
    real = psycopg.Connection.commit
    left = ["before", "after"]

    def unclear(connection: psycopg.Connection) -> None:
        fault = left.pop() if left else ""
        if fault != "before":
            real(connection)
        if fault:
            connection.close()
            raise psycopg.OperationalError(CANARY)

    monkeypatch.setattr(psycopg.Connection, "commit", unclear)
    list(store.replay("r", ALL, keyring))
    monkeypatch.setattr(psycopg.Connection, "commit", real)

    assert not left
    assert [count for _, count in _logins(database_url)] == [1] * 5
    assert store.replay_result("r") == ReplayResult(5, 0)
    assert store.balance().is_balanced


def test_the_next_replay_completes_one_that_was_killed(
    database_url: str, store: Quarantine, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MESSAGES_AT_ONCE", 2)
    quarantine_logins(database_url, keyring, [body(number) for number in range(5)])
    next(store.replay("dies", ALL, keyring))

    assert store.balance() == QuarantineBalance(5, 2, 0, 0, 0, 3, is_balanced=True)

    list(store.replay("next", ALL, keyring))

    assert [count for _, count in _logins(database_url)] == [1] * 5
    assert store.balance() == QuarantineBalance(5, 5, 0, 0, 0, 0, is_balanced=True)


def test_a_message_delivered_again_after_its_replay_is_not_loaded_again(
    database_url: str, store: Quarantine, keyring: Keyring
) -> None:
    ids = quarantine_logins(database_url, keyring, [body(1)])
    list(store.replay("r", ALL, keyring))

    again = commit_batch(
        database_url,
        BatchToCommit(str(uuid4()), masked_batch(keyring, [body(1)], ids), lambda _id: b""),
    )

    assert again.already_known == 1
    assert _logins(database_url) == [("user-1", 1)]
    assert store.balance().is_balanced


def test_a_row_that_the_table_refuses_stays_quarantined_and_the_others_load(
    database_url: str, store: Quarantine, keyring: Keyring
) -> None:
    ids = quarantine_logins(database_url, keyring, [body(1), body(2), body(3)])
    _run(database_url, "ALTER TABLE user_logins ADD CHECK (user_id <> 'user-2')")

    assert list(store.replay("r", ALL, keyring)) == [ReplayResult(2, 1)]

    assert [user for user, _ in _logins(database_url)] == ["user-1", "user-3"]
    assert _rows(database_url, "SELECT message_id, reason FROM login_ingest.quarantine") == [
        (ids[1], "refused_by_database")
    ]
    assert store.balance().is_balanced


def test_a_table_that_drops_rows_silently_loses_no_message(
    database_url: str, store: Quarantine, keyring: Keyring
) -> None:
    ids = quarantine_logins(database_url, keyring, [body(1)])
    _run(
        database_url,
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER swallow BEFORE INSERT ON user_logins FOR EACH ROW"
        " EXECUTE FUNCTION swallow()",
    )
    with pytest.raises(DatabaseError):
        list(store.replay("r", ALL, keyring))

    assert _waiting(database_url) == ids
    assert store.balance().is_balanced


def test_a_filter_by_id_or_reason_code_leaves_the_other_messages(
    database_url: str, store: Quarantine, keyring: Keyring
) -> None:
    ids = quarantine_logins(database_url, keyring, [body(1), body(2), body(3)])
    _change(database_url, "reason = 'null'", ids[2:])
    selected = MessageFilter(message_ids=(ids[0], "not there"))

    assert store.count(selected) == 1
    assert store.count(MessageFilter(reason_code="null")) == 1
    assert store.count(ALL) == 3

    list(store.replay("ids", selected, keyring))
    assert [user for user, _ in _logins(database_url)] == ["user-1"]

    list(store.replay("reason", MessageFilter(reason_code="null"), keyring))
    assert [user for user, _ in _logins(database_url)] == ["user-1", "user-3"]


def test_an_unreadable_message_stays_unchanged(
    database_url: str, store: Quarantine, keyring: Keyring
) -> None:
    ids = quarantine_logins(database_url, keyring, [body(1), body(2)])
    _change(database_url, "sealed_body = 'x'", ids[:1])

    assert list(store.replay("r", ALL, keyring)) == [ReplayResult(1, 1, unreadable=1)]
    assert _waiting(database_url) == [ids[0]]


def test_a_replay_while_keys_are_rotated_stays_equal_to_older_rows(
    database_url: str, store: Quarantine, tmp_path: Path
) -> None:
    create_keysets(tmp_path)
    keysets = {path.stem: path.read_text() for path in tmp_path.iterdir()}
    old = open_keyring(keysets)
    new = open_keyring(keysets | {"ip": rotated(keysets["ip"], "ip")})
    register(database_url, new)
    commit_batch(
        database_url, BatchToCommit(str(uuid4()), masked_batch(old, [body(1)]), lambda _id: b"")
    )
    quarantine_logins(database_url, old, [body(1)])

    list(store.replay("r", ALL, new))

    assert _rows(database_url, "SELECT count(DISTINCT masked_ip) FROM user_logins") == [(2,)]
    linked = "SELECT DISTINCT masked_ip FROM login_ingest.user_logins_linked"
    assert _rows(database_url, linked) == [(new.masker("ip").mask("192.0.2.1"),)]


@pytest.mark.parametrize("name", ["ip", "device_id"])
def test_messages_masked_under_a_retired_key_are_not_replayed(
    database_url: str, steward: Person, store: Quarantine, keyring: Keyring, name: str
) -> None:
    ids = quarantine_logins(database_url, keyring, [body(1)])
    key_id = {masker.field.name: masker.primary_key_id for masker in keyring.maskers}[name]
    with psycopg.connect(steward.url) as connection:
        connection.execute("SELECT login_ingest.retire_key(%s, %s)", [name, key_id])

    with pytest.raises(DatabaseError, match=f"key {key_id} of {name}, which was retired"):
        list(store.replay("r", ALL, keyring))

    assert _waiting(database_url) == ids
    assert _logins(database_url) == []
    assert [action for _, action, _ in _audit(database_url)] == ["keys.retire"]


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("masked_ip", "192.0.2.1", "token_valid"),
        ("masked_device_id", "device-1", "token_valid"),
        ("masked_device_id", "the ip's", "token_valid"),
        ("masked_ip", "a stranger's", "key_usable"),
        ("masked_ip", "a retired key's", "key_usable"),
    ],
)
def test_the_database_replays_nothing_but_tokens_of_the_field_under_keys_in_use(  # noqa: PLR0913, PLR0917 (a case and its fixtures)
    database_url: str, steward: Person, keyring: Keyring, name: str, text: str, rule: str
) -> None:
    [message_id] = quarantine_logins(database_url, keyring, [body(1)])
    stranger, retired = (open_keyring(new_keysets()) for _ in range(2))
    register(database_url, retired)
    tokens = {
        "the ip's": keyring.masker("ip").mask("192.0.2.1"),
        "a stranger's": stranger.masker("ip").mask("192.0.2.1"),
        "a retired key's": retired.masker("ip").mask("192.0.2.1"),
    }
    good = {
        "message_id": message_id,
        "user_id": "u",
        "masked_ip": keyring.masker("ip").mask("192.0.2.1"),
        "masked_device_id": keyring.masker("device_id").mask("device-1"),
    }
    call = "SELECT * FROM login_ingest.replay_messages('r', %s, '[]', 0)"
    with psycopg.connect(steward.url) as connection:
        connection.execute(
            "SELECT login_ingest.retire_key('ip', %s)", [retired.masker("ip").primary_key_id]
        )
        connection.commit()
        with pytest.raises(psycopg.errors.CheckViolation) as refused:
            connection.execute(call, [json.dumps([good | {name: tokens.get(text, text)}])])
        connection.rollback()
        assert refused.value.diag.constraint_name == rule
        assert _waiting(database_url) == [message_id]
        assert connection.execute(call, [json.dumps([good])]).fetchall() == [(1, 0)]


def test_a_replay_that_waits_for_a_key_keeps_nobody_from_the_audit(
    database_url: str, store: Quarantine
) -> None:
    """Keys, then links, then the audit: who retires a key has it, and then wants the audit."""
    keysets = new_keysets()
    old = open_keyring(keysets)
    new = open_keyring(keysets | {"ip": rotated(keysets["ip"], "ip")})
    register(database_url, new)
    quarantine_logins(database_url, old, [body(1)])
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(database_url) as retiring,
        psycopg.connect(database_url, autocommit=True) as other,
    ):
        retiring.execute(
            "SELECT FROM login_ingest.masking_key WHERE keyset = 'device_id' AND key_id = %s"
            " FOR UPDATE",
            [new.masker("device_id").primary_key_id],
        )
        replay = pool.submit(lambda: list(store.replay("r", ALL, new)))
        while other.execute(waits, [other.info.dbname]).fetchall() == [(0,)]:
            assert not replay.done()
        other.execute("SET lock_timeout = '100ms'")
        other.execute("SELECT login_ingest.record_audit('a', '{}')")
        retiring.rollback()
        assert replay.result() == [ReplayResult(1, 0)]


def test_masked_messages_that_break_a_rule_are_not_written(
    database_url: str, store: Quarantine, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = quarantine_logins(database_url, keyring, [body(1)])
    monkeypatch.setattr(checked_batch, "broken_rules", lambda _batch: {"no_raw_value": 1})

    with pytest.raises(RulesBrokenError, match=r"no_raw_value \(1\)"):
        list(store.replay("r", ALL, keyring))

    assert _waiting(database_url) == ids
    assert _logins(database_url) == []


def test_the_list_counts_profiles_without_text_of_a_sender(
    database_url: str, steward: Person, store: Quarantine, keyring: Keyring
) -> None:
    texts = [json.dumps({"ip": CANARY, CANARY: 1}), json.dumps({"ip": 1, "x": 1}), CANARY]
    quarantine_bodies(database_url, keyring, [*texts, "[]"])
    quarantine_bodies(database_url, keyring, [json.dumps({"ip": 3, CANARY + "2": 1})])
    _run(
        database_url,
        "INSERT INTO login_ingest.quarantine VALUES ('closed', 0, 'null', 'ip', now(), 1, now(),"
        " 'x')",
    )
    seen: list[int] = []

    counts = store.profiles(keyring.sealer, seen.append)

    assert sum(seen) == 6
    assert Counter({(c.reason, c.field, c.profile): c.messages for c in counts}) == {
        ("missing", "user_id", "ip +1 unknown"): 3,
        ("not_json", None, "not JSON"): 1,
        ("not_an_object", None, "not an object"): 1,
        ("null", "ip", "cannot be opened"): 1,
    }
    assert counts[0].first_seen < counts[0].last_seen
    assert CANARY not in repr(counts)
    assert _audit(database_url) == [(steward.name, "quarantine.list", {"messages": 6, "kinds": 4})]


def test_a_message_is_shown_after_the_record_is_committed(
    database_url: str, steward: Person, store: Quarantine, keyring: Keyring
) -> None:
    [message_id] = quarantine_bodies(database_url, keyring, [CANARY])

    message = store.show(message_id)

    assert message is not None
    assert keyring.sealer.open(message.sealed_body, message_id) == CANARY
    assert CANARY not in repr(message)
    assert _audit(database_url) == [
        (steward.name, "quarantine.show", {"message_id": message_id}),
    ]
    assert store.show("not there") is None


def test_a_message_is_not_shown_when_it_cannot_be_recorded(
    database_url: str, store: Quarantine, keyring: Keyring
) -> None:
    [message_id] = quarantine_bodies(database_url, keyring, [CANARY])
    _run(database_url, "ALTER TABLE login_ingest.audit ADD CHECK (action <> 'quarantine.show')")

    with pytest.raises(DatabaseError):
        store.show(message_id)


def test_discarded_messages_are_counted_and_recorded_and_do_not_come_again(
    database_url: str, steward: Person, store: Quarantine, keyring: Keyring
) -> None:
    ids = quarantine_bodies(database_url, keyring, ["junk", "[]", "{}"])

    assert list(store.discard("d1", MessageFilter(message_ids=(ids[0],)), "noise")) == [1]
    assert list(store.discard("d2", MessageFilter(reason_code="not_an_object"), "noise")) == [1]
    assert list(store.discard("d3", MessageFilter(reason_code="not_an_object"), "noise")) == []

    assert _waiting(database_url) == [ids[2]]
    assert store.balance() == QuarantineBalance(3, 0, 2, 0, 0, 1, is_balanced=True)
    assert _audit(database_url)[0] == (
        steward.name,
        "quarantine.discard",
        {"deletion_id": "d1", "reason": "noise", "messages": 1, "message_ids": [ids[0]]},
    )
    again = commit_batch(
        database_url,
        BatchToCommit(str(uuid4()), masked_batch(keyring, ["junk"], [ids[0]]), lambda _id: b""),
    )
    assert again.already_known == 1
    assert store.balance().is_balanced


def test_nothing_is_discarded_without_a_filter_or_a_reason(
    database_url: str, store: Quarantine, keyring: Keyring
) -> None:
    ids = quarantine_bodies(database_url, keyring, ["junk"])

    for selected, reason in ((ALL, "noise"), (MessageFilter(reason_code="not_json"), "")):
        with pytest.raises(DatabaseError):
            list(store.discard("d", selected, reason))

    assert _waiting(database_url) == ids


def test_old_messages_expire_in_steps_and_younger_ones_stay(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2)
    ids = quarantine_bodies(database_url, keyring, ["junk"] * 5)
    _change(database_url, "quarantined_at = now() - interval '91 days'", ids[1:4])
    with person(database_url, "login_ingest_recovery") as steward:
        store = Quarantine(steward.url)
        assert list(store.expire(90)) == [2, 1]
        assert list(store.expire(90)) == []
        assert store.balance() == QuarantineBalance(5, 0, 0, 3, 0, 2, is_balanced=True)
        for days in (6, 0, -1):
            with pytest.raises(ExpiryRefusedError, match="for at least 7 days"):
                list(store.expire(days))
        name = steward.name
    assert _waiting(database_url) == sorted([ids[0], ids[4]])
    assert _audit(database_url) == [
        (name, "quarantine.expire", {"verdict": "expired", "keep_days": 90, "messages": 2}),
        (name, "quarantine.expire", {"verdict": "expired", "keep_days": 90, "messages": 1}),
        *(
            (
                name,
                "quarantine.expire",
                {"verdict": "retention_too_short", "keep_days": days, "min_days": 7},
            )
            for days in (6, 0, -1)
        ),
    ]


def test_the_loader_cannot_expire_messages(database_url: str, keyring: Keyring) -> None:
    """It could otherwise empty the quarantine, down to what the policy keeps."""
    quarantine_bodies(database_url, keyring, ["junk"])
    with (
        person(database_url, "login_ingest_loader") as loader,
        pytest.raises(DatabaseError, match="42501"),
    ):
        list(Quarantine(loader.url).expire(1))


def test_the_balance_does_not_hold_after_a_delete_by_hand(
    database_url: str, store: Quarantine, keyring: Keyring
) -> None:
    quarantine_bodies(database_url, keyring, ["junk"])
    _run(database_url, "DELETE FROM login_ingest.quarantine")

    assert store.balance() == QuarantineBalance(1, 0, 0, 0, 0, 0, is_balanced=False)


def test_messages_leave_the_quarantine_through_the_functions_only(
    database_url: str, steward: Person
) -> None:
    statements = [
        "DELETE FROM login_ingest.quarantine",
        "UPDATE login_ingest.quarantine SET reason = 'x'",
        "INSERT INTO user_logins DEFAULT VALUES",
        "DELETE FROM login_ingest.quarantine_deletion",
        "INSERT INTO login_ingest.replay VALUES ('x', now(), 'x', 1, 1)",
    ]
    assert [sqlstate(steward.url, each) for each in statements] == ["42501"] * 5
    calls = [
        "SELECT * FROM login_ingest.lock_quarantined('', NULL, NULL, 1)",
        "SELECT * FROM login_ingest.replay_messages('r', '[]', '[]', 0)",
        "SELECT login_ingest.discard_messages('d', NULL, 'not_json', 'x', 1)",
    ]
    for role in ("login_ingest_loader", "login_ingest_analyst", "login_ingest_auditor"):
        with person(database_url, role) as other:
            assert [sqlstate(other.url, each) for each in calls] == ["42501"] * 3
            assert sqlstate(other.url, "SELECT sealed_body FROM login_ingest.quarantine") == "42501"


def test_a_replay_of_another_actor_cannot_be_counted_into(
    database_url: str, steward: Person
) -> None:
    call = "SELECT * FROM login_ingest.replay_messages('r', '[]', '[]', 0)"
    with psycopg.connect(steward.url) as connection:
        connection.execute(call.encode())
    with person(database_url, "login_ingest_recovery") as other:
        assert sqlstate(other.url, call) == "42501"


def test_no_error_holds_a_value(database_url: str, store: Quarantine, keyring: Keyring) -> None:
    quarantine_logins(database_url, keyring, [body(1, user_id=CANARY)])
    _run(database_url, "ALTER TABLE user_logins RENAME COLUMN locale TO place")

    with pytest.raises(DatabaseError) as caught:
        list(store.replay("r", ALL, keyring))

    text = "".join(traceback.format_exception(caught.value))
    assert CANARY not in text
    assert "192.0.2.1" not in text


def test_an_unreachable_database_is_a_transient_error(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    with pytest.raises(TransientDatabaseError):
        list(Quarantine("postgresql://127.0.0.1:1/x").replay("r", ALL, keyring))


def _logins(url: str) -> list[tuple[Any, ...]]:
    return _rows(url, "SELECT user_id, count(*) FROM user_logins GROUP BY 1 ORDER BY 1")


def _waiting(url: str) -> list[str]:
    rows = _rows(url, "SELECT message_id FROM login_ingest.quarantine ORDER BY 1")
    return [message_id for (message_id,) in rows]


def _audit(url: str) -> list[tuple[str, str, Any]]:
    rows = _rows(url, "SELECT actor, action, detail FROM login_ingest.audit ORDER BY audit_id")
    return [(who, action, json.loads(detail)) for who, action, detail in rows]


def _rows(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode(), values or None).fetchall()


def _change(url: str, what: str, message_ids: list[str]) -> None:
    statement = f"UPDATE login_ingest.quarantine SET {what} WHERE message_id = ANY (%s)"
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode(), [message_ids])


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
