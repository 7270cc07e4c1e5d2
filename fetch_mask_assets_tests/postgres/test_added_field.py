"""A masked and a clear field are added by a line each: every function and view has them."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import md5, sha256
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fetch_mask_assets_tests.support.kinds import BOTH_KINDS
from fetch_mask_assets_tests.support.people import Person, person, sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADER, ANALYST = "login_ingest_loader", "login_ingest_analyst"
RECOVERY, AUDITOR = "login_ingest_recovery", "login_ingest_auditor"

MASKED = (
    "SELECT login_ingest.add_masked_field('session_id', 'masked_session_id', 'varchar(256)',"
    " 61, 256, 'session', 'sessions', 'the session id')"
)
CLEAR = (
    "SELECT login_ingest.add_clear_field('os_version', 'varchar(32)',"
    " 'The version of the operating system, as the app sent it.')"
)
COLUMNS = ["user_id", "device_type", "masked_ip", "masked_device_id", "locale", "app_version",
           "create_date", "masked_session_id", "os_version"]  # fmt: skip
OLD_KEY, NEW_KEY = 7, 0xFFEEDDCC

REFUSED, DENIED = "23514", "42501"


def token(value: str, key_id: int = OLD_KEY, field: str = "session_id") -> str:
    """A token as Tink makes them: the version, the id of the key, and 32 bytes of the value."""
    raw = b"\x01" + key_id.to_bytes(4) + sha256(f"{key_id} {value}".encode()).digest()
    return f"{field}:{urlsafe_b64encode(raw).decode().rstrip('=')}"


@dataclass(frozen=True)
class Added:
    """A database with the two fields, four logins of three sessions, and who uses it."""

    url: str
    loader: Person
    analyst: Person
    auditor: Person
    ann: Person
    bob: Person

    def rotate(self) -> int:
        """Links every token to one under the new key and replaces it; how many rows changed."""
        old, new = [[token(each, key) for each in "abc"] for key in (OLD_KEY, NEW_KEY)]
        register(self.loader, NEW_KEY)
        [(change, _)] = ask(
            self.ann, "SELECT * FROM login_ingest.begin_remask_job('remask', 'session_id', %s)",
            [NEW_KEY],
        )  # fmt: skip
        ask(self.ann, "SELECT login_ingest.link_tokens_in_job(%s, %s, %s)", change, old, new)
        statement = "SELECT login_ingest.replace_tokens(%s, %s, %s, 100)"
        [(replaced,)] = ask(self.ann, statement, change, old, new)
        ask(self.ann, "SELECT login_ingest.finish_remask_job(%s, 'remask')", change)
        return int(replaced)


@pytest.fixture
def added(database_url: str) -> Iterator[Added]:
    """The fields are added where there is a login already."""
    with (
        person(database_url, LOADER) as loader,
        person(database_url, ANALYST) as analyst,
        person(database_url, AUDITOR) as auditor,
        person(database_url, RECOVERY) as ann,
        person(database_url, RECOVERY) as bob,
    ):
        administer(database_url, "INSERT INTO user_logins (user_id) VALUES ('before')")
        administer(database_url, MASKED, CLEAR)
        register(loader, OLD_KEY)
        for user, session in [("u1", "a"), ("u2", "a"), ("u2", "b"), ("u3", "c")]:
            ask(
                loader,
                "INSERT INTO user_logins (user_id, masked_session_id, os_version, create_date)"
                " VALUES (%s, %s, '17.1', '2024-02-29')",
                user, token(session),
            )  # fmt: skip
        yield Added(database_url, loader, analyst, auditor, ann, bob)


def ask(who: Person | str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(who if isinstance(who, str) else who.url) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def administer(url: str, *statements: str) -> None:
    for statement in statements:
        ask(url, statement)


def register(who: Person, key_id: int) -> None:
    check = str(key_id).encode()
    ask(who, "SELECT login_ingest.register_keys('{session_id}', %s, %s)", [key_id], [check])


def refusal(who: Person | str, statement: str, *values: object) -> tuple[str | None, str | None]:
    """The SQLSTATE and the constraint with which a statement is refused."""
    with pytest.raises(psycopg.Error) as caught:
        ask(who, statement, *values)
    return caught.value.sqlstate, caught.value.diag.constraint_name


def columns(url: str, name: str) -> list[tuple[Any, ...]]:
    return ask(
        url,
        "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        name,
    )


# The table and the views


@BOTH_KINDS
def test_the_columns_are_added_behind_the_others_with_a_comment(added: Added) -> None:
    described = columns(added.url, "user_logins")
    assert [name for name, _ in described] == COLUMNS
    assert [comment for _, comment in described[-2:]] == [
        "Token of the session id: equal values have equal tokens under one key. Null if erased.",
        "The version of the operating system, as the app sent it.",
    ]


@BOTH_KINDS
def test_the_views_have_them_and_each_column_says_what_it_is(added: Added) -> None:
    assert [name for name, _ in columns(added.url, "login_ingest.user_logins_linked")] == COLUMNS
    readable = columns(added.url, "login_ingest.readable_logins")
    assert [name for name, _ in readable if name != "version"] == COLUMNS
    assert all(comment for _, comment in readable)
    for view in ("repeated_sessions", "session_users"):
        described = columns(added.url, f"login_ingest.{view}")
        assert described[0] == ("masked_session_id", "The newest token of the session id.")
        assert all(comment for _, comment in described)


def test_the_analyst_reads_them_and_the_loader_does_not(added: Added) -> None:
    assert ask(added.analyst, "SELECT * FROM login_ingest.repeated_sessions") == [
        (token("a"), 2, 2, *ask(added.url, "SELECT '2024-02-29'::date, '2024-02-29'::date")[0])
    ]
    users = ask(added.analyst, "SELECT masked_session_id, user_id FROM login_ingest.session_users")
    assert sorted(users) == sorted([(token("a"), "u1"), (token("a"), "u2"), (token("b"), "u2"),
                                    (token("c"), "u3")])  # fmt: skip
    seen = "SELECT DISTINCT os_version FROM login_ingest.readable_logins WHERE user_id <> 'before'"
    assert ask(added.analyst, seen) == [("17.1",)]
    for column in ("masked_session_id", "os_version"):
        assert sqlstate(added.loader.url, f"SELECT {column} FROM user_logins") == DENIED


def test_a_field_is_added_by_nobody_but_who_migrates(added: Added) -> None:
    for who in (added.loader, added.analyst, added.auditor, added.ann):
        assert sqlstate(who.url, MASKED.replace("session", "other")) == DENIED
        assert sqlstate(who.url, CLEAR.replace("os_", "other_")) == DENIED


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        (MASKED, "login_column_pkey"),
        (CLEAR, "login_column_pkey"),
        (MASKED.replace("'session_id'", "'user'").replace("session", "x"), "name_not_reserved"),
        (
            MASKED.replace("'session_id'", "'quarantine'").replace("session", "x"),
            "name_not_reserved",
        ),
        (MASKED.replace("'session_id'", "'a:b'").replace("session", "x"), "name_valid"),
        (MASKED.replace("session", "x").replace("61, 256", "61, 60"), "token_lengths_valid"),
    ],
)
def test_a_name_that_is_taken_or_no_name_is_refused(
    added: Added, statement: str, constraint: str
) -> None:
    assert refusal(added.url, statement)[1] == constraint


# Tokens


@BOTH_KINDS
def test_what_is_no_token_of_the_field_is_counted_and_the_index_answers(added: Added) -> None:
    assert ask(added.loader, "SELECT login_ingest.non_token_rows()") == [(0,)]
    ask(added.loader, "INSERT INTO user_logins (masked_session_id) VALUES ('raw')")
    ask(added.loader, "INSERT INTO user_logins (masked_session_id) VALUES (%s)", token("a")[:-1])
    assert ask(added.loader, "SELECT login_ingest.non_token_rows()") == [(2,)]
    [(condition,)] = ask(added.url, "SELECT login_ingest.non_token_condition()")
    with psycopg.connect(added.url) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(f"EXPLAIN SELECT FROM user_logins WHERE {condition}".encode())
        assert any("_expr_idx" in line or "non_token" in line for (line,) in plan)


@BOTH_KINDS
def test_a_rotation_replaces_the_tokens_and_equal_stays_equal(added: Added) -> None:
    assert added.rotate() == 4
    held = ask(added.url, "SELECT DISTINCT masked_session_id FROM user_logins"
                          " WHERE masked_session_id IS NOT NULL")  # fmt: skip
    assert sorted(held) == sorted((token(each, NEW_KEY),) for each in "abc")
    ask(added.loader, "INSERT INTO user_logins (user_id, masked_session_id) VALUES ('u4', %s)",
        token("a"))  # fmt: skip
    repeated = "SELECT masked_session_id, logins, users FROM login_ingest.repeated_sessions"
    assert ask(added.analyst, repeated) == [(token("a", NEW_KEY), 3, 3)]


@BOTH_KINDS
def test_a_key_is_retired_when_no_row_needs_it_and_not_before(added: Added) -> None:
    counted = "SELECT * FROM login_ingest.rows_by_key('session_id')"
    retire = "SELECT login_ingest.retire_key('session_id', %s)"
    assert ask(added.auditor, counted) == [(OLD_KEY, 4)]
    assert ask(added.ann, retire, OLD_KEY) == [(4,)]
    added.rotate()
    assert ask(added.auditor, counted) == [(NEW_KEY, 4)]
    assert ask(added.ann, retire, OLD_KEY) == [(0,)]
    held = "SELECT * FROM login_ingest.lock_keys('{session_id}', %s)"
    assert ask(added.loader, held, [OLD_KEY]) == [("session_id", OLD_KEY, True)]
    ask(added.ann, "SELECT login_ingest.restore_key('session_id', %s)", OLD_KEY)
    assert ask(added.loader, held, [OLD_KEY]) == []


def test_the_loader_links_tokens_of_the_field(added: Added) -> None:
    register(added.loader, NEW_KEY)
    link = "SELECT login_ingest.link_tokens('{session_id}', %s, %s)"
    ask(added.loader, link, [token("a")], [token("a", NEW_KEY)])
    assert ask(added.auditor, "SELECT * FROM login_ingest.link_counts()") == [("session_id", 1, 0)]
    strange = token("a", NEW_KEY, "ip")
    assert refusal(added.loader, link, [token("a")], [strange]) == (REFUSED, "token_valid")


@BOTH_KINDS
def test_digests_of_the_field_are_noted_and_replaced(added: Added) -> None:
    digest = md5(b"d", usedforsecurity=False).hexdigest()
    ask(added.loader, "INSERT INTO user_logins (user_id, masked_session_id) VALUES ('m', %s)",
        digest.upper())  # fmt: skip
    note = "SELECT login_ingest.record_md5_matches('session_id', %s, %s)"
    assert ask(added.ann, note, [digest], [token("d")]) == [(1,)]
    [(change, _)] = ask(
        added.ann,
        "SELECT * FROM login_ingest.begin_remask_job('upgrade-md5', 'session_id', '{}')",
    )
    replaced = ask(added.ann, "SELECT * FROM login_ingest.replace_digests(%s, 10, true)", change)
    assert replaced == [(1, 1, 1)]
    found = ask(added.url, "SELECT masked_session_id FROM user_logins WHERE user_id = 'm'")
    assert found == [(token("d"),)]
    assert ask(added.ann, "SELECT login_ingest.drop_md5_links()") == [(1,)]


# People


@BOTH_KINDS
def test_rows_are_found_by_the_token_with_the_clear_field(added: Added) -> None:
    find = "SELECT verdict, counts, newest FROM login_ingest.find_rows(%s, %s, 10)"
    [(verdict, counts, newest)] = ask(added.ann, find, "session_id", [token("a")])
    assert (verdict, counts) == ("found", {token("a"): 2})
    assert [(row["user_id"], row["os_version"]) for row in newest] == [("u1", "17.1"),
                                                                       ("u2", "17.1")]  # fmt: skip
    assert "masked_session_id" not in newest[0]
    assert ask(added.ann, find, "ip", [token("a")])[0][0] == "invalid_tokens"
    assert ask(added.ann, find, "os_version", [token("a")])[0][0] == "invalid_tokens"


def test_originals_are_asked_for_approved_and_revealed(added: Added) -> None:
    request = (
        "SELECT verdict, request FROM login_ingest.create_unmask_request(%s, 'takeover', 'T-1', 9)"
    )
    [(verdict, number)] = ask(added.ann, request, [token("a")])
    assert verdict == "requested"
    assert ask(added.ann, request, [token("a") + "!"])[0][0] == "invalid_tokens"
    ask(added.bob, "SELECT login_ingest.approve_unmask_request(%s, 5)", number)
    reveal = "SELECT verdict, tokens FROM login_ingest.reveal_unmask_request(%s)"
    assert ask(added.ann, reveal, number) == [("revealed", [token("a")])]


@BOTH_KINDS
def test_a_value_of_the_field_is_erased_with_a_certificate(added: Added) -> None:
    added.rotate()
    ask(added.ann, "SELECT login_ingest.create_unmask_request(%s, 'takeover', 'T-1', 9)",
        [token("a", NEW_KEY)])  # fmt: skip
    known = "SELECT login_ingest.linked_tokens('session_id', %s)"
    [(tokens,)] = ask(added.ann, known, [token("a", NEW_KEY)])
    assert tokens == sorted([token("a"), token("a", NEW_KEY)])
    ask(added.ann, "SELECT login_ingest.begin_erasure('e', 'session_id', 1, 'asked', 'T-2')")
    for call, expected in (
        ("erase_tokens('e', 'session_id', %s, 10)", 2),
        ("erase_links('e', 'session_id', %s)", 1),
        ("erase_matches('e', 'session_id', %s)", 0),
        ("erase_requests('e', %s)", 1),
        ("count_remaining('session_id', %s)", 0),
    ):
        assert ask(added.ann, f"SELECT login_ingest.{call}", tokens) == [(expected,)], call
    finish = "SELECT login_ingest.finish_erasure('e', %s, 0, 0, 0, 0)"
    assert ask(added.ann, finish, tokens) == [(True,)]
    certificate = (
        "SELECT kind, field, logins, links, unmask_requests, verified FROM login_ingest.erasure"
    )
    assert ask(added.auditor, certificate) == [("session_id", "session_id", 2, 1, 1, True)]


def test_a_value_under_a_key_that_was_not_named_is_not_verified(added: Added) -> None:
    ask(added.ann, "SELECT login_ingest.begin_erasure('e', 'session_id', 1, 'asked', 'T-2')")
    finish = "SELECT login_ingest.finish_erasure('e', %s, 0, 0, 0, 0)"
    assert ask(added.ann, finish, [token("z", NEW_KEY)]) == [(False,)]
    assert ask(added.auditor, "SELECT unsearched_rows FROM login_ingest.erasure") == [(4,)]


@BOTH_KINDS
def test_a_quarantined_message_is_replayed_with_both_fields(added: Added) -> None:
    administer(
        added.url,
        "INSERT INTO login_ingest.quarantine VALUES ('m1', 1, 'not_json', NULL, now(), 1, now(),"
        " 'sealed')",
    )
    login = {
        "message_id": "m1",
        "user_id": "u9",
        "masked_session_id": token("r"),
        "os_version": "18",
        "create_date": "2024-02-29",
        "app_version_text": "1.2",
    }
    replay = "SELECT * FROM login_ingest.replay_messages('r', %s::jsonb, '[]', 0)"
    strange = json.dumps([login | {"masked_session_id": "raw"}])
    assert refusal(added.ann, replay, strange) == (REFUSED, "token_valid")
    assert ask(added.ann, replay, json.dumps([login])) == [(1, 0)]
    held = "SELECT masked_session_id, os_version FROM user_logins WHERE user_id = 'u9'"
    assert ask(added.url, held) == [(token("r"), "18")]


def test_the_report_counts_the_rows_without_a_token_of_each_field(added: Added) -> None:
    counted = ask(added.auditor, "SELECT * FROM login_ingest.null_token_counts()")
    assert counted == [("device_id", 5), ("ip", 5), ("session_id", 1)]


# What is no masked field


@pytest.mark.parametrize(
    "call",
    [
        "erase_tokens('e', 'os_version', '{x}', 1)",
        "erase_links('e', 'os_version', '{x}')",
        "erase_matches('e', 'os_version', '{x}')",
        "linked_tokens('os_version', '{x}')",
        "count_remaining('os_version', '{x}')",
        "retire_key('os_version', 1)",
    ],
)
def test_a_field_that_is_not_masked_is_refused(added: Added, call: str) -> None:
    assert refusal(added.ann, f"SELECT login_ingest.{call}") == (REFUSED, "masked_field_exists")


@pytest.mark.parametrize(
    ("call", "constraint"),
    [
        ("begin_erasure('e', 'os_version', 1, 'asked', 'T-2')", "erasure_field_fkey"),
        ("begin_remask_job('remask', 'os_version', '{}')", "remask_job_field_fkey"),
    ],
)
def test_nothing_is_recorded_of_a_field_that_is_not_masked(
    added: Added, call: str, constraint: str
) -> None:
    assert refusal(added.ann, f"SELECT login_ingest.{call}") == ("23503", constraint)


def test_no_key_is_registered_for_a_field_that_is_not_masked(added: Added) -> None:
    call = "SELECT login_ingest.register_keys('{os_version}', '{1}', '{x}')"
    assert refusal(added.loader, call) == (REFUSED, "key_conflict")
