"""`fetch-mask erase`, as a steward calls it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner, Result

from fetch_mask_assets.cli.operations.erase import erase
from fetch_mask_assets.keys.postgres import register_keys
from fetch_mask_assets.keys.storage import create_keysets
from fetch_mask_assets.operations.erasure.certificate import SELF_REPORTED
from fetch_mask_assets.operations.quarantine.postgres import Quarantine
from fetch_mask_assets_tests.support.logins import body
from fetch_mask_assets_tests.support.people import Person
from fetch_mask_assets_tests.support.warehouse import load

if TYPE_CHECKING:
    from pathlib import Path

    from fetch_mask_assets.keys.keyset import Keyring

IP = "203.0.113.77"
WHY = ("--reason", "asked for", "--ticket", "T-1")
_PROGRAM = (sys.executable, "-c", "from fetch_mask_assets.cli.main import main; main()", "erase")

pytestmark = pytest.mark.usefixtures("steward")


def test_values_come_from_standard_input_and_a_certificate_is_printed(
    database_url: str, keyring: Keyring, steward: Person
) -> None:
    load(database_url, keyring, [body(1, ip=IP), body(2), body(3), f"junk {IP}"])

    result = _run("--ip", *WHY, "--yes", "--json", stdin=f"{IP}\n192.0.2.2\n\n")

    assert result.exit_code == 0, result.exception
    certificate = json.loads(result.stdout)
    assert certificate["actor"] == steward.name
    assert (certificate["subjects"], certificate["logins"]) == (2, 2)
    assert (certificate["messages"], certificate["verified"]) == (1, True)
    assert IP not in result.output
    assert _nulls(database_url) == 2


def test_the_certificate_is_readable_too(database_url: str, keyring: Keyring) -> None:
    load(database_url, keyring, [body(1), body(1)])

    result = _run("--user", *WHY, "--yes", stdin="user-1")

    assert "Certificate of erasure" in result.stdout
    assert "logins: 2" in result.stdout
    assert "verified: True" in result.stdout
    assert "user-1" not in result.output


def test_a_device_id_is_erased_as_it_came(database_url: str, keyring: Keyring) -> None:
    load(database_url, keyring, [body(1, device_id=" x "), body(2, device_id="x")])

    certificate = json.loads(_run("--device-id", *WHY, "--yes", "--json", stdin=" x \n").stdout)

    assert (certificate["logins"], certificate["verified"]) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "stdin", "description"),
    [
        (("--ip", *WHY), IP, "add --yes"),
        (("--ip", *WHY, "--yes"), "canary", "line 1 is not an IP"),
        (("--ip", *WHY, "--yes"), "", "no values were given"),
        (("--ip", "canary", *WHY, "--yes"), IP, "never given as arguments"),
        (("--ip=canary", *WHY, "--yes"), IP, ""),
        (("--ip", "--reason", " ", "--ticket", "T", "--yes"), IP, "must not be blank"),
        (("--ip", "--reason", f"of {IP}", "--ticket", "T", "--yes"), IP, "kept permanently"),
        (("--ip", "--ticket", "T", "--yes"), IP, ""),
        ((*WHY, "--yes"), IP, ""),
        (("--ip", *WHY, "--yes"), b"\xff\xfe", "not UTF-8"),
    ],
)
def test_nothing_is_erased_when_the_input_is_invalid(
    arguments: tuple[str, ...],
    stdin: str | bytes,
    description: str,
    database_url: str,
    keyring: Keyring,
) -> None:
    load(database_url, keyring, [body(1, ip=IP)])

    result = _run(*arguments, stdin=stdin)

    assert result.exit_code
    assert description in str(result.exception)
    assert _nulls(database_url) == 0


def test_keysets_that_do_not_fit_the_database_are_refused(
    database_url: str, keyring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_keys(database_url, keyring.check_values)
    load(database_url, keyring, [body(1, ip=IP)])
    create_keysets(tmp_path / "others")
    monkeypatch.setenv("MASKING_KEYSETS", str(tmp_path / "others"))

    result = _run("--ip", *WHY, "--yes", stdin=IP)

    assert "do not fit the database" in str(result.exception)
    assert Quarantine(database_url).balance().erased == 0


def test_an_unreadable_message_is_an_error_after_the_certificate(
    database_url: str, keyring: Keyring
) -> None:
    load(database_url, keyring, ["junk"])
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE login_ingest.quarantine SET sealed_body = 'x'")

    result = _run("--ip", *WHY, "--yes", "--json", stdin=IP)

    assert result.exit_code == 1
    assert json.loads(result.stdout)["verified"] is False
    assert json.loads(result.stdout)["unreadable_messages"] == 1
    assert json.loads(result.stdout)["self_reported"] == list(SELF_REPORTED)
    assert "1 quarantined messages could not be opened" in str(result.exception)


def test_a_terminal_is_prompted_for_a_hidden_value_and_for_confirmation(
    database_url: str, keyring: Keyring
) -> None:
    load(database_url, keyring, [body(1, ip=IP)])

    declined = _at_a_terminal(b"n\n")
    assert b"This cannot be undone" in declined
    assert IP.encode() not in declined
    assert _nulls(database_url) == 0

    accepted = _at_a_terminal(b"y\n")
    assert b"verified: True" in accepted
    assert IP.encode() not in accepted
    assert _nulls(database_url) == 1


# One interpreter that forks for each kill, since starting one takes longer than all the rest.
_DRIVER = """
import os, signal, sys
from fetch_mask_assets.cli import main
from fetch_mask_assets.operations.erasure.postgres import Erasures
real, value = Erasures._call, sys.stdin.buffer.read()
def dies_after(step):
    calls = []
    def call(*inputs):
        answer = real(*inputs)
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    return call
for step in range(1, 8):
    if not os.fork():
        reader, writer = os.pipe()
        os.write(writer, value)
        os.close(writer)
        sys.stdin = open(reader)
        Erasures._call = dies_after(step)
        main.main()
    assert os.wait()[1] == signal.SIGKILL
