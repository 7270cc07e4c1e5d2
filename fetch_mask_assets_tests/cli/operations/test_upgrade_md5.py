"""`fetch-mask upgrade-md5`, as an operator calls it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner

from fetch_mask_assets import settings
from fetch_mask_assets.cli.operations.upgrade_md5 import upgrade_md5
from fetch_mask_assets.errors import FetchMaskError, NotReadyError
from fetch_mask_assets.keys.storage import create_keysets, read_keyring
from fetch_mask_assets.operations.md5_upgrade.md5 import md5
from fetch_mask_assets_tests.support.people import person

if TYPE_CHECKING:
    from collections.abc import Iterator

IPS = ["10.0.0.1", "10.0.0.1", "10.0.0.77", "172.16.0.9"]
IDS = ["123-456", "123-456", "000-000", "unguessable"]
SMALL = ("--networks", "10.0.0.0/24", "--pattern", "NNN-NNN", "--cores", "1")


@pytest.fixture(autouse=True)
def operator(
    environment: dict[str, str], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A member of recovery, and a table of MD5 digests."""
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO user_logins (user_id, masked_ip, masked_device_id) VALUES ('u', %s, %s)",
            [(md5(ip).hex(), md5(i).hex()) for ip, i in zip(IPS, IDS, strict=True)],
        )
    with person(database_url, "login_ingest_recovery") as steward:
        monkeypatch.setenv(settings.RECOVERY_DATABASE_URL, steward.url)
        yield


def _run(*arguments: str) -> str:
    done = CliRunner().invoke(upgrade_md5, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def _rows(database_url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(statement.encode()).fetchall()


def _everything(database_url: str) -> list[list[tuple[object, ...]]]:
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname IN ('public', 'login_ingest') ORDER BY 1"
        ).fetchall()
    return [_rows(database_url, f"SELECT t::text FROM {name} t ORDER BY 1") for (name,) in tables]


def test_the_table_holds_tokens_and_the_report_counts_them(
    database_url: str, keysets_directory: Path
) -> None:
    report = json.loads(_run(*SMALL, "--json"))
    counts = {
        each["field"]: [each[key] for key in ("digests", "recovered", "rows_changed", "rows_left")]
        for each in report["fields"]
    }
    assert counts == {"ip": [3, 2, 3, 1], "device_id": [3, 2, 3, 1]}
    keyring = read_keyring(keysets_directory)
    tokens = _rows(database_url, "SELECT masked_ip, masked_device_id FROM user_logins")
    assert set(tokens) == {
        (keyring.masker("ip").mask("10.0.0.1"), keyring.masker("device_id").mask("123-456")),
        (keyring.masker("ip").mask("10.0.0.77"), keyring.masker("device_id").mask("000-000")),
        (md5("172.16.0.9").hex(), md5("unguessable").hex()),
    }


def test_no_value_is_printed_or_stored(database_url: str) -> None:
    printed = _run(*SMALL)
    stored = str(_everything(database_url))
    for value in (*IPS, *IDS):
        assert value not in printed
        assert value not in stored


def test_a_dry_run_reports_recoverable_digests_and_changes_nothing(database_url: str) -> None:
    before = _everything(database_url)
    output = _run(*SMALL, "--dry-run")
    assert "ip: 3 distinct MD5 digests, 2 would be recovered, 1 left" in output
    assert _everything(database_url) == before


def test_the_audit_records_start_end_and_counts(database_url: str) -> None:
    _run(*SMALL)
    audit = _rows(database_url, "SELECT action, detail FROM login_ingest.audit ORDER BY audit_id")
    changes = ["upgrade-md5.record", "upgrade-md5.begin", "upgrade-md5.finish"] * 2
    assert [action for action, _ in audit] == [
        "upgrade-md5.begin-run",
        *changes,
        "upgrade-md5.finish-run",
    ]
    assert json.loads(str(audit[1][1])) == {"field": "ip", "digests": 2}
    assert json.loads(str(audit[3][1]))["links"] == 2
    assert json.loads(str(audit[-1][1]))["fields"][0]["recovered"] == 2
    assert "10.0.0" not in str(audit)


def test_links_join_an_old_extract_until_they_are_dropped(database_url: str) -> None:
    _run(*SMALL)
    joined = (
        "SELECT count(*) FROM login_ingest.token_link JOIN user_logins ON masked_ip = new_token"
        " WHERE old_token = md5('10.0.0.1')"
    )
    assert _rows(database_url, joined) == [(2,)]
    assert json.loads(_run("--drop-links", "--json")) == {"links_dropped": 4}
    assert _rows(database_url, joined) == [(0,)]


def test_without_links_none_are_kept(database_url: str) -> None:
    _run(*SMALL, "--no-links")
    assert _rows(database_url, "SELECT count(*) FROM login_ingest.token_link") == [(0,)]


def test_a_second_upgrade_finds_what_came_in_after_the_first(database_url: str) -> None:
    _run(*SMALL)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO user_logins (masked_ip) VALUES (%s)", [md5("10.0.0.2").hex()]
        )
    [ip, _] = json.loads(_run(*SMALL, "--json"))["fields"]
    assert (ip["recovered"], ip["rows_changed"]) == (1, 1)


