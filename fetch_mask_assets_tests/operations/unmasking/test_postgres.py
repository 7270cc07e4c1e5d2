"""Nobody gets an original back alone, in another's name, late, or off the record."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fetch_mask_assets.audit.chain import verify_chain
from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.masking.fields import IP
from fetch_mask_assets.operations.unmasking.postgres import Unmasking
from fetch_mask_assets.operations.unmasking.requests import UnmaskRefusedError, token_digest
from fetch_mask_assets_tests.support.people import Person, person, sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator

RECOVERY = "login_ingest_recovery"
AUDITOR = "login_ingest_auditor"
TOKENS = ["ip:" + "A" * 50, "device_id:" + "B" * 50]
WHY = ("account takeover", "SEC-12", 100)


@pytest.fixture
def ann(database_url: str) -> Iterator[Person]:
    """Somebody who may recover."""
    with person(database_url, RECOVERY) as somebody:
        yield somebody


@pytest.fixture
def bob(database_url: str) -> Iterator[Person]:
    """Somebody else who may recover."""
    with person(database_url, RECOVERY) as somebody:
        yield somebody


def approved(ann: Person, bob: Person, tokens: list[str] | None = None) -> int:
    number = Unmasking(ann.url).request(tokens or TOKENS, *WHY)
    Unmasking(bob.url).approve(number, 60)
    return number


def recorded(url: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Who did what, and its detail; the chain is whole."""
    assert verify_chain(Audit(url).rows()).is_whole
    return [(row.actor, row.action, json.loads(row.detail)) for row in Audit(url).rows()]


def assert_refusal_recorded(url: str, who: Person, action: str, verdict: str) -> None:
    person_, action_, detail = recorded(url)[-1]
    assert (person_, action_, detail["verdict"]) == (who.name, action, verdict)
    assert detail.get("sha256") is None


def alter(database_url: str, statement: str) -> None:
    """Does something behind the tool's back."""
    with psycopg.connect(database_url) as connection:
        connection.execute(statement.encode())


# The way it is meant


def test_one_asks_another_approves_the_first_gets_the_tokens(
    database_url: str, ann: Person, bob: Person
) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)
    until = Unmasking(bob.url).approve(number, 60)
    assert Unmasking(ann.url).reveal(number) == tuple(TOKENS)

    (request,), now = Unmasking(ann.url).requests()
    assert (request.requester, request.approver, request.state(now)) == (
        ann.name,
        bob.name,
        "approved",
    )
    assert request.expires_at == until
    assert timedelta(minutes=59) < until - now <= timedelta(minutes=60)
    assert [(who, action, detail["verdict"]) for who, action, detail in recorded(database_url)] == [
        (ann.name, "unmask.request", "requested"),
        (bob.name, "unmask.approve", "approved"),
        (ann.name, "unmask.reveal", "revealed"),
    ]
    details = [detail for *_, detail in recorded(database_url)]
    assert (details[0]["reason"], details[0]["ticket"]) == WHY[:2]
    digests = [token_digest(token) for token in TOKENS]
    assert details[0]["sha256"] == details[2]["sha256"] == digests


def test_the_audit_keeps_nothing_that_could_be_unmasked_after_an_erasure(
    database_url: str, ann: Person, bob: Person
) -> None:
    number = approved(ann, bob)
    Unmasking(ann.url).reveal(number)
    Unmasking(ann.url).find(IP, TOKENS[:1], 10)
    kept = "".join(row.detail for row in Audit(database_url).rows())
    assert not any(token in kept for token in TOKENS)
    alter(database_url, "UPDATE login_ingest.unmask_request SET tokens = '{}'")
    with pytest.raises(UnmaskRefusedError, match="erased"):
        Unmasking(ann.url).reveal(number)
    assert_refusal_recorded(database_url, ann, "unmask.reveal", "erased")


def test_membership_through_another_role_counts(database_url: str, bob: Person) -> None:
    with (
        person(database_url, RECOVERY, options="NOLOGIN") as team,
        person(database_url, team.name) as carol,
    ):
        number = approved(carol, bob)
        assert Unmasking(carol.url).reveal(number) == tuple(TOKENS)


# What is refused is recorded


def test_nobody_approves_their_own_request(database_url: str, ann: Person) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)
    with pytest.raises(UnmaskRefusedError, match="of their own"):
        Unmasking(ann.url).approve(number, 60)
    assert_refusal_recorded(database_url, ann, "unmask.approve", "own_request")
    with pytest.raises(UnmaskRefusedError, match="nobody has approved"):
        Unmasking(ann.url).reveal(number)


