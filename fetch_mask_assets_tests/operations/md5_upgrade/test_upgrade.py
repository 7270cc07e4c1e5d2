"""An upgrade from MD5 replaces recovered digests, after any interruption, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from fetch_mask_assets.errors import DatabaseError
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.masking.fields import DEVICE_ID, IP, MaskedField
from fetch_mask_assets.operations.md5_upgrade import postgres as md5_postgres
from fetch_mask_assets.operations.md5_upgrade.md5 import md5
from fetch_mask_assets.operations.md5_upgrade.postgres import (
    DigestTable,
    ReplaceCount,
    UpgradeRunningError,
    drop_links,
    upgrade_lease,
)
from fetch_mask_assets.operations.md5_upgrade.spaces import IPV4, Search, pattern_space
from fetch_mask_assets.operations.md5_upgrade.spans import Span
from fetch_mask_assets.operations.md5_upgrade.token_search import (
    SearchPlan,
    clear_progress,
    count_recoverable,
    find_tokens,
    remaining_plan,
)
from fetch_mask_assets.operations.md5_upgrade.upgrade import replace_all
from fetch_mask_assets.operations.md5_upgrade.values_file import ValuesFileError
from fetch_mask_assets_tests.support.kinds import BOTH_KINDS
from fetch_mask_assets_tests.support.logins import register
from fetch_mask_assets_tests.support.people import person

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from fetch_mask_assets.keys.keyset import Keyring

NET = 10 << 24
"""The number of 10.0.0.0; the tests try the first few thousand addresses after it."""

SOME_ADDRESSES = SearchPlan((Search(IPV4, (Span(NET, NET + 5_000),)),), None, 1)


@pytest.fixture
def keyring(keysets_directory: Path, database_url: str) -> Keyring:
    """The test's own keys, registered in its database."""
    keyring = read_keyring(keysets_directory)
    register(database_url, keyring)
    return keyring


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    """The test's own database, as a member of recovery."""
    with person(database_url, "login_ingest_recovery") as steward:
        yield steward.url


@pytest.fixture
def addresses(url: str) -> DigestTable:
    """The IPs of the test's table."""
    return DigestTable(url, IP)


def _fill(database_url: str, column: str, texts: Iterable[str | None]) -> None:
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        statement = f"INSERT INTO user_logins (user_id, {column}) VALUES ('somebody', %s)"
        cursor.executemany(statement.encode(), [[text] for text in texts])


def _column(database_url: str, column: str) -> list[str | None]:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(f"SELECT {column} FROM user_logins".encode())
        return [text for (text,) in rows]


def _links(database_url: str) -> dict[str, str]:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT old_token, new_token FROM login_ingest.token_link")
        return dict(rows.fetchall())


def _hex(text: str) -> str:
    return md5(text).hex()


def _nothing(_: object) -> None:
    pass


@BOTH_KINDS
def test_digests_become_tokens_that_unmask_in_every_row(
    database_url: str, addresses: DigestTable, keyring: Keyring
) -> None:
    _fill(database_url, "masked_ip", [_hex("10.0.0.1"), _hex("10.0.0.1"), _hex("10.0.19.135")])
    assert find_tokens(addresses, keyring.masker("ip"), SOME_ADDRESSES, _nothing) == 2
    assert replace_all(addresses, with_links=True, on_progress=_nothing) == ReplaceCount(2, 3)
    tokens = [token for token in _column(database_url, "masked_ip") if token]
    assert sorted(map(keyring.masker("ip").unmask, tokens)) == [
        "10.0.0.1",
        "10.0.0.1",
        "10.0.19.135",
    ]
    assert _links(database_url)[_hex("10.0.0.1")] == keyring.masker("ip").mask("10.0.0.1")


def test_other_texts_and_the_other_field_stay_unchanged(
    database_url: str, addresses: DigestTable, keyring: Keyring
) -> None:
    others = [
        None,
        keyring.masker("ip").mask("10.0.0.1"),
        _hex("beyond"),
        "10.0.0.1",
        _hex("10.0.0.1")[:31],
    ]
    mixed = _hex("10.0.0.2").replace("a", "A", 1)
    _fill(database_url, "masked_ip", [*others, mixed, _hex("10.0.0.3")])
    _fill(database_url, "masked_device_id", [_hex("10.0.0.3")])
    find_tokens(addresses, keyring.masker("ip"), SOME_ADDRESSES, _nothing)
    replace_all(addresses, with_links=True, on_progress=_nothing)
    left = _column(database_url, "masked_ip")
    assert [text in left for text in [*others, mixed]] == [True] * 6
    assert keyring.masker("ip").mask("10.0.0.3") in left
    assert _hex("10.0.0.3") in _column(database_url, "masked_device_id")
    assert (addresses.count().digests, addresses.count().rows) == (1, 1)


