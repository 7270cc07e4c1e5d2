"""Tokens, links and keys change only by functions of the database, which refuse invalid calls."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.keyset_change import rotated
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.operations.rotation.postgres import TokenTable
from fetch_mask_assets.operations.rotation.remask_plan import plan_remask
from fetch_mask_assets.operations.rotation.remask_run import RemaskProgress, remask_field
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.support.logins import body, masked_batch, register
from fetch_mask_assets_tests.support.people import Person, person, sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fetch_mask_assets.keys.masker import FieldMasker

    Call = tuple[str, list[object]]

DENIED = "42501"
REFUSED = "23514"
LOADER, RECOVERY = "login_ingest_loader", "login_ingest_recovery"
SOON = "SET lock_timeout = '100ms'"


@pytest.fixture(scope="module")
def keysets() -> dict[str, str]:
    """Keysets for the whole module."""
    return {name: new_keyset(name) for name in KEYSET_NAMES}


@pytest.fixture(scope="module")
def old(keysets: dict[str, str]) -> Keyring:
    """The keys before a rotation."""
    return open_keyring(keysets)


@pytest.fixture(scope="module")
def new(keysets: dict[str, str]) -> Keyring:
    """The same after one of the fields' keysets."""
    fields = ("ip", "device_id")
    return open_keyring(keysets | {name: rotated(name, keysets[name]).keyset for name in fields})


@pytest.fixture
def database(database_url: str, new: Keyring) -> LoginDatabase:
    """The test's own database, with all keys registered."""
    register(database_url, new)
    return LoginDatabase(database_url)


@pytest.fixture
def steward(database: LoginDatabase) -> Iterator[Person]:
    """A member of recovery only."""
    with person(database.url, RECOVERY) as somebody:
        yield somebody


@pytest.fixture
def loader(database: LoginDatabase) -> Iterator[Person]:
    """The login that runs use."""
    with person(database.url, LOADER) as somebody:
        yield somebody


def commit(url: str, ring: Keyring, *numbers: int) -> None:
    masked = masked_batch(ring, [body(number) for number in numbers])
    links = batch_links(masked, ring)
    commit_batch(url, BatchToCommit(str(uuid4()), masked, lambda _: b"", links))


def refusal(url: str, statement: str, *values: object) -> tuple[str | None, str | None] | None:
    """The SQLSTATE and the rule with which a statement is refused; what it did is rolled back."""
    with psycopg.connect(url) as connection:
        try:
            connection.execute(statement.encode(), values or None)
        except psycopg.Error as error:
            return error.sqlstate, error.diag.constraint_name
        finally:
            connection.rollback()
    return None


def audit(url: str) -> list[tuple[str, dict[str, Any]]]:
    return [(row.action, json.loads(row.detail)) for row in Audit(url).rows()]


def nothing(_: object) -> None:
    pass


# Direct writes


@pytest.mark.parametrize("role", [LOADER, RECOVERY])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE user_logins SET masked_ip = masked_device_id",
        "UPDATE user_logins SET masked_device_id = NULL",
        "UPDATE login_ingest.masking_key SET retired_at = now()",
        "INSERT INTO login_ingest.masking_key (keyset, key_id, check_value) VALUES ('ip', 1, 'x')",
        "INSERT INTO login_ingest.token_link VALUES ('ip', 'ip:a', 'ip:b')",
        "INSERT INTO login_ingest.md5_match VALUES ('ip', 'ip:a', 'a')",
        "DELETE FROM login_ingest.md5_match",
        "UPDATE login_ingest.remask_job SET finished_at = now()",
        "INSERT INTO login_ingest.remask_job (action, field) VALUES ('remask', 'ip')",
        "SELECT login_ingest.upsert_links('ip', '{}', '{}')",
        "SELECT login_ingest.add_job_counts(1, '{}', '{}', 1, 1)",
        "SELECT login_ingest.lock_remask_job(1, 'remask')",
        "SELECT login_ingest.rows_under_key('ip', 1)",
    ],
)
def test_tokens_links_and_keys_are_not_written_directly(
    database: LoginDatabase, role: str, statement: str
) -> None:
    with person(database.url, role) as eve:
        assert sqlstate(eve.url, statement) == DENIED


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT login_ingest.begin_remask_job('remask', 'ip', '{}')",
        "SELECT login_ingest.finish_remask_job(1, 'remask')",
        "SELECT login_ingest.replace_tokens(1, '{}', '{}', 1)",
        "SELECT login_ingest.replace_digests(1, 1, false)",
        "SELECT login_ingest.link_tokens_in_job(1, '{}', '{}')",
        "SELECT login_ingest.retire_key('ip', 1)",
        "SELECT login_ingest.restore_key('ip', 1)",
        "SELECT login_ingest.record_md5_matches('ip', '{}', '{}')",
    ],
)
def test_the_loader_changes_no_token_and_retires_no_key(loader: Person, statement: str) -> None:
    assert sqlstate(loader.url, statement) == DENIED


