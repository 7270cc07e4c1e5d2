"""`fetch-mask unmask`: recorded first, shown to the caller only, each refusal with its rule."""

from __future__ import annotations

import json
import os
import pty
import select
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner, Result

from fetch_mask_assets.audit.postgres import Audit
from fetch_mask_assets.cli.main import cli
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, new_keyset
from fetch_mask_assets.keys.storage import read_keyring
from fetch_mask_assets.operations.unmasking.postgres import Unmasking
from fetch_mask_assets.operations.unmasking.verdicts import UnmaskRefusedError
from fetch_mask_assets_tests.support.people import Person, person

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetch_mask_assets.keys.keyset import Keyring

FETCH_MASK = str(Path(sys.executable).parent / "fetch-mask")
RECOVERY = "login_ingest_recovery"
ADDRESS = "198.51.100.77"
DEVICE = "naïve ☃ device-4711"
WHY = ("--reason", "account takeover", "--ticket", "SEC-12")
SOME_REFUSED = 3


@pytest.fixture
def ann(database_url: str) -> Iterator[Person]:
    """The requester."""
    with person(database_url, RECOVERY) as member:
        yield member


@pytest.fixture
def bob(database_url: str) -> Iterator[Person]:
    """The approver."""
    with person(database_url, RECOVERY) as member:
        yield member


@pytest.fixture
def run(environment: dict[str, str], ann: Person, bob: Person, keysets_directory: Path) -> Run:
    """Run a command as a person."""
    return Run(environment, ann, bob, read_keyring(keysets_directory))


@dataclass(frozen=True)
class Run:
    """Run `fetch-mask` in this process, as one of two people."""

    environment: dict[str, str]
    ann: Person
    bob: Person
    keyring: Keyring

    @property
    def url(self) -> str:
        """The URL of the database's administrator."""
        return self.environment["LOGIN_DATABASE_URL"]

    def __call__(
        self, who: Person, *arguments: str, text: str | None = None, **more: str
    ) -> Result:
        env = {**self.environment, "LOGIN_RECOVERY_DATABASE_URL": who.url, **more}
        return CliRunner().invoke(cli, arguments, input=text, env=env)

    def approved(self, tokens: list[str]) -> str:
        """Request as the one, approve as the other; returns the request's id."""
        text = "\n".join(tokens)
        asked = self(self.ann, "unmask", "request", "--file", "-", *WHY, "--json", text=text)
        number = str(json.loads(asked.output)["request_id"])
        assert self(self.bob, "unmask", "approve", number).exit_code == 0
        return number


def verdicts(url: str) -> list[str]:
    return [json.loads(row.detail)["verdict"] for row in Audit(url).rows()]


def refusal(result: Result) -> str:
    assert result.exit_code == 1
    assert isinstance(result.exception, UnmaskRefusedError)
    assert ADDRESS not in result.output + str(result.exception)
    return str(result.exception)


# Request, approve, reveal


def test_originals_are_written_to_a_new_file_with_mode_0600(run: Run, tmp_path: Path) -> None:
    tokens = [run.keyring.masker("ip").mask(ADDRESS), run.keyring.masker("device_id").mask(DEVICE)]
    number = run.approved(tokens)
    output = tmp_path / "originals"
    done = run(run.ann, "unmask", "reveal", number, "--output", str(output))
    assert done.exit_code == 0
    assert output.read_text(encoding="utf-8") == (
        f"{tokens[0]}\t{ADDRESS}\n{tokens[1]}\t{DEVICE}\n"
    )
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert ADDRESS not in done.output
    assert "2 originals" in done.output
    assert not any(ADDRESS in row.detail for row in Audit(run.ann.url).rows())


def test_a_withdrawn_request_is_not_revealed_and_names_the_withdrawer(
    run: Run, tmp_path: Path
) -> None:
    number = run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    first = run(run.bob, "unmask", "withdraw", number)
    assert f"Request {number} is withdrawn, by {run.bob.name} at " in first.output
    again = json.loads(run(run.ann, "unmask", "withdraw", number, "--json").output)
    assert (again["request_id"], again["withdrawn_by"]) == (int(number), run.bob.name)
    output = tmp_path / "originals"
    done = run(run.ann, "unmask", "reveal", number, "--output", str(output))
    assert "was withdrawn" in refusal(done)
    assert not output.exists()
    assert f"[withdrawn by {run.bob.name} at " in run(run.ann, "unmask", "list").output