@BOTH_KINDS
def test_upper_case_digests_are_recovered_and_each_spelling_is_linked(
    database_url: str, addresses: DigestTable, keyring: Keyring
) -> None:
    spellings = [_hex("10.0.0.1").upper(), _hex("10.0.0.1"), _hex("10.0.0.2").upper()]
    _fill(database_url, "masked_ip", spellings)
    # A digest in both letter cases is one digest.
    assert (addresses.count().digests, addresses.count().rows) == (2, 3)
    assert count_recoverable(addresses.digests(), SOME_ADDRESSES, _nothing) == 2
    find_tokens(addresses, keyring.masker("ip"), SOME_ADDRESSES, _nothing)
    assert replace_all(addresses, with_links=True, on_progress=_nothing) == ReplaceCount(2, 3)
    assert _links(database_url).keys() == set(spellings)


def test_without_links_no_digest_stays_in_the_database(
    database_url: str, addresses: DigestTable, keyring: Keyring
) -> None:
    _fill(database_url, "masked_ip", [_hex("10.0.0.1")])
    find_tokens(addresses, keyring.masker("ip"), SOME_ADDRESSES, _nothing)
    replace_all(addresses, with_links=False, on_progress=_nothing)
    assert _links(database_url) == {}
    assert addresses.digests() == b""
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM login_ingest.md5_match").fetchall() == [
            (0,)
        ]


def test_links_from_md5_can_be_dropped_and_others_stay(
    database_url: str, url: str, addresses: DigestTable, keyring: Keyring
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO login_ingest.token_link VALUES ('ip', 'ip:old', 'ip:new', now())"
        )
    _fill(database_url, "masked_ip", [_hex("10.0.0.1"), _hex("10.0.0.2").upper()])
    find_tokens(addresses, keyring.masker("ip"), SOME_ADDRESSES, _nothing)
    replace_all(addresses, with_links=True, on_progress=_nothing)
    assert drop_links(url) == 2
    assert _links(database_url) == {"ip:old": "ip:new"}


def test_device_ids_of_a_pattern_and_of_a_file_are_found(
    database_url: str, url: str, keyring: Keyring, tmp_path: Path
) -> None:
    table = DigestTable(url, DEVICE_ID)
    _fill(database_url, "masked_device_id", [_hex("123-456"), _hex("gerät 7"), _hex("999-999")])
    space = pattern_space("NNN-NNN")
    plan = SearchPlan(
        (Search(space, (Span(0, space.size),)),), _private(tmp_path, "\ngerät 7\r\nelse\n"), 2
    )
    assert find_tokens(table, keyring.masker("device_id"), plan, _nothing) == 3
    replace_all(table, with_links=True, on_progress=_nothing)
    assert set(_column(database_url, "masked_device_id")) == {
        keyring.masker("device_id").mask(each) for each in ("123-456", "gerät 7", "999-999")
    }


def test_the_digest_of_a_value_that_is_invalid_for_the_field_is_kept(
    database_url: str, addresses: DigestTable, keyring: Keyring, tmp_path: Path
) -> None:
    _fill(database_url, "masked_ip", [_hex("unknown"), _hex("2001:db8::1")])
    plan = SearchPlan((), _private(tmp_path, "unknown\n2001:db8::1\n"), 1)
    assert find_tokens(addresses, keyring.masker("ip"), plan, _nothing) == 1
    replace_all(addresses, with_links=True, on_progress=_nothing)
    assert set(_column(database_url, "masked_ip")) == {
        _hex("unknown"),
        keyring.masker("ip").mask("2001:db8::1"),
    }


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o700])
def test_a_file_of_values_that_other_users_can_read_is_refused(
    database_url: str, addresses: DigestTable, keyring: Keyring, tmp_path: Path, mode: int
) -> None:
    _fill(database_url, "masked_ip", [_hex("10.0.0.1")])
    path = _private(tmp_path, "10.0.0.1\n")
    path.chmod(mode)
    with pytest.raises(ValuesFileError, match="0600 or stricter"):
        find_tokens(addresses, keyring.masker("ip"), SearchPlan((), path, 1), _nothing)


def test_a_line_that_is_not_utf8_is_reported_by_its_number_only(
    database_url: str, addresses: DigestTable, keyring: Keyring, tmp_path: Path
) -> None:
    _fill(database_url, "masked_ip", [_hex("10.0.0.1")])
    path = _private(tmp_path, "10.9.9.9\n")
    path.write_bytes(b"10.9.9.9\n10.9.9.8\xff\n")
    with pytest.raises(ValuesFileError) as refusal:
        find_tokens(addresses, keyring.masker("ip"), SearchPlan((), path, 1), _nothing)
    assert "line 2" in str(refusal.value)
    assert "10.9" not in str(refusal.value)


def test_an_upgrade_stopped_before_the_replacement_continues_from_its_recorded_matches(
    database_url: str, addresses: DigestTable, keyring: Keyring
) -> None:
    _fill(database_url, "masked_ip", [_hex("10.0.0.1"), _hex("10.0.1.0")])
    first = SearchPlan((Search(IPV4, (Span(NET, NET + 10),)),), None, 1)
    assert find_tokens(addresses, keyring.masker("ip"), first, _nothing) == 1
    assert addresses.digests() == md5("10.0.1.0")
    assert find_tokens(addresses, keyring.masker("ip"), SOME_ADDRESSES, _nothing) == 1
    assert replace_all(addresses, with_links=True, on_progress=_nothing) == ReplaceCount(2, 2)


