"""Unmasking needs two people, an approval that has not expired, and an audit record."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fetch_mask_assets.audit.chain import verify_chain
from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.masking.fields import IP
from fetch_mask_assets.operations.unmasking.postgres import Unmasking
from fetch_mask_assets.operations.unmasking.verdicts import UnmaskRefusedError
from fetch_mask_assets_tests.support.people import Person, person, sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator

RECOVERY = "login_ingest_recovery"
AUDITOR = "login_ingest_auditor"
TOKENS = ["ip:" + "A" * 50, "device_id:" + "B" * 50]
WHY = ("account takeover", "SEC-12", 100)


@pytest.fixture
def ann(database_url: str) -> Iterator[Person]:
    """A member of login_ingest_recovery."""
    with person(database_url, RECOVERY) as member:
        yield member


@pytest.fixture
def bob(database_url: str) -> Iterator[Person]:
    """Another member of login_ingest_recovery."""
    with person(database_url, RECOVERY) as member:
        yield member


def approved(ann: Person, bob: Person, tokens: list[str] | None = None) -> int:
    number = Unmasking(ann.url).request(tokens or TOKENS, *WHY)
    Unmasking(bob.url).approve(number, 60)
    return number


def recorded(url: str) -> list[tuple[str, str, dict[str, Any]]]:
    """The actor, action and detail of each audit row; the chain is intact."""
    assert verify_chain(Audit(url).rows()).is_whole
    return [(row.actor, row.action, json.loads(row.detail)) for row in Audit(url).rows()]


def assert_refusal_recorded(url: str, who: Person, action: str, verdict: str) -> None:
    person_, action_, detail = recorded(url)[-1]
    assert (person_, action_, detail["verdict"]) == (who.name, action, verdict)
    assert detail.get("sha256") is None


def alter(database_url: str, statement: str) -> None:
    """Run a statement as the administrator."""
    with psycopg.connect(database_url) as connection:
        connection.execute(statement.encode())


# Request, approve, reveal


def test_the_requester_gets_the_tokens_once_another_person_has_approved(
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
    digests = [sha256(token.encode()).hexdigest() for token in TOKENS]
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


# Refusals are recorded


def test_the_requester_cannot_approve_the_request(database_url: str, ann: Person) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)
    with pytest.raises(UnmaskRefusedError, match="your own request"):
        Unmasking(ann.url).approve(number, 60)
    assert_refusal_recorded(database_url, ann, "unmask.approve", "own_request")
    with pytest.raises(UnmaskRefusedError, match="is not approved"):
        Unmasking(ann.url).reveal(number)


def test_set_role_does_not_make_a_second_person(database_url: str, ann: Person) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)
    with psycopg.connect(ann.url) as connection:
        connection.execute("SET ROLE login_ingest_recovery")
        row = connection.execute(
            "SELECT verdict, session_user, current_user"
            " FROM login_ingest.approve_unmask_request(%s, 60)",
            [number],
        ).fetchone()
    assert row == ("own_request", ann.name, RECOVERY)
    assert_refusal_recorded(database_url, ann, "unmask.approve", "own_request")


def test_a_request_is_not_revealed_before_its_approval(database_url: str, ann: Person) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)
    with pytest.raises(UnmaskRefusedError, match="is not approved"):
        Unmasking(ann.url).reveal(number)
    assert_refusal_recorded(database_url, ann, "unmask.reveal", "not_approved")


def test_an_approval_expires(database_url: str, ann: Person, bob: Person) -> None:
    number = approved(ann, bob)
    alter(database_url, "UPDATE login_ingest.unmask_request SET expires_at = clock_timestamp()")
    with pytest.raises(UnmaskRefusedError, match="has expired"):
        Unmasking(ann.url).reveal(number)
    assert_refusal_recorded(database_url, ann, "unmask.reveal", "expired")
    Unmasking(bob.url).approve(number, 60)
    assert Unmasking(ann.url).reveal(number) == tuple(TOKENS)


def test_the_approver_cannot_reveal_the_request(
    database_url: str, ann: Person, bob: Person
) -> None:
    number = approved(ann, bob)
    with pytest.raises(UnmaskRefusedError, match="only the requester"):
        Unmasking(bob.url).reveal(number)
    assert_refusal_recorded(database_url, bob, "unmask.reveal", "not_the_requester")


@pytest.mark.parametrize("number", [1, 0, -1, 2**63 - 1])
def test_an_unknown_request_is_refused(database_url: str, ann: Person, number: int) -> None:
    with pytest.raises(UnmaskRefusedError, match="no request has this id"):
        Unmasking(ann.url).approve(number, 60)
    assert_refusal_recorded(database_url, ann, "unmask.approve", "unknown_request")
    with pytest.raises(UnmaskRefusedError, match="no request has this id"):
        Unmasking(ann.url).reveal(number)
    assert_refusal_recorded(database_url, ann, "unmask.reveal", "unknown_request")


def test_more_tokens_than_the_environment_allows_are_refused(
    database_url: str, ann: Person
) -> None:
    with pytest.raises(UnmaskRefusedError, match="more tokens"):
        Unmasking(ann.url).request(TOKENS, "why", "where", 1)
    assert_refusal_recorded(database_url, ann, "unmask.request", "limit_exceeded")


def test_the_environment_cannot_raise_the_limit_of_the_database(
    database_url: str, ann: Person
) -> None:
    many = [f"ip:{number:050}" for number in range(101)]
    with pytest.raises(UnmaskRefusedError, match="more tokens"):
        Unmasking(ann.url).request(many, "why", "where", 10_000)
    assert_refusal_recorded(database_url, ann, "unmask.request", "limit_exceeded")
    Unmasking(ann.url).request(many[:100], "why", "where", 10_000)


def test_a_limit_lowered_after_the_approval_applies_to_the_reveal(
    database_url: str, ann: Person, bob: Person
) -> None:
    number = approved(ann, bob)
    alter(database_url, "UPDATE login_ingest.unmask_policy SET max_tokens = 1")
    with pytest.raises(UnmaskRefusedError, match="more tokens"):
        Unmasking(ann.url).reveal(number)
    assert_refusal_recorded(database_url, ann, "unmask.reveal", "limit_exceeded")


def test_everything_is_refused_without_a_policy_row(
    database_url: str, ann: Person, bob: Person
) -> None:
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
def test_an_approval_lasts_no_longer_than_the_policy_allows(
    database_url: str, ann: Person, bob: Person, minutes: int
) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)
    with pytest.raises(UnmaskRefusedError, match="at most max_minutes"):
        Unmasking(bob.url).approve(number, minutes)
    assert_refusal_recorded(database_url, bob, "unmask.approve", "too_long")


def test_an_approval_cannot_be_extended_before_it_expires(
    database_url: str, ann: Person, bob: Person
) -> None:
    number = approved(ann, bob)
    with pytest.raises(UnmaskRefusedError, match="already approved"):
        Unmasking(bob.url).approve(number, 480)
    assert_refusal_recorded(database_url, bob, "unmask.approve", "already_approved")


def test_an_approval_ends_with_the_membership_of_its_approver(
    database_url: str, ann: Person
) -> None:
    with person(database_url, RECOVERY) as carol:
        number = approved(ann, carol)
        alter(database_url, f"REVOKE {RECOVERY} FROM {carol.name}")
        with pytest.raises(UnmaskRefusedError, match="two different people"):
            Unmasking(ann.url).reveal(number)
    with pytest.raises(UnmaskRefusedError, match="two different people"):
        Unmasking(ann.url).reveal(number)
    assert_refusal_recorded(database_url, ann, "unmask.reveal", "second_person_required")


def test_a_requester_without_membership_gets_no_approval_and_no_originals(
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
def test_unmasking_is_refused_without_the_recovery_role(
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
def test_the_database_refuses_an_invalid_token_and_does_not_record_it(
    database_url: str, ann: Person, tokens: list[str]
) -> None:
    with pytest.raises(UnmaskRefusedError, match="no token"):
        Unmasking(ann.url).request(tokens, *WHY)
    assert_refusal_recorded(database_url, ann, "unmask.request", "invalid_tokens")
    assert recorded(database_url)[-1][2] == {"verdict": "invalid_tokens", "count": len(tokens)}


@pytest.mark.parametrize("words", ["", "  ", "\t", "two\nlines", "\x1b[2J", "x" * 501])
def test_a_reason_and_a_ticket_are_one_line_of_text(
    database_url: str, ann: Person, words: str
) -> None:
    for reason, ticket in [(words, "SEC-12"), ("why", words)]:
        with pytest.raises(UnmaskRefusedError, match="reason and a ticket"):
            Unmasking(ann.url).request(TOKENS, reason, ticket, 100)
        assert_refusal_recorded(database_url, ann, "unmask.request", "reason_required")


# Withdrawals


@pytest.mark.parametrize("who", ["requester", "approver", "another"])
def test_every_member_of_recovery_can_withdraw_a_request_permanently(
    database_url: str, ann: Person, bob: Person, who: str
) -> None:
    number = approved(ann, bob)
    with person(database_url, RECOVERY) as carol:
        withdrawer = {"requester": ann, "approver": bob, "another": carol}[who]
        withdrawal = Unmasking(withdrawer.url).withdraw(number)
        assert withdrawal.withdrawn_by == withdrawer.name
        assert Unmasking(carol.url).withdraw(number) == withdrawal

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
    assert (request.state(now), request.withdrawn_by) == ("withdrawn", withdrawal.withdrawn_by)


def test_an_unknown_request_cannot_be_withdrawn(database_url: str, ann: Person) -> None:
    with pytest.raises(UnmaskRefusedError, match="no request has this id"):
        Unmasking(ann.url).withdraw(4711)
    assert_refusal_recorded(database_url, ann, "unmask.withdraw", "unknown_request")


# Finds


def test_the_database_limits_the_tokens_of_a_find_and_of_a_day(
    database_url: str, ann: Person, bob: Person
) -> None:
    alter(
        database_url,
        "UPDATE login_ingest.unmask_policy SET max_find_tokens = 3, max_find_tokens_per_day = 5",
    )
    many = [f"ip:{each:050}" for each in range(4)]
    unmasking = Unmasking(ann.url)
    with pytest.raises(UnmaskRefusedError, match="in one find"):
        unmasking.find(IP, many, 10)
    assert_refusal_recorded(database_url, ann, "find.search", "find_limit_exceeded")
    unmasking.find(IP, many[:3], 10)
    with pytest.raises(UnmaskRefusedError, match="today"):
        unmasking.find(IP, many[:3], 10)
    assert_refusal_recorded(database_url, ann, "find.search", "daily_limit_exceeded")
    unmasking.find(IP, many[:2], 10)
    Unmasking(bob.url).find(IP, many[:3], 10)
    with pytest.raises(UnmaskRefusedError, match="today"):
        unmasking.find(IP, many[:1], 10)


def test_concurrent_finds_do_not_exceed_the_daily_limit(database_url: str, ann: Person) -> None:
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
def test_a_find_for_an_invalid_token_is_refused_and_does_not_record_it(
    database_url: str, ann: Person, tokens: list[str]
) -> None:
    with pytest.raises(UnmaskRefusedError, match="no token"):
        Unmasking(ann.url).find(IP, tokens, 10)
    assert recorded(database_url)[-1][2] == {"verdict": "invalid_tokens", "count": len(tokens)}


# Without a record


@pytest.mark.parametrize(
    "breakage",
    [
        "REVOKE INSERT ON login_ingest.audit FROM login_ingest_owner",
        "ALTER TABLE login_ingest.audit ADD CONSTRAINT is_full CHECK (false) NOT VALID",
        "DROP FUNCTION login_ingest.record_audit",
        "ALTER TABLE login_ingest.audit RENAME TO gone",
    ],
)
def test_nothing_happens_when_the_audit_cannot_be_written(
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


def test_no_tokens_are_returned_when_the_commit_fails(
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


def test_a_reveal_commits_synchronously_whatever_the_role_sets(
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
def test_requests_and_limits_are_written_by_the_functions_only(
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
            "ALTER FUNCTION login_ingest.is_recovery_member(text) OWNER TO CURRENT_USER",
        ):
            assert sqlstate(eve.url, statement) == "42501", statement


def test_temporary_objects_do_not_shadow_those_of_the_functions(ann: Person, bob: Person) -> None:
    number = Unmasking(ann.url).request(TOKENS, *WHY)
    with psycopg.connect(ann.url) as connection:
        connection.execute("CREATE TEMP TABLE unmask_policy (max_tokens int, max_minutes int)")
        connection.execute("INSERT INTO unmask_policy VALUES (1000000, 1000000)")
        connection.execute(
            "CREATE FUNCTION pg_temp.is_recovery_member(p_role text) RETURNS boolean"
            " LANGUAGE sql RETURN true"
        )
        connection.execute("SET search_path = pg_temp, login_ingest")
        many = [f"ip:{each:050}" for each in range(101)]
        row = connection.execute(
            "SELECT verdict FROM login_ingest.create_unmask_request(%s, 'why', 'where', 1000)",
            [many],
        ).fetchone()
        assert row == ("limit_exceeded",)
    with pytest.raises(UnmaskRefusedError):
        Unmasking(bob.url).reveal(number)


def test_concurrent_approvals_give_one_approval(
    database_url: str, ann: Person, bob: Person
) -> None:
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


# Tokens from a query


def test_a_query_returns_its_distinct_texts_up_to_one_over_the_limit(
    ann: Person,
) -> None:
    unmasking = Unmasking(ann.url)
    many = "SELECT (i % 7)::text, i FROM generate_series(0, 100000) AS i"
    assert unmasking.first_column(many, 10) == tuple("0123456")
    assert unmasking.first_column(many, 3) == tuple("0123")
    assert unmasking.first_column("SELECT NULL::text UNION ALL SELECT 'a%b'", 3) == ("a%b",)


def test_a_query_that_is_not_one_select_of_texts_is_refused(database_url: str, ann: Person) -> None:
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
