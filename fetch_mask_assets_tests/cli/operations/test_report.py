"""`fetch-mask report`, by the program itself, on a real warehouse and a real Dagster instance."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets.operations.erasure.order import ErasureOrder
from fetch_mask_assets.operations.erasure.postgres import Erasures
from fetch_mask_assets.operations.erasure.subjects import Subjects
from fetch_mask_assets.operations.unmasking.postgres import Unmasking
from fetch_mask_assets_tests.support import commands
from fetch_mask_assets_tests.support.logins import body, send
from fetch_mask_assets_tests.support.people import person

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_sqs import SQSClient

CANARY_IP = "203.0.113.77"
CANARY_DEVICE = "canary-device-815"
CANARY_USER = "canary-user-4711"


@dataclass(frozen=True)
class Shell:
    """An empty directory with the test's own settings, and a Dagster instance of its own."""

    directory: Path
    settings: dict[str, str]

    @property
    def url(self) -> str:
        """The warehouse, as its administrator."""
        return self.settings["LOGIN_DATABASE_URL"]

    def __call__(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return commands.run(*arguments, env={**self.settings, **changes}, cwd=self.directory)

    def report(self, **changes: str) -> dict[str, Any]:
        """The report as JSON."""
        done = self("report", "--json", **changes)
        assert done.stdout, done.stderr
        parsed: dict[str, Any] = json.loads(done.stdout)
        return parsed

    def execute(self, *statements: str) -> None:
        """Runs statements as the warehouse's administrator."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.fixture
def shell(environment: dict[str, str], tmp_path: Path) -> Iterator[Shell]:
    """A shell whose reports are made by a member of the auditor role."""
    directory, home = tmp_path / "here", tmp_path / "dagster"
    directory.mkdir()
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    own = {name: text for name, text in environment.items() if not name.startswith("DAGSTER")}
    with person(environment["LOGIN_DATABASE_URL"], "login_ingest_auditor") as auditor:
        yield Shell(
            directory,
            {
                **own,
                "LOGIN_AUDITOR_DATABASE_URL": auditor.url,
                "LOGIN_MAX_EMPTY_RECEIVES": "2",
                "DAGSTER_HOME": str(home),
                "HOME": str(tmp_path),
                "PATH": os.environ["PATH"],
            },
        )


def ingest(shell: Shell, sqs: SQSClient, texts: list[str], **changes: str) -> int:
    send(sqs, shell.settings["LOGIN_QUEUE_URL"], texts)
    batch = {"LOGIN_BATCH_MESSAGES": str(len(texts)), **changes}
    return shell("ingest", "--max-batches", "1", **batch).returncode


def canaries(count: int = 2) -> list[str]:
    return [
        body(number, ip=CANARY_IP, device_id=CANARY_DEVICE, user_id=CANARY_USER)
        for number in range(count)
    ]


def test_a_report_of_a_healthy_pipeline_holds_and_only_its_owner_can_read_it(
    shell: Shell, sqs: SQSClient
) -> None:
    assert ingest(shell, sqs, canaries()) == 0

    done = shell("report")

    page = shell.directory / "privacy-report.html"
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert page.stat().st_mode & 0o777 == 0o600
    text = page.read_text(encoding="utf-8")
    assert "Everything in this report holds." in text
    for canary in (CANARY_IP, CANARY_DEVICE, CANARY_USER, "device_id:A", "ip:A"):
        assert canary not in text


def test_json_is_written_by_the_suffix_or_the_option(shell: Shell, sqs: SQSClient) -> None:
    ingest(shell, sqs, canaries())

    done = shell("report", "--output", "report.json")

    assert done.returncode == 0, done.stderr
    written = json.loads((shell.directory / "report.json").read_text(encoding="utf-8"))
    printed = shell.report()
    assert written["balance"] == printed["balance"]
    assert printed["balance"]["totals"]["loaded"] == 2


def test_everything_that_can_be_wrong_is_in_one_report(shell: Shell, sqs: SQSClient) -> None:
    assert ingest(shell, sqs, [*canaries(), f"junk {CANARY_DEVICE}"]) == 0
    shell.execute("INSERT INTO user_logins (masked_ip) VALUES ('plain')")
    assert ingest(shell, sqs, [body(5)]) == 0
    shell.execute("ALTER TABLE login_ingest.ledger RENAME batch_id TO another")
    assert ingest(shell, sqs, [body(6)]) == 1
    shell.execute(
        "ALTER TABLE login_ingest.ledger RENAME another TO batch_id",
        "DELETE FROM login_ingest.ledger WHERE batch_id = 1",
    )
    keyring = read_keyring(Path(shell.settings["MASKING_KEYSETS"]))
    token = keyring.masker("ip").mask(CANARY_IP)
    with person(shell.url, "login_ingest_recovery") as ann:
        desk = Unmasking(ann.url)
        number = desk.request([token], f"because of {CANARY_IP}", CANARY_DEVICE, 10)
        with pytest.raises(Exception, match="refused"):
            desk.approve(number, 5)
        order = ErasureOrder("e-1", Subjects("user", (CANARY_USER,)), CANARY_USER, CANARY_USER)
        Erasures(ann.url).erase(order, keyring, lambda _: None)
    shell.execute(
        "ALTER TABLE login_ingest.audit DISABLE TRIGGER append_only",
        "UPDATE login_ingest.audit SET detail = '{}' WHERE audit_id = 2",
    )

    done = shell("report", "--json")
    page = shell("report")

    assert (done.returncode, page.returncode) == (1, 1), done.stderr
    data = json.loads(done.stdout)
    checks = {each["name"]: each for each in data["checks"]["checks"]}
    assert checks["masked_columns_are_tokens"]["failed"] == 1
    assert checks["balance_holds"]["not_evaluated"] == 1
    assert [each["batch_id"] for each in data["balance"]["unbalanced_batches"]] == [1]
    assert data["erasures"]["certificates"][0]["logins"] == 2
    assert data["requests"]["requests"][0]["state"] == "waiting"
    assert data["audit"]["chain"]["broken_at"] == 2
    broken = {each["part"] for each in data["findings"] if each["severity"] == "broken"}
    assert broken == {"checks", "balance", "audit"}
    text = (shell.directory / "privacy-report.html").read_text(encoding="utf-8")
    assert "Not everything in this report holds." in text
    assert "the audit is broken at row 2" in text
    for canary in (CANARY_IP, CANARY_DEVICE, CANARY_USER, token, "junk"):
        assert canary not in done.stdout + done.stderr + text


def test_without_a_database_every_part_is_unreadable_and_the_exit_code_is_3(
    shell: Shell, sqs: SQSClient
) -> None:
    ingest(shell, sqs, canaries())
    down = f"postgresql://someone:{CANARY_DEVICE}@127.0.0.1:{free_port()}/logins"

    done = shell("report", "--json", LOGIN_AUDITOR_DATABASE_URL=down)

    data = json.loads(done.stdout)
    assert done.returncode == 3
    assert data["checks"]["checks"]
    for part in ("balance", "keys", "quarantine", "erasures", "retention", "requests", "audit"):
        assert "no connection to the database" in data[part]["unreadable"]
    assert not data["holds"]
    assert CANARY_DEVICE not in done.stdout + done.stderr


def test_without_a_check_history_the_exit_code_is_3(shell: Shell) -> None:
    none = shell("report", "--json", DAGSTER_HOME="")
    empty = shell("report", "--json")

    assert (none.returncode, empty.returncode) == (3, 3)
    assert "DAGSTER_HOME is not set" in json.loads(none.stdout)["checks"]["unreadable"]
    assert "It is empty." in json.loads(empty.stdout)["checks"]["unreadable"]


def test_an_invalid_period_and_an_invalid_hash_are_refused(shell: Shell) -> None:
    backwards = shell("report", "--since", "2026-02-01", "--until", "2026-01-01")
    no_hash = shell("report", "--expect-hash", "canary")

    assert backwards.returncode == 1
    assert "mend --since and --until" in backwards.stderr
    assert no_hash.returncode == 2
    assert list(shell.directory.iterdir()) == []


def test_an_output_that_cannot_be_written_is_one_sentence(shell: Shell) -> None:
    done = shell("report", "--output", "nowhere/report.html")

    assert done.returncode == 1
    assert "cannot be written (FileNotFoundError)" in done.stderr
    assert "Traceback" not in done.stderr