def test_a_grant_on_a_function_does_not_replace_membership_in_recovery(
    database: LoginDatabase,
) -> None:
    with person(database.url) as eve:
        with psycopg.connect(database.url) as connection:
            grant = "GRANT EXECUTE ON FUNCTION login_ingest.retire_key(text, bigint)"
            connection.execute(f"GRANT USAGE ON SCHEMA login_ingest TO {eve.name}".encode())
            connection.execute(f"{grant} TO {eve.name}".encode())
        assert sqlstate(eve.url, "SELECT login_ingest.retire_key('ip', 1)") == DENIED
        with psycopg.connect(database.url) as connection:
            connection.execute(f"DROP OWNED BY {eve.name}".encode())


# Re-masking


def test_a_re_masking_is_on_record_with_what_the_database_counted(
    steward: Person, old: Keyring, new: Keyring, database: LoginDatabase
) -> None:
    commit(database.url, old, 1, 2, 2)
    remask_field(TokenTable(steward.url), new.masker("ip"), nothing)
    begin, end = audit(database.url)
    to_key_ids = [new.masker("ip").primary_key_id]
    assert begin == (
        "remask.begin",
        {"job": 1, "field": "ip", "to_key_ids": to_key_ids, "resumes": []},
    )
    expected = {
        "from_key_ids": [old.masker("ip").primary_key_id],
        "to_key_ids": to_key_ids,
        "links": 2,
        "rows_changed": 3,
    }
    assert end == ("remask.finish", {"job": 1, "field": "ip"} | expected)


def test_a_killed_re_masking_has_no_end_and_the_next_one_resumes_it(
    steward: Person, old: Keyring, new: Keyring, database: LoginDatabase
) -> None:
    commit(database.url, old, 1, 2)
    table = TokenTable(steward.url)
    killed = table.begin(new.masker("ip"))
    some = plan_remask(new.masker("ip"), [old.masker("ip").mask("192.0.2.1")])
    table.link(killed, some)
    table.replace(killed, some.replacements)
    assert remask_field(table, new.masker("ip"), nothing) == RemaskProgress(1, 1, 2, unfinished=1)
    actions = audit(database.url)
    assert [action for action, _ in actions] == ["remask.begin", "remask.begin", "remask.finish"]
    [left] = actions[1][1]["resumes"]
    assert (left["job"], left["actor"], left["rows_changed"]) == (1, steward.name, 1)
    assert remask_field(table, new.masker("ip"), nothing).unfinished == 0


def test_an_end_that_is_repeated_is_recorded_once(
    steward: Person, new: Keyring, database: LoginDatabase
) -> None:
    table = TokenTable(steward.url)
    change = table.begin(new.masker("ip"))
    table.finish(change)
    table.finish(change)
    assert [action for action, _ in audit(database.url)] == ["remask.begin", "remask.finish"]


def test_a_job_belongs_to_its_login_and_ends_once(
    steward: Person, old: Keyring, new: Keyring, database: LoginDatabase
) -> None:
    commit(database.url, old, 1)
    change = TokenTable(steward.url).begin(new.masker("ip"))
    replacing = "SELECT login_ingest.replace_tokens(%s, %s, %s, 10)"
    values = (
        change.number,
        [old.masker("ip").mask("192.0.2.1")],
        [new.masker("ip").mask("192.0.2.1")],
    )
    with person(database.url, RECOVERY) as eve:
        assert refusal(eve.url, replacing, *values) == (DENIED, None)
        ending = "SELECT login_ingest.finish_remask_job(%s, 'remask')"
        assert refusal(eve.url, ending, change.number) == (DENIED, None)
    TokenTable(steward.url).finish(change)
    assert refusal(steward.url, replacing, *values) == (DENIED, None)