def test_json_has_originals_unescaped(run: Run, tmp_path: Path) -> None:
    odd = "tab\there\nand a line"
    token = run.keyring.masker("device_id").mask(odd)
    number = run.approved([token])
    run(run.ann, "unmask", "reveal", number, "--json", "--output", str(tmp_path / "json"))
    run(run.ann, "unmask", "reveal", number, "--output", str(tmp_path / "text"))
    assert json.loads((tmp_path / "json").read_text()) == {
        "request_id": int(number),
        "revealed": {token: odd},
        "refused": {},
    }
    assert (tmp_path / "text").read_text() == f"{token}\ttab\\there\\nand a line\n"


def test_originals_are_printed_to_a_terminal(run: Run, tmp_path: Path) -> None:
    number = run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    shown, code = at_a_terminal(run, run.ann, tmp_path, "unmask", "reveal", number)
    assert code == 0
    assert ADDRESS in shown


def test_tokens_are_read_from_a_query(run: Run) -> None:
    token = run.keyring.masker("ip").mask(ADDRESS)
    with psycopg.connect(run.url) as connection:
        connection.execute("INSERT INTO user_logins (user_id, masked_ip) VALUES ('u', %s)", [token])
    query = "SELECT masked_ip FROM user_logins WHERE user_id LIKE 'u%'"
    done = run(run.ann, "unmask", "request", "--query", query, *WHY)
    assert done.exit_code == 0
    assert "Request 1 for 1 token" in done.output
    (request,), _ = Unmasking(run.ann.url).requests()
    assert list(request.tokens) == [token]


def test_requests_are_listed_with_their_state(run: Run) -> None:
    assert "no requests" in run(run.ann, "unmask", "list").output
    run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    listed = run(run.bob, "unmask", "list").output
    for part in (run.ann.name, run.bob.name, "SEC-12", "account takeover", "approved", "1 token"):
        assert part in listed
    (found,) = json.loads(run(run.bob, "unmask", "list", "--json").output)
    assert (found["state"], found["requester"]) == ("approved", run.ann.name)


# Refusals


