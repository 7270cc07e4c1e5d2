"""Links between tokens, the view under which equal stays equal, and old rows under new keys."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys import postgres as keys_postgres
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.masking.fields import DEVICE_ID, IP
from fetch_mask_assets.operations.rotation import postgres as rotation_postgres
from fetch_mask_assets.operations.rotation import remask_run
from fetch_mask_assets.operations.rotation.postgres import TokenTable
from fetch_mask_assets.operations.rotation.remask_plan import plan_remask
from fetch_mask_assets.operations.rotation.remask_rules import (
    REMASK_RULES,
    FieldComparison,
    FieldSnapshot,
)
from fetch_mask_assets.operations.rotation.remask_run import (
    RemaskProgress,
    remask_field,
    unopened_tokens,
)
from fetch_mask_assets.operations.rotation.token_ranges import ranges_under
from fetch_mask_assets.pipeline.batch.frames import mask_batch
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.postgres.errors import translate_errors
from fetch_mask_assets_tests.support.kinds import BOTH_KINDS
from fetch_mask_assets_tests.support.logins import body, raw_batch, register

if TYPE_CHECKING:
    from fetch_mask_assets.keys.masker import FieldMasker

_MERGE = """
UPDATE user_logins SET masked_ip = (SELECT max(masked_ip) FROM user_logins)
WHERE masked_ip = (SELECT min(masked_ip) FROM user_logins)
"""
_WRONG_LINK = """
INSERT INTO login_ingest.token_link (field, old_token, new_token)
SELECT 'ip', min(masked_ip), max(masked_ip) FROM user_logins
"""
LINKED = "login_ingest.user_logins_linked"


class Keys:
    """Three keys of each field, and keyrings of any of them, the last one primary."""

    def __init__(self) -> None:
        """Makes the keys."""
        keysets = {name: [json.loads(new_keyset(name)) for _ in range(3)] for name in KEYSET_NAMES}
        self._keysets = keysets

    def ring(self, *numbers: int) -> Keyring:
        """A keyring of some of the keys."""
        return open_keyring({name: self._keyset(name, numbers) for name in KEYSET_NAMES})

    def _keyset(self, name: str, numbers: Iterable[int]) -> str:
        chosen = [self._keysets[name][number - 1] for number in numbers]
        return json.dumps(chosen[-1] | {"key": [key for each in chosen for key in each["key"]]})


@pytest.fixture(scope="module")
def keys() -> Keys:
    """Keys for the whole module."""
    return Keys()


@pytest.fixture
def database(database_url: str, keys: Keys) -> LoginDatabase:
    """The test's own database, with all keys registered."""
    register(database_url, keys.ring(1, 2, 3))
    return LoginDatabase(database_url)


@pytest.fixture
def table(database_url: str) -> TokenTable:
    """The tokens of the test's own database."""
    return TokenTable(database_url)


@pytest.fixture
def login(database_url: str) -> Iterator[Callable[[str], str]]:
    """Return a function that creates a login with a role and returns its libpq string."""
    made: list[str] = []

    def make(role: str) -> str:
        name = f"person_{uuid4().hex}"
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                f"CREATE ROLE {name} LOGIN PASSWORD '{name}' IN ROLE login_ingest_{role}".encode()
            )
        made.append(name)
        return make_conninfo(database_url, user=name, password=name)

    yield make
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP ROLE {name}".encode())


# Equal at every moment


def test_old_and_new_rows_of_a_value_are_equal_under_the_view(
    database: LoginDatabase, keys: Keys
) -> None:
    _commit(database, keys.ring(1), [1, 2])
    _commit(database, keys.ring(1, 2), [2, 3])
    assert len(_stored(database)) == 4
    assert _groups(database) == {1: 1, 2: 2, 3: 1}


def test_a_run_that_still_has_the_old_keys_may_commit_after_the_first_with_the_new_ones(
    database: LoginDatabase, keys: Keys
) -> None:
    _commit(database, keys.ring(1, 2), [1, 2])
    _commit(database, keys.ring(1), [2, 3])
    assert _groups(database) == {1: 1, 2: 2, 3: 1}


