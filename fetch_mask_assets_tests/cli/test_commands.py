"""The commands, as a person or a script calls them."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.local_stack.samples import samples
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.support import commands
from fetch_mask_assets_tests.support.logins import bodies, body, send

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mypy_boto3_sqs import SQSClient

    from fetch_mask_assets.local_stack.stack import Stack


@dataclass(frozen=True)
class CommandLine:
    """A shell that stands in an empty directory, with the test's own settings."""

    directory: Path
    settings: Mapping[str, str]

    def run(
        self, *arguments: str, stdin: bytes = b"", seconds: int = 120, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        """A command, with some settings changed."""
        settings = {**self.settings, **changes}
        return commands.run(
            *arguments, env=settings, cwd=self.directory, stdin=stdin, timeout=seconds
        )


@pytest.fixture
def shell(environment: dict[str, str], tmp_path: Path) -> CommandLine:
    """A shell without DAGSTER_HOME: runs are not kept."""
    own = {name: text for name, text in environment.items() if not name.startswith("DAGSTER")}
    directory = tmp_path / "here"
    directory.mkdir()
    settings = {
        **own,
        "LOGIN_MAX_EMPTY_RECEIVES": "2",
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "COLUMNS": "200",
    }
    return CommandLine(directory, settings)


@pytest.fixture
def empty_database_url(stack: Stack) -> Iterator[str]:
    """A database without our schema."""
    name = f"empty_{os.getpid()}"
    owner = postgres.url(stack.state, postgres.OWNER)
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield postgres.url(stack.state, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.parametrize(
    "command",
    [(), ("send",), ("ingest",), ("show",), ("doctor",), ("migrate",), ("local",), ("local", "up")],
    ids=" ".join,
)
def test_every_command_explains_itself_without_settings(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    nothing = CommandLine(tmp_path, {})
    done = nothing.run(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {' '.join(('fetch-mask', *command))} ")


def test_a_hundred_messages_go_from_a_file_to_the_table(shell: CommandLine) -> None:
    texts = samples(100, seed=7)
    (shell.directory / "logins.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    sent = shell.run("send", "logins.jsonl")
    assert (sent.returncode, sent.stdout) == (0, "Sent 100 messages.\n")
    first = shell.run("ingest", "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) == {
        "received": 100,
        "loaded": 99,
        "quarantined": 1,
        "already_known": 0,
        "batches": 1,
    }
    tokens = _tokens(shell)
    shell.run("send", "logins.jsonl")
    assert json.loads(shell.run("ingest", "--json").stdout)["loaded"] == 99
    assert _tokens(shell) == sorted([*tokens, *tokens])
    keyring = read_keyring(Path(shell.settings["MASKING_KEYSETS"]))
    assert all(keyring.masker("ip").unmask(ip) for ip, _ in tokens)


def test_send_reads_standard_input_and_leaves_empty_lines_out(
    shell: CommandLine, sqs: SQSClient
) -> None:
    lines = [body(1), "", body(2), "", "last without an end of line"]
    done = shell.run("send", "-", "--json", stdin="\n".join(lines).encode())
    assert (done.returncode, json.loads(done.stdout)) == (0, {"sent": 3, "not_sent": 0})
    assert sorted(_waiting(sqs, shell)) == sorted(line for line in lines if line)


def test_send_passes_lines_on_as_they_are(shell: CommandLine, sqs: SQSClient) -> None:
    lines = ["  spaces  ", "ünï€😀", "a\rb", '{"half": ']
    done = shell.run("send", "-", stdin="\n".join(lines).encode())
    assert done.returncode == 0
    assert sorted(_waiting(sqs, shell)) == sorted(lines)


def test_send_names_a_line_that_is_no_text_and_sends_the_others(
    shell: CommandLine, sqs: SQSClient
) -> None:
    done = shell.run("send", "-", stdin=b"first\n\xff\xfe canary\nthird\n")
    assert done.returncode == 1
    assert "not UTF-8 and were not sent, the first: line 2." in done.stderr
    assert "canary" not in done.stderr
    assert sorted(_waiting(sqs, shell)) == ["first", "third"]


def test_send_says_when_the_queue_does_not_take_a_message(shell: CommandLine) -> None:
    done = shell.run("send", "-", "--json", stdin=b"good\n" + b"x" * (2**20 + 1) + b"\n")
    assert done.returncode == 1
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_ingest_stops_after_so_many_batches(shell: CommandLine, sqs: SQSClient) -> None:
    send(sqs, shell.settings["LOGIN_QUEUE_URL"], bodies(12))
    done = shell.run("ingest", "--max-batches", "2", LOGIN_BATCH_MESSAGES="4")
    assert done.stdout == (
        "Received 8 messages in 2 batches: 8 loaded, 0 quarantined, 0 already known.\n"
    )
    assert len(_waiting(sqs, shell)) == 4


def test_ingest_does_not_wait_for_messages_in_flight_when_told_so(
    shell: CommandLine, sqs: SQSClient
) -> None:
    send(sqs, shell.settings["LOGIN_QUEUE_URL"], bodies(2))
    assert len(_waiting(sqs, shell)) == 2
    done = shell.run("ingest", "--no-wait", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["received"] == 0


def test_ingest_ends_over_a_dry_queue_though_time_ends_its_batches_first(
    shell: CommandLine,
) -> None:
    done = shell.run(
        "ingest", "--json", seconds=25, LOGIN_BATCH_SECONDS="1", LOGIN_MAX_EMPTY_RECEIVES="50"
    )
    assert json.loads(done.stdout)["received"] == 0


def test_a_failed_run_is_exit_code_1_and_one_sentence(shell: CommandLine, sqs: SQSClient) -> None:
    send(sqs, shell.settings["LOGIN_QUEUE_URL"], bodies(2))
    _execute(shell, "ALTER TABLE login_ingest.ledger RENAME batch_id TO another")
    done = shell.run("ingest", "--json", LOGIN_BATCH_MESSAGES="2")
    assert done.returncode == 1
    assert json.loads(done.stdout)["loaded"] == 0
    assert "Error: Run " in done.stderr
    assert "SQLSTATE 42703" in done.stderr
    assert "the same command takes them" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("LOGIN_DATABASE_URL", "down", "[database] no connection to the database"),
        ("LOGIN_DATABASE_URL", "", "LOGIN_DATABASE_URL is not set"),
        ("LOGIN_QUEUE_URL", "", "LOGIN_QUEUE_URL is not set"),
        ("MASKING_KEYSETS", "/nowhere", "there is no keyset at /nowhere/ip.json"),
        ("MASKING_KEYSETS", "", "MASKING_KEYSETS is not set"),
        ("LOGIN_RECEIVERS", "many", "LOGIN_RECEIVERS"),
    ],
)
def test_ingest_without_what_it_needs_receives_nothing_and_says_what_to_do(
    shell: CommandLine, sqs: SQSClient, setting: str, value: str, remedy: str
) -> None:
    send(sqs, shell.settings["LOGIN_QUEUE_URL"], bodies(1))
    if value == "down":
        value = f"postgresql://someone:canary@127.0.0.1:{free_port()}/logins"
    done = CommandLine(shell.directory, {**shell.settings, setting: value}).run("ingest")
    assert done.returncode == 1
    assert remedy in done.stderr
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stdout + done.stderr
    assert len(_waiting(sqs, shell)) == 1


def test_doctor_finds_everything_well(shell: CommandLine) -> None:
    done = shell.run("doctor", "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["ok"]
    assert {"masking keys", "database", "key registry", "queue", "table", "dagster"} <= {
        finding["name"] for finding in report["findings"]
    }
    assert all(finding["ok"] for finding in report["findings"])
    _assert_no_password(shell, done.stdout)


def test_doctor_says_what_is_not_well(shell: CommandLine) -> None:
    done = shell.run("doctor", "--json", MASKING_KEYSETS="/nowhere")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert not report["ok"]
    unwell = {f["name"]: f["description"] for f in report["findings"] if not f["ok"]}
    assert set(unwell) == {"masking keys", "key registry"}
    assert "MASKING_KEYSETS" in unwell["masking keys"]


def test_doctor_without_any_setting_names_each(tmp_path: Path) -> None:
    done = CommandLine(tmp_path, {}).run("doctor")
    assert done.returncode == 1
    for name in ("LOGIN_QUEUE_URL", "LOGIN_DATABASE_URL", "MASKING_KEYSETS"):
        assert f"{name} is not set" in done.stdout
    assert "Traceback" not in done.stderr


def test_show_shows_tokens_and_counts_and_no_value(shell: CommandLine, sqs: SQSClient) -> None:
    texts = [body(n, ip="203.0.113.77", device_id="canary-device") for n in range(3)]
    send(sqs, shell.settings["LOGIN_QUEUE_URL"], [*texts, "canary junk"])
    shell.run("ingest", LOGIN_BATCH_MESSAGES="4", LOGIN_MAX_RUNS="1")
    done = shell.run("show")
    assert done.returncode == 0, done.stderr
    [(ip, _), *_] = _tokens(shell)
    assert ip in done.stdout
    assert "not_json" in done.stdout
    assert "203.0.113.77" not in done.stdout
    assert "canary" not in done.stdout
    _assert_no_password(shell, done.stdout)


def test_show_of_an_empty_database_is_fine(shell: CommandLine) -> None:
    done = shell.run("show")
    assert done.returncode == 0, done.stderr
    assert "Balance of all batches" in done.stdout


def test_show_of_a_database_that_is_down_is_one_sentence(shell: CommandLine) -> None:
    down = f"postgresql://someone:canary@127.0.0.1:{free_port()}/logins"
    done = shell.run("show", LOGIN_DATABASE_URL=down)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: no connection to the database")
    assert "canary" not in done.stderr


def test_migrating_twice_is_as_once(shell: CommandLine, empty_database_url: str) -> None:
    [(head,)] = LoginDatabase(shell.settings["LOGIN_DATABASE_URL"]).query(
        "SELECT version_num FROM login_ingest.schema_version"
    )
    first = shell.run("migrate", LOGIN_DATABASE_URL=empty_database_url)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == f"The schema is at revision {head} (was: none).\n"
    second = shell.run("migrate", LOGIN_DATABASE_URL=empty_database_url)
    assert second.stdout == f"The schema is at revision {head} (was: {head}).\n"


def _tokens(shell: CommandLine) -> list[tuple[str, str]]:
    return sorted(
        (str(ip), str(device))
        for ip, device in LoginDatabase(shell.settings["LOGIN_DATABASE_URL"]).query(
            "SELECT masked_ip, masked_device_id FROM user_logins"
        )
    )


def _waiting(sqs: SQSClient, shell: CommandLine) -> list[str]:
    answer = sqs.receive_message(
        QueueUrl=shell.settings["LOGIN_QUEUE_URL"], MaxNumberOfMessages=10, WaitTimeSeconds=1
    )
    return [message["Body"] for message in answer.get("Messages", [])]


def _execute(shell: CommandLine, statement: str) -> None:
    with psycopg.connect(shell.settings["LOGIN_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(statement.encode())


def _assert_no_password(shell: CommandLine, text: str) -> None:
    password = shell.settings["LOGIN_DATABASE_URL"].split(":")[2].split("@")[0]
    assert password not in text