"""


def test_it_may_be_killed_after_any_step_and_repeated(database_url: str, keyring: Keyring) -> None:
    load(database_url, keyring, [body(1, ip=IP), body(2), f"junk {IP}"])

    done = subprocess.run(  # noqa: S603 (our own program, no shell)
        [sys.executable, "-c", _DRIVER, "erase", "--ip", *WHY, "--yes"],
        input=IP.encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert Quarantine(database_url).balance().is_balanced
    with psycopg.connect(database_url) as connection:
        begun = connection.execute("SELECT count(*) FROM login_ingest.erasure").fetchone()
    assert begun == (7,)

    certificate = json.loads(_run("--ip", *WHY, "--yes", "--json", stdin=IP).stdout)

    assert certificate["verified"] is True
    assert (_nulls(database_url), Quarantine(database_url).balance().waiting) == (1, 0)
    with psycopg.connect(database_url) as connection:
        sums = connection.execute(
            "SELECT sum(logins), sum(messages) FROM login_ingest.erasure"
        ).fetchone()
    assert sums == (1, 1)


def _run(*arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(erase, arguments, input=stdin)


def _at_a_terminal(answer: bytes) -> bytes:
    """Type the IP and an answer at a terminal; returns its output."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: S603 (our own program, no shell)
        [*_PROGRAM, "--ip", *WHY],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = _read_until(ours, b"to erase: ")
    os.write(ours, IP.encode() + b"\n")
    seen += _read_until(ours, b"[y/N]: ")
    os.write(ours, answer)
    seen += _read_until(ours, None)
    process.wait(30)
    os.close(ours)
    return seen


def _read_until(terminal: int, words: bytes | None) -> bytes:
    seen, end = b"", time.monotonic() + 30
    while (words is None or words not in seen) and time.monotonic() < end:
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            break
    return seen


def _nulls(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM user_logins WHERE masked_ip IS NULL"
        ).fetchone()
    assert row is not None
    return int(row[0])