def test_while_there_is_one_key_there_are_no_links(database: LoginDatabase, keys: Keys) -> None:
    _commit(database, keys.ring(2), [1, 2, 3])
    assert _links(database) == {}


def test_after_two_rotations_every_link_ends_at_the_newest_token(
    database: LoginDatabase, table: TokenTable, keys: Keys
) -> None:
    first, second, third = (
        keys.ring(1).masker("ip"),
        keys.ring(1, 2).masker("ip"),
        keys.ring(1, 2, 3).masker("ip"),
    )
    address = "192.0.2.1"
    _commit(database, keys.ring(1), [1])
    remask_field(table, second, _ignore)
    assert _links(database, "ip") == {first.mask(address): second.mask(address)}
    remask_field(table, third, _ignore)
    newest = third.mask(address)
    assert _links(database, "ip") == {first.mask(address): newest, second.mask(address): newest}


def test_links_of_a_removed_key_move_to_the_newest_token(
    database: LoginDatabase, table: TokenTable, keys: Keys
) -> None:
    address = "192.0.2.1"
    _commit(database, keys.ring(1), [1])
    remask_field(table, keys.ring(1, 2).masker("ip"), _ignore)
    remask_field(table, keys.ring(2, 3).masker("ip"), _ignore)
    newest = keys.ring(3).masker("ip").mask(address)
    assert _links(database, "ip") == {
        keys.ring(1).masker("ip").mask(address): newest,
        keys.ring(2).masker("ip").mask(address): newest,
    }


def test_a_reverted_rotation_reverses_the_links(
    database: LoginDatabase, table: TokenTable, keys: Keys
) -> None:
    _commit(database, keys.ring(1, 2), [1])
    remask_field(table, keys.ring(2, 1).masker("ip"), _ignore)
    old, new = (
        keys.ring(2).masker("ip").mask("192.0.2.1"),
        keys.ring(1).masker("ip").mask("192.0.2.1"),
    )
    assert _links(database, "ip") == {old: new}
    assert _stored(database, "masked_ip") == [new]


@BOTH_KINDS
@pytest.mark.parametrize("seed", range(6))
def test_equal_stays_equal_after_every_step_of_any_order(
    database: LoginDatabase, table: TokenTable, keys: Keys, seed: int
) -> None:
    """Runs with older and newer keysets, and with another primary, and parts of a re-masking."""
    chance = random.Random(seed)  # noqa: S311 (an order, not a secret)
    rings = [keys.ring(*numbers) for numbers in [(1,), (2, 1), (1, 2), (1, 2, 3), (1, 2, 3)]]
    known: list[Keyring] = [rings[0]]
    expected: Counter[int] = Counter()
    for _ in range(14):
        if chance.random() < 0.3 and len(known) < len(rings):
            known.append(rings[len(known)])
        ring = chance.choice(known[-3:])
        if chance.random() < 0.6:
            numbers = [chance.randrange(6) for _ in range(4)]
            _commit(database, ring, numbers)
            expected.update(numbers)
        else:
            _remask_some(table, ring.masker("ip"), chance)
        assert _groups(database) == expected, "readers saw equal values as different"


def test_runs_with_different_primary_keys_that_commit_at_once_agree(
    database: LoginDatabase, keys: Keys
) -> None:
    rings = [keys.ring(1, 2), keys.ring(2, 1)]
    numbers = list(range(40))
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(_commit, database, rings[place % 2], numbers) for place in range(12)]
    for future in futures:
        future.result()
    assert _groups(database) == dict.fromkeys(numbers, 12)


# Re-masking


