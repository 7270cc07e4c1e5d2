"""The job that re-masks old rows: its counts, checks, refusals and interruptions."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner
from dagster import DagsterInstance

from fetch_mask_assets import settings
from fetch_mask_assets.cli.operations.remask import remask
from fetch_mask_assets.definitions import build_definitions
from fetch_mask_assets.defs.operations.remask import REMASK_LOGINS, recovery_database
from fetch_mask_assets.keys.links import batch_links
from fetch_mask_assets.keys.storage import create_keysets, read_keyring
from fetch_mask_assets.masking.fields import MASKED_FIELDS
from fetch_mask_assets.operations.rotation.postgres import TokenTable
from fetch_mask_assets.pipeline.batch.frames import mask_batch
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.defs.conftest import checks, failure, metadata
from fetch_mask_assets_tests.support.factories import rotated
from fetch_mask_assets_tests.support.logins import body, raw_batch, register

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dagster import ExecuteInProcessResult

    from fetch_mask_assets.keys.keyset import Keyring

FULL_SIZE = bool(os.environ.get("REMASK_FULL_SIZE"))
"""Set by hand: the kills at the size of a real table, in some minutes."""

ROWS, VALUES, KILLS = (100_000, 30_000, 5) if FULL_SIZE else (1_200, 300, 2)
AT_ONCE = (500, 5_000) if FULL_SIZE else (20, 40)
CANARY_IP = "203.0.113.77"


@dataclass(frozen=True)
class Table:
    """A table whose keysets can be rotated."""

    database: LoginDatabase
    keysets: Path
    environment: dict[str, str]

    @property
    def keyring(self) -> Keyring:
        """The keys as they are now."""
        return read_keyring(self.keysets)

    def rotate(self) -> Keyring:
        """Gives the masked fields new primary keys."""
        for field in MASKED_FIELDS:
            path = self.keysets / f"{field.name}.json"
            path.write_text(rotated(path.read_text(), field.name))
        return self.keyring

    def commit(self, ring: Keyring, numbers: Iterable[int]) -> None:
        """A batch of logins; a number is a value of either field."""
        masked = mask_batch(raw_batch([_login(number) for number in numbers]), ring)
        links = batch_links(masked, ring)
        register(self.database.url, ring)
        commit_batch(self.database.url, BatchToCommit(str(uuid4()), masked, lambda _: b"", links))

    def run(self) -> ExecuteInProcessResult:
        """The job, in this process."""
        with DagsterInstance.ephemeral() as instance:
            job = build_definitions(self.environment).resolve_job_def(REMASK_LOGINS)
            return job.execute_in_process(instance=instance, raise_on_error=False)

    def execute(self, statement: str) -> None:
        """Change the table behind the job's back."""
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def groups(self) -> tuple[Counter[str], Counter[str]]:
        """How often each original occurs, by opening every token."""
        tokens = self.database.query("SELECT masked_ip, masked_device_id FROM user_logins")
        ring = self.keyring
        ips, devices = Counter(ip for ip, _ in tokens), Counter(device for _, device in tokens)
        assert len(ips) == len({ring.masker("ip").unmask(ip) for ip in ips})
        return (
            Counter({ring.masker("ip").unmask(ip): count for ip, count in ips.items()}),
            Counter(
                {
                    ring.masker("device_id").unmask(device): count
                    for device, count in devices.items()
                }
            ),
        )


