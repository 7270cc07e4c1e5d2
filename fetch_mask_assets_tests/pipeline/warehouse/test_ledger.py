"""The ledger over time: days that come and go, and what that leaves of exactly once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import polars as pl
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.pipeline.batch.balance import Balance, BatchCounts
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.pipeline.warehouse.ledger import (
    PrunedDay,
    create_partitions,
    ledger_problems,
    prune,
)
from fetch_mask_assets_tests.support.kinds import BOTH_KINDS
from fetch_mask_assets_tests.support.logins import bodies, body, masked_batch
from fetch_mask_assets_tests.support.people import person, sqlstate

if TYPE_CHECKING:
    from fetch_mask_assets.keys.keyset import Keyring

NOW = datetime.now(UTC).replace(microsecond=0)
TODAY = NOW.date()
KEEP = 18
SECONDS_TO_SEE_A_LOCK = 20


# Redelivery


@BOTH_KINDS
@pytest.mark.parametrize("receive_count", [1, 2], ids=["first receive", "second receive"])
def test_a_message_that_is_delivered_again_another_day_is_known(
    database: LoginDatabase, keyring: Keyring, receive_count: int
) -> None:
    sent_at = NOW - timedelta(days=13)
    first, more = _masked(keyring, 3, sent_at), _masked(keyring, 5, sent_at)
    commit_batch(database.url, _batch(first))

    again = more.with_columns(receive_count=pl.lit(receive_count, dtype=pl.Int32))
    actual = commit_batch(database.url, _batch(again))

    assert Balance(received=5, loaded=2, already_known=3) == actual
    assert _ledger(database) == {f"m{number}": _partition(sent_at) for number in range(5)}
    assert _unbalanced(database) == 0


def test_messages_of_several_days_are_one_batch(database: LoginDatabase, keyring: Keyring) -> None:
    days = [NOW - timedelta(days=days) for days in (13, 3, 0)]
    masked = pl.concat(
        [_masked(keyring, 2, day, first=10 * number) for number, day in enumerate(days)]
    ).reverse()

    assert Balance(received=6, loaded=6) == commit_batch(database.url, _batch(masked))
    assert Balance(received=6, already_known=6) == commit_batch(database.url, _batch(masked))
    assert set(_ledger(database).values()) == {_partition(day) for day in days}


@pytest.mark.parametrize(
    "sent_at",
    [datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)],
    ids=["the epoch", "the end of time"],
)
def test_a_send_time_that_is_nonsense_is_in_the_default_partition_and_loads_once(
    database: LoginDatabase, keyring: Keyring, sent_at: datetime
) -> None:
    masked = _masked(keyring, 2, sent_at)

    assert Balance(received=2, loaded=2) == commit_batch(database.url, _batch(masked))
    assert Balance(received=2, already_known=2) == commit_batch(database.url, _batch(masked))
    assert set(_ledger(database).values()) == {"ledger_default"}


def test_message_ids_of_any_text_are_recognised(database: LoginDatabase, keyring: Keyring) -> None:
    ids = ['"', "a,b", "\\N", "\\.", "", "ü€😀", "a\nb", " a ", "x" * 1_500]
    masked = masked_batch(keyring, bodies(len(ids)), ids).with_columns(sent_at=_time(NOW))

    assert commit_batch(database.url, _batch(masked)).loaded == len(ids)
    assert commit_batch(database.url, _batch(masked)).already_known == len(ids)
    assert set(_ledger(database)) == set(ids)


# Partitions


def test_days_from_two_weeks_ago_to_two_days_ahead_are_there(database: LoginDatabase) -> None:
    expected = {f"ledger_{TODAY + timedelta(days=days):%Y_%m_%d}" for days in range(-14, 3)}

    assert expected <= _partitions(database)
    assert "ledger_default" in _partitions(database)


def test_a_day_without_a_partition_does_not_stop_ingestion_and_is_recognised_later(
    database: LoginDatabase, keyring: Keyring
) -> None:
    _as_owner(database, f"DROP TABLE login_ingest.{_partition(NOW)}")
    masked = _masked(keyring, 3, NOW)
    assert Balance(received=3, loaded=3) == commit_batch(database.url, _batch(masked))
    assert set(_ledger(database).values()) == {"ledger_default"}

    database.prepare_ledger()

    assert set(_ledger(database).values()) == {_partition(NOW)}
    assert Balance(received=3, already_known=3) == commit_batch(database.url, _batch(masked))
    assert create_partitions(database.url) == 0


def test_a_partition_that_cannot_be_created_now_does_not_stop_a_run(
    database: LoginDatabase, keyring: Keyring
) -> None:
    _as_owner(database, f"DROP TABLE login_ingest.{_partition(NOW)}")
    with psycopg.connect(database.url) as writer:
        writer.execute("LOCK TABLE ONLY login_ingest.ledger IN ROW EXCLUSIVE MODE")

        database.prepare_ledger()

        assert commit_batch(database.url, _batch(_masked(keyring, 1, NOW))).loaded == 1
        with pytest.raises(DatabaseError, match="55P03"):
            create_partitions(database.url)
    assert create_partitions(database.url) == 1


def test_partitions_appear_beside_batches(database: LoginDatabase, keyring: Keyring) -> None:
    _as_owner(database, f"DROP TABLE login_ingest.{_partition(NOW)}")
    batches = [_batch(_masked(keyring, 50, NOW, first=100 * number)) for number in range(6)]
    with ThreadPoolExecutor(8) as pool:
        commits = [pool.submit(commit_batch, database.url, batch) for batch in batches]
        made = [pool.submit(create_partitions, database.url) for _ in range(2)]

    assert sum(each.result().loaded for each in commits) == 300
    assert sum(each.result() for each in made) == 1
    assert set(_ledger(database).values()) == {_partition(NOW)}


# Pruning


@BOTH_KINDS
def test_days_older_than_the_setting_are_dropped_and_the_balance_still_holds(
    database: LoginDatabase, keyring: Keyring
) -> None:
    old, young = _day_ago(KEEP + 1), _day_ago(KEEP)
    for day in (old, young):
        _create_day(database, day)
    masked = pl.concat(
        [
            _masked(keyring, 3, old),
            _masked(keyring, 4, young, first=10),
            _masked(keyring, 1, NOW, first=20),
        ]
    )
    balance = commit_batch(database.url, _batch(masked, run_id="run"))

    assert list(prune(database.url, KEEP)) == [PrunedDay(old.date(), 3)]

    assert set(_ledger(database).values()) == {_partition(young), _partition(NOW)}
    assert database.batch_counts("run") == BatchCounts(balance, 8, 0)
    assert _unbalanced(database) == 0
    assert database.query("SELECT day, messages FROM login_ingest.dropped_ledger") == [
        (old.date(), 3)
    ]
    assert list(prune(database.url, KEEP)) == []


def test_several_days_are_dropped_the_oldest_first(
    database: LoginDatabase, keyring: Keyring
) -> None:
    days = [_day_ago(KEEP + ago) for ago in (3, 2, 1)]
    for number, day in enumerate(days):
        _create_day(database, day)
        commit_batch(database.url, _batch(_masked(keyring, 2, day, first=10 * number)))

    assert list(prune(database.url, KEEP)) == [PrunedDay(day.date(), 2) for day in days]
    assert _unbalanced(database) == 0


def test_a_message_of_a_dropped_day_is_quarantined_and_not_loaded(
    database: LoginDatabase, keyring: Keyring
) -> None:
    old = _day_ago(KEEP + 1)
    _create_day(database, old)
    masked = _masked(keyring, 2, old)
    commit_batch(database.url, _batch(masked))
    list(prune(database.url, KEEP))
    later = pl.concat([masked, _masked(keyring, 1, NOW, first=10)])

    assert commit_batch(database.url, _batch(later)) == Balance(received=3, loaded=1, quarantined=2)

    assert database.query(
        "SELECT message_id, reason, sealed_body FROM login_ingest.quarantine ORDER BY 1"
    ) == [(id_, "older_than_ledger", f"sealed {id_}".encode()) for id_ in ("m0", "m1")]
    assert database.query("SELECT count(*) FROM user_logins") == [(3,)]
    assert commit_batch(database.url, _batch(later)) == Balance(received=3, already_known=3)
    assert _unbalanced(database) == 0


def test_a_message_in_quarantine_is_known_when_the_ledger_has_dropped_it(
    database: LoginDatabase, keyring: Keyring
) -> None:
    old = _day_ago(KEEP + 1)
    _create_day(database, old)
    masked = masked_batch(keyring, ["junk", body(1)], ["m0", "m1"])
    masked = masked.with_columns(sent_at=_time(old))
    commit_batch(database.url, _batch(masked))
    list(prune(database.url, KEEP))

    expected = Balance(received=2, quarantined=1, already_known=1)
    assert expected == commit_batch(database.url, _batch(masked))
    assert database.query(
        "SELECT message_id, reason FROM login_ingest.quarantine ORDER BY message_id"
    ) == [("m0", "not_json"), ("m1", "older_than_ledger")]
    assert _unbalanced(database) == 0


def test_a_ledger_that_dropped_nothing_proves_a_message_of_any_age_new(
    database: LoginDatabase, keyring: Keyring
) -> None:
    _create_day(database, _day_ago(KEEP + 9))
    assert list(prune(database.url, KEEP)) == [PrunedDay(_day_ago(KEEP + 9).date(), 0)]

    actual = commit_batch(database.url, _batch(_masked(keyring, 2, _day_ago(KEEP + 20))))

    assert Balance(received=2, loaded=2) == actual


def test_a_row_of_the_default_partition_is_kept_for_as_long_after_its_commit(
    database: LoginDatabase, keyring: Keyring
) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    masked = _masked(keyring, 2, epoch)
    commit_batch(database.url, _batch(masked, run_id="run"))
    commit_batch(
        database.url, _batch(_masked(keyring, 1, datetime(2999, 1, 1, tzinfo=UTC), first=9))
    )
    assert list(prune(database.url, KEEP)) == []
    assert Balance(received=2, already_known=2) == commit_batch(database.url, _batch(masked))

    _run(
        database, f"UPDATE login_ingest.batch SET committed_at = now() - interval '{KEEP + 1} days'"
    )

    assert list(prune(database.url, KEEP)) == [PrunedDay(epoch.date(), 2)]
    assert set(_ledger(database)) == {"m9"}
    assert _unbalanced(database) == 0
    assert Balance(received=2, quarantined=2) == commit_batch(database.url, _batch(masked))


@pytest.mark.parametrize("keep_days", [14, 0, -1])
def test_a_ledger_shorter_than_the_life_of_a_message_is_refused(
    database: LoginDatabase, keep_days: int
) -> None:
    before = _partitions(database)

    with pytest.raises(DatabaseError, match=r"23514 by min_ledger_days.*LOGIN_LEDGER_DAYS"):
        list(prune(database.url, keep_days))

    assert _partitions(database) == before


def test_the_loader_drops_old_days_and_can_do_nothing_else_with_them(
    database: LoginDatabase,
) -> None:
    _create_day(database, _day_ago(16))
    with person(database.url, "login_ingest_loader") as loader:
        assert create_partitions(loader.url) == 0
        assert sqlstate(loader.url, "SELECT login_ingest.prune_ledger(14)") == "23514"
        assert sqlstate(loader.url, "SELECT login_ingest.prune_ledger(NULL)") == "23514"
        for statement in (
            f"DROP TABLE login_ingest.{_partition(NOW)}",
            f"INSERT INTO login_ingest.{_partition(NOW)} VALUES (now(), 1, 'm')",
            f"ALTER TABLE login_ingest.ledger DETACH PARTITION login_ingest.{_partition(NOW)}",
            "DELETE FROM login_ingest.ledger",
            "DELETE FROM login_ingest.moved_message",
            "INSERT INTO login_ingest.dropped_ledger VALUES (1, '2999-01-01', 1)",
        ):
            assert sqlstate(loader.url, statement) == "42501", statement
        assert sqlstate(
            loader.url,
            "SET TimeZone = 'Pacific/Kiritimati'",
            "SET DateStyle = 'SQL, DMY'",
            "CREATE TEMP TABLE pg_inherits ()",
            "SELECT login_ingest.prune_ledger(15)",
        ) is None  # fmt: skip
        assert list(prune(loader.url, 15)) == [PrunedDay(_day_ago(16).date(), 0)]
    assert _partition(_day_ago(16)) not in _partitions(database)
    assert _partition(_day_ago(14)) in _partitions(database)


@pytest.mark.parametrize("role", ["login_ingest_analyst", "login_ingest_auditor"])
def test_readers_neither_prune_nor_search_the_ledger(database: LoginDatabase, role: str) -> None:
    with person(database.url, role) as eve:
        for call in ("prune_ledger(99)", "create_ledger_partitions()", "known_messages('{m}')"):
            assert sqlstate(eve.url, f"SELECT login_ingest.{call}") == "42501", call


@BOTH_KINDS
def test_pruning_and_commits_do_not_stop_each_other(
    database: LoginDatabase, keyring: Keyring
) -> None:
    days = [_day_ago(KEEP + ago) for ago in range(8, 0, -1)]
    for number, day in enumerate(days):
        _create_day(database, day)
        commit_batch(database.url, _batch(_masked(keyring, 20, day, first=100 * number)))
    batches = [_batch(_masked(keyring, 200, NOW, first=1_000 * n)) for n in range(1, 13)]
    with ThreadPoolExecutor(5) as pool:
        pruned = [pool.submit(lambda: list(prune(database.url, KEEP))) for _ in range(2)]
        commits = [pool.submit(commit_batch, database.url, batch) for batch in batches]

    assert sum(each.result().loaded for each in commits) == 12 * 200
    dropped = [each for future in pruned for each in future.result()]
    assert sorted(each.day for each in dropped) == [day.date() for day in days]
    assert sum(each.messages for each in dropped) == 8 * 20
    assert _unbalanced(database) == 0


def test_a_day_is_not_dropped_before_a_commit_into_it_has_ended(
    database: LoginDatabase, keyring: Keyring
) -> None:
    old = _day_ago(KEEP + 1)
    _create_day(database, old)
    commit_batch(database.url, _batch(_masked(keyring, 2, old)))
    with psycopg.connect(database.url) as writer:
        writer.execute("INSERT INTO login_ingest.ledger VALUES (%s, 99, 'late')", [old])
        with pytest.raises(DatabaseError, match="55P03"):
            list(prune(database.url, KEEP))

    assert list(prune(database.url, KEEP)) == [PrunedDay(old.date(), 3)]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_a_commit_that_waits_for_the_pruning_of_its_day_does_not_load_again(
    database: LoginDatabase, keyring: Keyring, isolation: str
) -> None:
    """The isolation is the default of the database."""
    _run(
        database,
        f"ALTER DATABASE {conninfo_to_dict(database.url)['dbname']}"
        f" SET default_transaction_isolation = '{isolation}'",
    )
    old = _day_ago(KEEP + 1)
    _create_day(database, old)
    masked = _masked(keyring, 2, old)
    commit_batch(database.url, _batch(masked))
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database.url) as pruner:
        pruner.execute("SELECT login_ingest.prune_ledger(%s)", [KEEP])
        committing = pool.submit(commit_batch, database.url, _batch(masked))
        _wait_for_a_lock(database)
        pruner.commit()

        assert committing.result(60) == Balance(received=2, quarantined=2)
    assert database.query("SELECT count(*) FROM user_logins") == [(2,)]


# Send times that SQS has reset


def test_a_committed_message_that_was_moved_is_known_by_its_id(
    database: LoginDatabase, keyring: Keyring
) -> None:
    commit_batch(database.url, _batch(_masked(keyring, 3, NOW - timedelta(days=9))))
    moved = _masked(keyring, 5, NOW)

    actual = commit_batch(database.url, _batch(moved, is_moved=True))

    assert Balance(received=5, loaded=2, already_known=3) == actual
    again = commit_batch(database.url, _batch(moved, is_moved=True))
    assert Balance(received=5, already_known=5) == again
    assert _unbalanced(database) == 0


def test_a_slow_run_does_not_load_what_was_moved_and_committed_meanwhile(
    database: LoginDatabase, keyring: Keyring
) -> None:
    commit_batch(database.url, _batch(_masked(keyring, 3, NOW), is_moved=True))

    slow = commit_batch(database.url, _batch(_masked(keyring, 5, NOW - timedelta(days=1))))

    assert Balance(received=5, loaded=2, already_known=3) == slow


def test_a_message_that_is_moved_while_it_is_committed_loads_once(
    database: LoginDatabase, keyring: Keyring
) -> None:
    batches = [
        _batch(_masked(keyring, 300, NOW - timedelta(hours=hours)), is_moved=hours > 0)
        for hours in (0, 0, 0, 1, 1, 2)
    ]
    with ThreadPoolExecutor(6) as pool:
        balances = list(pool.map(partial(commit_batch, database.url), batches))

    assert sum(each.loaded for each in balances) == 300
    assert database.query("SELECT count(*), count(DISTINCT user_id) FROM user_logins") == [
        (300, 300)
    ]
    assert _unbalanced(database) == 0


def test_a_moved_message_may_be_older_than_its_send_time(
    database: LoginDatabase, keyring: Keyring
) -> None:
    old = _day_ago(KEEP + 1)
    _create_day(database, old)
    commit_batch(database.url, _batch(_masked(keyring, 1, old)))
    list(prune(database.url, KEEP))
    # The first could have been sent 14 days before it was moved, on the day that was dropped.
    suspect, sound = old + timedelta(days=14), old + timedelta(days=16)
    moved = pl.concat([_masked(keyring, 1, suspect), _masked(keyring, 1, sound, first=1)])

    actual = commit_batch(database.url, _batch(moved, is_moved=True))

    assert Balance(received=2, loaded=1, quarantined=1) == actual
    assert database.query("SELECT message_id, reason FROM login_ingest.quarantine") == [
        ("m0", "older_than_ledger")
    ]
    direct = commit_batch(database.url, _batch(_masked(keyring, 1, suspect, first=2)))
    assert Balance(received=1, loaded=1) == direct


@pytest.mark.parametrize(
    ("keep_days", "queue_days", "dead_letter_days", "found"),
    [
        (18, 4, 13, []),
        (18, 4, 14, ["19"]),
        (28, 14, 14, ["29"]),
        (29, 14, 14, []),
        (18, 4, 13.1, ["19"]),
    ],
)
def test_a_ledger_that_a_moved_message_outlives_is_a_problem(
    keep_days: int, queue_days: float, dead_letter_days: float, found: list[str]
) -> None:
    seconds = (round(queue_days * 86_400), round(dead_letter_days * 86_400))

    problems = list(ledger_problems(keep_days, *seconds))

    assert [f"set it to {needed} or more" in problems[0] for needed in found] == [True] * len(
        problems
    )


def test_moved_messages_are_forgotten_with_the_ledger(
    database: LoginDatabase, keyring: Keyring
) -> None:
    commit_batch(database.url, _batch(_masked(keyring, 3, NOW), is_moved=True))
    _run(
        database,
        f"UPDATE login_ingest.moved_message SET moved_at = now() - interval '{KEEP + 1} days'"
        " WHERE message_id = 'm1'",
    )

    list(prune(database.url, KEEP))

    left = database.query("SELECT message_id FROM login_ingest.moved_message ORDER BY 1")
    assert left == [("m0",), ("m2",)]


# Versions


def test_versions_are_counted_by_batch_and_added_up_for_analysts(
    database: LoginDatabase, keyring: Keyring
) -> None:
    texts = [body(1), body(2), body(3, app_version="2.3.0-beta"), "junk"]
    commit_batch(database.url, _batch(masked_batch(keyring, texts)))
    commit_batch(database.url, _batch(masked_batch(keyring, texts)))

    day = date(2024, 2, 29)
    with person(database.url, "login_ingest_analyst") as analyst:
        assert LoginDatabase(analyst.url).query(
            "SELECT create_date, version_text, app_version, logins"
            " FROM login_ingest.version_texts ORDER BY version_text"
        ) == [(day, "2.3.0", 2_003_000, 4), (day, "2.3.0-beta", None, 2)]
    assert database.query("SELECT count(*) FROM login_ingest.version_count") == [(4,)]


def test_a_row_that_the_table_refuses_is_in_no_count_of_versions(
    database: LoginDatabase, keyring: Keyring
) -> None:
    _run(database, "ALTER TABLE user_logins ADD CHECK (user_id <> 'user-1')")
    commit_batch(database.url, _batch(_masked(keyring, 3, NOW)))

    assert database.query("SELECT sum(logins) FROM login_ingest.version_count") == [(2,)]


# Texts that are not tokens


@BOTH_KINDS
@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("masked_ip", "203.0.113.7"),
        ("masked_ip", "2001:db8::7"),
        ("masked_ip", "ip"),
        ("masked_ip", ""),
        ("masked_ip", "9e107d9d372bb6826bd81d3542a419d6"),
        ("masked_ip", "device_id:AVr0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("masked_device_id", "1f0ad5a1-6fd2-4e4d-8d8b-0a6e6f3e1b11"),
        ("masked_device_id", "device_idx"),
        ("masked_device_id", "ÿ"),
    ],
)
def test_a_text_without_the_prefix_is_found_at_once_without_reading_the_table(
    database: LoginDatabase, keyring: Keyring, column: str, text: str
) -> None:
    # Never analysed: the planner knows nothing of the table.
    _run(database, "ALTER TABLE user_logins SET (autovacuum_enabled = false)"
                   if not _is_partitioned(database) else "SELECT")  # fmt: skip
    commit_batch(database.url, _batch(masked_batch(keyring, bodies(500))))
    assert database.table_facts("run", 0).unprefixed_rows == 0
    _run(database, f"INSERT INTO user_logins ({column}) SELECT '{text}' FROM generate_series(1, 3)")

    with psycopg.connect(database.url) as connection:
        before = _sequential_scans(connection)
        found = connection.execute("SELECT login_ingest.unprefixed_rows()").fetchall()
        after = _sequential_scans(connection)

    assert found == [(3,)]
    assert before == after
    assert database.non_token_rows() == 3


def test_a_row_with_two_raw_values_counts_once_and_many_rows_count_as_a_thousand(
    database: LoginDatabase,
) -> None:
    _run(database, "INSERT INTO user_logins (masked_ip, masked_device_id) VALUES ('raw', 'raw')")
    assert database.table_facts("run", 0).unprefixed_rows == 1
    _run(database, "INSERT INTO user_logins (masked_ip)"
                   " SELECT md5(n::text) FROM generate_series(1, 20000) AS n")  # fmt: skip

    assert 1_000 <= database.table_facts("run", 0).unprefixed_rows <= 4_000
    assert database.non_token_rows() == 20_001


# Parts


def _masked(keyring: Keyring, count: int, sent_at: datetime, first: int = 0) -> pl.DataFrame:
    numbers = range(first, first + count)
    masked = masked_batch(
        keyring, [body(number) for number in numbers], [f"m{number}" for number in numbers]
    )
    return masked.with_columns(sent_at=_time(sent_at), create_date=pl.lit(sent_at.date()))


def _time(sent_at: datetime) -> pl.Expr:
    return pl.lit(sent_at).cast(pl.Datetime("ms", "UTC"))


def _batch(
    masked: pl.DataFrame, *, run_id: str | None = None, is_moved: bool = False
) -> BatchToCommit:
    def seal(message_id: str) -> bytes:
        return f"sealed {message_id}".encode()

    return BatchToCommit(run_id or str(uuid4()), masked, seal, is_moved=is_moved)


def _day_ago(days: int) -> datetime:
    return datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC) - timedelta(days=days)


def _partition(sent_at: datetime) -> str:
    return f"ledger_{sent_at:%Y_%m_%d}"


def _create_day(database: LoginDatabase, day: datetime) -> None:
    """A partition that a ledger has which was migrated long ago."""
    _as_owner(
        database,
        f"CREATE TABLE login_ingest.{_partition(day)} PARTITION OF login_ingest.ledger"
        f" FOR VALUES FROM ('{day:%Y-%m-%d} 00:00+00')"
        f" TO ('{day + timedelta(days=1):%Y-%m-%d} 00:00+00')",
    )


def _partitions(database: LoginDatabase) -> set[str]:
    rows = database.query(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = 'login_ingest.ledger'::regclass"
    )
    return {name for (name,) in rows}


def _ledger(database: LoginDatabase) -> dict[str, str]:
    """The partition of each message id."""
    return dict(
        database.query(
            "SELECT message_id, relname::text FROM login_ingest.ledger"
            " JOIN pg_class ON pg_class.oid = ledger.tableoid"
        )
    )


def _unbalanced(database: LoginDatabase) -> int:
    [(count,)] = database.query(
        "SELECT count(*) FROM login_ingest.batch_balance WHERE is_balanced IS NOT TRUE"
    )
    return int(count)


def _is_partitioned(database: LoginDatabase) -> bool:
    return database.query(
        "SELECT relkind = 'p' FROM pg_class WHERE oid = 'user_logins'::regclass"
    ) == [(True,)]


def _sequential_scans(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT relname, seq_scan FROM pg_stat_xact_user_tables"
        " WHERE relname LIKE 'user_logins%' ORDER BY relname"
    ).fetchall()


def _run(database: LoginDatabase, statement: str) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(statement.encode())


def _as_owner(database: LoginDatabase, statement: str) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("SET ROLE login_ingest_owner")
        connection.execute(statement.encode())


def _wait_for_a_lock(database: LoginDatabase) -> None:
    give_up = time.monotonic() + SECONDS_TO_SEE_A_LOCK
    while time.monotonic() < give_up:
        waiting = database.query(
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        if waiting:
            return
        time.sleep(0.02)
    pytest.fail("nothing came to wait for a lock")