def test_each_refusal_names_its_rule_and_is_recorded(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "originals"
    asked = run(
        run.ann,
        "unmask",
        "request",
        "--file",
        "-",
        *WHY,
        text=run.keyring.masker("ip").mask(ADDRESS),
    )
    assert asked.exit_code == 0
    reveal = ("unmask", "reveal", "1", "--output", str(output))
    assert "is not approved" in refusal(run(run.ann, *reveal))
    assert "your own request" in refusal(run(run.ann, "unmask", "approve", "1"))
    assert "at most max_minutes" in refusal(
        run(run.bob, "unmask", "approve", "1", "--minutes", "9999")
    )
    assert "no request has this id" in refusal(run(run.bob, "unmask", "approve", "99"))
    assert run(run.bob, "unmask", "approve", "1").exit_code == 0
    assert "only the requester" in refusal(run(run.bob, *reveal))
    assert not output.exists()
    assert verdicts(run.url) == [
        "requested",
        "not_approved",
        "own_request",
        "too_long",
        "unknown_request",
        "approved",
        "not_the_requester",
    ]


def test_tokens_over_the_limit_of_the_environment_are_refused_and_recorded(run: Run) -> None:
    tokens = "\n".join(run.keyring.masker("ip").mask(f"192.0.2.{number}") for number in range(5))
    done = run(
        run.ann,
        "unmask",
        "request",
        "--file",
        "-",
        *WHY,
        text=tokens,
        LOGIN_MAX_RECOVERY_VALUES="4",
    )
    assert "more tokens" in refusal(done)
    assert verdicts(run.url) == ["limit_exceeded"]
    again = (f"{tokens}\n" * 3).splitlines(keepends=True)
    done = run(run.ann, "unmask", "request", "--file", "-", *WHY, text="".join(again),
               LOGIN_MAX_RECOVERY_VALUES="5")  # fmt: skip
    assert done.exit_code == 0


@pytest.mark.parametrize("line", [ADDRESS, "device-4711", "ip:" + ADDRESS, "ip:" + "A" * 49 + "!"])
def test_an_invalid_token_is_not_sent_to_the_database(run: Run, line: str) -> None:
    text = f"{run.keyring.masker('ip').mask(ADDRESS)}\n\n{line}\n"
    done = run(run.ann, "unmask", "request", "--file", "-", *WHY, text=text)
    assert "line 3 is not a token" in refusal(done)
    assert line not in str(done.exception)
    assert verdicts(run.url) == []


@pytest.mark.parametrize(
    "words", ["", "   ", "two\nlines", "x" * 501, f"look at {ADDRESS}", f"(ip={ADDRESS})", "::1"]
)
def test_a_reason_and_a_ticket_are_one_line_without_addresses(run: Run, words: str) -> None:
    for why in (("--reason", words, "--ticket", "x"), ("--reason", "x", "--ticket", words)):
        done = run(
            run.ann,
            "unmask",
            "request",
            "--file",
            "-",
            *why,
            text=run.keyring.masker("ip").mask(ADDRESS),
        )
        assert "Nothing was requested" in refusal(done)
    assert verdicts(run.url) == []


@pytest.mark.parametrize("missing", ["--reason", "--ticket"])
def test_a_reason_and_a_ticket_are_required(run: Run, missing: str) -> None:
    given = {"--reason": "x", "--ticket": "x"}
    del given[missing]
    words = [word for pair in given.items() for word in pair]
    assert run(run.ann, "unmask", "request", "--file", "-", *words, text="x").exit_code == 2


def test_tokens_come_from_a_file_or_from_a_query(run: Run) -> None:
    assert run(run.ann, "unmask", "request", *WHY).exit_code == 2
    both = ("--file", "-", "--query", "SELECT 'x'")
    assert run(run.ann, "unmask", "request", *both, *WHY, text="x").exit_code == 2


def test_refused_tokens_are_listed_and_the_others_are_revealed(run: Run, tmp_path: Path) -> None:
    good = run.keyring.masker("ip").mask(ADDRESS)
    tampered = good[:20] + ("A" if good[20] != "A" else "B") + good[21:]
    device = run.keyring.masker("device_id").mask("device-4711")
    foreign = "ip:" + device.removeprefix("device_id:")
    stranger = _strangers(tmp_path).masker("ip").mask(ADDRESS)
    bad = [tampered, foreign, stranger]
    number = run.approved([tampered, good, foreign, stranger])
    output = tmp_path / "originals"
    done = run(run.ann, "unmask", "reveal", number, "--output", str(output))
    assert done.exit_code == SOME_REFUSED
    assert output.read_text() == f"{good}\t{ADDRESS}\n"
    for token in bad:
        assert f"{token}: " in done.stderr
    assert done.stderr.count("\n") == 3
    assert "is not in the keyset of ip" in done.stderr
    assert ADDRESS not in done.output


def test_tokens_under_a_disabled_key_are_refused(
    run: Run, keysets_directory: Path, tmp_path: Path
) -> None:
    token = run.keyring.masker("ip").mask(ADDRESS)
    number = run.approved([token])
    path = keysets_directory / "ip.json"
    keyset, other = json.loads(path.read_text()), json.loads(new_keyset("ip"))
    keyset["key"][0]["status"] = "DISABLED"
    path.write_text(
        json.dumps({"primaryKeyId": other["primaryKeyId"], "key": keyset["key"] + other["key"]})
    )
    done = run(run.ann, "unmask", "reveal", number, "--output", str(tmp_path / "originals"))
    assert done.exit_code == SOME_REFUSED
    assert "is not in the keyset of ip" in done.stderr
    assert (tmp_path / "originals").read_text().strip() == ""


# Output


def test_originals_are_not_written_to_a_pipe(run: Run) -> None:
    number = run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    assert "not a terminal" in refusal(run(run.ann, "unmask", "reveal", number))
    assert "revealed" not in verdicts(run.url)


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "directory", "nowhere"])
def test_originals_are_written_to_new_files_only(run: Run, tmp_path: Path, kind: str) -> None:
    number = run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "directory").mkdir()
    output = tmp_path / "no" / "where" if kind == "nowhere" else tmp_path / kind
    assert run(run.ann, "unmask", "reveal", number, "--output", str(output)).exit_code in {1, 2}
    assert (tmp_path / "file").read_text() == "kept"
    assert not (tmp_path / "elsewhere").exists()
    assert "revealed" not in verdicts(run.url)


def test_nothing_is_revealed_when_the_audit_cannot_be_written(run: Run, tmp_path: Path) -> None:
    number = run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    with psycopg.connect(run.url) as connection:
        connection.execute("REVOKE INSERT ON login_ingest.audit FROM login_ingest_owner")
    output = tmp_path / "originals"
    done = run(run.ann, "unmask", "reveal", number, "--output", str(output))
    assert done.exit_code == 1
    assert ADDRESS not in done.output + str(done.exception)
    assert not output.exists()
    shown, code = at_a_terminal(run, run.ann, tmp_path, "unmask", "reveal", number)
    assert code == 1
    assert ADDRESS not in shown


def test_nothing_is_decrypted_before_the_record_is_committed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    seen = []
    unmask = type(run.keyring.masker("ip")).unmask

    def look(masker: object, token: str) -> str:
        seen.append(verdicts(run.url)[-1])
        return unmask(masker, token)  # type: ignore[arg-type]  # it is the masker that it was

    monkeypatch.setattr(type(run.keyring.masker("ip")), "unmask", look)
    run(run.ann, "unmask", "reveal", number, "--output", str(tmp_path / "originals"))
    assert seen == ["revealed"]