def test_a_token_is_replaced_only_by_one_that_readers_see_as_equal(
    steward: Person, old: Keyring, new: Keyring, database: LoginDatabase
) -> None:
    commit(database.url, old, 1, 2)
    table = TokenTable(steward.url)
    change = table.begin(new.masker("ip"))
    one, two = old.masker("ip").mask("192.0.2.1"), old.masker("ip").mask("192.0.2.2")
    assert table.replace(change, {one: new.masker("ip").mask("192.0.2.1")}) == 0
    table.link(change, plan_remask(new.masker("ip"), [one, two]))
    assert table.replace(change, {one: new.masker("ip").mask("192.0.2.2")}) == 0
    assert table.replace(change, {one: new.masker("ip").mask("192.0.2.1")}) == 1


@pytest.mark.parametrize(
    ("replacement", "rule"),
    [
        ("192.0.2.1", "token_valid"),
        ("", "token_valid"),
        ("the other field's", "token_valid"),
        ("a line more", "token_valid"),
        ("a stranger's key", "key_usable"),
        ("the old key", "job_key"),
    ],
)
def test_only_tokens_under_the_keys_of_the_job_replace_others(  # noqa: PLR0913, PLR0917 (a case and its fixtures)
    steward: Person,
    old: Keyring,
    new: Keyring,
    database: LoginDatabase,
    replacement: str,
    rule: str,
) -> None:
    commit(database.url, old, 1, 2)
    change = TokenTable(steward.url).begin(new.masker("ip"))
    stranger = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    text = {
        "the other field's": new.masker("device_id").mask("device-00000001"),
        "a line more": new.masker("ip").mask("192.0.2.1") + "\n",
        "a stranger's key": stranger.masker("ip").mask("192.0.2.1"),
        "the old key": old.masker("ip").mask("192.0.2.2"),
    }.get(replacement, replacement)
    values = [change.number, [old.masker("ip").mask("192.0.2.1")], [text]]
    for statement in (
        "SELECT login_ingest.replace_tokens(%s, %s, %s, 10)",
        "SELECT login_ingest.link_tokens_in_job(%s, %s, %s)",
    ):
        assert refusal(steward.url, statement, *values) == (REFUSED, rule)


def test_no_call_changes_more_than_its_bound(
    steward: Person, old: Keyring, new: Keyring, database: LoginDatabase
) -> None:
    commit(database.url, old, *[1] * 12)
    with psycopg.connect(database.url) as connection:
        for _ in range(9):
            connection.execute("INSERT INTO user_logins SELECT * FROM user_logins")
    table = TokenTable(steward.url)
    change = table.begin(new.masker("ip"))
    some = plan_remask(new.masker("ip"), [old.masker("ip").mask("192.0.2.1")])
    table.link(change, some)
    statement = "SELECT login_ingest.replace_tokens(%s, %s, %s, 1000000)"
    values = [change.number, list(some.replacements), list(some.replacements.values())]
    with psycopg.connect(steward.url) as connection:
        assert connection.execute(statement, values).fetchall() == [(5_000,)]
    assert refusal(steward.url, statement, change.number, ["ip:"] * 20_001, ["ip:"] * 20_001)


# Digests


NOTE = "SELECT login_ingest.record_md5_matches(%s, %s::text[], %s::text[])"
NOTED = "SELECT field, digest, new_token FROM login_ingest.md5_match ORDER BY digest"