def test_searched_spans_are_skipped_until_the_upgrade_is_complete(
    addresses: DigestTable, keyring: Keyring
) -> None:
    span = Span(NET, NET + 2**20)
    plan = SearchPlan((Search(IPV4, (Span(NET, NET + 2**21),)),), None, 1)
    addresses.record_matches(
        {md5("10.0.0.1"): keyring.masker("ip").mask("10.0.0.1")}, IPV4.name, {span: 1}
    )
    assert remaining_plan(addresses, plan).searches[0].spans == (Span(NET + 2**20, NET + 2**21),)
    assert remaining_plan(DigestTable(addresses.url, DEVICE_ID), plan) == plan
    clear_progress(addresses, plan)
    assert remaining_plan(addresses, plan) == plan


def test_recorded_spans_are_too_wide_to_identify_a_value(
    database_url: str, addresses: DigestTable, keyring: Keyring
) -> None:
    _fill(database_url, "masked_ip", [_hex("10.0.0.1")])
    find_tokens(addresses, keyring.masker("ip"), SOME_ADDRESSES, _nothing)
    assert addresses.searched_spans(IPV4) == []


def test_a_failed_transaction_changes_no_row_and_can_be_repeated(
    database_url: str, addresses: DigestTable, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(md5_postgres, "DIGESTS_PER_TRANSACTION", 3)
    texts = [IPV4.text(NET + number) for number in range(10)]
    _fill(database_url, "masked_ip", map(_hex, texts))
    find_tokens(addresses, keyring.masker("ip"), SOME_ADDRESSES, _nothing)

    job = addresses.begin_job()
    assert job
    addresses.replace_next(job, with_links=True)
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE login_ingest.token_link ADD CHECK (false) NOT VALID")
        connection.commit()
        with pytest.raises(DatabaseError, match="23514"):
            addresses.replace_next(job, with_links=True)
        connection.execute("ALTER TABLE login_ingest.token_link DROP CONSTRAINT token_link_check")
    assert addresses.count().digests == 7
    assert replace_all(addresses, with_links=True, on_progress=_nothing) == ReplaceCount(7, 7)
    assert len(_links(database_url)) == 10


def test_rows_change_in_an_order_that_does_not_reveal_their_values(
    database_url: str, addresses: DigestTable, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(md5_postgres, "DIGESTS_PER_TRANSACTION", 5)
    texts = [IPV4.text(NET + number) for number in range(50)]
    _fill(database_url, "masked_ip", map(_hex, texts))
    find_tokens(addresses, keyring.masker("ip"), SOME_ADDRESSES, _nothing)
    replace_all(addresses, with_links=True, on_progress=_nothing)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT xmin::text, array_agg(masked_ip) FROM user_logins GROUP BY 1 ORDER BY min(ctid)"
        )
        groups = [sorted(tokens) for _, tokens in rows]
    assert len(groups) == 10
    assert sum(groups, []) == sorted(sum(groups, []))  # noqa: RUF017 (fifty)


def test_a_count_of_recoverable_digests_changes_nothing(
    database_url: str, addresses: DigestTable
) -> None:
    _fill(database_url, "masked_ip", [_hex("10.0.0.1"), _hex("beyond")])
    tried: list[int] = []
    assert count_recoverable(addresses.digests(), SOME_ADDRESSES, tried.append) == 1
    assert sum(tried) == 5_000
    assert set(_column(database_url, "masked_ip")) == {_hex("10.0.0.1"), _hex("beyond")}


def test_a_search_ends_when_every_digest_is_found(
    database_url: str, addresses: DigestTable
) -> None:
    _fill(database_url, "masked_ip", [_hex("0.0.0.7")])
    tried: list[int] = []
    everything = SearchPlan((Search(IPV4, (Span(0, IPV4.size),)),), None, 1)
    assert count_recoverable(addresses.digests(), everything, tried.append) == 1
    assert sum(tried) < 2**24


def test_a_second_upgrade_at_the_same_time_is_refused(url: str) -> None:
    with (
        upgrade_lease(url),
        pytest.raises(UpgradeRunningError, match="under way"),
        upgrade_lease(url),
    ):
        pass
    with upgrade_lease(url):
        pass


@pytest.mark.parametrize("field", [IP, DEVICE_ID])
def test_an_empty_table_has_nothing_to_upgrade(url: str, field: MaskedField) -> None:
    table = DigestTable(url, field)
    assert (table.count().digests, table.digests()) == (0, b"")
    assert table.begin_job() is None
    assert replace_all(table, with_links=True, on_progress=_nothing) == ReplaceCount()


@pytest.mark.parametrize("role", ["login_ingest_analyst", "login_ingest_loader"])
def test_only_recovery_reads_recorded_matches(database_url: str, role: str) -> None:
    with (
        person(database_url, role) as other,
        psycopg.connect(other.url) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT FROM login_ingest.md5_match")


def _private(directory: Path, text: str) -> Path:
    path = directory / "values.txt"
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path
