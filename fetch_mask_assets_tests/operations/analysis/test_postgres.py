"""The views for analysts: what they count, at every moment of a rotation."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import psycopg
import pytest

from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.masking.version_number import version_number
from fetch_mask_assets.operations.analysis.postgres import view_and_table
from fetch_mask_assets.operations.analysis.views import ANALYSIS_VIEWS, AnalysisView, differing
from fetch_mask_assets.operations.rotation.postgres import TokenTable
from fetch_mask_assets.operations.rotation.remask_plan import plan_remask
from fetch_mask_assets.pipeline.batch.frames import mask_batch
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.postgres import migrate
from fetch_mask_assets_tests.support.kinds import BOTH_KINDS
from fetch_mask_assets_tests.support.logins import body, raw_batch, register
from fetch_mask_assets_tests.support.people import person
from fetch_mask_assets_tests.support.versions import version_text

if TYPE_CHECKING:
    from typing import LiteralString

    from fetch_mask_assets.keys.masker import FieldMasker

DAY = date(2024, 2, 29)
MD5_OF_NOTHING = "d41d8cd98f00b204e9800998ecf8427e"
VIEWS = [view.name for view in ANALYSIS_VIEWS]


class Login(NamedTuple):
    """A login by the numbers of its user, IP and device."""

    user: int
    ip: int
    device: int


@pytest.fixture(scope="module")
def rings() -> list[Keyring]:
    """Keyrings of a rotation that is taken back; the last key is primary."""
    keysets = {name: [json.loads(new_keyset(name)) for _ in range(2)] for name in KEYSET_NAMES}

    def ring(*places: int) -> Keyring:
        return open_keyring({name: _joined(keysets[name], places) for name in KEYSET_NAMES})

    return [ring(0), ring(0, 1), ring(1, 0)]


@pytest.fixture
def database(database_url: str, rings: list[Keyring]) -> LoginDatabase:
    """The database of the test, with all keys registered."""
    register(database_url, rings[-1])
    return LoginDatabase(database_url)


# The counts of the views


@BOTH_KINDS
def test_a_value_that_occurs_once_is_not_repeated(
    database: LoginDatabase, rings: list[Keyring]
) -> None:
    _commit(database, rings[0], [Login(1, 1, 1), Login(2, 2, 2)])
    for view in ("repeated_ips", "repeated_devices", "users_sharing_devices"):
        assert database.query(f"SELECT * FROM login_ingest.{view}") == []


@BOTH_KINDS
def test_a_repeated_value_counts_its_logins_users_and_days(
    database: LoginDatabase, rings: list[Keyring]
) -> None:
    _commit(database, rings[0], [Login(1, 1, 1), Login(1, 1, 1), Login(2, 1, 3)])
    _run(database, "UPDATE user_logins SET create_date = '2024-03-02' WHERE user_id = 'user-2'")
    [line] = database.query("SELECT * FROM login_ingest.repeated_ips")
    assert line == (rings[0].masker("ip").mask("192.0.2.1"), 3, 2, DAY, date(2024, 3, 2))
    [line] = database.query("SELECT * FROM login_ingest.repeated_devices")
    assert line[1:] == (2, 1, DAY, DAY)


def test_a_pair_counts_each_device_once_and_since_when_both_used_it(
    database: LoginDatabase, rings: list[Keyring]
) -> None:
    _commit(database, rings[0], [Login(2, 1, 1), Login(1, 2, 1), Login(1, 3, 1), Login(1, 4, 9)])
    _run(
        database,
        "UPDATE user_logins SET create_date = '2024-03-05' WHERE user_id = 'user-2'",
        "UPDATE user_logins SET create_date = '2024-03-09'"
        f" WHERE masked_ip = '{rings[0].masker('ip').mask('192.0.2.3')}'",
    )
    assert database.query("SELECT * FROM login_ingest.users_sharing_devices") == [
        ("user-1", "user-2", 1, date(2024, 3, 5), date(2024, 3, 9))
    ]


@pytest.mark.parametrize(("users", "pairs"), [(50, 1_225), (51, 0)])
def test_a_device_of_very_many_users_makes_no_pairs_and_is_still_counted(
    database: LoginDatabase, rings: list[Keyring], users: int, pairs: int
) -> None:
    _commit(database, rings[0], [Login(user, user, 1) for user in range(users)])
    assert _number(database, "SELECT count(*) FROM login_ingest.users_sharing_devices") == pairs
    assert _number(database, "SELECT users FROM login_ingest.repeated_devices") == users
    assert _disagreeing(database) == {}


@BOTH_KINDS
def test_an_erased_value_and_a_value_that_is_no_token_equal_nothing(
    database: LoginDatabase, rings: list[Keyring]
) -> None:
    for text in (None, MD5_OF_NOTHING, "", "unknown", "192.0.2.1", "device_id", "ip"):
        values = [(user, text, text) for user in ("a", "b", "c")]
        with psycopg.connect(database.url) as connection:
            connection.cursor().executemany(
                "INSERT INTO user_logins (user_id, masked_ip, masked_device_id)"
                " VALUES (%s, %s, %s)",
                values,
            )
    for view in (
        "repeated_ips",
        "repeated_devices",
        "ip_users",
        "device_users",
        "users_sharing_devices",
    ):
        assert database.query(f"SELECT * FROM login_ingest.{view}") == [], view
    assert _disagreeing(database) == {}
    _commit(database, rings[0], [Login(1, 1, 1), Login(2, 1, 1)])
    assert [line[1] for line in database.query("SELECT * FROM login_ingest.repeated_ips")] == [2]


def test_a_token_of_one_field_in_the_column_of_the_other_counts_for_neither(
    database: LoginDatabase, rings: list[Keyring]
) -> None:
    token = rings[0].masker("ip").mask("192.0.2.1")
    _run(
        database,
        *[f"INSERT INTO user_logins (user_id, masked_device_id) VALUES ('{u}', '{token}')"
          for u in "ab"],
    )  # fmt: skip
    assert database.query("SELECT * FROM login_ingest.repeated_devices") == []


def test_a_linked_digest_counts_with_the_token_that_it_became(
    database: LoginDatabase, rings: list[Keyring]
) -> None:
    _commit(database, rings[0], [Login(1, 1, 1)])
    token = rings[0].masker("ip").mask("192.0.2.1")
    _run(
        database,
        f"INSERT INTO user_logins (user_id, masked_ip) VALUES ('b', '{MD5_OF_NOTHING}')",
        "INSERT INTO login_ingest.token_link (field, old_token, new_token)"
        f" VALUES ('ip', '{MD5_OF_NOTHING}', '{token}')",
    )
    [line] = database.query("SELECT * FROM login_ingest.repeated_ips")
    assert line[:3] == (token, 2, 2)
    assert _disagreeing(database) == {}


# Right at every moment


@BOTH_KINDS
@pytest.mark.parametrize("seed", range(4))
def test_the_views_are_right_after_every_step_of_a_rotation(
    database: LoginDatabase, rings: list[Keyring], seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 (an order, not a secret)
    loaded: list[Login] = []
    for step in range(10):
        ring = chance.choice(rings[: 1 + step // 3])
        if chance.random() < 0.6:
            some = [Login(*(chance.randrange(4) for _ in range(3))) for _ in range(3)]
            _commit(database, ring, some)
            loaded += some
        else:
            for masker in ring.maskers:
                _remask_some(database, masker, chance)
        assert _seen(database) == _expected(loaded), f"wrong after step {step}"
        assert _disagreeing(database) == {}


# The version


@pytest.mark.parametrize("text", ["2.3.0", "0.0.0", "0.10", "10", "2147.483.647"])
def test_a_version_reads_as_it_was_meant(
    database: LoginDatabase, rings: list[Keyring], text: str
) -> None:
    number = version_number(text)
    assert number is not None
    _commit_texts(database, rings[0], [body(1, app_version=text)])
    seen = database.query("SELECT app_version, version FROM login_ingest.readable_logins")
    assert seen == [(number, version_text(number))]


def test_versions_sort_by_their_number_and_none_stays_none(
    database: LoginDatabase, rings: list[Keyring]
) -> None:
    texts = ["10.0.0", "2.10.0", "2.9.1", "2.3.0-beta"]
    _commit_texts(database, rings[0], [body(n, app_version=text) for n, text in enumerate(texts)])
    _run(database, "INSERT INTO user_logins (app_version) VALUES (-5)")
    seen = database.query(
        "SELECT version FROM login_ingest.readable_logins ORDER BY app_version NULLS LAST"
    )
    assert [version for (version,) in seen] == [None, "2.9.1", "2.10.0", "10.0.0", None]
    assert _disagreeing(database) == {}


# What the check finds


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_that_loses_a_login_is_found(
    database: LoginDatabase, rings: list[Keyring], view: str
) -> None:
    _commit(database, rings[0], [Login(1, 1, 1), Login(2, 1, 1), Login(3, 1, 1)])
    assert _disagreeing(database) == {}
    definition = str(
        database.query("SELECT pg_get_viewdef(%s::regclass)", f"login_ingest.{view}")[0][0]
    ).rstrip(";")
    _run(
        database,
        f"CREATE OR REPLACE VIEW login_ingest.{view} AS SELECT * FROM ({definition}) AS it LIMIT 0",
    )
    assert view in _disagreeing(database)


def test_a_version_that_reads_wrong_is_found(database: LoginDatabase, rings: list[Keyring]) -> None:
    _commit(database, rings[0], [Login(1, 1, 1)])
    _run(
        database,
        "CREATE OR REPLACE VIEW login_ingest.readable_logins AS SELECT user_id, device_type,"
        " masked_ip, masked_device_id, locale, app_version, '1.2.3' AS version, create_date"
        " FROM login_ingest.user_logins_linked",
    )
    assert _disagreeing(database) == {"readable_logins": ("misread_versions",)}


# Who may, what it says, and how it is found


def test_an_analyst_reads_the_figures_of_both_sides(
    database: LoginDatabase, rings: list[Keyring]
) -> None:
    _commit(database, rings[0], [Login(1, 1, 1), Login(2, 1, 1)])
    with person(database.url, "login_ingest_analyst") as eve:
        for view in VIEWS:
            figures, counted = view_and_table(eve.url, view)
            assert figures == counted
            assert figures["rows"] > 0


@BOTH_KINDS
def test_the_table_and_every_view_and_column_has_a_comment(database: LoginDatabase) -> None:
    silent = database.query(
        "SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE (relkind = 'v' AND relnamespace = 'login_ingest'::regnamespace"
        "        AND relname NOT IN ('user_logins_linked', 'quarantine_balance',"
        "                            'batch_balance')"
        "        OR pg_class.oid = 'user_logins'::regclass)"
        " AND attnum > 0 AND (col_description(pg_class.oid, attnum) IS NULL"
        "                     OR obj_description(pg_class.oid, 'pg_class') IS NULL)"
    )
    assert silent == []


@pytest.mark.parametrize("view", ANALYSIS_VIEWS, ids=lambda view: view.name)
def test_dagster_and_the_database_describe_a_view_alike(
    database: LoginDatabase, view: AnalysisView
) -> None:
    columns = database.query(
        "SELECT attname, replace(format_type(atttypid, atttypmod), 'character varying', 'varchar'),"
        " col_description(attrelid, attnum) FROM pg_attribute"
        " WHERE attrelid = %s::regclass ORDER BY attnum",
        f"login_ingest.{view.name}",
    )
    assert columns == [
        (name, column.type, column.description) for name, column in view.columns.items()
    ]
    [(description,)] = database.query(
        "SELECT obj_description(%s::regclass, 'pg_class')", f"login_ingest.{view.name}"
    )
    assert description == view.description


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("repeated_ips WHERE masked_ip = 'ip:x'", "user_logins_masked_ip"),
        ("repeated_devices WHERE masked_device_id = 'device_id:x'", "user_logins_masked_device_id"),
        ("ip_users WHERE masked_ip = 'ip:x'", "user_logins_masked_ip"),
        ("ip_users WHERE user_id = 'u'", "user_logins_user_id"),
        ("device_users WHERE masked_device_id = 'device_id:x'", "user_logins_masked_device_id"),
        ("device_users WHERE user_id = 'u'", "user_logins_user_id"),
        ("readable_logins WHERE user_id = 'u'", "user_logins_user_id"),
    ],
)
def test_one_token_or_user_is_found_by_index(
    database: LoginDatabase, query: str, index: str
) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("SET enable_seqscan = off")
        lines = connection.execute(f"EXPLAIN SELECT * FROM login_ingest.{query}".encode())
        plan = "\n".join(line for (line,) in lines)
    assert index in plan
    assert "Seq Scan on user_logins" not in plan


# The index, and a table that was there before


def test_an_invalid_index_is_made_again(database: LoginDatabase) -> None:
    _run(
        database,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'user_logins_user_id'::regclass",
    )
    migrate.upgrade(database.url)
    assert _number(database, _VALID_INDEXES) == 1


def test_an_existing_index_on_users_is_enough(database: LoginDatabase) -> None:
    _run(
        database,
        "DROP INDEX user_logins_user_id",
        "CREATE INDEX theirs ON user_logins (user_id, create_date)",
    )
    migrate.upgrade(database.url)
    assert _number(database, _VALID_INDEXES) == 0


_VALID_INDEXES = """
SELECT count(*) FROM pg_index
WHERE indexrelid = to_regclass('user_logins_user_id') AND indisvalid
"""


def _joined(keys: list[Any], places: Iterable[int]) -> str:
    chosen = [keys[place] for place in places]
    return json.dumps(chosen[-1] | {"key": [key for each in chosen for key in each["key"]]})


def _commit(database: LoginDatabase, ring: Keyring, logins: Iterable[Login]) -> None:
    texts = [
        body(login.user, ip=f"192.0.2.{login.ip}", device_id=f"device-{login.device:08}")
        for login in logins
    ]
    _commit_texts(database, ring, texts)


def _commit_texts(database: LoginDatabase, ring: Keyring, texts: list[str]) -> None:
    masked = mask_batch(raw_batch(texts), ring)
    links = batch_links(masked, ring)
    balance = commit_batch(database.url, BatchToCommit(str(uuid4()), masked, lambda _: b"", links))
    assert balance.loaded == len(texts)


def _remask_some(database: LoginDatabase, masker: FieldMasker, chance: random.Random) -> None:
    """A part of a re-masking, as if it had been killed at some point."""
    table = TokenTable(database.url)
    stored = database.query(f"SELECT DISTINCT {masker.field.column} FROM user_logins ORDER BY 1")
    plan = plan_remask(masker, chance.sample([token for (token,) in stored], len(stored) // 2))
    change = table.begin(masker)
    table.link(change, plan)
    if chance.random() < 0.7:
        table.replace(change, plan.replacements)


def _expected(logins: list[Login]) -> dict[str, Any]:
    """What the views must show of these logins: sizes and users of groups, and pairs."""
    users: dict[int, set[str]] = defaultdict(set)
    for login in logins:
        users[login.device].add(f"user-{login.user}")
    pairs = Counter(pair for some in users.values() for pair in combinations(sorted(some), 2))
    return {
        "repeated_ips": _repeated((login.ip, login.user) for login in logins),
        "repeated_devices": _repeated((login.device, login.user) for login in logins),
        "ip_users": _sizes((login.ip, login.user) for login in logins),
        "device_users": _sizes((login.device, login.user) for login in logins),
        "pairs": dict(pairs),
        "rows": len(logins),
    }


def _repeated(lines: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for value, user in lines:
        groups[value].append(user)
    return sorted((len(some), len(set(some))) for some in groups.values() if len(some) > 1)


def _sizes(lines: Iterable[tuple[int, int]]) -> list[tuple[str, int]]:
    return sorted((f"user-{user}", count) for (_, user), count in Counter(lines).items())


def _seen(database: LoginDatabase) -> dict[str, Any]:
    groups = {
        view: sorted(database.query(f"SELECT logins, users FROM login_ingest.{view}"))
        for view in ("repeated_ips", "repeated_devices")
    }
    of_users = {
        view: sorted(database.query(f"SELECT user_id, logins FROM login_ingest.{view}"))
        for view in ("ip_users", "device_users")
    }
    pairs = database.query(
        "SELECT user_id, other_user_id, devices FROM login_ingest.users_sharing_devices"
    )
    return {
        **groups,
        **of_users,
        "pairs": {(one, other): devices for one, other, devices in pairs},
        "rows": _number(database, "SELECT count(*) FROM login_ingest.readable_logins"),
    }


def _disagreeing(database: LoginDatabase) -> Mapping[str, tuple[str, ...]]:
    found = {view: differing(*view_and_table(database.url, view)) for view in VIEWS}
    return {view: names for view, names in found.items() if names}


def _number(database: LoginDatabase, statement: LiteralString) -> int:
    [(number,)] = database.query(statement)
    return int(number)


def _run(database: LoginDatabase, *statements: str) -> None:
    with psycopg.connect(database.url) as connection:
        for statement in statements:
            connection.execute(statement.encode())