def test_only_md5_digests_are_recorded_and_only_with_tokens_under_usable_keys(
    steward: Person, old: Keyring, new: Keyring, database: LoginDatabase
) -> None:
    stranger = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    token, digest = new.masker("ip").mask("192.0.2.1"), "0a" * 16
    retire = f"SELECT login_ingest.retire_key('ip', {old.masker('ip').primary_key_id})"
    with psycopg.connect(steward.url) as connection:
        connection.execute(retire.encode())
    for field, digests, tokens, rule in (
        ("ip", ["192.0.2.1"], [token], "md5_valid"),
        ("ip", [""], [token], "md5_valid"),
        ("ip", [None], [token], "md5_valid"),
        ("ip", [digest + "\n"], [token], "md5_valid"),
        ("ip", [digest.upper()], [token], "md5_valid"),
        ("ip", [digest, "1" * 32], [token], "md5_valid"),
        ("ip", [digest], ["192.0.2.1"], "token_valid"),
        ("ip", [digest], [None], "token_valid"),
        ("ip", [digest], [new.masker("device_id").mask("d")], "token_valid"),
        ("device_id", [digest], [token], "token_valid"),
        ("user_id", [digest], [token], "token_valid"),
        (None, [digest], [token], "token_valid"),
        ("ip", [digest], [stranger.masker("ip").mask("192.0.2.1")], "key_usable"),
        ("ip", [digest], [old.masker("ip").mask("192.0.2.1")], "key_usable"),
    ):
        assert refusal(steward.url, NOTE, field, digests, tokens) == (REFUSED, rule), (tokens, rule)
    assert database.query(NOTED) == []


def test_a_match_is_audited_and_the_first_of_a_digest_stays(
    steward: Person, new: Keyring, database: LoginDatabase
) -> None:
    one, two = new.masker("ip").mask("192.0.2.1"), new.masker("ip").mask("192.0.2.2")
    with psycopg.connect(steward.url) as connection:
        connection.execute(NOTE, ["ip", ["0" * 32], [one]])
        connection.execute(NOTE, ["ip", ["0" * 32, "1" * 32], [two, two]])
        connection.execute(NOTE, ["ip", ["1" * 32], [two]])
        connection.execute(NOTE, ["ip", [], []])
    assert database.query(NOTED) == [("ip", "0" * 32, one), ("ip", "1" * 32, two)]
    noted = ("upgrade-md5.record", {"field": "ip", "digests": 1})
    assert audit(database.url) == [noted, noted]


def test_only_md5_digests_are_replaced_and_only_by_tokens(
    steward: Person, new: Keyring, database: LoginDatabase
) -> None:
    """Whatever is noted by who may write the notes directly, which is nobody of our roles."""
    begin = "SELECT job FROM login_ingest.begin_remask_job('upgrade-md5', 'ip', '{}')"
    note = "INSERT INTO login_ingest.md5_match (field, new_token, digest) VALUES ('ip', %s, %s)"
    assert refusal(steward.url, note, new.masker("ip").mask("192.0.2.1"), "0" * 32) == (
        DENIED,
        None,
    )
    for token, digest, rule in (
        (new.masker("ip").mask("192.0.2.1"), "192.0.2.1", "md5_valid"),
        (new.masker("ip").mask("192.0.2.1"), "", "md5_valid"),
        ("192.0.2.1", "0" * 32, "token_valid"),
    ):
        with psycopg.connect(database.url) as connection:
            [(change,)] = connection.execute(begin).fetchall()
            connection.execute(note, [token, digest])
            with pytest.raises(psycopg.errors.CheckViolation) as refused:
                connection.execute("SELECT login_ingest.replace_digests(%s, 9, true)", [change])
            assert refused.value.diag.constraint_name == rule
            connection.rollback()
    assert database.query("SELECT count(*) FROM login_ingest.audit") == [(0,)]


# Links


LINK = "SELECT login_ingest.link_tokens(%s::text[], %s::text[], %s::text[])"


def test_the_loader_links_only_tokens_of_the_field_under_known_keys(
    loader: Person, old: Keyring, new: Keyring
) -> None:
    stranger = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    good, newest = old.masker("ip").mask("192.0.2.1"), new.masker("ip").mask("192.0.2.1")
    device = new.masker("device_id").mask("device-1")
    assert refusal(loader.url, LINK, ["ip"], [good], [newest]) is None
    for field, before, after, rule in (
        ("ip", "192.0.2.1", newest, "token_valid"),
        ("ip", good, "192.0.2.1", "token_valid"),
        ("ip", "5d41402abc4b2a76b9719d911017c592", newest, "token_valid"),
        ("ip", good, device, "token_valid"),
        ("device_id", good, newest, "token_valid"),
        ("user_id", good, newest, "token_valid"),
        (None, good, newest, "token_valid"),
        ("ip", stranger.masker("ip").mask("192.0.2.1"), newest, "key_registered"),
        ("ip", good, stranger.masker("ip").mask("192.0.2.1"), "key_usable"),
    ):
        found = refusal(loader.url, LINK, [field], [before], [after])
        assert found == (REFUSED, rule), (field, rule)
    assert refusal(loader.url, LINK, ["ip"], [good], []) == (REFUSED, "token_valid")