@pytest.fixture
def table(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Table:
    """A table of the test's own, and the settings that lead to it."""
    for name, value in environment.items():
        if not name.startswith("DAGSTER"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return Table(
        LoginDatabase(environment[settings.DATABASE_URL]),
        Path(environment[settings.KEYSETS]),
        environment,
    )


def test_a_run_re_masks_counts_and_passes_every_check(table: Table) -> None:
    table.commit(table.keyring, [1, 2, 3, 1])
    ring = table.rotate()
    table.commit(ring, [3, 4])
    result = table.run()
    assert result.success
    assert {name for name, check in checks(result).items() if check.passed} == {
        "row_count_unchanged",
        "equal_values_stay_equal",
        "all_rows_under_primary_key",
        "tokens_can_be_unmasked",
    }
    each = {"rows_replaced": 4, "rows_before": 6, "rows_after": 6, "tokens_replaced": 3}
    each |= {"groups_before": 4, "groups_after": 4, "rows_left": 0, "rows_loaded_during_run": 0}
    expected = {f"{field.name}_{name}": n for field in MASKED_FIELDS for name, n in each.items()}
    counts = metadata(result, "remasked_logins")
    assert expected.items() <= counts.items()
    assert all(isinstance(value, int) for value in counts.values())
    assert TokenTable(table.database.url).rows_left(ring.masker("ip")) == 0


def test_without_a_rotation_a_run_changes_nothing_and_passes(table: Table) -> None:
    table.commit(table.keyring, [1, 2])
    before = table.database.query("SELECT ctid::text FROM user_logins")
    result = table.run()
    assert all(check.passed for check in checks(result).values())
    assert table.database.query("SELECT ctid::text FROM user_logins") == before


def test_batches_loaded_during_the_run_are_counted(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = table.keyring
    table.commit(old, [1, 2, 3])
    ring = table.rotate()
    replace, batches = TokenTable.replace, iter([(old, [2, 7]), (old, [3, 9]), (ring, [1, 9])])

    def beside(*given: Any) -> int:  # noqa: ANN401 (passes on what it was given)
        for batch in islice(batches, 1):
            table.commit(*batch)
        return replace(*given)

    monkeypatch.setattr(TokenTable, "replace", beside)
    result = table.run()
    assert all(check.passed for check in checks(result).values()), checks(result)
    assert metadata(result, "remasked_logins")["ip_rows_loaded_during_run"] == 6


def test_keys_of_another_database_are_refused_and_nothing_changes(table: Table) -> None:
    table.commit(table.keyring, [1, 2])
    assert table.run().success
    for path in table.keysets.iterdir():
        path.unlink()
    create_keysets(table.keysets)
    before = table.database.query("SELECT ctid::text, masked_ip FROM user_logins")
    result = table.run()
    assert not result.success
    assert "do not fit the database" in failure(result)
    assert table.database.query("SELECT ctid::text, masked_ip FROM user_logins") == before


def test_an_altered_token_is_not_changed_and_fails_a_check_and_the_command(table: Table) -> None:
    table.commit(table.keyring, [1, 2])
    table.execute(
        "UPDATE user_logins SET masked_device_id = 'device_id:' || repeat('A', 50)"
        " WHERE user_id = 'user-1'"
    )
    table.rotate()
    done = CliRunner().invoke(remask, ["--json"])
    counts = json.loads(done.stdout)
    assert counts["failed_checks"] == ["all_rows_under_primary_key", "tokens_can_be_unmasked"]
    assert (counts["device_id_rows_left"], counts["device_id_rows_replaced"]) == (1, 1)
    assert done.exception is not None
    assert "unknown_key: a key is missing" in str(done.exception)


def test_rows_deleted_during_the_run_fail_a_check(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.commit(table.keyring, [1, 2, 3])
    table.rotate()
    link = TokenTable.link

    def beside(*given: Any) -> None:  # noqa: ANN401 (passes on what it was given)
        table.execute("DELETE FROM user_logins WHERE user_id = 'user-1'")
        link(*given)

    monkeypatch.setattr(TokenTable, "link", beside)
    broken = {name for name, check in checks(table.run()).items() if not check.passed}
    assert broken == {"row_count_unchanged", "equal_values_stay_equal"}


def test_no_log_or_output_of_a_run_contains_a_value(
    table: Table, capfd: pytest.CaptureFixture[str]
) -> None:
    ring = table.keyring
    masked = mask_batch(raw_batch([body(1, ip=CANARY_IP, device_id="canary-4711")]), ring)
    register(table.database.url, ring)
    commit_batch(table.database.url, BatchToCommit("run", masked, lambda _: b""))
    table.rotate()
    with DagsterInstance.ephemeral() as instance:
        job = build_definitions(table.environment).resolve_job_def(REMASK_LOGINS)
        result = job.execute_in_process(instance=instance)
        events = [str(event) for event in instance.all_logs(result.run_id)]
    output = "".join([*events, *capfd.readouterr()])
    assert "tokens replaced" in output
    assert CANARY_IP not in output
    assert "canary-4711" not in output
    assert masked["masked_ip"][0] not in output


def test_the_recovery_connection_is_used_where_it_is_set() -> None:
    fallback = recovery_database({settings.DATABASE_URL: "x"})
    assert fallback.model_dump()["url"] == settings.DATABASE_URL
    own = recovery_database({settings.RECOVERY_DATABASE_URL: "y"})
    assert own.model_dump()["url"] == settings.RECOVERY_DATABASE_URL


def test_the_command_prints_its_counts(table: Table) -> None:
    table.commit(table.keyring, [1, 2])
    table.rotate()
    done = CliRunner().invoke(remask, [])
    assert done.exit_code == 0
    said = (
        "2 tokens replaced in 2 rows; 2 rows in 2 groups of equal values,"
        " 0 rows left under other keys."
    )
    lines = [f"ip: {said}", f"device_id: {said}", "Every check passed."]
    assert done.stdout.splitlines() == lines


@pytest.mark.long
@pytest.mark.timeout(900)  # at full size it takes minutes
def test_after_repeated_kills_under_load_every_group_is_kept(table: Table, tmp_path: Path) -> None:
    """Readers of the view see one group for each value, at every look they take."""
    chance = random.Random(1)  # noqa: S311 (moments, not secrets)
    old = table.keyring
    for start in range(0, ROWS, 10_000):
        table.commit(old, [row % VALUES for row in range(start, min(start + 10_000, ROWS))])
    ring = table.rotate()
    with _beside(table, [old, ring], chance) as loaded, _watched(table) as looks:
        kills = sum(_kill_in_the_middle(table, tmp_path, chance) for _ in range(KILLS))
        assert _remask_process(table, tmp_path).wait(240) == 0
    counts, summary = Counter(loaded), _finish(table, tmp_path)
    assert kills == KILLS
    assert len(looks) > KILLS
    assert set(looks) == {(VALUES, VALUES)}
    assert (summary["ip_rows_left"], summary["device_id_rows_left"]) == (0, 0)
    expected = Counter(dict.fromkeys(range(VALUES), ROWS // VALUES))
    expected.update(row % VALUES for row in range(ROWS - ROWS % VALUES, ROWS))
    expected.update(counts)
    ips, devices = table.groups()
    assert ips == {_ip(number): count for number, count in expected.items()}
    assert devices == {f"device-{number:08}": count for number, count in expected.items()}
    print(f"{KILLS} kills, {len(looks)} looks, {counts.total()} rows loaded meanwhile, {summary}")  # noqa: T201 (read by whoever runs it at full size)


_DRIVER = """
import sys
from fetch_mask_assets.operations.rotation import postgres, remask_run
from fetch_mask_assets.cli.operations.remask import remask
remask_run.TOKENS_PER_PAGE, postgres.ROWS_PER_TRANSACTION = map(int, sys.argv[1:3])
del sys.argv[1:3]
remask()
"""


def _remask_process(table: Table, cwd: Path, *options: str) -> subprocess.Popen[bytes]:
    own = {name: text for name, text in table.environment.items() if not name.startswith("DAGSTER")}
    command = [sys.executable, "-c", _DRIVER, *map(str, AT_ONCE), *options]
    env = {**own, "TMPDIR": str(cwd), "HOME": str(cwd), **_PYTHON_PATH}
    output = (cwd / "output").open("wb")
    with output:
        return subprocess.Popen(command, env=env, cwd=cwd, stdout=output, stderr=output)  # noqa: S603 (our own interpreter)


_PYTHON_PATH = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}


def _kill_in_the_middle(table: Table, cwd: Path, chance: random.Random) -> bool:
    """Kills a run after it has changed some rows; whether it was still at work."""
    enough = _rows_left(table) - chance.randrange(1, ROWS // (KILLS + 1) * 2)
    process = _remask_process(table, cwd)
    while process.poll() is None and _rows_left(table) > enough:
        time.sleep(0.01)
    process.kill()
    return process.wait(30) == -signal.SIGKILL


def _rows_left(table: Table) -> int:
    tokens = TokenTable(table.database.url)
    return sum(tokens.rows_left(masker) for masker in table.keyring.maskers)


def _finish(table: Table, cwd: Path) -> dict[str, Any]:
    """A run with nothing beside it: what came in late is taken, and every check passes."""
    assert _remask_process(table, cwd, "--json").wait(240) == 0
    summary: dict[str, Any] = json.loads((cwd / "output").read_text())
    assert summary["failed_checks"] == []
    return summary


@contextmanager
def _beside(table: Table, rings: list[Keyring], chance: random.Random) -> Iterator[list[int]]:
    """Commits of batches from now on; the first few come from runs with the old keys."""
    committed: list[int] = []
    ended = Event()

    def commit() -> None:
        for number in range(1_000_000):
            numbers = [chance.randrange(VALUES) for _ in range(50)]
            table.commit(rings[0] if number < 5 else rings[1], numbers)
            committed.extend(numbers)
            if ended.wait(0.05):
                return

    yield from _while_it_runs(commit, ended, committed)


@contextmanager
def _watched(table: Table) -> Iterator[list[tuple[int, int]]]:
    """How many groups of each field a reader of the view sees, look after look."""
    looks: list[tuple[int, int]] = []
    ended = Event()

    def look() -> None:
        while not ended.wait(0.05):
            looks.extend(
                table.database.query(
                    "SELECT count(DISTINCT masked_ip), count(DISTINCT masked_device_id)"
                    " FROM login_ingest.user_logins_linked"
                )
            )

    yield from _while_it_runs(look, ended, looks)


def _while_it_runs(work: Any, ended: Event, result: list[Any]) -> Iterator[list[Any]]:  # noqa: ANN401 (any callable)
    thread = Thread(target=work)
    thread.start()
    try:
        yield result
    finally:
        ended.set()
        thread.join()


def _login(number: int) -> str:
    return body(number, ip=_ip(number))


def _ip(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
