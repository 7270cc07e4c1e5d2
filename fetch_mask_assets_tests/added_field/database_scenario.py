"""The tests that run with the scratch copy and a database to which its fields were added.

`test_added_field.py` runs them in a process of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from fetch_mask_assets.audit.chain import verify_chain
from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.keyset_change import rotated
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.operations.erasure.certificate import Certificate
from fetch_mask_assets.operations.erasure.order import ErasureOrder
from fetch_mask_assets.operations.erasure.postgres import Erasures
from fetch_mask_assets.operations.erasure.subjects import parse_subjects
from fetch_mask_assets.operations.report.part import Period, Unreadable
from fetch_mask_assets.operations.report.postgres import ReportReader, RetentionDays
from fetch_mask_assets.operations.rotation.postgres import TokenTable
from fetch_mask_assets.operations.rotation.remask_run import remask_field
from fetch_mask_assets.operations.unmasking.find import find_queries
from fetch_mask_assets.operations.unmasking.postgres import Unmasking
from fetch_mask_assets.operations.unmasking.reveal import reveal_tokens
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready, require_writable
from fetch_mask_assets_tests.support.declared_fields import (
    declared_columns,
    declared_shapes,
    stored_columns,
    stored_shapes,
)
from fetch_mask_assets_tests.support.factories import body
from fetch_mask_assets_tests.support.logins import masked_batch
from fetch_mask_assets_tests.support.people import Person, person

ADDED = (
    (
        "SELECT login_ingest.add_masked_field('session_id', 'masked_session_id', 'varchar(256)',"
        " 61, 256, 'session', 'sessions', 'the session id')"
    ),
    (
        "SELECT login_ingest.add_masked_field('household_id', 'masked_household_id',"
        " 'varchar(256)', 63, 256, 'household', 'households', 'the household id')"
    ),
    (
        "SELECT login_ingest.add_clear_field('os_version', 'varchar(32)',"
        " 'The version of the operating system, or null.')"
    ),
)
SESSION = "session-4711-4711"
OTHER_SESSION = "session-0815-0815"
RECOVERY = "login_ingest_recovery"


@pytest.fixture(scope="module")
def keysets() -> dict[str, str]:
    return {name: new_keyset(name) for name in KEYSET_NAMES}


@pytest.fixture(scope="module")
def old(keysets: dict[str, str]) -> Keyring:
    return open_keyring(keysets)


@pytest.fixture(scope="module")
def new(keysets: dict[str, str]) -> Keyring:
    newer = rotated("session_id", keysets["session_id"]).keyset
    return open_keyring(keysets | {"session_id": newer})


@pytest.fixture
def url(database_url: str) -> str:
    """A database to which the lines of the migration were applied."""
    with psycopg.connect(database_url) as connection:
        for statement in ADDED:
            connection.execute(statement.encode())
    return database_url


@pytest.fixture
def ann(url: str) -> Iterator[Person]:
    """A member of login_ingest_recovery."""
    with person(url, RECOVERY) as member:
        yield member


@pytest.fixture
def bob(url: str) -> Iterator[Person]:
    """Another one."""
    with person(url, RECOVERY) as member:
        yield member


def login(**changes: object) -> str:
    return body(**{"session_id": SESSION, "os_version": "14.2", **changes})


def load(url: str, keyring: Keyring, *texts: str) -> None:
    database = LoginDatabase(url)
    require_ready(database, keyring)
    masked = masked_batch(keyring, texts)
    links = batch_links(masked, keyring)
    commit_batch(database.url, BatchToCommit(str(uuid4()), masked, lambda _: b"", links))


def stored(url: str) -> list[tuple[str | None, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT user_id, masked_session_id, os_version FROM user_logins ORDER BY 1, 2"
        ).fetchall()


def erase(who: Person, keyring: Keyring, *values: str) -> Certificate:
    order = ErasureOrder(str(uuid4()), parse_subjects("session_id", values), "asked for", "T-1")
    return Erasures(who.url).erase(order, keyring, lambda _text: None)


def test_the_database_and_the_declaration_have_the_same_fields(url: str) -> None:
    assert stored_columns(url) == declared_columns()
    assert stored_shapes(url) == declared_shapes()


def test_a_batch_is_written_with_the_token_and_the_clear_value(url: str, old: Keyring) -> None:
    load(url, old, login(), login(user_id="u-2", os_version=None), "{}")
    token = old.masker("session_id").mask(SESSION)

    assert stored(url) == [("u-1", token, "14.2"), ("u-2", token, None)]
    assert LoginDatabase(url).non_token_rows() == 0


def test_the_table_is_tried_with_the_fields_before_a_batch(url: str, old: Keyring) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("ALTER TABLE user_logins RENAME COLUMN os_version TO lost")
    database = LoginDatabase(url)

    with pytest.raises(Exception, match="try a row"):
        require_writable(database, old)


def test_a_text_that_is_no_token_is_counted(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO user_logins (masked_session_id) VALUES (%s)", [SESSION])

    assert LoginDatabase(url).non_token_rows() == 1


def test_repeated_sessions_are_in_a_view_before_and_amid_a_rotation(
    url: str, old: Keyring, new: Keyring
) -> None:
    load(url, old, login(), login(session_id=OTHER_SESSION))
    load(url, new, login(user_id="u-2"))
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT masked_session_id, logins, users FROM login_ingest.repeated_sessions"
        ).fetchall()

    assert rows == [(new.masker("session_id").mask(SESSION), 2, 2)]


def test_a_rotation_brings_every_row_under_the_new_key(
    url: str, old: Keyring, new: Keyring, ann: Person
) -> None:
    load(url, old, login(), login(user_id="u-2", session_id=OTHER_SESSION))
    require_ready(LoginDatabase(url), new)

    done = remask_field(TokenTable(ann.url), new.masker("session_id"), lambda _: None)

    mask = new.masker("session_id").mask
    assert done.rows == 2
    assert stored(url) == [("u-1", mask(SESSION), "14.2"), ("u-2", mask(OTHER_SESSION), "14.2")]
    assert TokenTable(ann.url).rows_left(new.masker("session_id")) == 0


def test_a_session_is_found_with_its_clear_columns(
    url: str, old: Keyring, new: Keyring, ann: Person
) -> None:
    load(url, old, login(), login(user_id="u-2", session_id=OTHER_SESSION))
    masker = new.masker("session_id")
    [query] = find_queries(masker, [SESSION], 10)

    found = Unmasking(ann.url).find(masker.field, query.tokens, 10)

    assert query.row_count(found.counts) == 1
    [row] = found.rows
    assert row.token == old.masker("session_id").mask(SESSION)
    assert (row.columns["user_id"], row.columns["os_version"]) == ("u-1", "14.2")


def test_a_session_is_unmasked_for_two_people(
    url: str, old: Keyring, ann: Person, bob: Person
) -> None:
    load(url, old, login())
    token = old.masker("session_id").mask(SESSION)
    number = Unmasking(ann.url).request([token], "account takeover", "SEC-1", 10)
    Unmasking(bob.url).approve(number, 60)

    opened = reveal_tokens(Unmasking(ann.url).reveal(number), old.maskers)

    assert [each.original for each in opened] == [SESSION]
    assert verify_chain(Audit(url).rows()).is_whole


def test_a_session_is_erased_and_nothing_else(
    url: str, old: Keyring, new: Keyring, ann: Person
) -> None:
    load(url, old, login(), login(user_id="u-2", session_id=OTHER_SESSION), login(ip="bad"))
    load(url, new, login(user_id="u-3"))

    certificate = erase(ann, new, SESSION)

    other = old.masker("session_id").mask(OTHER_SESSION)
    assert (certificate.verified, certificate.logins, certificate.messages) == (True, 2, 1)
    assert stored(url) == [("u-1", None, "14.2"), ("u-2", other, "14.2"), ("u-3", None, "14.2")]
    [query] = find_queries(new.masker("session_id"), [SESSION], 10)
    assert (
        query.row_count(
            Unmasking(ann.url).find(new.masker("session_id").field, query.tokens, 1).counts
        )
        == 0
    )


def test_the_report_counts_its_keys_and_its_erased_tokens(
    url: str, old: Keyring, ann: Person
) -> None:
    load(url, old, login(), login(user_id="u-2", session_id=OTHER_SESSION))
    erase(ann, old, SESSION)
    now = datetime.now(UTC) + timedelta(minutes=1)
    with person(url, "login_ingest_auditor") as auditor:
        reader = ReportReader(auditor.url, RetentionDays(quarantine=90, runs=14))
        period = Period(now - timedelta(days=1), now)
        facts = reader.read(period, Unreadable("not read here."), at=now).facts
    keys, balance, erasures = facts["keys"], facts["balance"], facts["erasures"]

    assert not isinstance(keys, Unreadable)
    assert not isinstance(balance, Unreadable)
    assert not isinstance(erasures, Unreadable)
    rows = {(each["keyset"], each["key_id"]): each["rows"] for each in keys["keys"]}
    assert rows["session_id", old.masker("session_id").primary_key_id] == 1
    assert {"field": "session_id", "rows": 1} in balance["null_token_rows"]
    assert [each["kind"] for each in erasures["certificates"]] == ["session_id"]
