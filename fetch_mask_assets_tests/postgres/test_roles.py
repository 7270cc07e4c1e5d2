"""What each role must not do, tried by people who log in and are members of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from fetch_mask_assets.keys.storage import create_keysets, read_keyring
from fetch_mask_assets.pipeline.batch.balance import Balance, BatchCounts
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready
from fetch_mask_assets_tests.support.logins import bodies, masked_batch
from fetch_mask_assets_tests.support.people import Person, person, sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import LiteralString

    from fetch_mask_assets.keys.keyset import Keyring

LOADER = "login_ingest_loader"
ANALYST = "login_ingest_analyst"
RECOVERY = "login_ingest_recovery"
AUDITOR = "login_ingest_auditor"
OWNER = "login_ingest_owner"
ROLES = (LOADER, ANALYST, RECOVERY, AUDITOR)

DENIED = "42501"

# What each role may select from whole, of all that is in the schema login_ingest.
READABLE = {
    LOADER: {
        "schema_version",
        "login_column",
        "masked_field",
        "batch",
        "dropped_ledger",
        "masking_key",
        "quarantine_balance",
    },
    ANALYST: {
        "user_logins_linked",
        "token_link",
        "repeated_ips",
        "repeated_devices",
        "ip_users",
        "device_users",
        "users_sharing_devices",
        "readable_logins",
        "version_texts",
    },
    AUDITOR: {
        "schema_version",
        "login_column",
        "masked_field",
        "batch",
        "ledger",
        "dropped_ledger",
        "moved_message",
        "version_count",
        "masking_key",
        "audit",
        "unmask_request",
        "unmask_policy",
        "find_usage",
        "quarantine_policy",
        "replay",
        "quarantine_deletion",
        "erasure",
        "quarantine_balance",
        "batch_balance",
        "remask_job",
    },
}

# Functions of the schema that write nothing and tell nothing.
HARMLESS = {"audit_hash", "refuse_audit_change"}


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    """Keys for the whole module."""
    directory = tmp_path_factory.mktemp("keysets")
    create_keysets(directory)
    return read_keyring(directory)


@pytest.fixture
def loader(database_url: str) -> Iterator[Person]:
    """The login that runs use."""
    with person(database_url, LOADER) as somebody:
        yield somebody


@pytest.fixture
def loaded(loader: Person, keyring: Keyring) -> LoginDatabase:
    """A batch with a login and a quarantined message, committed as the loader."""
    database = LoginDatabase(loader.url)
    commit(database, keyring)
    return database


def commit(database: LoginDatabase, keyring: Keyring) -> Balance:
    require_ready(database, keyring)
    masked = masked_batch(keyring, [*bodies(3), "no login"])
    return commit_batch(database.url, BatchToCommit("run-1", masked, lambda _: b"sealed"))


def names(database_url: str, statement: LiteralString, *values: str) -> list[str]:
    with psycopg.connect(database_url) as connection:
        return [str(name) for (name,) in connection.execute(statement, values or None)]


def relations(database_url: str) -> list[str]:
    return names(
        database_url,
        "SELECT relname FROM pg_class WHERE relnamespace = 'login_ingest'::regnamespace"
        " AND relkind IN ('r', 'v', 'm', 'p', 'f')",
    )


# The loader


def test_a_whole_batch_commits_as_the_loader(loader: Person, keyring: Keyring) -> None:
    database = LoginDatabase(loader.url)
    expected = Balance(received=4, loaded=3, quarantined=1)
    assert commit(database, keyring) == expected
    assert database.batch_counts("run-1") == BatchCounts(expected, 4, 1)
    assert database.non_token_rows() == 0
    assert database.schema_revisions()[0] == database.schema_revisions()[1]
    assert commit(database, keyring) == expected


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT masked_ip FROM user_logins",
        "SELECT count(*) FROM user_logins",
        "SELECT * FROM login_ingest.user_logins_linked",
        "COPY user_logins TO STDOUT",
        "COPY (SELECT masked_ip FROM user_logins) TO STDOUT",
        "INSERT INTO user_logins (user_id) VALUES ('u') RETURNING masked_ip",
        "INSERT INTO user_logins (user_id) VALUES ('u') RETURNING user_id",
        "UPDATE user_logins SET user_id = 'u'",
        "UPDATE user_logins SET user_id = masked_ip",
        "DELETE FROM user_logins",
        "TRUNCATE user_logins",
        "CREATE VIEW mine AS SELECT * FROM user_logins",
        "CREATE TEMP TABLE mine AS SELECT * FROM user_logins",
        "CREATE TRIGGER t AFTER INSERT ON user_logins EXECUTE FUNCTION tsvector_update_trigger()",
        "SELECT * FROM login_ingest.version_count",
        "SELECT * FROM login_ingest.version_texts",
        "DELETE FROM login_ingest.version_count",
        "SELECT moved_at FROM login_ingest.moved_message",
        "DELETE FROM login_ingest.moved_message",
        "DELETE FROM login_ingest.dropped_ledger",
        "INSERT INTO login_ingest.dropped_ledger VALUES (1, '2099-01-01', 1)",
        "SELECT login_ingest.prune_ledger(0) FROM login_ingest.ledger_default",
        "DROP TABLE login_ingest.ledger_default",
        "SELECT sent_at FROM login_ingest.ledger",
        "COPY login_ingest.ledger TO STDOUT",
        "DELETE FROM login_ingest.ledger",
        "UPDATE login_ingest.ledger SET batch_id = 1",
        "SELECT sealed_body FROM login_ingest.quarantine",
        "SELECT reason FROM login_ingest.quarantine",
        "INSERT INTO login_ingest.quarantine SELECT * FROM login_ingest.quarantine",
        "DELETE FROM login_ingest.quarantine",
        "SELECT * FROM login_ingest.token_link",
        "COPY login_ingest.token_link TO STDOUT",
        "UPDATE login_ingest.batch SET loaded = 0, received = received - loaded",
        "DELETE FROM login_ingest.batch",
        "UPDATE login_ingest.masking_key SET check_value = ''",
        "DELETE FROM login_ingest.masking_key",
        "UPDATE login_ingest.schema_version SET version_num = '0001'",
        "CREATE TABLE login_ingest.mine ()",
    ],
)
def test_the_loader_reads_no_token_back_and_undoes_nothing(
    loaded: LoginDatabase, statement: str
) -> None:
    assert sqlstate(loaded.url, statement) == DENIED


# The analyst


@pytest.mark.usefixtures("loaded")
def test_the_analyst_reads_the_table_and_writes_nothing(database_url: str) -> None:
    with person(database_url, ANALYST) as eve:
        database = LoginDatabase(eve.url)
        assert database.query("SELECT count(DISTINCT masked_ip) FROM user_logins") == [(3,)]
        assert database.query("SELECT count(*) FROM login_ingest.user_logins_linked") == [(3,)]
        for statement in (
            "INSERT INTO user_logins (user_id) VALUES ('u')",
            "UPDATE user_logins SET masked_ip = 'x'",
            "DELETE FROM user_logins",
            "TRUNCATE user_logins",
            "INSERT INTO login_ingest.token_link VALUES ('ip', 'ip:a', 'ip:b')",
            "UPDATE login_ingest.user_logins_linked SET user_id = 'u'",
        ):
            assert sqlstate(eve.url, statement) in {DENIED, "55000"}, statement


# Every role


@pytest.mark.parametrize("role", READABLE)
def test_a_role_reads_what_is_listed_and_nothing_else(database_url: str, role: str) -> None:
    with person(database_url, role) as eve:
        for relation in relations(database_url):
            expected = None if relation in READABLE[role] else DENIED
            statement = f"TABLE login_ingest.{relation}"
            assert sqlstate(eve.url, statement) == expected, statement


@pytest.mark.parametrize("role", [ANALYST, AUDITOR])
def test_readers_call_no_function_that_writes(database_url: str, role: str) -> None:
    callable_ = names(
        database_url,
        "SELECT proname FROM pg_proc WHERE pronamespace = 'login_ingest'::regnamespace"
        " AND has_function_privilege(%s, oid, 'EXECUTE') AND provolatile = 'v'",
        role,
    )
    assert set(callable_) <= HARMLESS


@pytest.mark.parametrize("role", [ANALYST, AUDITOR])
def test_readers_have_no_right_to_write_any_relation(database_url: str, role: str) -> None:
    writable = names(
        database_url,
        "SELECT oid::regclass FROM pg_class"
        " WHERE relnamespace IN ('login_ingest'::regnamespace, 'public'::regnamespace)"
        " AND relkind IN ('r', 'v', 'm', 'p', 'f')"
        " AND (has_table_privilege(%s, oid, 'DELETE, TRUNCATE, TRIGGER')"
        "      OR has_any_column_privilege(%s, oid, 'INSERT, UPDATE, REFERENCES'))",
        role,
        role,
    )
    assert writable == []


def test_what_runs_with_the_owners_rights_is_for_nobody_by_default(database_url: str) -> None:
    exposed = names(
        database_url,
        "SELECT proname FROM pg_proc WHERE pronamespace = 'login_ingest'::regnamespace"
        " AND prosecdef AND (has_function_privilege('public', oid, 'EXECUTE')"
        "      OR proconfig IS NULL OR NOT proconfig::text LIKE '%search_path%pg_temp%')",
    )
    assert exposed == []


@pytest.mark.parametrize("role", ROLES)
def test_nobody_becomes_somebody_else(database_url: str, role: str) -> None:
    others = {*ROLES, OWNER, "postgres", "pg_read_all_data"} - {role}
    with person(database_url, role) as eve:
        for other in sorted(others):
            assert sqlstate(eve.url, f"SET ROLE {other}") == DENIED, other
            assert sqlstate(eve.url, f"SET SESSION AUTHORIZATION {other}") == DENIED, other
            assert sqlstate(eve.url, f"GRANT {other} TO CURRENT_USER") == DENIED, other
        assert sqlstate(eve.url, "CREATE ROLE mine") == DENIED
        assert sqlstate(eve.url, "CREATE SCHEMA mine") == DENIED


@pytest.mark.parametrize("role", [*ROLES, OWNER])
def test_no_role_of_ours_logs_in(database_url: str, role: str) -> None:
    can_log_in = names(database_url, "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", role)
    assert can_log_in == ["False"]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database_url, user=role, password="")


def test_nobody_is_a_member_of_the_owner_but_who_migrated(database_url: str) -> None:
    members = names(
        database_url,
        "SELECT member::regrole FROM pg_auth_members WHERE roleid = %s::regrole",
        OWNER,
    )
    assert members == ["postgres"]


# The auditor and recovery


@pytest.mark.usefixtures("loaded")
def test_the_auditor_reads_records_and_the_quarantine_without_bodies(database_url: str) -> None:
    with person(database_url, AUDITOR) as eve:
        database = LoginDatabase(eve.url)
        assert database.query("SELECT loaded, quarantined FROM login_ingest.batch") == [(3, 1)]
        assert database.query("SELECT reason FROM login_ingest.quarantine") == [("not_json",)]
        for statement in (
            "SELECT sealed_body FROM login_ingest.quarantine",
            "SELECT length(sealed_body) FROM login_ingest.quarantine",
            "COPY login_ingest.quarantine TO STDOUT",
            "SELECT quarantine FROM login_ingest.quarantine",
            "SELECT user_id FROM user_logins",
            "SELECT * FROM login_ingest.create_unmask_request('{}', '', '', 1)",
            "SELECT * FROM login_ingest.approve_unmask_request(1, 1)",
            "SELECT * FROM login_ingest.reveal_unmask_request(1)",
            "SELECT masked_ip FROM user_logins",
            "SELECT count(*) FROM user_logins",
            "SELECT old_token FROM login_ingest.token_link",
            "SELECT count(*) FROM login_ingest.token_link",
        ):
            assert sqlstate(eve.url, statement) == DENIED, statement


@pytest.mark.usefixtures("loaded")
def test_recovery_takes_no_row_and_no_record_away(database_url: str) -> None:
    with person(database_url, RECOVERY) as eve:
        for statement in (
            "DELETE FROM user_logins",
            "TRUNCATE user_logins",
            "INSERT INTO user_logins (user_id) VALUES ('u')",
            "UPDATE user_logins SET user_id = 'u'",
            "DELETE FROM login_ingest.ledger",
            "INSERT INTO login_ingest.ledger VALUES (now(), 1, 'm')",
            "DELETE FROM login_ingest.batch",
            "UPDATE login_ingest.batch SET run_id = ''",
            "DELETE FROM login_ingest.quarantine",
            "UPDATE login_ingest.quarantine SET reason = ''",
            "SELECT login_ingest.is_recovery_member('postgres')",
            "CREATE TABLE login_ingest.mine ()",
        ):
            assert sqlstate(eve.url, statement) == DENIED, statement


# What reports are counted by

COUNTING = ("rows_by_key('ip')", "link_counts()", "login_counts()", "null_token_counts()")


@pytest.mark.usefixtures("loaded")
def test_the_auditor_learns_counts_of_the_table_and_no_token(
    database_url: str, keyring: Keyring
) -> None:
    tokens = {
        token
        for row in LoginDatabase(database_url).query("SELECT masked_ip, masked_device_id"
                                                     " FROM user_logins")
        for token in row
    }  # fmt: skip
    with person(database_url, AUDITOR) as eve:
        database = LoginDatabase(eve.url)
        for name in ("ip", "device_id", "quarantine", "user_logins", "masked_ip'; --"):
            answer = database.query("SELECT * FROM login_ingest.rows_by_key(%s)", name)
            assert all(isinstance(value, int) for row in answer for value in row)
        counted = database.query("SELECT * FROM login_ingest.rows_by_key('ip')")
        [counts] = database.query("SELECT * FROM login_ingest.login_counts()")
        without = database.query("SELECT * FROM login_ingest.null_token_counts()")
        links = database.query("SELECT * FROM login_ingest.link_counts()")
    assert counted == [(keyring.masker("ip").primary_key_id, 3)]
    assert counts[0] == 3
    assert sorted(without) == [("device_id", 0), ("ip", 0)]
    assert links == []
    assert len(tokens) == 6
    assert not tokens & {str(value) for value in counts}


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("call", COUNTING)
@pytest.mark.parametrize("role", [LOADER, ANALYST])
def test_nobody_else_counts_for_reports(database_url: str, role: str, call: str) -> None:
    with person(database_url, role) as eve:
        assert sqlstate(eve.url, f"SELECT * FROM login_ingest.{call}") == DENIED
        assert sqlstate(eve.url, "SELECT * FROM login_ingest.batch_balance") == DENIED
