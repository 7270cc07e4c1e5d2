"""A database of an early schema, with data in it, is brought to today's: all of it still works."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy
from alembic import command

from fetch_mask_assets.audit.chain import verify_chain
from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.gateways import migrations
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.keyset_change import rotated
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.keys.storage import create_keysets, keysets_at, read_keyring
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.masking.fields import IP
from fetch_mask_assets.operations.md5_upgrade.digests import md5
from fetch_mask_assets.operations.md5_upgrade.postgres import DigestTable, replace_all
from fetch_mask_assets.operations.quarantine.postgres import Choice, Quarantine, Replayed
from fetch_mask_assets.operations.rotation.key_changes import retire
from fetch_mask_assets.operations.rotation.postgres import TokenTable, remask_field
from fetch_mask_assets.operations.unmasking.postgres import Unmasking
from fetch_mask_assets.pipeline.warehouse import database as database_module
from fetch_mask_assets.pipeline.warehouse.database import BatchToCommit, LoginDatabase
from fetch_mask_assets_tests.support.logins import body, masked_batch
from fetch_mask_assets_tests.support.people import Person, person

if TYPE_CHECKING:
    from pathlib import Path

    from fetch_mask_assets.local_stack.stack import Stack

LOADER, RECOVERY = "login_ingest_loader", "login_ingest_recovery"
EARLY = "0007"
VALUE = "10.0.0.1"
DIGEST = md5(VALUE).hex()


@dataclass(frozen=True)
class Old:
    """A database of the early schema that has been used, and who uses it."""

    url: str
    loader: Person
    ann: Person
    bob: Person
    keysets: Path
    before: Keyring
    after: Keyring
    request: int

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What the administrator reads."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement.encode()).fetchall()

    def commit(self, ring: Keyring, *numbers: int) -> None:
        """Commits a batch as the loader."""
        masked = masked_batch(ring, [body(number) for number in numbers])
        batch = BatchToCommit(uuid4().hex, masked, lambda _: b"", batch_links(masked, ring))
        assert LoginDatabase(self.loader.url).commit_batch(batch).loaded == len(numbers)

    def audit_is_whole(self) -> bool:
        """Whether each row of the audit is bound to the one before."""
        return verify_chain(Audit(self.ann.url).rows()).is_whole


@pytest.fixture
def old(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Old]:
    """A database of the early schema, used as its release used it, amid a rotation."""
    name = f"old_{uuid4().hex}"
    server, url = postgres.url(stack.state, postgres.OWNER), postgres.url(stack.state, name)
    _administer(server, f"CREATE DATABASE {name}")
    _upgrade_to(url, EARLY)
    with (
        person(url, LOADER) as loader,
        person(url, RECOVERY) as ann,
        person(url, RECOVERY) as bob,
    ):
        before, after = _keys(tmp_path)
        made = Old(url, loader, ann, bob, tmp_path, before, after, request=1)
        # What that release did not do yet, since the database had no such function.
        with monkeypatch.context() as patch:
            patch.setattr(database_module, "lock_keys", lambda *_: None)
            _use(made)
        yield made
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


KEPT = {
    "user_logins": "user_id, masked_ip, masked_device_id, create_date",
    "login_ingest.token_link": "field, old_token, new_token, linked_at",
    "login_ingest.masking_key": "keyset, key_id, check_value, first_used_at, retired_at",
    "login_ingest.batch": "batch_id, run_id, received, loaded, quarantined, already_known",
    "login_ingest.ledger": "message_id, batch_id, sent_at, app_version",
    "login_ingest.quarantine": "message_id, reason, sealed_body",
    "login_ingest.audit": "audit_id, at, person, action, detail, previous_hash, hash",
    "login_ingest.unmask_request": "request_id, requester, tokens, approver, expires_at",
    "login_ingest.erasure": "erasure_id, person, logins, finished_at, verified",
    "login_ingest.md5_upgrade": "field, space, range_start, range_end",
}


def test_nothing_that_it_held_is_changed(old: Old) -> None:
    before = {table: _held(old, table) for table in KEPT}
    assert all(before.values())
    migrations.upgrade(old.url)
    migrations.upgrade(old.url)
    assert {table: _held(old, table) for table in KEPT} == before


def test_a_note_that_no_upgrade_wrote_is_dropped(old: Old) -> None:
    migrations.upgrade(old.url)
    assert old.rows("SELECT field, digest, new_token FROM login_ingest.md5_match") == [
        ("ip", DIGEST, old.after.ip.mask(VALUE))
    ]


def test_batches_go_on_and_equal_stays_equal(old: Old) -> None:
    migrations.upgrade(old.url)
    old.commit(old.before, 1, 5)
    old.commit(old.after, 1, 3, 5)
    counts = "SELECT user_id, count(*), count(DISTINCT masked_ip), count(DISTINCT masked_device_id)"
    seen = old.rows(
        f"{counts} FROM login_ingest.user_logins_linked WHERE user_id LIKE 'user-_' GROUP BY 1"
    )
    expected = {"user-1": 4, "user-2": 2, "user-3": 2, "user-5": 2}
    assert sorted(seen) == [(user, rows, 1, 1) for user, rows in expected.items()]


def test_what_one_asked_and_another_approved_is_revealed(old: Old) -> None:
    migrations.upgrade(old.url)
    tokens = Unmasking(old.ann.url).reveal(old.request)
    assert [old.before.ip.unmask(token) for token in tokens] == ["192.0.2.1"]
    assert old.audit_is_whole()


def test_what_was_quarantined_is_replayed(old: Old) -> None:
    migrations.upgrade(old.url)
    steps = list(Quarantine(old.ann.url).replay("r1", Choice(), old.after))
    assert steps == [Replayed(1, 1)]
    assert Quarantine(old.ann.url).account().holds


def test_a_rotation_is_finished_and_its_old_keys_are_retired(old: Old) -> None:
    migrations.upgrade(old.url)
    digests = DigestTable(old.ann.url, IP)
    assert replace_all(digests, with_links=True, tell=_nothing).rows == 1
    list(Quarantine(old.ann.url).replay("r1", Choice(), old.after))
    for masker in old.after.maskers:
        remask_field(TokenTable(old.ann.url), masker, _nothing)
    rows = old.rows("SELECT masked_ip FROM user_logins WHERE masked_ip IS NOT NULL")
    originals = {old.after.ip.unmask(token) for (token,) in rows}
    assert {token for (token,) in rows} == {old.after.ip.mask(each) for each in originals}
    assert originals == {VALUE, *(f"192.0.2.{number}" for number in (1, 2, 3, 7))}
    database, keysets = LoginDatabase(old.ann.url), keysets_at(str(old.keysets))
    for masker in old.before.maskers:
        retire(database, keysets, masker.field.name, masker.primary_key_id)
    with pytest.raises(DatabaseError, match="was retired"):
        old.commit(old.before, 8)
    old.commit(old.after, 8)
    actions = [row.action for row in Audit(old.ann.url).rows()]
    assert actions[-2:] == ["keys.retire"] * 2
    assert old.audit_is_whole()


def _use(old: Old) -> None:
    """Logins, links, quarantine, a request, a certificate, notes of an upgrade from MD5."""
    _register(old.loader.url, old.before)
    old.commit(old.before, 1, 2, 3)
    _register(old.loader.url, old.after)
    old.commit(old.after, 1, 2)
    login = _quarantine(old)[-1]
    sealed = old.before.sealer.seal(body(7), login)
    with psycopg.connect(old.url) as connection:
        connection.execute(
            "UPDATE login_ingest.quarantine SET sealed_body = %s WHERE message_id = %s",
            [sealed, login],
        )
        connection.execute(
            "INSERT INTO user_logins (user_id, masked_ip) VALUES ('u', %s)", [DIGEST]
        )
    token = old.before.ip.mask("192.0.2.1")
    assert Unmasking(old.ann.url).request([token], "account takeover", "T-1", 9) == old.request
    Unmasking(old.bob.url).approve(old.request, 60)
    with psycopg.connect(old.ann.url) as connection:
        for statement in _ERASURE:
            connection.execute(statement)
        connection.execute(_NOTES, [old.after.ip.mask(VALUE), DIGEST, VALUE])
        connection.execute(_TRIED)


_ERASURE = (
    "SELECT login_ingest.begin_erasure('e1', 'user', 1, 'asked for', 'T-2')",
    "SELECT login_ingest.erase_users('e1', '{user-99}', 10)",
    "SELECT login_ingest.finish_erasure('e1', 0, 0)",
)
_NOTES = """
INSERT INTO login_ingest.md5_match (field, new_token, digest)
VALUES ('ip', %s, %s), ('ip', 'no token', %s)
"""
_TRIED = "INSERT INTO login_ingest.md5_upgrade VALUES ('ip', 'ipv4', 0, 256, 1)"


def _quarantine(old: Old) -> list[str]:
    ids = sorted([uuid4().hex, uuid4().hex])
    masked = masked_batch(old.before, ["junk", "junk"], ids)
    batch = BatchToCommit(uuid4().hex, masked, lambda _: b"")
    assert LoginDatabase(old.loader.url).commit_batch(batch).quarantined == len(ids)
    return ids


def _register(url: str, ring: Keyring) -> None:
    """As that release did it."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO login_ingest.masking_key (keyset, key_id, check_value)"
            " VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            [
                (name, key_id, check)
                for name, checks in ring.check_values.items()
                for key_id, check in checks.items()
            ],
        )


def _keys(directory: Path) -> tuple[Keyring, Keyring]:
    """The keyrings before and after a rotation of both fields, which the directory then has."""
    create_keysets(directory)
    before, keysets = read_keyring(directory), keysets_at(str(directory))
    for name in ("ip", "device_id"):
        keysets.replace(name, rotated(name, keysets.read(name)).keyset)
    return before, read_keyring(directory)


def _held(old: Old, table: str) -> list[str]:
    columns = KEPT[table]
    lines = old.rows(f"SELECT {columns} FROM {table} ORDER BY {columns}")
    return [str(line) for line in lines]


def _upgrade_to(url: str, revision: str) -> None:
    engine = migrations._engine(url)  # noqa: SLF001 (the product only goes to the head)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA {migrations.SCHEMA}"))
        config = migrations._config()  # noqa: SLF001 (the product only goes to the head)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _administer(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def _nothing(_: object) -> None:
    pass