@BOTH_KINDS
def test_every_row_comes_under_the_primary_key_and_keeps_its_value(
    database: LoginDatabase, table: TokenTable, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remask_run, "TOKENS_PER_PAGE", 7)
    monkeypatch.setattr(rotation_postgres, "ROWS_PER_TRANSACTION", 3)
    numbers = [number % 50 for number in range(120)]
    _commit(database, keys.ring(1), numbers)
    ring = keys.ring(1, 2)
    for masker in ring.maskers:
        before = table.snapshot(masker.field)
        done = remask_field(table, masker, _ignore)
        assert done == RemaskProgress(tokens=50, rows=120, passes=2)
        assert _broken(table, masker, before) == {}
        under_primary = ranges_under(masker.field, masker.primary_key_id)
        assert table.rows_within(masker.field, under_primary) == 120
    rows = database.query("SELECT user_id, masked_ip, masked_device_id FROM user_logins")
    only_new = keys.ring(2)
    assert sorted(
        (user, only_new.masker("ip").unmask(ip), only_new.masker("device_id").unmask(device))
        for user, ip, device in rows
    ) == sorted(
        (f"user-{number}", f"192.0.2.{number}", f"device-{number:08}") for number in numbers
    )


def test_a_second_re_masking_changes_nothing(
    database: LoginDatabase, table: TokenTable, keys: Keys
) -> None:
    _commit(database, keys.ring(1), [1, 2])
    masker = keys.ring(1, 2).masker("ip")
    remask_field(table, masker, _ignore)
    assert remask_field(table, masker, _ignore) == RemaskProgress(passes=1)


def test_tokens_that_do_not_open_are_counted_by_reason_and_not_changed(
    database: LoginDatabase, table: TokenTable, keys: Keys
) -> None:
    _commit(database, keys.ring(1), [1, 2])
    _commit(database, keys.ring(3), [3])
    good = keys.ring(1).masker("ip").mask("192.0.2.1")
    altered = good[:-4] + ("AAAA" if not good.endswith("AAAA") else "BBBB")
    _run(database, "UPDATE user_logins SET masked_ip = %s WHERE user_id = 'user-1'", altered)
    for text in ("5d41402abc4b2a76b9719d911017c592", "", "é{~", None):
        _run(database, "INSERT INTO user_logins (masked_ip) VALUES (%s)", text)
    masker = keys.ring(1, 2).masker("ip")
    before = table.snapshot(IP)
    stored = _stored(database, "masked_ip")
    assert remask_field(table, masker, _ignore).rows == 1
    assert unopened_tokens(table, masker) == {"not_a_token": 3, "unknown_key": 1, "altered": 1}
    assert table.rows_left(masker) == 5
    assert _broken(table, masker, before) == {
        "all_rows_under_primary_key": 5,
        "tokens_can_be_unmasked": 5,
    }
    assert sum((Counter(stored) - Counter(_stored(database, "masked_ip"))).values()) == 1


def test_old_tokens_that_arrive_during_the_run_are_found_by_a_later_pass(
    database: LoginDatabase, table: TokenTable, keys: Keys
) -> None:
    _commit(database, keys.ring(1), [1, 2])
    masker = keys.ring(1, 2).masker("ip")
    late = iter([[3, 4], [1, 5]])

    def commit_late(_: RemaskProgress) -> None:
        for numbers in (next(late, None),):
            if numbers:
                _commit(database, keys.ring(1), numbers)

    before = table.snapshot(IP)
    done = remask_field(table, masker, commit_late)
    assert done.rows == 6
    assert _broken(table, masker, before) == {}


@BOTH_KINDS
def test_erased_rows_stay_erased_and_get_no_link(
    database: LoginDatabase, table: TokenTable, keys: Keys
) -> None:
    _commit(database, keys.ring(1), [1, 2])
    masker = keys.ring(1, 2).masker("ip")
    plan = plan_remask(masker, _stored(database, "masked_ip"))
    _run(database, "UPDATE user_logins SET masked_ip = NULL WHERE user_id = %s", "user-1")
    change = table.begin(masker)
    table.link(change, plan)
    assert table.replace(change, plan.replacements) == 1
    assert list(_links(database)) == [keys.ring(1).masker("ip").mask("192.0.2.2")]
    assert database.query("SELECT count(*) FROM user_logins WHERE masked_ip IS NULL") == [(1,)]


