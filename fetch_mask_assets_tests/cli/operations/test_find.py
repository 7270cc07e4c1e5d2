"""`fetch-mask find`: rows of a known value, recorded, without the value in any output."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner, Result

from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.cli.main import cli
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.keyset import new_keyset
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets_tests.support.logins import body, masked_batch, register
from fetch_mask_assets_tests.support.people import Person, person

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Find = Callable[..., Result]

FETCH_MASK = str(Path(sys.executable).parent / "fetch-mask")
ADDRESS = "198.51.100.77"
DEVICE = "naïve ☃ device-4711"
SECONDS_TO_PROMPT = 120


@pytest.fixture
def ann(database_url: str) -> Iterator[Person]:
    """A member of login_ingest_recovery."""
    with person(database_url, "login_ingest_recovery") as member:
        yield member


@pytest.fixture
def find(environment: dict[str, str], ann: Person) -> Find:
    """Run `fetch-mask find`, as a member of login_ingest_recovery by default."""

    def run(*arguments: str, text: str | bytes = "", who: Person = ann, **more: str) -> Result:
        env = {**environment, "LOGIN_RECOVERY_DATABASE_URL": who.url, **more}
        return CliRunner().invoke(cli, ["find", *arguments], input=text, env=env)

    return run


@pytest.fixture
def loaded(database_url: str, keysets_directory: Path) -> Path:
    """Three logins, two of one address, and the directory of their keysets."""
    load(database_url, keysets_directory, ADDRESS, DEVICE)
    load(database_url, keysets_directory, ADDRESS, "device-1")
    load(database_url, keysets_directory, "2001:db8::7", "device-2")
    return keysets_directory


def load(database_url: str, keysets_directory: Path, ip: str, device_id: str) -> None:
    keyring = read_keyring(keysets_directory)
    masked = masked_batch(keyring, [body(1, ip=ip, device_id=device_id)])
    run_id = f"run-{time.monotonic_ns()}"
    register(database_url, keyring)
    commit_batch(database_url, BatchToCommit(run_id, masked, lambda _: b""))


def rotate(directory: Path, name: str) -> None:
    """Create a new primary key; the old one stays enabled."""
    path = directory / f"{name}.json"
    old, new = json.loads(path.read_text()), json.loads(new_keyset(name))
    path.write_text(json.dumps({**new, "key": old["key"] + new["key"]}))


def assert_value_absent(done: Result, database_url: str) -> None:
    """Assert that the value is neither printed nor recorded."""
    with psycopg.connect(database_url) as connection:
        kept = connection.execute(
            "SELECT string_agg(detail, '') FROM login_ingest.audit"
        ).fetchone()
    for text in (done.output, str(done.exception), str(kept)):
        assert ADDRESS not in text
        assert "4711" not in text


def test_rows_of_an_address_are_counted_and_shown_without_masked_columns(
    find: Find, loaded: Path, database_url: str, ann: Person
) -> None:
    done = find("--ip", text=f"{ADDRESS}\n203.0.113.1\n")
    assert done.exit_code == 0
    assert "line 1: 2 rows\nline 2: 0 rows\n" in done.output
    assert done.output.count("user-1  android  en_US  2003000  2024-02-29") == 2
    assert "ip:" not in done.output
    assert_value_absent(done, database_url)
    (row,) = Audit(ann.url).rows()
    token = read_keyring(loaded).masker("ip").mask(ADDRESS)
    detail = json.loads(row.detail)
    assert (row.actor, row.action, detail["field"]) == (ann.name, "find.search", "ip")
    assert detail["rows_by_sha256"][sha256(token.encode()).hexdigest()] == 2
    assert token not in row.detail


def test_rows_of_a_device_are_found_as_json(find: Find, loaded: Path, database_url: str) -> None:
    done = find("--device-id", "--json", text=f"{DEVICE}\r\n\ndevice-1\n")
    found = json.loads(done.output)
    assert [(each["line"], each["row_count"]) for each in found["values"]] == [(1, 1), (3, 1)]
    token = read_keyring(loaded).masker("device_id").mask(DEVICE)
    assert found["values"][0]["tokens"] == [token]
    assert {row["line"]: row["user_id"] for row in found["rows"]} == {1: "user-1", 3: "user-1"}
    assert_value_absent(done, database_url)


@pytest.mark.usefixtures("loaded")
def test_an_address_is_found_in_another_spelling(find: Find) -> None:
    done = find("--ip", text=f"::ffff:{ADDRESS}\n2001:0db8:0:0::7\n")
    assert "line 1: 2 rows\nline 2: 1 row\n" in done.output


def test_rows_under_every_enabled_key_are_found(
    find: Find, loaded: Path, database_url: str
) -> None:
    for _ in range(2):
        rotate(loaded, "ip")
        load(database_url, loaded, ADDRESS, "device-9")
    found = json.loads(find("--ip", "--json", text=ADDRESS).output)
    assert (found["values"][0]["row_count"], len(found["values"][0]["tokens"])) == (4, 3)
    assert len(found["rows"]) == 4


@pytest.mark.usefixtures("loaded")
def test_no_more_rows_are_shown_than_asked_for_and_all_are_counted(find: Find) -> None:
    done = find("--ip", "--limit", "1", text=ADDRESS)
    assert "line 1: 2 rows" in done.output
    assert "Not shown: 1 row. See --limit." in done.output
    assert len(json.loads(find("--ip", "--limit", "0", "--json", text=ADDRESS).output)["rows"]) == 0


@pytest.mark.parametrize(
    ("field", "text", "description"),
    [
        ("--ip", f"{ADDRESS}\n{ADDRESS}:80\n", "line 2 is not a valid ip"),
        ("--ip", f" {ADDRESS}", "line 1 is not a valid ip"),
        ("--ip", DEVICE, "line 1 is not a valid ip"),
        ("--device-id", "4711" * 33, "line 1 is not a device id: it is blank or longer"),
        ("--device-id", "   ", "line 1 is not a device id: it is blank or longer"),
        ("--ip", "", "no values"),
        ("--ip", "\n\n", "no values"),
        ("--ip", b"\xff\xfe", "not UTF-8"),
    ],
)
def test_an_invalid_value_is_refused_by_its_line(
    find: Find, database_url: str, field: str, text: str, description: str
) -> None:
    done = find(field, text=text)
    assert done.exit_code == 1
    assert isinstance(done.exception, FetchMaskError)
    assert description in str(done.exception)
    assert_value_absent(done, database_url)


def test_more_values_than_the_limit_are_refused(find: Find) -> None:
    done = find("--ip", text="192.0.2.1\n192.0.2.2\n", LOGIN_MAX_RECOVERY_VALUES="1")
    assert "more than 1 values" in str(done.exception)


def test_values_are_not_taken_from_the_command_line(find: Find) -> None:
    assert find("--ip", ADDRESS).exit_code == 2
    assert find().exit_code == 2
    assert find("--ip", "--device-id").exit_code == 2


@pytest.mark.usefixtures("loaded")
def test_nothing_is_shown_when_the_audit_cannot_be_written(find: Find, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("REVOKE INSERT ON login_ingest.audit FROM login_ingest_owner")
    done = find("--ip", text=ADDRESS)
    assert done.exit_code == 1
    assert "rows" not in done.output.replace("find rows", "")
    assert_value_absent(done, database_url)


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("role", ["loader", "analyst", "auditor"])
def test_find_is_refused_without_the_recovery_role(
    find: Find, database_url: str, role: str
) -> None:
    with person(database_url, f"login_ingest_{role}") as eve:
        done = find("--ip", text=ADDRESS, who=eve)
    assert done.exit_code == 1
    assert "42501" in str(done.exception)


@pytest.mark.usefixtures("loaded")
def test_a_terminal_is_prompted_without_showing_the_value(
    environment: dict[str, str], ann: Person, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    env = {**environment, "LOGIN_RECOVERY_DATABASE_URL": ann.url, "HOME": str(tmp_path)}
    command = [FETCH_MASK, "find", "--ip"]
    with subprocess.Popen(  # noqa: S603 (our own command)
        command, env=env, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = ""
        for answer in (f"{ADDRESS}\n", "\n"):
            shown += _until(ours, "end): ")
            os.write(ours, answer.encode())
        shown += _until(ours, "2024-02-29\r\n")
    os.close(ours)
    assert process.returncode == 0
    assert "line 1: 2 rows" in shown
    assert ADDRESS not in shown


def _until(descriptor: int, end: str) -> str:
    shown = ""
    deadline = time.monotonic() + SECONDS_TO_PROMPT
    while end not in shown and time.monotonic() < deadline:
        try:
            shown += os.read(descriptor, 4096).decode()
        except OSError:  # Linux's end of a terminal
            break
    return shown