def test_setting_another_role_makes_nobody_a_second_person(database_url: str, ann: Person) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)
    with psycopg.connect(ann.url) as connection:
        connection.execute("SET ROLE login_ingest_recovery")
        row = connection.execute(
            "SELECT verdict, session_user, current_user FROM login_ingest.approve_unmask(%s, 60)",
            [number],
        ).fetchone()
    assert row == ("own_request", ann.name, RECOVERY)
    assert_refusal_recorded(database_url, ann, "unmask.approve", "own_request")


def test_nothing_is_revealed_before_it_is_approved(database_url: str, ann: Person) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)
    with pytest.raises(UnmaskRefusedError, match="nobody has approved"):
        Unmasking(ann.url).reveal(number)
    assert_refusal_recorded(database_url, ann, "unmask.reveal", "not_approved")


def test_an_approval_runs_out(database_url: str, ann: Person, bob: Person) -> None:
    number = approved(ann, bob)
    alter(database_url, "UPDATE login_ingest.unmask_request SET expires_at = clock_timestamp()")
    with pytest.raises(UnmaskRefusedError, match="run out"):
        Unmasking(ann.url).reveal(number)
    assert_refusal_recorded(database_url, ann, "unmask.reveal", "expired")
    Unmasking(bob.url).approve(number, 60)
    assert Unmasking(ann.url).reveal(number) == tuple(TOKENS)


def test_not_even_the_approver_gets_what_another_asked_for(
    database_url: str, ann: Person, bob: Person
) -> None:
    number = approved(ann, bob)
    with pytest.raises(UnmaskRefusedError, match="only the person who asked"):
        Unmasking(bob.url).reveal(number)
    assert_refusal_recorded(database_url, bob, "unmask.reveal", "not_the_requester")


@pytest.mark.parametrize("number", [1, 0, -1, 2**63 - 1])
def test_a_request_that_nobody_made_is_refused(database_url: str, ann: Person, number: int) -> None:
    with pytest.raises(UnmaskRefusedError, match="no request of this number"):
        Unmasking(ann.url).approve(number, 60)
    assert_refusal_recorded(database_url, ann, "unmask.approve", "unknown_request")
    with pytest.raises(UnmaskRefusedError, match="no request of this number"):
        Unmasking(ann.url).reveal(number)
    assert_refusal_recorded(database_url, ann, "unmask.reveal", "unknown_request")


def test_more_tokens_than_the_environment_allows_are_refused(
    database_url: str, ann: Person
) -> None:
    with pytest.raises(UnmaskRefusedError, match="more tokens"):
        Unmasking(ann.url).request(TOKENS, "why", "where", 1)
    assert_refusal_recorded(database_url, ann, "unmask.request", "limit_exceeded")


def test_no_environment_raises_the_limit_of_the_database(database_url: str, ann: Person) -> None:
    many = [f"ip:{number:050}" for number in range(101)]
    with pytest.raises(UnmaskRefusedError, match="more tokens"):
        Unmasking(ann.url).request(many, "why", "where", 10_000)
    assert_refusal_recorded(database_url, ann, "unmask.request", "limit_exceeded")
    Unmasking(ann.url).request(many[:100], "why", "where", 10_000)


def test_a_limit_that_was_lowered_meanwhile_counts(
    database_url: str, ann: Person, bob: Person
) -> None:
    number = approved(ann, bob)
    alter(database_url, "UPDATE login_ingest.unmask_policy SET max_tokens = 1")
    with pytest.raises(UnmaskRefusedError, match="more tokens"):
        Unmasking(ann.url).reveal(number)
    assert_refusal_recorded(database_url, ann, "unmask.reveal", "limit_exceeded")


def test_without_limits_nothing_is_allowed(database_url: str, ann: Person, bob: Person) -> None:
    number = approved(ann, bob)
    alter(database_url, "DELETE FROM login_ingest.unmask_policy")
    for act in (
        lambda: Unmasking(ann.url).request(TOKENS, *WHY),
        lambda: Unmasking(bob.url).approve(number, 60),
        lambda: Unmasking(ann.url).reveal(number),
    ):
        with pytest.raises(DatabaseError):
            act()


@pytest.mark.parametrize("minutes", [0, -5, 481])
def test_an_approval_is_never_for_longer_than_the_database_allows(
    database_url: str, ann: Person, bob: Person, minutes: int
) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)
    with pytest.raises(UnmaskRefusedError, match="no longer than"):
        Unmasking(bob.url).approve(number, minutes)
    assert_refusal_recorded(database_url, bob, "unmask.approve", "too_long")