def test_an_existing_link_cannot_lead_to_another_value(
    loader: Person, old: Keyring, new: Keyring, database: LoginDatabase
) -> None:
    commit(database.url, new, 1)
    commit(database.url, new, 2)
    links = "SELECT old_token, new_token FROM login_ingest.token_link ORDER BY 1"
    before = database.query(links)
    assert len(before) == 4
    one, two = old.masker("ip").mask("192.0.2.1"), new.masker("ip").mask("192.0.2.2")
    assert refusal(loader.url, LINK, ["ip"], [one], [two]) == (REFUSED, "link_unique")
    assert database.query(links) == before


def test_links_that_recovery_writes_are_on_record(
    steward: Person, old: Keyring, new: Keyring, database: LoginDatabase
) -> None:
    with psycopg.connect(steward.url) as connection:
        values = [
            ["ip"],
            [old.masker("ip").mask("192.0.2.1")],
            [new.masker("ip").mask("192.0.2.1")],
        ]
        connection.execute(LINK, values)
    assert audit(database.url) == [("links.write", {"links": 1})]


# Keys


@pytest.mark.parametrize(
    ("keyset", "key_id", "check"),
    [("other", 1, b"1"), ("ip", -1, b"1"), ("ip", 2**32, b"1"), ("ip", 1, b""), ("ip", 1, None)],
)
def test_an_invalid_key_is_not_registered(
    loader: Person, keyset: str, key_id: int, check: bytes | None
) -> None:
    values = [[keyset], [key_id], [check]]
    statement = "SELECT login_ingest.register_keys(%s::text[], %s::bigint[], %s::bytea[])"
    assert refusal(loader.url, statement, *values) == (REFUSED, "key_conflict")


def test_a_key_that_conflicts_is_not_registered(
    loader: Person, new: Keyring, database: LoginDatabase
) -> None:
    statement = "SELECT login_ingest.register_keys(%s::text[], %s::bigint[], %s::bytea[])"
    known, check = next(iter(new.masker("ip").check_values.items()))
    conflict = (REFUSED, "key_conflict")
    before = database.query("SELECT * FROM login_ingest.masking_key ORDER BY 1, 2")
    assert refusal(loader.url, statement, ["ip"], [known], [b"other"]) == conflict
    assert refusal(loader.url, statement, ["device_id"], [7], [check]) == conflict
    assert refusal(loader.url, statement, ["ip", "device_id"], [7, 8], [b"x", b"x"]) == conflict
    assert refusal(loader.url, statement, ["ip"], [known], [check]) is None
    assert database.query("SELECT * FROM login_ingest.masking_key ORDER BY 1, 2") == before


def test_a_batch_under_a_key_that_was_retired_meanwhile_is_not_committed(
    loader: Person, steward: Person, old: Keyring, database: LoginDatabase
) -> None:
    key_id = old.masker("device_id").primary_key_id
    with psycopg.connect(steward.url) as connection:
        connection.execute("SELECT login_ingest.retire_key('device_id', %s)", [key_id])
    with pytest.raises(DatabaseError, match=f"key {key_id} of device_id, which was retired") as no:
        commit(loader.url, old, 1, 2)
    assert "messages of a queue go back to it" in str(no.value)
    for table in ("user_logins", "login_ingest.ledger", "login_ingest.batch"):
        assert database.query(f"SELECT count(*) FROM {table}") == [(0,)]
    assert audit(database.url)[-1][0] == "keys.retire"


def test_a_sealed_message_under_a_retired_key_is_not_committed_either(
    loader: Person, steward: Person, old: Keyring, database: LoginDatabase
) -> None:
    key_id = old.sealer.primary_key_id
    with psycopg.connect(steward.url) as connection:
        connection.execute("SELECT login_ingest.retire_key('quarantine', %s)", [key_id])
    masked = masked_batch(old, ["no login"])
    with pytest.raises(DatabaseError, match=f"key {key_id} of quarantine"):
        commit_batch(loader.url, BatchToCommit("run", masked, lambda _: b""))
    assert database.query("SELECT count(*) FROM login_ingest.quarantine") == [(0,)]


