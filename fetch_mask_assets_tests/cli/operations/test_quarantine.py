"""`fetch-mask quarantine`, as a steward calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner, Result

from fetch_mask_assets.cli.operations.quarantine import quarantine
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.keys.postgres import register_keys
from fetch_mask_assets.operations.quarantine.postgres import Quarantine
from fetch_mask_assets_tests.support.logins import body
from fetch_mask_assets_tests.support.warehouse import quarantine_bodies, quarantine_logins

if TYPE_CHECKING:
    from pathlib import Path

    from fetch_mask_assets.keys.keyset import Keyring

CANARY = "canary-4711"

pytestmark = pytest.mark.usefixtures("steward")


def test_the_list_shows_profiles_and_the_balance_without_text_of_a_sender(
    database_url: str, keyring: Keyring
) -> None:
    quarantine_bodies(database_url, keyring, [json.dumps({"ip": CANARY, CANARY: 1}), CANARY])

    shown = _run("list")

    assert "ip +1 unknown" in shown.stdout
    assert "not JSON" in shown.stdout
    assert "2 quarantined = 0 replayed" in shown.stdout
    assert CANARY not in shown.output
    counts = json.loads(_run("list", "--json").stdout)
    assert counts["messages"] == 2
    assert {each["profile"] for each in counts["profiles"]} == {"ip +1 unknown", "not JSON"}
    assert counts["balance"]["is_balanced"] is True
    assert CANARY not in json.dumps(counts)


def test_a_balance_that_does_not_hold_is_reported(database_url: str, keyring: Keyring) -> None:
    quarantine_bodies(database_url, keyring, ["junk"])
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM login_ingest.quarantine")

    assert "does NOT add up" in _run("list").stdout


def test_control_characters_of_a_body_are_escaped(database_url: str, keyring: Keyring) -> None:
    [message_id] = quarantine_bodies(database_url, keyring, ["\x1b[2J{junk"])

    assert _run("show", message_id).stdout == "\\x1b[2J{junk\n"
    message = json.loads(_run("show", message_id, "--json").stdout)
    assert (message["message_id"], message["body"]) == (message_id, "\x1b[2J{junk")
    with psycopg.connect(database_url) as connection:
        shows = connection.execute(
            "SELECT count(*) FROM login_ingest.audit WHERE action = 'quarantine.show'"
        ).fetchone()
    assert shows == (2,)


def test_an_unknown_message_is_an_error() -> None:
    result = _run("show", "nowhere")

    assert result.exit_code == 1
    assert "no message with this id" in str(result.exception)


def test_a_replay_reports_its_counts(database_url: str, keyring: Keyring) -> None:
    ids = quarantine_logins(database_url, keyring, [body(1), body(2), body(3)])
    quarantine_bodies(database_url, keyring, ["junk"])

    assert json.loads(_run("replay", "--json", ids[0]).stdout) == {
        "replayed": 1,
        "still_rejected": 0,
        "unreadable": 0,
    }
    assert "2 messages replayed. 1 still rejected." in _run("replay", "--all").stdout
    assert "0 messages replayed. 1 still rejected." in (
        _run("replay", "--reason-code", "not_json").stdout
    )
    assert Quarantine(database_url).balance().is_balanced


def test_a_replay_with_keys_that_do_not_fit_writes_nothing(
    database_url: str, keyring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fetch_mask_assets.keys.storage import create_keysets  # noqa: PLC0415 (only here)

    register_keys(database_url, keyring.check_values)
    quarantine_logins(database_url, keyring, [body(1)])
    create_keysets(tmp_path / "others")
    monkeypatch.setenv("MASKING_KEYSETS", str(tmp_path / "others"))

    result = _run("replay", "--all")

    assert "do not fit the database" in str(result.exception)
    assert Quarantine(database_url).balance().waiting == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay",),
        ("replay", "--all", "--reason-code", "null"),
        ("replay", "--all", "an-id"),
        ("replay", "--reason-code", "no-such-reason"),
        ("discard", "--reason", "x"),
        ("discard", "--all", "--reason", "x"),
        ("discard", "an-id"),
    ],
)
def test_messages_are_selected_in_exactly_one_way(arguments: tuple[str, ...]) -> None:
    assert _run(*arguments).exit_code == 2


def test_a_discard_asks_for_confirmation(database_url: str, keyring: Keyring) -> None:
    quarantine_bodies(database_url, keyring, ["junk", "junk"])
    arguments = ("discard", "--reason-code", "not_json", "--reason", "noise")

    assert _run(*arguments, stdin="n\n").exit_code == 1
    assert _run(*arguments).exit_code == 1
    assert Quarantine(database_url).balance().waiting == 2
    assert "Discarded 2 messages." in _run(*arguments, stdin="y\n").stdout
    assert json.loads(_run(*arguments, "--yes", "--json").stdout) == {"discarded": 0}
    balance = Quarantine(database_url).balance()
    assert (balance.discarded, balance.waiting, balance.is_balanced) == (2, 0, True)


def test_a_discard_requires_a_reason(database_url: str, keyring: Keyring) -> None:
    quarantine_bodies(database_url, keyring, ["junk"])

    result = _run("discard", "--reason-code", "not_json", "--reason", " ", "--yes")

    assert isinstance(result.exception, FetchMaskError)
    assert Quarantine(database_url).balance().waiting == 1


# One interpreter that forks for each kill, since starting one takes longer than all the rest.
_DRIVER = """
import os, signal
from fetch_mask_assets.cli import main
from fetch_mask_assets.operations.quarantine import postgres, replay
postgres.MESSAGES_AT_ONCE = 5
def dies(real):
    calls = []
    def call(*inputs):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*inputs)
    return call
targets = [(replay, "mask_and_check")]
targets += [(postgres, name) for name in ("write_links", "one_row", "ReplayResult")]
for module, name in targets:
    if not os.fork():
        setattr(module, name, dies(getattr(module, name)))
        main.main()
    assert os.wait()[1] == signal.SIGKILL
"""


def test_replays_that_are_killed_lose_nothing_and_load_nothing_twice(
    database_url: str, keyring: Keyring
) -> None:
    quarantine_logins(database_url, keyring, [body(number) for number in range(30)])

    done = subprocess.run(  # noqa: S603 (our own program, no shell)
        [sys.executable, "-c", _DRIVER, "quarantine", "replay", "--all"],
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    balance = Quarantine(database_url).balance()
    assert balance.is_balanced
    # Each died in its second transaction, or, where it counts first, in its first.
    assert balance.replayed == 15
    assert _run("replay", "--all").exit_code == 0
    with psycopg.connect(database_url) as connection:
        counts = connection.execute(
            "SELECT count(*), count(DISTINCT user_id) FROM user_logins"
        ).fetchone()
    assert counts == (30, 30)
    assert Quarantine(database_url).balance().waiting == 0


@pytest.mark.parametrize("command", ["list", "show", "replay", "discard"])
def test_every_command_explains_itself(command: str) -> None:
    assert len(_run(command, "--help").stdout.splitlines()) > 8


def _run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(quarantine, arguments, input=stdin)