def test_an_approval_that_lasts_is_not_lengthened(
    database_url: str, ann: Person, bob: Person
) -> None:
    number = approved(ann, bob)
    with pytest.raises(UnmaskRefusedError, match="approved already"):
        Unmasking(bob.url).approve(number, 480)
    assert_refusal_recorded(database_url, bob, "unmask.approve", "already_approved")


def test_an_approver_who_left_is_no_second_person(database_url: str, ann: Person) -> None:
    with person(database_url, RECOVERY) as carol:
        number = approved(ann, carol)
        alter(database_url, f"REVOKE {RECOVERY} FROM {carol.name}")
        with pytest.raises(UnmaskRefusedError, match="two different people"):
            Unmasking(ann.url).reveal(number)
    with pytest.raises(UnmaskRefusedError, match="two different people"):
        Unmasking(ann.url).reveal(number)
    assert_refusal_recorded(database_url, ann, "unmask.reveal", "second_person_required")


def test_a_requester_who_left_gets_no_approval_and_no_originals(
    database_url: str, bob: Person
) -> None:
    with person(database_url, RECOVERY) as carol:
        waiting, ready = Unmasking(carol.url).request(TOKENS, *WHY), approved(carol, bob)
        alter(database_url, f"REVOKE {RECOVERY} FROM {carol.name}")
        with pytest.raises(UnmaskRefusedError, match="two different people"):
            Unmasking(bob.url).approve(waiting, 60)
        with pytest.raises(DatabaseError, match="42501"):
            Unmasking(carol.url).reveal(ready)


@pytest.mark.parametrize("role", ["login_ingest_loader", "login_ingest_analyst", AUDITOR])
def test_who_may_not_recover_neither_asks_nor_approves_nor_reveals(
    database_url: str, ann: Person, bob: Person, role: str
) -> None:
    number = approved(ann, bob)
    with person(database_url, role) as eve:
        for act in (
            lambda: Unmasking(eve.url).request(TOKENS, *WHY),
            lambda: Unmasking(eve.url).approve(number, 60),
            lambda: Unmasking(eve.url).reveal(number),
            lambda: Unmasking(eve.url).withdraw(number),
            lambda: Unmasking(eve.url).find(IP, TOKENS[:1], 10),
        ):
            with pytest.raises(DatabaseError, match="42501"):
                act()


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        ["192.0.2.7"],
        [TOKENS[0], "device-4711"],
        ["ip:" + "A" * 49],
        [TOKENS[0] + "\n"],
        ["ip:192.0.2.7" + "A" * 41 + "."],
        [TOKENS[0], None],
    ],
)
def test_what_is_no_token_is_refused_by_the_database_and_not_kept(
    database_url: str, ann: Person, tokens: list[str]
) -> None:
    with pytest.raises(UnmaskRefusedError, match="no token"):
        Unmasking(ann.url).request(tokens, *WHY)
    assert_refusal_recorded(database_url, ann, "unmask.request", "invalid_tokens")
    assert recorded(database_url)[-1][2] == {"verdict": "invalid_tokens", "count": len(tokens)}


@pytest.mark.parametrize("words", ["", "  ", "\t", "two\nlines", "\x1b[2J", "x" * 501])
def test_a_reason_and_a_ticket_are_a_line_of_words(
    database_url: str, ann: Person, words: str
) -> None:
    for reason, ticket in [(words, "SEC-12"), ("why", words)]:
        with pytest.raises(UnmaskRefusedError, match="reason and a ticket"):
            Unmasking(ann.url).request(TOKENS, reason, ticket, 100)
        assert_refusal_recorded(database_url, ann, "unmask.request", "reason_required")


# Withdrawn


@pytest.mark.parametrize("who", ["requester", "approver", "another"])
def test_whoever_recovers_withdraws_an_approval_for_good(
    database_url: str, ann: Person, bob: Person, who: str
) -> None:
    number = approved(ann, bob)
    with person(database_url, RECOVERY) as carol:
        withdrawer = {"requester": ann, "approver": bob, "another": carol}[who]
        by_person, since = Unmasking(withdrawer.url).withdraw(number)
        assert by_person == withdrawer.name
        assert Unmasking(carol.url).withdraw(number) == (by_person, since)

        with pytest.raises(UnmaskRefusedError, match="was withdrawn"):
            Unmasking(ann.url).reveal(number)
        assert_refusal_recorded(database_url, ann, "unmask.reveal", "request_withdrawn")
        with pytest.raises(UnmaskRefusedError, match="was withdrawn"):
            Unmasking(bob.url).approve(number, 60)
        withdrawals = [
            (person_, detail["verdict"])
            for person_, action, detail in recorded(database_url)
            if action == "unmask.withdraw"
        ]
        assert withdrawals == [
            (withdrawer.name, "withdrawn"),
            (carol.name, "already_withdrawn"),
        ]
    (request,), now = Unmasking(ann.url).requests()
    assert (request.state(now), request.withdrawn_by) == ("withdrawn", by_person)