def test_a_batch_under_an_unregistered_key_is_not_committed(
    loader: Person, database: LoginDatabase
) -> None:
    stranger = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
    with pytest.raises(DatabaseError, match="is not registered"):
        commit(loader.url, stranger, 1)
    assert database.query("SELECT count(*) FROM user_logins") == [(0,)]


HOLD = "SELECT * FROM login_ingest.lock_keys(%s::text[], %s::bigint[])"


def test_commits_share_a_key_and_its_retirement_waits_for_them(
    loader: Person, steward: Person, old: Keyring
) -> None:
    key_id = old.masker("ip").primary_key_id
    retire = f"SELECT login_ingest.retire_key('ip', {key_id})"
    with psycopg.connect(loader.url) as first, psycopg.connect(loader.url) as second:
        assert first.execute(HOLD, [["ip"], [key_id]]).fetchall() == []
        second.execute("SET lock_timeout = '100ms'")
        assert second.execute(HOLD, [["ip"], [key_id]]).fetchall() == []
        second.rollback()
        assert sqlstate(steward.url, SOON, retire) == "55P03"
        first.rollback()
        assert sqlstate(steward.url, SOON, retire) is None


def test_the_database_refuses_to_retire_a_used_key(
    steward: Person, old: Keyring, new: Keyring, database: LoginDatabase
) -> None:
    commit(database.url, old, 1, 2)
    retire = "SELECT login_ingest.retire_key(%s, %s)"
    masked = masked_batch(old, ["no login"])
    commit_batch(database.url, BatchToCommit("run", masked, lambda _: b""))
    with psycopg.connect(steward.url) as connection:
        connection.execute(NOTE, ["ip", ["0" * 32], [new.masker("ip").mask("192.0.2.9")]])
    needed = {
        ("ip", old.masker("ip").primary_key_id): 2,
        ("device_id", old.masker("device_id").primary_key_id): 2,
        ("quarantine", old.sealer.primary_key_id): 1,
        ("ip", new.masker("ip").primary_key_id): 1,
    }
    with psycopg.connect(steward.url) as connection:
        for key, rows in needed.items():
            assert connection.execute(retire, key).fetchall() == [(rows,)]
    kept = "SELECT count(*) FROM login_ingest.masking_key WHERE retired_at IS NOT NULL"
    assert database.query(kept) == [(0,)]
    assert [action for action, _ in audit(database.url)] == ["upgrade-md5.record"]


# At once


def test_commits_rotations_re_maskings_and_the_audit_do_not_deadlock(
    database: LoginDatabase, old: Keyring, new: Keyring
) -> None:
    """Whoever is chosen to end a deadlock would say so; the retries of the product are past."""
    commit(database.url, old, *range(30))
    table = TokenTable(database.url)
    keys = (
        ["ip", "device_id"],
        [old.masker("ip").primary_key_id, old.masker("device_id").primary_key_id],
    )

    def retire_and_restore() -> None:
        with psycopg.connect(database.url) as connection:
            for name, key_id in zip(*keys, strict=True):
                connection.execute("SELECT login_ingest.acquire_lock('registry')")
                connection.execute("SELECT login_ingest.retire_key(%s, %s)", [name, key_id])
                connection.execute("SELECT login_ingest.restore_key(%s, %s)", [name, key_id])

    def record() -> None:
        with psycopg.connect(database.url) as connection:
            connection.execute("SELECT login_ingest.record_audit('a', '{}')")

    work = [
        lambda: commit(database.url, new, *range(20)),
        lambda: commit(database.url, new, *range(19, -1, -1)),
        lambda: remask_field(table, new.masker("ip"), nothing),
        lambda: remask_field(table, new.masker("device_id"), nothing),
        retire_and_restore,
        record,
    ]
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(each) for _ in range(4) for each in work]:
            done.result()
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert database.query(deadlocks) == [(0,)]
    assert database.query("SELECT count(*) FROM user_logins") == [(30 + 8 * 20,)]