def test_a_deadlock_is_retried(
    database: LoginDatabase,
    table: TokenTable,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _commit(database, keys.ring(1), [1, 2])
    real, failures = keys_postgres.write_job_links, iter([psycopg.errors.DeadlockDetected()] * 2)

    def sometimes(*given: Any) -> None:  # noqa: ANN401 (passes on what it was given)
        for failure in failures:
            raise failure
        real(*given)

    monkeypatch.setattr(rotation_postgres, "write_job_links", sometimes)
    assert remask_field(table, keys.ring(1, 2).masker("ip"), _ignore).rows == 2


# The rules


@pytest.mark.parametrize(
    ("harm", "broken"),
    [
        (
            "DELETE FROM user_logins WHERE user_id = 'user-1'",
            {"row_count_unchanged": 1, "equal_values_stay_equal": 1},
        ),
        ("INSERT INTO user_logins SELECT * FROM user_logins LIMIT 1", {"row_count_unchanged": 1}),
        (_MERGE, {"equal_values_stay_equal": 1}),
        (_WRONG_LINK, {"equal_values_stay_equal": 1}),
    ],
    ids=["a row lost", "a row added", "a value turned into another", "a wrong link"],
)
def test_the_rules_detect_changed_groups(
    database: LoginDatabase, table: TokenTable, keys: Keys, harm: str, broken: dict[str, int]
) -> None:
    _commit(database, keys.ring(1), [1, 2, 3])
    masker = keys.ring(1, 2).masker("ip")
    before = table.snapshot(IP)
    remask_field(table, masker, _ignore)
    _run(database, harm)
    assert _broken(table, masker, before) == broken


# Privileges


def test_the_loader_links_and_reads_neither_links_nor_tokens(
    login: Callable[[str], str], database: LoginDatabase, keys: Keys
) -> None:
    loader = LoginDatabase(login("loader"))
    _commit(database, keys.ring(1), [1])
    _commit(loader, keys.ring(1, 2), [1, 2])
    assert _groups(database) == {1: 2, 2: 1}
    for relation in ("login_ingest.token_link", LINKED, "user_logins"):
        with pytest.raises(DatabaseError, match="42501"):
            loader.query(f"SELECT count(*) FROM {relation}")
    with pytest.raises(DatabaseError, match="42501"):
        _run(loader, "INSERT INTO login_ingest.token_link VALUES ('ip', 'ip:a', 'ip:b')")


def test_the_analyst_reads_the_view_and_the_links_and_writes_neither(
    login: Callable[[str], str], database: LoginDatabase, keys: Keys
) -> None:
    _commit(database, keys.ring(1, 2), [1])
    analyst = LoginDatabase(login("analyst"))
    assert analyst.query("SELECT count(*) FROM login_ingest.user_logins_linked") == [(1,)]
    assert analyst.query("SELECT count(*) FROM login_ingest.token_link") == [(2,)]
    for statement in (
        "DELETE FROM login_ingest.token_link",
        "SELECT login_ingest.link_tokens('{ip}', '{ip:a}', '{ip:b}')",
    ):
        with pytest.raises(DatabaseError, match="42501"):
            _run(analyst, statement)


def test_the_recovery_role_can_re_mask(
    login: Callable[[str], str], database: LoginDatabase, keys: Keys
) -> None:
    _commit(database, keys.ring(1), [1, 2])
    table = TokenTable(login("recovery"))
    masker = keys.ring(1, 2).masker("device_id")
    before = table.snapshot(DEVICE_ID)
    assert remask_field(table, masker, _ignore).rows == 2
    assert _broken(table, masker, before) == {}


def test_an_extract_with_old_tokens_can_be_joined_with_current_rows(
    database: LoginDatabase, table: TokenTable, keys: Keys
) -> None:
    _commit(database, keys.ring(1), [1, 2])
    _run(database, "CREATE TABLE extract AS SELECT user_id, masked_ip FROM user_logins")
    remask_field(table, keys.ring(1, 2).masker("ip"), _ignore)
    _commit(database, keys.ring(1, 2), [1])
    assert sorted(
        database.query(
            "SELECT extract.user_id, count(*) FROM extract"
            " LEFT JOIN login_ingest.token_link ON field = 'ip' AND old_token = extract.masked_ip"
            " JOIN login_ingest.user_logins_linked AS now"
            " ON now.masked_ip = coalesce(new_token, extract.masked_ip) GROUP BY 1"
        )
    ) == [("user-1", 2), ("user-2", 1)]


def test_every_database_object_of_rotation_has_a_comment(database: LoginDatabase) -> None:
    silent = database.query(
        "SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE relname = 'token_link' AND attnum > 0 AND col_description(attrelid, attnum) IS NULL"
        " UNION ALL SELECT relname, NULL FROM pg_class WHERE relname IN ('token_link',"
        " 'user_logins_linked', 'token_link_new_token', 'user_logins_masked_ip',"
        " 'user_logins_masked_device_id') AND obj_description(oid, 'pg_class') IS NULL"
    )
    assert silent == []


def test_the_texts_under_a_key_are_found_by_index(database: LoginDatabase, keys: Keys) -> None:
    _commit(database, keys.ring(1), list(range(200)))
    with psycopg.connect(database.url) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(
            "EXPLAIN SELECT DISTINCT masked_ip FROM user_logins WHERE masked_ip ~>=~ 'ip:A'"
            " AND masked_ip ~<~ 'ip:B' ORDER BY masked_ip USING ~<~ LIMIT 5"
        ).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "Index Only Scan using user_logins_masked_ip" in text
    assert "Sort" not in text


def _commit(database: LoginDatabase, ring: Keyring, numbers: Iterable[int]) -> None:
    masked = mask_batch(raw_batch([body(number) for number in numbers]), ring)
    links = batch_links(masked, ring)
    commit_batch(database.url, BatchToCommit(str(uuid4()), masked, lambda _: b"", links))


def _remask_some(table: TokenTable, masker: FieldMasker, chance: random.Random) -> None:
    """Do a part of a re-masking, as if it had been killed."""
    stored = [
        token
        for (token,) in LoginDatabase(table.url).query(
            "SELECT DISTINCT masked_ip FROM user_logins ORDER BY 1"
        )
    ]
    plan = plan_remask(masker, chance.sample(stored, len(stored) // 2))
    change = table.begin(masker)
    table.link(change, plan)
    if chance.random() < 0.7:
        table.replace(change, plan.replacements)


def _groups(database: LoginDatabase) -> dict[int, int]:
    """Return the logins of each value; fail if a value is not one group under the view."""
    groups: dict[tuple[str, str], set[int]] = defaultdict(set)
    counts: Counter[int] = Counter()
    for user, ip, device in database.query(
        "SELECT user_id, masked_ip, masked_device_id FROM login_ingest.user_logins_linked"
    ):
        number = int(user.removeprefix("user-"))
        counts[number] += 1
        groups["ip", ip].add(number)
        groups["device_id", device].add(number)
    assert all(len(numbers) == 1 for numbers in groups.values())
    assert len(groups) == 2 * len(counts)
    return dict(counts)


def _broken(table: TokenTable, masker: FieldMasker, before: FieldSnapshot) -> dict[str, int]:
    compared = FieldComparison(
        field=masker.field.name,
        before=before,
        after=table.snapshot(masker.field),
        rows_left=table.rows_left(masker),
        unopened=unopened_tokens(table, masker),
    )
    counts = {rule.name: rule.count_violations(compared) for rule in REMASK_RULES}
    return {name: count for name, count in counts.items() if count}


def _links(database: LoginDatabase, field: str | None = None) -> dict[str, str]:
    return dict(
        database.query(
            "SELECT old_token, new_token FROM login_ingest.token_link"
            " WHERE field = coalesce(%s, field)",
            field,
        )
    )


def _stored(database: LoginDatabase, column: str = "masked_device_id") -> list[str]:
    return [token for (token,) in database.query(f"SELECT {column} FROM user_logins")]


def _run(database: LoginDatabase, statement: str, *values: object) -> None:
    with translate_errors("run"), psycopg.connect(database.url) as connection:
        connection.execute(statement.encode(), values or None)


def _ignore(_: RemaskProgress) -> None:
    pass