def test_a_request_that_is_not_there_is_not_withdrawn(database_url: str, ann: Person) -> None:
    with pytest.raises(UnmaskRefusedError, match="no request of this number"):
        Unmasking(ann.url).withdraw(4711)
    assert_refusal_recorded(database_url, ann, "unmask.withdraw", "unknown_request")


# Looked for


def test_the_database_limits_what_one_look_up_and_one_day_may_ask(
    database_url: str, ann: Person, bob: Person
) -> None:
    alter(
        database_url,
        "UPDATE login_ingest.unmask_policy SET max_find_tokens = 3, max_find_tokens_per_day = 5",
    )
    many = [f"ip:{each:050}" for each in range(4)]
    desk = Unmasking(ann.url)
    with pytest.raises(UnmaskRefusedError, match="in one find"):
        desk.find(IP, many, 10)
    assert_refusal_recorded(database_url, ann, "find", "find_limit_exceeded")
    desk.find(IP, many[:3], 10)
    with pytest.raises(UnmaskRefusedError, match="today"):
        desk.find(IP, many[:3], 10)
    assert_refusal_recorded(database_url, ann, "find", "daily_limit_exceeded")
    desk.find(IP, many[:2], 10)
    Unmasking(bob.url).find(IP, many[:3], 10)
    with pytest.raises(UnmaskRefusedError, match="today"):
        desk.find(IP, many[:1], 10)


def test_look_ups_at_once_do_not_exceed_the_day(database_url: str, ann: Person) -> None:
    alter(database_url, "UPDATE login_ingest.unmask_policy SET max_find_tokens_per_day = 3")

    def look(_: int) -> bool:
        try:
            Unmasking(ann.url).find(IP, TOKENS[:1], 10)
        except UnmaskRefusedError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(look, range(8))) == 3
    assert len(recorded(database_url)) == 8


@pytest.mark.parametrize("tokens", [[], ["192.0.2.7"], TOKENS, ["ip:' OR true --"]])
def test_what_is_no_token_of_the_field_is_not_looked_for_and_not_kept(
    database_url: str, ann: Person, tokens: list[str]
) -> None:
    with pytest.raises(UnmaskRefusedError, match="no token"):
        Unmasking(ann.url).find(IP, tokens, 10)
    assert recorded(database_url)[-1][2] == {"verdict": "invalid_tokens", "count": len(tokens)}


# Off the record


@pytest.mark.parametrize(
    "breakage",
    [
        "REVOKE INSERT ON login_ingest.audit FROM login_ingest_owner",
        "ALTER TABLE login_ingest.audit ADD CONSTRAINT is_full CHECK (false) NOT VALID",
        "DROP FUNCTION login_ingest.record_audit",
        "ALTER TABLE login_ingest.audit RENAME TO gone",
    ],
)
def test_what_cannot_be_recorded_does_not_happen(
    database_url: str, ann: Person, bob: Person, breakage: str
) -> None:
    waiting, ready = Unmasking(ann.url).request(TOKENS, *WHY), approved(ann, bob)
    alter(database_url, breakage)
    for act in (
        lambda: Unmasking(ann.url).request(TOKENS, *WHY),
        lambda: Unmasking(bob.url).approve(waiting, 60),
        lambda: Unmasking(ann.url).reveal(ready),
        lambda: Unmasking(ann.url).withdraw(ready),
        lambda: Unmasking(ann.url).find(IP, TOKENS[:1], 10),
    ):
        with pytest.raises(DatabaseError):
            act()
    states = Unmasking(ann.url).requests()
    assert [each.state(states[1]) for each in states[0]] == ["approved", "waiting"]