def _replacement(job: int, old_masker: FieldMasker, new_masker: FieldMasker, value: str) -> Call:
    tokens = [old_masker.mask(value)], [new_masker.mask(value)]
    return "SELECT login_ingest.replace_tokens(%s, %s, %s, 10)", [job, *tokens]


@pytest.mark.parametrize("other", ["a re-masking", "an erasure of values", "an erasure of users"])
def test_changes_of_the_same_rows_in_opposite_orders_do_not_deadlock(
    database: LoginDatabase, old: Keyring, new: Keyring, other: str
) -> None:
    commit(database.url, old, 1, 2)
    table = TokenTable(database.url)
    jobs = {}
    for masker in new.maskers:
        job = table.begin(masker)
        table.link(job, plan_remask(masker, _tokens(database, masker.field.column)))
        jobs[masker.field.name] = job.number
    events = [json.loads(body(number)) for number in (1, 2)]

    def remask(field: str, event: dict[str, str]) -> Call:
        return _replacement(jobs[field], old.masker(field), new.masker(field), event[field])

    def erase_value(event: dict[str, str]) -> Call:
        tokens = [old.masker("device_id").mask(event["device_id"])]
        return "SELECT login_ingest.erase_tokens('e', 'device_id', %s, 10)", [tokens]

    def erase_user(event: dict[str, str]) -> Call:
        return "SELECT login_ingest.erase_users('e', %s, 10)", [[event["user_id"]]]

    calls = {
        "a re-masking": lambda event: remask("device_id", event),
        "an erasure of values": erase_value,
        "an erasure of users": erase_user,
    }
    with psycopg.connect(database.url) as connection:
        connection.execute("SELECT login_ingest.begin_erasure('e', 'device_id', 2, 'r', 't')")
    _change_in_opposite_orders(
        database,
        [remask("ip", event) for event in events],
        [calls[other](event) for event in reversed(events)],
    )


def _change_in_opposite_orders(
    database: LoginDatabase, first: Sequence[Call], second: Sequence[Call]
) -> None:
    """Run two transactions at once, the second between the calls of the first.

    A transaction that a deadlock ends raises.
    """
    has_begun = Event()
    with (
        psycopg.connect(database.url) as one,
        psycopg.connect(database.url) as other,
        ThreadPoolExecutor(1) as pool,
    ):

        def run_second() -> None:
            for statement, values in second:
                other.execute(statement.encode(), values)
                has_begun.set()
            other.commit()

        one.execute(first[0][0].encode(), first[0][1])
        ended = pool.submit(run_second)
        while not (has_begun.is_set() or _waits(database, other.info.backend_pid)):
            ended.done() and ended.result()
        one.execute(first[1][0].encode(), first[1][1])
        one.commit()
        ended.result()


def _waits(database: LoginDatabase, pid: int) -> bool:
    waiting = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {pid:d}"
    return database.query(waiting) != [(0,)]


def _tokens(database: LoginDatabase, column: str) -> list[str]:
    return [str(token) for (token,) in database.query(f"SELECT {column} FROM user_logins")]


def test_one_transaction_at_a_time_changes_rows(steward: Person) -> None:
    begin = "SELECT job FROM login_ingest.begin_remask_job(%s, 'ip', '{}')"
    with psycopg.connect(steward.url, autocommit=True) as connection:
        jobs = [
            connection.execute(begin, [action]).fetchall()[0][0]
            for action in ("remask", "upgrade-md5")
        ]
        connection.execute("SELECT login_ingest.begin_erasure('e', 'ip', 1, 'r', 't')")
    calls = (
        f"SELECT login_ingest.replace_tokens({jobs[0]}, '{{}}', '{{}}', 10)",
        f"SELECT login_ingest.replace_digests({jobs[1]}, 10, false)",
        "SELECT login_ingest.erase_tokens('e', 'ip', '{}', 10)",
        "SELECT login_ingest.erase_users('e', '{}', 10)",
    )
    for holder in calls:
        with psycopg.connect(steward.url) as connection:
            connection.execute(holder.encode())
            for waiter in calls:
                if waiter != holder:
                    assert sqlstate(steward.url, SOON, waiter) == "55P03", (holder, waiter)
            connection.rollback()
