"""The tests that run with the scratch copy.

It has a masked session_id, a clear os_version, and an optional masked household_id.

`test_added_field.py` runs them in a process of their own.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

import fetch_mask_assets
from fetch_mask_assets.cli.main import cli
from fetch_mask_assets.definitions import defs
from fetch_mask_assets.defs.assets import MASKED_LOGINS, USER_LOGINS
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.keyset_change import rotated
from fetch_mask_assets.keys.links import TokenLink, batch_links
from fetch_mask_assets.masking.fields import masked_field
from fetch_mask_assets.masking.token import token_key_id
from fetch_mask_assets.operations.erasure.subjects import parse_subjects
from fetch_mask_assets.operations.md5_upgrade.spaces import plan_searches
from fetch_mask_assets.operations.rotation.remask_plan import plan_remask
from fetch_mask_assets.operations.rotation.token_ranges import ranges_under
from fetch_mask_assets.operations.unmasking.find import find_queries
from fetch_mask_assets.operations.unmasking.requests import parse_tokens
from fetch_mask_assets.operations.unmasking.reveal import reveal_tokens
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS, MASKED_SCHEMA, mask_batch
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch
from fetch_mask_assets.pipeline.batch.masking_rules import broken_rules, quarantine_violations
from fetch_mask_assets.pipeline.contract.body_profile import body_profile
from fetch_mask_assets.pipeline.contract.login_event import decode_login_event
from fetch_mask_assets.pipeline.contract.rejection import Reason, Rejection
from fetch_mask_assets_tests.support.declared_fields import max_token_length, min_token_length
from fetch_mask_assets_tests.support.factories import body, raw_batch

SESSION = "session-4711-4711"
OTHER_SESSION = "session-0815-0815"


@cache
def keysets() -> dict[str, str]:
    return {name: new_keyset(name) for name in KEYSET_NAMES}


@cache
def keyring() -> Keyring:
    return open_keyring(keysets())


@cache
def rotated_keyring() -> Keyring:
    newer = rotated("session_id", keysets()["session_id"]).keyset
    return open_keyring(keysets() | {"session_id": newer})


def login(**changes: object) -> str:
    return body(**{"session_id": SESSION, "os_version": "14.2", **changes})


def masked(*bodies: str) -> MaskedBatch:
    raw = raw_batch(bodies)
    return MaskedBatch(raw, mask_batch(raw, keyring()), keyring())


def test_these_tests_run_with_the_scratch_copy() -> None:
    assert Path(fetch_mask_assets.__file__).is_relative_to(os.environ["SCRATCH_COPY"])


def test_the_contract_takes_the_fields() -> None:
    event = decode_login_event(login())

    assert not isinstance(event, Rejection)
    assert (event.values["session_id"], event.values["os_version"]) == (SESSION, "14.2")
    assert event.extra_fields == 0


@pytest.mark.parametrize(
    ("text", "reason", "field"),
    [
        (body(), Reason.MISSING, "session_id"),
        (login(session_id=None), Reason.NULL, "session_id"),
        (login(session_id=" "), Reason.BLANK, "session_id"),
        (login(session_id=17), Reason.WRONG_TYPE, "session_id"),
        (login(session_id="x" * 65), Reason.TOO_LONG, "session_id"),
        (login(session_id="😀" * 33), Reason.TOO_LONG, "session_id"),
        (login(os_version="x" * 33), Reason.TOO_LONG, "os_version"),
        (login(os_version=f"of {SESSION}"), Reason.REPEATS_MASKED_VALUE, "os_version"),
        (login(user_id=SESSION), Reason.REPEATS_MASKED_VALUE, "user_id"),
    ],
)
def test_the_contract_rejects_what_breaks_it(text: str, reason: Reason, field: str) -> None:
    assert decode_login_event(text) == Rejection(reason, field)


def test_an_optional_field_may_be_missing() -> None:
    actual = masked(body(session_id=SESSION)).masked

    assert actual["os_version"].to_list() == [None]
    assert actual["reason"].null_count() == 1


def test_the_frames_have_the_columns() -> None:
    assert {"masked_session_id", "os_version"} <= set(LOGIN_COLUMNS)
    assert masked(login()).masked.schema == MASKED_SCHEMA


def test_a_session_is_masked_and_the_batch_keeps_every_rule() -> None:
    batch = masked(login(), login(session_id=OTHER_SESSION), login(user_id="u-2"), "{}")
    one, other, again, rejected = batch.masked["masked_session_id"]

    assert one == again != other
    assert one.startswith("session_id:")
    assert rejected is None
    assert keyring().masker("session_id").unmask(one) == SESSION
    assert SESSION not in str(batch.masked.rows())
    assert broken_rules(batch) == {}


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("os_version", SESSION, "no_raw_value"),
        ("masked_session_id", SESSION, "no_raw_value"),
        ("masked_session_id", "session_id:x", "tokens_well_formed"),
        ("masked_session_id", None, "every_message_accounted_for"),
        (
            "masked_session_id",
            keyring().masker("session_id").mask("another"),
            "tokens_can_be_unmasked",
        ),
    ],
    ids=["raw", "raw as token", "no token", "lost", "of another value"],
)
def test_a_rule_finds_what_is_done_to_a_session(column: str, value: str | None, rule: str) -> None:
    good = masked(login(), login(session_id=OTHER_SESSION))
    cells = pl.Series(column, [value, good.masked[column][1]], pl.String)
    bad = MaskedBatch(good.raw, good.masked.with_columns(cells), good.keyring)

    assert broken_rules(bad)[rule] > 0


def test_an_optional_masked_field_may_be_missing_and_then_has_no_token() -> None:
    batch = masked(login(household_id="house-4711"), login(), login(household_id=None))
    token, missing, null = batch.masked["masked_household_id"]

    assert keyring().masker("household_id").unmask(token) == "house-4711"
    assert missing is null is None
    assert batch.masked["reason"].null_count() == 3
    assert broken_rules(batch) == {}
    assert batch_links(batch.masked, rotated_keyring()) != ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [(" ", Reason.BLANK), ("x" * 65, Reason.TOO_LONG), ("😀" * 33, Reason.TOO_LONG)],
)
def test_an_optional_masked_field_is_checked_where_it_is_sent(text: str, reason: Reason) -> None:
    decoded = decode_login_event(login(household_id=text))

    assert decoded == Rejection(reason, "household_id")


@pytest.mark.parametrize("row", [0, 1], ids=["token lost", "token of nothing"])
def test_a_rule_finds_a_token_without_a_value_and_a_value_without_a_token(row: int) -> None:
    good = masked(login(household_id="house-4711"), login(), login(household_id="house-4711"))
    cells = good.masked["masked_household_id"].to_list()
    cells[row] = None if row == 0 else cells[0]
    column = pl.Series("masked_household_id", cells, pl.String)
    bad = MaskedBatch(good.raw, good.masked.with_columns(column), good.keyring)

    assert broken_rules(bad) == {"tokens_can_be_unmasked": 1}
    assert (
        quarantine_violations(bad, broken_rules(bad))["reason"].to_list()[row]
        == Reason.BREAKS_MASKING_RULE
    )


def test_a_token_has_the_lengths_that_the_migration_states() -> None:
    field = masked_field("session_id")
    tokens = [keyring().masker("session_id").mask(text) for text in ("x", "x" * 64, "😀" * 32)]

    assert (min_token_length(field), max_token_length(field)) == (61, 256)
    assert min_token_length(field) == min(map(len, tokens))
    assert max(map(len, tokens)) <= max_token_length(field)


def test_a_rotation_links_and_replaces_its_tokens() -> None:
    old, new = (ring.masker("session_id") for ring in (keyring(), rotated_keyring()))
    link = TokenLink("session_id", old.mask(SESSION), new.mask(SESSION))
    batch = mask_batch(raw_batch([login()]), rotated_keyring())

    assert batch_links(batch, rotated_keyring()) == (link,)
    assert plan_remask(new, [link.old_token]).replacements == {link.old_token: link.new_token}
    assert token_key_id(old.field, link.old_token) == old.primary_key_id
    ranges = ranges_under(old.field, old.primary_key_id)
    assert any(each.low <= link.old_token < (each.high or "") for each in ranges)


def test_a_session_is_found_unmasked_and_erased_under_every_key() -> None:
    masker = rotated_keyring().masker("session_id")
    tokens = {keyring().masker("session_id").mask(SESSION), masker.mask(SESSION)}
    [query] = find_queries(masker, [SESSION], 10)
    opened = reveal_tokens(parse_tokens(tokens, 10), rotated_keyring().maskers)
    subjects = parse_subjects("session_id", [SESSION])

    assert set(query.tokens) == tokens
    assert [each.original for each in opened] == [SESSION, SESSION]
    assert tokens <= set(subjects.tokens(rotated_keyring()))
    assert subjects.matcher()(login())
    assert not subjects.matcher()(login(session_id=OTHER_SESSION))
    assert (subjects.kind, subjects.values) == ("session_id", (SESSION,))


def test_a_digest_of_a_session_can_be_sought() -> None:
    [search] = plan_searches(
        masked_field("session_id"), networks=(), patterns=["NNN-NNN"], only_given=True
    )

    assert search.size == 10**6


def test_the_profile_of_a_quarantined_body_names_the_fields() -> None:
    assert body_profile(json.dumps({"session_id": 1, "os_version": 2})) == "os_version,session_id"


@pytest.mark.parametrize("command", ["find", "erase"])
def test_a_command_has_its_option(command: str) -> None:
    shown = CliRunner().invoke(cli, [command, "--help"]).output

    assert "--session-id" in shown
    assert "session ids." in shown


def test_the_commands_for_keys_have_its_keyset() -> None:
    assert "session_id" in CliRunner().invoke(cli, ["keys", "rotate", "--help"]).output


def test_the_assets_document_its_columns() -> None:
    graph = defs.resolve_asset_graph()
    described = {
        key: {each.name: each for each in graph.get(key).metadata["dagster/column_schema"].columns}
        for key in (MASKED_LOGINS, USER_LOGINS)
    }

    for columns in described.values():
        assert "session id" in (columns["masked_session_id"].description or "")
        assert columns["os_version"].description == "The version of the operating system, or null."
    table = described[USER_LOGINS]
    assert (table["masked_session_id"].type, table["os_version"].type) == (
        "varchar(256)",
        "varchar(32)",
    )