def test_what_is_revealed_was_committed_before(
    database_url: str, ann: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = approved(ann, bob)

    def lose(connection: psycopg.Connection) -> None:
        monkeypatch.undo()
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        connection.commit()

    monkeypatch.setattr(psycopg.Connection, "commit", lose)
    with pytest.raises(DatabaseError):
        Unmasking(ann.url).reveal(number)
    assert [action for _, action, _ in recorded(database_url)].count("unmask.reveal") == 0


def test_a_user_who_set_commits_to_be_quick_gets_slow_ones(
    database_url: str, ann: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = approved(ann, bob)
    alter(database_url, f"ALTER ROLE {ann.name} SET synchronous_commit = off")
    seen = []
    commit = psycopg.Connection.commit

    def look(connection: psycopg.Connection) -> None:
        seen.append(connection.execute("SHOW synchronous_commit").fetchone())
        commit(connection)

    monkeypatch.setattr(psycopg.Connection, "commit", look)
    Unmasking(ann.url).reveal(number)
    assert seen == [("on",)]


@pytest.mark.parametrize("role", [RECOVERY, AUDITOR])
def test_nobody_writes_requests_or_limits_but_by_the_functions(
    database_url: str, ann: Person, role: str
) -> None:
    Unmasking(ann.url).request(TOKENS, *WHY)
    with person(database_url, role) as eve:
        for statement in (
            "UPDATE login_ingest.unmask_request SET requester = 'somebody'",
            "UPDATE login_ingest.unmask_request SET expires_at = 'infinity'",
            "INSERT INTO login_ingest.unmask_request (requester) VALUES ('somebody')",
            "DELETE FROM login_ingest.unmask_request",
            "TRUNCATE login_ingest.unmask_request",
            "UPDATE login_ingest.unmask_policy SET max_tokens = 1000000",
            "UPDATE login_ingest.unmask_policy SET max_find_tokens_per_day = 1000000",
            "DELETE FROM login_ingest.unmask_policy",
            "UPDATE login_ingest.quarantine_policy SET min_keep_days = 1",
            "DELETE FROM login_ingest.find_usage",
            "SELECT login_ingest.consume_find_quota(1)",
            "SET ROLE login_ingest_owner",
            "SET SESSION AUTHORIZATION login_ingest_owner",
            "ALTER FUNCTION login_ingest.is_recovery(text) OWNER TO CURRENT_USER",
        ):
            assert sqlstate(eve.url, statement) == "42501", statement


def test_objects_of_the_callers_own_do_not_mislead_the_functions(ann: Person, bob: Person) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)
    with psycopg.connect(ann.url) as connection:
        connection.execute("CREATE TEMP TABLE unmask_policy (max_tokens int, max_minutes int)")
        connection.execute("INSERT INTO unmask_policy VALUES (1000000, 1000000)")
        connection.execute(
            "CREATE FUNCTION pg_temp.is_recovery(person text) RETURNS boolean"
            " LANGUAGE sql RETURN true"
        )
        connection.execute("SET search_path = pg_temp, login_ingest")
        many = [f"ip:{each:050}" for each in range(101)]
        row = connection.execute(
            "SELECT verdict FROM login_ingest.request_unmask(%s, 'why', 'where', 1000)", [many]
        ).fetchone()
        assert row == ("limit_exceeded",)
    with pytest.raises(UnmaskRefusedError):
        Unmasking(bob.url).reveal(number)


def test_approvals_at_once_give_one_approval(database_url: str, ann: Person, bob: Person) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)

    def approve(_: int) -> str:
        try:
            Unmasking(bob.url).approve(number, 60)
        except UnmaskRefusedError as error:
            return str(error)
        return "approved"

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(approve, range(4)))
    assert answers.count("approved") == 1
    assert len(recorded(database_url)) == 5


# The caller's own query


def test_a_query_gives_its_distinct_texts_and_no_more_than_one_over_the_limit(
    ann: Person,
) -> None:
    desk = Unmasking(ann.url)
    many = "SELECT (i % 7)::text, i FROM generate_series(0, 100000) AS i"
    assert desk.first_column(many, 10) == tuple("0123456")
    assert desk.first_column(many, 3) == tuple("0123")
    assert desk.first_column("SELECT NULL::text UNION ALL SELECT 'a%b'", 3) == ("a%b",)


def test_a_query_that_is_not_a_reading_one_for_texts_is_refused(
    database_url: str, ann: Person
) -> None:
    for statement in (
        "SELECT 1",
        "DELETE FROM user_logins",
        "SELECT login_ingest.record_audit('x', 'x')",
        "SELECT 'x'; SELECT 'y'",
        "CREATE TABLE t ()",
        "not sql",
    ):
        with pytest.raises(DatabaseError):
            Unmasking(ann.url).first_column(statement, 10)
    assert recorded(database_url) == []