def test_nothing_is_revealed_without_the_keysets(run: Run, tmp_path: Path) -> None:
    number = run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    done = run(run.ann, "unmask", "reveal", number, "--output", str(tmp_path / "originals"),
               MASKING_KEYSETS=str(tmp_path / "none"))  # fmt: skip
    assert done.exit_code == 1
    assert "revealed" not in verdicts(run.url)
    assert not (tmp_path / "originals").exists()


# The audit


def test_the_audit_is_shown_and_verified(run: Run) -> None:
    run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    done = run(run.ann, "audit")
    assert done.exit_code == 0
    for part in (run.ann.name, run.bob.name, "unmask.request", "unmask.approve", "2 rows verified"):
        assert part in done.output
    assert "unmask.request" not in run(run.ann, "audit", "--verify").output
    found = json.loads(run(run.ann, "audit", "--json").output)
    assert (found["intact"], found["verified_rows"], len(found["rows"])) == (True, 2, 2)
    assert found["last_hash"] == found["rows"][-1]["hash"]
    assert found["last_hash"] in done.output
    only_last = json.loads(run(run.ann, "audit", "--json", "--limit", "1").output)
    assert [row["audit_id"] for row in only_last["rows"]] == [2]


def test_an_auditor_verifies_the_audit_with_the_login_of_reports(run: Run) -> None:
    run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    with person(run.url, "login_ingest_auditor") as carol:
        done = run(run.ann, "audit", LOGIN_AUDITOR_DATABASE_URL=carol.url)
        assert done.exit_code == 0
        assert "2 rows verified" in done.output
    refused = run(run.ann, "audit", LOGIN_AUDITOR_DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert refused.exit_code == 1


def test_the_first_broken_row_of_the_audit_is_reported(run: Run) -> None:
    run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    with psycopg.connect(run.url) as connection:
        connection.execute("ALTER TABLE login_ingest.audit DISABLE TRIGGER append_only")
        connection.execute("UPDATE login_ingest.audit SET actor = 'eve' WHERE audit_id = 2")
    done = run(run.ann, "audit", "--verify")
    assert done.exit_code == 1
    assert "BROKEN at row 2" in done.stderr
    assert json.loads(run(run.ann, "audit", "--json").output)["broken"]["audit_id"] == 2


def test_rows_cut_off_at_the_end_are_detected_with_a_noted_hash(run: Run) -> None:
    run.approved([run.keyring.masker("ip").mask(ADDRESS)])
    noted = json.loads(run(run.ann, "audit", "--json").output)["last_hash"]
    assert run(run.ann, "audit", "--expect-hash", noted.upper()).exit_code == 0
    with psycopg.connect(run.url) as connection:
        connection.execute("ALTER TABLE login_ingest.audit DISABLE TRIGGER append_only")
        connection.execute("DELETE FROM login_ingest.audit WHERE audit_id = 2")
    assert run(run.ann, "audit", "--verify").exit_code == 0
    done = run(run.ann, "audit", "--verify", "--expect-hash", noted)
    assert done.exit_code == 1
    assert "MISSING" in done.stderr
    assert run(run.ann, "audit", "--expect-hash", "no hash").exit_code == 2


def test_control_characters_of_the_audit_are_escaped(run: Run) -> None:
    with psycopg.connect(run.ann.url) as connection:
        connection.execute(
            "SELECT login_ingest.record_audit(%s, %s)", ["find\x1b[2J", "a\nb\x1b]0;x\x07"]
        )
    shown = run(run.ann, "audit").output
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown


def at_a_terminal(run: Run, who: Person, directory: Path, *arguments: str) -> tuple[str, int]:
    """Run a command at a terminal; returns its output and exit code."""
    ours, theirs = pty.openpty()
    env = {**run.environment, "LOGIN_RECOVERY_DATABASE_URL": who.url, "HOME": str(directory)}
    with subprocess.Popen(  # noqa: S603 (our own command)
        [FETCH_MASK, *arguments], env=env, cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b"".join(_read(ours))
    os.close(ours)
    return shown.decode(), process.returncode


def _read(descriptor: int) -> Iterator[bytes]:
    while select.select([descriptor], [], [], 60)[0]:
        try:
            part = os.read(descriptor, 4096)
        except OSError:  # Linux's end of a terminal
            return
        if not part:
            return
        yield part


def _strangers(tmp_path: Path) -> Keyring:
    directory = tmp_path / "stranger"
    directory.mkdir(mode=0o700)
    for name in KEYSET_NAMES:
        path = directory / f"{name}.json"
        path.write_text(new_keyset(name))
        path.chmod(0o600)
    return read_keyring(directory)
