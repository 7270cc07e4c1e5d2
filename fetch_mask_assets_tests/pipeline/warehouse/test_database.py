"""The warehouse: the commit of a batch, and errors without values."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import polars as pl
import psycopg
import pytest

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets.pipeline.batch.balance import Balance, BatchCounts
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.pipeline.warehouse.readiness import require_writable
from fetch_mask_assets.postgres.errors import TransientDatabaseError
from fetch_mask_assets_tests.support.kinds import BOTH_KINDS
from fetch_mask_assets_tests.support.logins import SENT_AT, bodies, body, masked_batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import LiteralString

    from fetch_mask_assets.keys.keyset import Keyring
    from fetch_mask_assets.local_stack.stack import Stack

CANARY = "canary-4711-value"
SECONDS_TO_SEE_A_LOCK = 120

_DROP_VIEWS = (
    "DROP VIEW login_ingest.user_logins_linked, login_ingest.repeated_ips,"
    " login_ingest.repeated_devices, login_ingest.ip_users, login_ingest.device_users CASCADE"
)

Commit = Callable[..., Balance]


# The commit


@BOTH_KINDS
def test_a_batch_is_rows_quarantine_ledger_and_record(
    database: LoginDatabase, keyring: Keyring
) -> None:
    texts = [body(1), body(2, locale=None, app_version="2.3.0-beta"), "not json", body(3, ip="x")]
    masked = masked_batch(keyring, texts, ["m1", "m2", "m3", "m4"])
    balance = commit_batch(database.url, _batch(masked, run_id="run"))
    assert balance == Balance(received=4, loaded=2, quarantined=2)
    assert balance.holds
    day = date(2024, 2, 29)
    assert _rows(database.url, "SELECT * FROM user_logins ORDER BY user_id") == [
        ("user-1", "android", _token(masked, 0), _device(masked, 0), "en_US", 2_003_000, day),
        ("user-2", "android", _token(masked, 1), _device(masked, 1), None, None, day),
    ]
    assert _rows(database.url, "SELECT message_id, sent_at FROM ledger") == [
        (message_id, SENT_AT) for message_id in ("m1", "m2", "m3", "m4")
    ]
    assert _rows(
        database.url,
        "SELECT create_date, version_text, app_version, logins FROM version_texts ORDER BY 2",
    ) == [(day, "2.3.0", 2_003_000, 1), (day, "2.3.0-beta", None, 1)]
    quarantine = _rows(
        database.url, "SELECT message_id, reason, field, receive_count, sealed_body FROM quarantine"
    )
    assert [line[:4] for line in quarantine] == [
        ("m3", "not_json", None, 1),
        ("m4", "not_an_ip", "ip", 1),
    ]
    assert [keyring.sealer.open(sealed, id_) for id_, _, _, _, sealed in quarantine] == texts[2:]
    assert _rows(
        database.url,
        "SELECT run_id, received, loaded, quarantined, already_known, oldest_sent_at,"
        " newest_sent_at FROM batch",
    ) == [("run", 4, 2, 2, 0, SENT_AT, SENT_AT)]
    assert database.batch_counts("run") == BatchCounts(balance, 4, 2)
    assert database.batch_counts("another run") is None


def test_the_same_messages_in_another_run_are_already_known(
    database: LoginDatabase, keyring: Keyring
) -> None:
    masked = masked_batch(keyring, [*bodies(3), "not json"])
    commit_batch(database.url, _batch(masked))
    assert commit_batch(database.url, _batch(masked)) == Balance(received=4, already_known=4)
    assert _number(database, "SELECT count(*) FROM user_logins") == 3
    assert _number(database, "SELECT count(*) FROM login_ingest.quarantine") == 1


@BOTH_KINDS
def test_a_batch_that_repeats_a_part_loads_the_rest(
    database: LoginDatabase, keyring: Keyring
) -> None:
    ids = [f"m{number}" for number in range(6)]
    masked = masked_batch(keyring, bodies(6), ids)
    commit_batch(database.url, _batch(masked.head(4)))
    balance = commit_batch(database.url, _batch(masked.tail(4)))
    assert balance == Balance(received=4, loaded=2, already_known=2)
    assert _users(database) == [f"user-{number}" for number in range(6)]


def test_a_repeated_commit_of_one_run_gives_its_first_record(
    database: LoginDatabase, keyring: Keyring
) -> None:
    batch = _batch(masked_batch(keyring, [*bodies(3), "not json"]))
    first = commit_batch(database.url, batch)
    assert first == Balance(received=4, loaded=3, quarantined=1)
    assert commit_batch(database.url, batch) == first
    assert _number(database, "SELECT count(*) FROM login_ingest.batch") == 1
    assert _number(database, "SELECT count(*) FROM user_logins") == 3


def test_a_message_twice_in_one_batch_is_one_row(database: LoginDatabase, keyring: Keyring) -> None:
    masked = masked_batch(keyring, [body(1), body(2), body(1)], ["m1", "m2", "m1"])
    assert commit_batch(database.url, _batch(masked)) == Balance(
        received=3, loaded=2, already_known=1
    )
    assert _users(database) == ["user-1", "user-2"]


def test_a_reject_twice_in_one_batch_is_quarantined_once(
    database: LoginDatabase, keyring: Keyring
) -> None:
    masked = masked_batch(keyring, ["junk", "junk"], ["m1", "m1"])
    expected = Balance(received=2, quarantined=1, already_known=1)
    assert commit_batch(database.url, _batch(masked)) == expected


def test_two_messages_with_one_body_are_two_rows(database: LoginDatabase, keyring: Keyring) -> None:
    masked = masked_batch(keyring, [body(1), body(1)])
    assert commit_batch(database.url, _batch(masked)) == Balance(received=2, loaded=2)
    assert _users(database) == ["user-1", "user-1"]


@BOTH_KINDS
def test_overlapping_batches_in_opposite_order_load_once_and_do_not_deadlock(
    database: LoginDatabase, keyring: Keyring
) -> None:
    ids = [f"m{number:04}" for number in range(2_000)]
    masked = masked_batch(keyring, bodies(2_000), ids)
    batches = [_batch(masked), _batch(masked.reverse())] * 3
    batches = [_batch(batch.masked) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        balances = list(pool.map(partial(commit_batch, database.url), batches))
    assert sum(balance.loaded for balance in balances) == 2_000
    assert sum(balance.already_known for balance in balances) == 10_000
    assert _number(database, "SELECT count(*) FROM user_logins") == 2_000
    assert _number(database, "SELECT count(*) FROM login_ingest.batch") == 6


def test_a_null_locale_and_an_empty_one_stay_apart(
    database: LoginDatabase, keyring: Keyring
) -> None:
    texts = [body(1, locale=None), body(2, locale="")]
    commit_batch(database.url, _batch(masked_batch(keyring, texts)))
    rows = _rows(database.url, "SELECT user_id, locale FROM user_logins ORDER BY 1")
    assert rows == [("user-1", None), ("user-2", "")]


def test_texts_survive_byte_for_byte(database: LoginDatabase, keyring: Keyring) -> None:
    texts = [
        '"', '""', '"quoted"', "'; DROP TABLE user_logins; --", "\\.", "\\N", "NULL", "\\", "\\n",
        "a,b", ",", "a\nb", "a\r\nb", "\ta\t", " a ", "%s", "{}", "a\u2028b", "ü€😀", "\ufeff",
        "\\.\n\\.", "a\n\\.\nb",
    ]  # fmt: skip
    logins = [body(number, user_id=text) for number, text in enumerate(texts)]
    balance = commit_batch(database.url, _batch(masked_batch(keyring, logins)))
    assert balance == Balance(received=len(texts), loaded=len(texts))
    assert sorted(_users(database)) == sorted(texts)


def test_the_clock_of_the_loader_plays_no_part_in_the_day_of_a_login(
    database: LoginDatabase, keyring: Keyring
) -> None:
    masked = masked_batch(keyring, bodies(1))
    assert masked["create_date"].to_list() == [date(2024, 2, 29)] != [datetime.now(UTC).date()]
    commit_batch(database.url, _batch(masked))
    assert _rows(database.url, "SELECT create_date FROM user_logins") == [(date(2024, 2, 29),)]


@pytest.mark.parametrize(
    "obstacle",
    [
        "ALTER TABLE user_logins ADD CONSTRAINT unforeseen CHECK (user_id <> 'user-13')",
        (f"{_DROP_VIEWS}; ALTER TABLE user_logins ALTER user_id TYPE varchar(6) USING user_id"),
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NEW.user_id = 'user-13' THEN RAISE check_violation USING MESSAGE = NEW.user_id;"
            " END IF; RETURN NEW; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON user_logins"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        ),
        "CREATE UNIQUE INDEX ON user_logins (device_type) WHERE user_id IN ('user-13', 'user-2')",
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NEW.user_id = 'user-13' THEN RAISE EXCEPTION '%', NEW.user_id;"
            " END IF; RETURN NEW; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON user_logins"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        ),
        (
            "CREATE TABLE person (id text PRIMARY KEY);"
            "INSERT INTO person SELECT 'user-' || n FROM generate_series(0, 29) AS n WHERE n <> 13;"
            "GRANT SELECT ON person TO PUBLIC;"
            "ALTER TABLE user_logins ADD FOREIGN KEY (user_id) REFERENCES person"
            " DEFERRABLE INITIALLY DEFERRED"
        ),
    ],
    ids=[
        "a constraint",
        "a shorter column",
        "a trigger",
        "a unique index",
        "a trigger of its own mind",
        "a deferred constraint",
    ],
)
def test_rows_that_the_table_refuses_are_quarantined_and_the_rest_loads(
    database: LoginDatabase, keyring: Keyring, obstacle: str
) -> None:
    _run(database.url, obstacle)
    wide = [f"{100 + number}" for number in range(30)]
    masked = masked_batch(keyring, bodies(30), wide)
    balance = commit_batch(database.url, _batch(masked, seal=lambda id_: f"sealed {id_}".encode()))
    refused = _rows(database.url, "SELECT message_id, reason, field, sealed_body FROM quarantine")
    assert balance.quarantined == len(refused) >= 1
    assert (
        balance.loaded == 30 - len(refused) == _number(database, "SELECT count(*) FROM user_logins")
    )
    assert [line[1:] for line in refused] == [
        ("refused_by_database", None, f"sealed {id_}".encode()) for id_, *_ in refused
    ]
    assert commit_batch(database.url, _batch(masked)) == Balance(received=30, already_known=30)


def test_a_table_that_refuses_everything_is_an_error_and_nothing_is_written(
    database: LoginDatabase, keyring: Keyring
) -> None:
    _run(database.url, "ALTER TABLE user_logins ADD CHECK (user_id IS NULL)")
    with pytest.raises(DatabaseError, match="refuses more than 100 rows"):
        commit_batch(database.url, _batch(masked_batch(keyring, bodies(101))))
    assert _is_untouched(database)


def test_a_hundred_refused_rows_are_still_quarantined(
    database: LoginDatabase, keyring: Keyring
) -> None:
    _run(database.url, "ALTER TABLE user_logins ADD CHECK (user_id IS NULL)")
    balance = commit_batch(database.url, _batch(masked_batch(keyring, bodies(100))))
    assert balance == Balance(received=100, quarantined=100)


def test_a_trigger_that_drops_rows_silently_is_an_error_and_nothing_is_written(
    database: LoginDatabase, keyring: Keyring
) -> None:
    _run(
        database.url,
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.user_id = 'user-3' THEN RETURN NULL; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER swallow BEFORE INSERT ON user_logins"
        " FOR EACH ROW EXECUTE FUNCTION swallow()",
    )
    with pytest.raises(DatabaseError, match="took 9 of 10 rows"):
        commit_batch(database.url, _batch(masked_batch(keyring, bodies(10))))
    assert _is_untouched(database)


def test_a_table_without_a_column_is_an_error_and_nothing_is_written(
    database: LoginDatabase, keyring: Keyring
) -> None:
    _run(database.url, "ALTER TABLE user_logins DROP COLUMN locale CASCADE")
    with pytest.raises(DatabaseError, match="SQLSTATE 42703"):
        commit_batch(database.url, _batch(masked_batch(keyring, bodies(2))))
    assert _is_untouched(database)


def test_a_failing_seal_leaves_nothing_written(database: LoginDatabase, keyring: Keyring) -> None:
    _run(database.url, "ALTER TABLE user_logins ADD CHECK (user_id <> 'user-1')")

    def fail(message_id: str) -> bytes:
        raise LookupError(message_id)

    with pytest.raises(LookupError):
        commit_batch(database.url, _batch(masked_batch(keyring, bodies(3)), seal=fail))
    assert _is_untouched(database)


def test_the_database_itself_refuses_a_record_that_does_not_balance(
    database: LoginDatabase,
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="balance"):
        _run(
            database.url,
            "INSERT INTO login_ingest.batch"
            " (run_id, received, loaded, quarantined, already_known) VALUES ('run', 3, 1, 1, 0)",
        )


@pytest.mark.parametrize(
    "row",
    [
        f"'u', '{CANARY}', 'device'",
        f"'u', 'ip:{'a' * 50}', '{CANARY}'",
        f"'u', 'ip:{'a' * 49}', 'device_id:{'a' * 50}'",
    ],
)
def test_rows_without_tokens_are_counted(
    database: LoginDatabase, keyring: Keyring, row: str
) -> None:
    commit_batch(database.url, _batch(masked_batch(keyring, bodies(5))))
    assert database.non_token_rows() == 0
    _run(
        database.url,
        f"INSERT INTO user_logins (user_id, masked_ip, masked_device_id) VALUES ({row})",
    )
    assert database.non_token_rows() == 1


# Errors


def test_an_error_names_state_and_constraint_and_no_value(
    database: LoginDatabase, keyring: Keyring
) -> None:
    _run(
        database.url,
        f"ALTER TABLE login_ingest.ledger ADD CONSTRAINT short CHECK (message_id <> '{CANARY}')",
    )
    with pytest.raises(DatabaseError) as caught:
        commit_batch(database.url, _batch(masked_batch(keyring, [body(1)], [CANARY])))
    assert "SQLSTATE 23514 by short" in str(caught.value)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_row_that_the_copy_cannot_read_shows_nothing(
    database: LoginDatabase, keyring: Keyring
) -> None:
    _run(
        database.url,
        f"{_DROP_VIEWS}; ALTER TABLE user_logins ALTER user_id TYPE integer USING 1",
    )
    with pytest.raises(DatabaseError) as caught:
        commit_batch(
            database.url,
            _batch(masked_batch(keyring, [body(n, user_id=CANARY) for n in range(101)])),
        )
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_database_that_refuses_connections_is_an_error_without_the_password(stack: Stack) -> None:
    url = f"postgresql://someone:{CANARY}@127.0.0.1:{free_port()}/logins"
    with pytest.raises(TransientDatabaseError, match="LOGIN_DATABASE_URL") as caught:
        LoginDatabase(url).schema_revisions()
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    wrong = stack.environment["LOGIN_DATABASE_URL"].replace(stack.state.postgres_password, CANARY)
    with pytest.raises(DatabaseError, match="LOGIN_DATABASE_URL") as caught_too:
        LoginDatabase(wrong).schema_revisions()
    assert CANARY not in "".join(traceback.format_exception(caught_too.value))


def test_a_database_does_not_show_its_password() -> None:
    assert CANARY not in repr(LoginDatabase(f"postgresql://someone:{CANARY}@host/logins"))


def test_a_batch_does_not_show_its_rows(keyring: Keyring) -> None:
    batch = _batch(masked_batch(keyring, ["not json"]), seal=lambda _: CANARY.encode())
    assert CANARY not in repr(batch)


@pytest.mark.parametrize("url", ["", "nonsense", "postgresql://[", "host='x"])
def test_a_url_that_is_none_is_an_error_of_ours(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", str(free_port()))
    with pytest.raises(DatabaseError, match="LOGIN_DATABASE_URL"):
        LoginDatabase(url).schema_revisions()


# Failures in the middle


def test_a_backend_killed_in_the_middle_of_a_commit_is_tried_again_and_loads_once(
    database: LoginDatabase, keyring: Keyring
) -> None:
    batch = _batch(masked_batch(keyring, bodies(50)))
    with (
        ThreadPoolExecutor(1) as pool,
        _locked(database.url, "LOCK TABLE user_logins IN EXCLUSIVE MODE") as holder,
    ):
        committing = pool.submit(commit_batch, database.url, batch)
        blocked = _blocked_backend(database.url)
        _run(database.url, f"SELECT pg_terminate_backend({blocked})")
        assert _blocked_backend(database.url, but_not=blocked) != blocked
        holder.rollback()
        assert committing.result(60) == Balance(received=50, loaded=50)
    assert _number(database, "SELECT count(*) FROM user_logins") == 50
    assert _number(database, "SELECT count(*) FROM login_ingest.batch") == 1


def test_a_backend_that_is_always_killed_ends_in_an_error_and_nothing_is_written(
    database: LoginDatabase, keyring: Keyring
) -> None:
    _run(
        database.url,
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;"
        "CREATE TRIGGER die BEFORE INSERT ON login_ingest.batch"
        " FOR EACH ROW EXECUTE FUNCTION die()",
    )
    with pytest.raises(TransientDatabaseError, match="commit a batch"):
        commit_batch(database.url, _batch(masked_batch(keyring, bodies(2))))
    assert _is_untouched(database)


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
def test_a_failure_that_another_attempt_mends_is_tried_again(
    database: LoginDatabase, keyring: Keyring, state: str
) -> None:
    _run(database.url, "CREATE SEQUENCE attempts", _failing_trigger(state, first_attempts=2))
    balance = commit_batch(database.url, _batch(masked_batch(keyring, bodies(5))))
    assert balance == Balance(received=5, loaded=5)
    assert _number(database, "SELECT last_value FROM attempts") == 3
    assert _number(database, "SELECT count(*) FROM user_logins") == 5


@pytest.mark.parametrize("state", ["53100", "25006", "42501", "XX000"])
def test_a_failure_that_no_attempt_mends_is_not_tried_again(
    database: LoginDatabase, keyring: Keyring, state: str
) -> None:
    _run(database.url, "CREATE SEQUENCE attempts", _failing_trigger(state, first_attempts=99))
    with pytest.raises(DatabaseError, match=f"SQLSTATE {state}"):
        commit_batch(database.url, _batch(masked_batch(keyring, bodies(5))))
    assert _number(database, "SELECT last_value FROM attempts") == 1
    assert _is_untouched(database)


# Whether the table takes rows


@pytest.mark.parametrize("state", ["53100", "25006", "42501", "XX000"])
def test_a_table_that_takes_no_rows_is_an_error_before_a_batch_is_received(
    database: LoginDatabase, keyring: Keyring, state: str
) -> None:
    require_writable(database, keyring)
    _run(database.url, _raising_trigger(state))
    with pytest.raises(DatabaseError, match=f"try a row: SQLSTATE {state}"):
        require_writable(database, keyring)


@pytest.mark.parametrize("state", ["23514", "22001", "P0001", "40001", "40P01", "55P03"])
def test_a_row_that_is_refused_for_itself_or_for_a_moment_does_not_say_that_none_is_taken(
    database: LoginDatabase, keyring: Keyring, state: str
) -> None:
    _run(database.url, _raising_trigger(state))
    require_writable(database, keyring)


def test_trying_a_row_leaves_none_and_does_not_wait_for_a_lock(
    database: LoginDatabase, keyring: Keyring
) -> None:
    require_writable(database, keyring)
    with _locked(database.url, "LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE"):
        require_writable(database, keyring)
    assert _is_untouched(database)


def test_a_read_only_server_takes_no_rows(database: LoginDatabase, keyring: Keyring) -> None:
    _run(
        database.url,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on',"
        " current_database()); END $$",
    )
    with pytest.raises(DatabaseError, match=r"SQLSTATE 25006.*read-only"):
        require_writable(database, keyring)


# Parts


def _batch(
    masked: pl.DataFrame,
    run_id: str | None = None,
    seal: Callable[[str], bytes] = lambda message_id: message_id.encode(),
) -> BatchToCommit:
    return BatchToCommit(run_id or str(uuid4()), masked, seal)


def _token(masked: pl.DataFrame, line: int) -> str:
    return str(masked["masked_ip"][line])


def _device(masked: pl.DataFrame, line: int) -> str:
    return str(masked["masked_device_id"][line])


def _rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, options="-c search_path=public,login_ingest") as connection:
        rows = connection.execute(statement.encode()).fetchall()
    return sorted(rows) if "ORDER BY" not in statement else rows


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _number(database: LoginDatabase, statement: LiteralString) -> int:
    [(number,)] = database.query(statement)
    return int(number)


def _users(database: LoginDatabase) -> list[str]:
    return [user for (user,) in database.query("SELECT user_id FROM user_logins ORDER BY user_id")]


def _is_untouched(database: LoginDatabase) -> bool:
    return database.query(
        "SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM login_ingest.ledger),"
        " (SELECT count(*) FROM login_ingest.quarantine), (SELECT count(*) FROM login_ingest.batch)"
    ) == [(0, 0, 0, 0)]


def _failing_trigger(state: str, first_attempts: int) -> str:
    """Fails the first commits with a SQLSTATE; a sequence counts through rollbacks."""
    return (
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF nextval('public.attempts') <= {first_attempts} THEN"
        f" RAISE EXCEPTION 'on purpose' USING ERRCODE = '{state}'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER fail BEFORE INSERT ON login_ingest.batch"
        " FOR EACH ROW EXECUTE FUNCTION fail()"
    )


def _raising_trigger(state: str) -> str:
    """Every row of user_logins is refused with a SQLSTATE."""
    return (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION 'on purpose' USING ERRCODE = '{state}'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON user_logins"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )


@contextmanager
def _locked(url: str, lock: LiteralString) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url) as holder:
        holder.execute(lock)
        yield holder


def _blocked_backend(url: str, but_not: int = 0) -> int:
    """The backend of ours that waits for a lock, once there is one."""
    give_up = time.monotonic() + SECONDS_TO_SEE_A_LOCK
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < give_up:
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'fetch_mask_assets'"
                " AND datname = current_database() AND wait_event_type = 'Lock' AND pid <> %s",
                [but_not],
            ).fetchone()
            if found:
                return int(found[0])
            time.sleep(0.02)
    pytest.fail("no backend came to wait for the lock")
