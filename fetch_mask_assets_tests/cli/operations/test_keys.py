"""Keys from the command line: created, listed, rotated, retired, restored."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from fetch_mask_assets import settings
from fetch_mask_assets.aws import connect_aws
from fetch_mask_assets.cli.operations.keys import keys
from fetch_mask_assets.errors import DatabaseError, KeysetError, NotReadyError
from fetch_mask_assets.keys.files import KeysetFiles
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring
from fetch_mask_assets.keys.storage import Keysets, create_keysets, read_keyring
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets.operations.rotation import key_changes
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets.pipeline.warehouse.readiness import require_ready
from fetch_mask_assets_tests.support.logins import bodies, masked_batch

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Keys:
    """The commands, with the test's own keysets and database."""

    directory: Path
    database: LoginDatabase

    def run(self, *arguments: str, stdin: str = "") -> Result:
        """Run a command; its own error is in `exception`."""
        return CliRunner().invoke(keys, arguments, input=stdin)

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the JSON that a successful command prints."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        answer: list[dict[str, Any]] = json.loads(result.stdout)
        return answer

    def statuses(self, field: str = "ip") -> dict[int, tuple[str, int]]:
        """Return the status and the rows of each key."""
        rows = self.json("list", "--field", field)
        return {row["key_id"]: (row["status"], row["rows"]) for row in rows}

    def error(self, *arguments: str) -> str:
        """Return the message of a refused command."""
        result = self.run(*arguments)
        assert isinstance(result.exception, KeysetError | DatabaseError), result.output
        return str(result.exception)

    def keyring(self) -> Keyring:
        """Return the keys as a run reads them."""
        return read_keyring(self.directory)

    def load(self, texts: list[str]) -> Keyring:
        """Load messages into the table, as a run does."""
        keyring = self.keyring()
        require_ready(self.database, keyring)
        masked = masked_batch(keyring, texts)
        run_id = f"run-{keyring.primary_key_ids}"
        commit_batch(self.database.url, BatchToCommit(run_id, masked, seal=lambda _: b""))
        return keyring

    def audit(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the rows of the audit."""
        rows = self.database.query(
            "SELECT action, detail FROM login_ingest.audit ORDER BY audit_id"
        )
        return [(action, json.loads(detail)) for action, detail in rows]


@pytest.fixture
def empty(environment: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Commands without keysets."""
    directory = tmp_path / "none yet"
    for name, value in {**environment, settings.KEYSETS: str(directory)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(settings.KMS_KEY, raising=False)
    monkeypatch.delenv(settings.RECOVERY_DATABASE_URL, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    return Keys(directory, LoginDatabase(environment[settings.DATABASE_URL]))


@pytest.fixture
def commands(empty: Keys) -> Keys:
    """Commands with new keysets."""
    empty.json("init", "--yes")
    return empty


def test_init_creates_three_keysets_that_open_and_audits_them(empty: Keys) -> None:
    made = empty.json("init", "--yes")
    assert [each["keyset"] for each in made] == list(KEYSET_NAMES)
    assert {each["keyset"]: each["key_id"] for each in made} == empty.keyring().primary_key_ids
    assert empty.audit() == [("keys.init", each) for each in made]
    assert empty.run("check").exit_code == 0


def test_init_creates_only_the_given_keyset(empty: Keys) -> None:
    empty.json("init", "--yes", "--field", "ip")
    assert [path.name for path in empty.directory.iterdir()] == ["ip.json"]


@pytest.mark.parametrize("command", [("init",), ("rotate",)])
def test_without_confirmation_nothing_changes(empty: Keys, command: tuple[str, ...]) -> None:
    for answer in ("", "n\n", "\n"):
        assert empty.run(*command, stdin=answer).exit_code == 1
    assert not empty.directory.exists()
    assert empty.audit() == []


def test_init_fails_if_one_keyset_exists_and_creates_none(commands: Keys) -> None:
    before = commands.keyring().check_values
    (commands.directory / "quarantine.json").unlink()
    assert "a keyset of ip exists at" in commands.error("init", "--yes")
    assert not (commands.directory / "quarantine.json").exists()
    commands.json("init", "--yes", "--field", "quarantine")
    after = commands.keyring().check_values
    assert (after["ip"], after["device_id"]) == (before["ip"], before["device_id"])


def test_init_fails_if_the_database_has_keys_of_the_keyset(commands: Keys) -> None:
    commands.load(bodies(1))
    (commands.directory / "ip.json").unlink()
    assert "has keys of ip" in commands.error("init", "--yes", "--field", "ip")
    assert not (commands.directory / "ip.json").exists()
    assert len(commands.audit()) == 3


def test_a_rotation_masks_under_the_new_key_and_unmasks_under_both(commands: Keys) -> None:
    old = commands.load(bodies(4))
    (change,) = commands.json("rotate", "--yes", "--field", "ip")
    new = commands.load(bodies(2))
    assert new.masker("ip").primary_key_id == change["key_id"]
    assert new.masker("ip").unmask(old.masker("ip").mask("192.0.2.1")) == "192.0.2.1"
    assert commands.statuses() == {
        old.masker("ip").primary_key_id: ("enabled", 4),
        change["key_id"]: ("primary", 2),
    }
    assert new.masker("device_id").primary_key_id == old.masker("device_id").primary_key_id
    assert commands.audit()[-1] == ("keys.rotate", change)


def test_rotate_without_a_field_rotates_all_and_prints_the_next_steps(commands: Keys) -> None:
    before = commands.keyring().primary_key_ids
    result = commands.run("rotate", "--yes")
    assert "remask_logins" in result.stderr
    after = commands.keyring().primary_key_ids
    assert all(after[name] != before[name] for name in KEYSET_NAMES)


def test_concurrent_rotations_keep_all_new_keys(commands: Keys) -> None:
    keysets = Keysets(KeysetFiles(commands.directory))
    with ThreadPoolExecutor(4) as pool:
        made = list(
            pool.map(lambda _: key_changes.rotate(commands.database, keysets, "ip"), range(4))
        )
    assert {change.key_id for change in made} < set(commands.statuses())
    assert len(commands.statuses()) == 5


def test_a_rotation_that_cannot_be_written_is_not_audited(
    commands: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise KeysetError("the disk is full")

    before = commands.keyring().check_values
    monkeypatch.setattr(KeysetFiles, "replace", refuse)
    assert commands.error("rotate", "--yes") == "the disk is full"
    assert commands.keyring().check_values == before
    assert len(commands.audit()) == 3


def test_a_rotation_that_cannot_be_recorded_is_not_written(
    commands: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = commands.keyring().check_values
    nowhere = f"postgresql://someone:canary@127.0.0.1:{free_port()}/x"
    monkeypatch.setenv(settings.RECOVERY_DATABASE_URL, nowhere)
    assert "canary" not in commands.error("rotate", "--yes")
    assert commands.keyring().check_values == before


def test_keysets_of_another_database_are_not_rotated(commands: Keys, tmp_path: Path) -> None:
    commands.load(bodies(1))
    copytree(commands.directory, tmp_path / "ours")
    for name in KEYSET_NAMES:
        (commands.directory / f"{name}.json").unlink()
    create_keysets(commands.directory)
    before = commands.keyring().check_values
    assert "not the keyset of this database" in commands.error("rotate", "--yes")
    assert commands.keyring().check_values == before


@pytest.mark.parametrize(("field", "texts"), [("ip", bodies(3)), ("quarantine", ["no login"] * 3)])
def test_a_used_key_is_not_retired(commands: Keys, field: str, texts: list[str]) -> None:
    old = commands.load(texts).primary_key_ids[field]
    commands.json("rotate", "--yes", "--field", field)
    assert f"3 rows are under key {old} of {field}" in commands.error("retire", str(old), "--yes")
    assert commands.statuses(field)[old] == ("enabled", 3)
    assert commands.audit()[-1][0] == "keys.rotate"


def test_the_primary_key_is_not_retired(commands: Keys) -> None:
    key_id = commands.keyring().masker("ip").primary_key_id
    assert "rotate first" in commands.error("retire", str(key_id), "--yes")


def test_a_retired_key_stays_disabled_in_the_keyset_and_runs_continue(commands: Keys) -> None:
    old = commands.load(bodies(3))
    token, key_id = old.masker("ip").mask("192.0.2.1"), old.masker("ip").primary_key_id
    commands.json("rotate", "--yes", "--field", "ip")
    _delete_rows(commands)
    assert commands.json("retire", str(key_id), "--yes") == [{"keyset": "ip", "key_id": key_id}]
    assert commands.audit()[-1] == ("keys.retire", {"keyset": "ip", "key_id": key_id})
    commands.load(bodies(3))
    assert commands.run("check").exit_code == 0
    assert commands.statuses()[key_id] == ("retired", 0)
    commands.json("restore", str(key_id), "--yes")
    assert commands.keyring().masker("ip").unmask(token) == "192.0.2.1"
    assert commands.statuses()[key_id] == ("enabled", 0)
    assert commands.audit()[-1] == ("keys.restore", {"keyset": "ip", "key_id": key_id})


def test_retiring_twice_changes_no_more(commands: Keys) -> None:
    key_id = _retired_key(commands)
    first = _retired_at(commands, key_id)
    commands.json("retire", str(key_id), "--yes")
    assert _retired_at(commands, key_id) == first


def test_a_worker_with_old_keysets_is_refused(commands: Keys, tmp_path: Path) -> None:
    copytree(commands.directory, tmp_path / "old copy")
    key_id = _retired_key(commands)
    with pytest.raises(NotReadyError, match=f"keyset of ip, {key_id}, is retired"):
        require_ready(commands.database, read_keyring(tmp_path / "old copy"))


def test_a_lost_key_without_rows_can_be_retired(commands: Keys) -> None:
    commands.load(bodies(1))
    commands.json("rotate", "--yes", "--field", "ip")
    _delete_rows(commands)
    lost = _remove_first_key(commands.directory / "ip.json")
    assert commands.run("check").exit_code == 1
    commands.json("retire", str(lost), "--field", "ip", "--yes")
    assert commands.run("check").exit_code == 0
    assert commands.statuses()[lost] == ("retired", 0)


def test_list_warns_of_rows_under_a_lost_key(commands: Keys) -> None:
    commands.load(bodies(5))
    commands.json("rotate", "--yes", "--field", "ip")
    lost = _remove_first_key(commands.directory / "ip.json")
    assert commands.statuses()[lost] == ("absent", 5)
    assert f"5 rows are under key {lost} of ip, which is absent" in commands.run("list").stderr
    assert "5 rows are under" in commands.error("retire", str(lost), "--field", "ip", "--yes")


@pytest.mark.parametrize("command", ["retire", "restore"])
def test_an_unknown_key_is_refused_by_its_id(commands: Keys, command: str) -> None:
    assert "no keyset has a key 7" in commands.error(command, "7", "--yes")
    assert "key 7 is not in the keyset of ip" in commands.error(
        command, "7", "--yes", "--field", "ip"
    )


@pytest.mark.parametrize("key_id", ["-1", "4294967296", "canary"])
def test_an_invalid_key_id_is_refused(commands: Keys, key_id: str) -> None:
    assert commands.run("retire", "--yes", "--", key_id).exit_code == 2


def test_check_reports_failures_and_exits_with_1(commands: Keys) -> None:
    (commands.directory / "ip.json").chmod(0o644)
    result = commands.run("check")
    assert result.exit_code == 1
    assert "FAIL  masking keys" in result.stdout
    found = json.loads(commands.run("check", "--json").stdout)
    assert [each["name"] for each in found if not each["ok"]] == [
        "masking keys",
        "key registry",
    ]


def test_no_command_shows_a_key(commands: Keys) -> None:
    commands.load(bodies(2))
    commands.json("rotate", "--yes")
    outputs = [
        commands.run(*command).output
        for command in (("list",), ("list", "--json"), ("check",), ("rotate", "--yes"), ("init",))
    ]
    secrets = [
        key["keyData"]["value"]
        for name in KEYSET_NAMES
        for key in json.loads((commands.directory / f"{name}.json").read_text("utf-8"))["key"]
    ]
    assert not any(secret in output for secret in secrets for output in outputs)


def test_wrapped_keysets_in_secrets_manager_are_created_rotated_and_retired(
    empty: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.KEYSETS, f"aws-secretsmanager://{empty.directory.parent.name}")
    monkeypatch.setenv(
        settings.KMS_KEY, connect_aws("kms", KeysetError).create_key()["KeyMetadata"]["KeyId"]
    )
    assert empty.run("check").exit_code == 1
    empty.json("init", "--yes")
    (old,) = empty.statuses()
    (change,) = empty.json("rotate", "--yes", "--field", "ip")
    empty.json("retire", str(old), "--yes")
    assert empty.statuses() == {old: ("disabled", 0), change["key_id"]: ("primary", 0)}
    assert empty.run("check").exit_code == 0
    assert "was not changed" in empty.error("init", "--yes")


def _retired_key(commands: Keys) -> int:
    key_id = commands.load(bodies(1)).masker("ip").primary_key_id
    commands.json("rotate", "--yes", "--field", "ip")
    _delete_rows(commands)
    commands.json("retire", str(key_id), "--yes")
    return key_id


def _retired_at(commands: Keys, key_id: int) -> object:
    return commands.database.query(
        "SELECT retired_at FROM login_ingest.masking_key WHERE key_id = %s", key_id
    )


def _delete_rows(commands: Keys) -> None:
    with psycopg.connect(commands.database.url) as connection:
        connection.execute("DELETE FROM user_logins")


def _remove_first_key(path: Path) -> int:
    keyset = json.loads(path.read_text("utf-8"))
    lost = keyset["key"].pop(0)
    path.write_text(json.dumps(keyset), "utf-8")
    key_id: int = lost["keyId"]
    return key_id