def test_known_values_are_tried_for_the_field_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "values"
    path.touch(mode=0o600)
    path.write_text("172.16.0.9\nunguessable\n")
    [report] = json.loads(_run("--values", str(path), "--field", "device_id", "--json"))["fields"]
    assert (report["field"], report["recovered"]) == ("device_id", 1)


def test_networks_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "networks"
    path.write_text("10.0.0.0/24\n\n172.16.0.0/24\n")
    [report] = json.loads(_run("--networks", str(path), "--field", "ip", "--json"))["fields"]
    assert (report["recovered"], report["digests_left"], report["values_tried"]) == (3, 0, 512)


def test_other_keys_are_refused_before_anything_changes(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(*SMALL)
    other = tmp_path / "other"
    create_keysets(other)
    monkeypatch.setenv(settings.KEYSETS, str(other))
    before = _everything(database_url)
    for mode in ((), ("--dry-run",)):
        with pytest.raises(NotReadyError, match="do not fit"):
            _run(*SMALL, *mode)
    assert _everything(database_url) == before


def test_a_login_outside_recovery_is_refused(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with person(database_url, "login_ingest_analyst") as analyst:
        monkeypatch.setenv(settings.RECOVERY_DATABASE_URL, analyst.url)
        with pytest.raises(FetchMaskError, match="42501"):
            _run(*SMALL)


def test_drop_links_excludes_an_upgrade() -> None:
    with pytest.raises(FetchMaskError, match="without other options"):
        _run("--drop-links", "--dry-run")


_COMMAND = "from fetch_mask_assets.cli.main import main\nif __name__ == '__main__':\n    main()\n"


def test_after_repeated_kills_every_row_is_changed_once(
    database_url: str, tmp_path: Path, keysets_directory: Path
) -> None:
    script = tmp_path / "command.py"
    script.write_text(_COMMAND)
    command = [sys.executable, str(script), "upgrade-md5", *SMALL]
    for seconds in (1.5, 2.5, 3.5, 5.0):
        killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 (our own program)
        time.sleep(seconds)
        killed.kill()
        killed.wait()
    _wait_until_alone(database_url)
    _run(*SMALL)
    keyring = read_keyring(keysets_directory)
    rows = _rows(
        database_url,
        "SELECT masked_ip, count(*) FROM user_logins WHERE masked_ip ~ '^ip:' GROUP BY 1",
    )
    assert set(rows) == {
        (keyring.masker("ip").mask("10.0.0.1"), 2),
        (keyring.masker("ip").mask("10.0.0.77"), 1),
    }
    recorded = (
        "SELECT FROM login_ingest.md5_match UNION ALL SELECT FROM login_ingest.md5_searched_range"
    )
    assert _rows(database_url, recorded) == []


def _wait_until_alone(database_url: str) -> None:
    others = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND usename <> current_user"
    )
    deadline = time.monotonic() + 20
    while _rows(database_url, others) != [(0,)] and time.monotonic() < deadline:
        time.sleep(0.1)
