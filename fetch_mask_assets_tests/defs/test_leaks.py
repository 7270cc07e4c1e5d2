"""Nothing raw at rest: everything that runs have written is searched for what they read."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import psycopg
import pytest
from dagster import DagsterInstance

from fetch_mask_assets.definitions import build_definitions
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.local_stack import sqs as local_sqs
from fetch_mask_assets.local_stack import stack as local_stack
from fetch_mask_assets_tests.support import canaries, commands
from fetch_mask_assets_tests.support.logins import body, send
from fetch_mask_assets_tests.support.traces import files, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fetch_mask_assets.local_stack.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]
IPS = ("203.0.113.213", "198.51.100.177", "2001:db8:5eaf::c0de:77")
DEVICES = ("canary-device-815-4711", "7f3c1e52-canary-uuid", "gerät-kanarie-0815")
JUNK = "canary-of-a-message-that-is-none"


@dataclass
class Traces:
    """Everything that the runs of this module have left behind."""

    stack: Stack
    directory: Path
    outputs: list[bytes] = field(default_factory=list)

    @cached_property
    def texts(self) -> list[tuple[str, bytes]]:
        """Each trace with where it was found, read once."""
        return list(self._texts())

    def _texts(self) -> Iterator[tuple[str, bytes]]:
        """Each trace with where it was found; only the queue's own state is left out."""
        yield from ((f"output {number}", text) for number, text in enumerate(self.outputs))
        yield from files(self.directory)
        yield from (
            (place, text)
            for place, text in files(self.stack.layout.checkout)
            if not Path(place).is_relative_to(self.stack.layout.sqs)
        )
        for database in ("logins", "dagster"):
            yield from tables(postgres.url(self.stack.state, database))


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """A stack of the module's own, after good runs and after each kind of failing run."""
    checkout, directory = (tmp_path_factory.mktemp(name) for name in ("leaks", "elsewhere"))
    try:
        left = Traces(local_stack.up(checkout), directory)
        _run_everything(left)
        yield left
    finally:
        local_stack.down(checkout, delete=True)


def test_the_runs_did_what_they_were_meant_to(traces: Traces) -> None:
    url = postgres.url(traces.stack.state, "logins")
    with psycopg.connect(url) as connection:
        [counts] = connection.execute(
            "SELECT (SELECT count(*) FROM user_logins),"
            " (SELECT count(*) FROM login_ingest.quarantine)"
        ).fetchall()
    assert counts == (len(IPS), 6)
    with psycopg.connect(postgres.url(traces.stack.state, "dagster")) as connection:
        statuses = [status for (status,) in connection.execute("SELECT status FROM runs")]
    assert (statuses.count("SUCCESS"), statuses.count("FAILURE")) == (1, 4)


def test_the_search_finds_what_is_there(traces: Traces) -> None:
    found = {place.split(" ")[0] for place, text in traces.texts if b"user_logins" in text}
    assert {"output", "logins.public.user_logins", "dagster.public.event_logs"} & found
    assert any(b"masking_rules" in text for place, text in traces.texts if "snapshots" in place)


@pytest.mark.parametrize("canary", [*IPS, *DEVICES, JUNK], ids=range(7))
def test_no_trace_holds_a_raw_value_in_any_form(traces: Traces, canary: str) -> None:
    forms = canaries.forms(canary)
    places = [(place, form) for place, text in traces.texts for form in forms if form in text]
    assert places == []


def test_every_file_of_dagster_is_private(traces: Traces) -> None:
    home = traces.stack.layout.dagster_home
    assert home.stat().st_mode & 0o077 == 0


def _run_everything(traces: Traces) -> None:
    stack = traces.stack
    settings = {
        **stack.environment,
        "LOGIN_MAX_EMPTY_RECEIVES": "2",
        "TMPDIR": str(traces.directory),
        "HOME": str(traces.directory),
    }
    client, queue_url = local_sqs.client(stack.state), settings["LOGIN_QUEUE_URL"]
    pairs = list(zip(IPS, DEVICES, strict=True))
    texts = [body(n, ip=ip, device_id=device) for n, (ip, device) in enumerate(pairs)]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        for target in (
            "fetch_mask_assets.pipeline.batch.checked_batch.mask_batch",
            "fetch_mask_assets.pipeline.batch.checked_batch.broken_rules",
            "fetch_mask_assets.pipeline.warehouse.commit.commit_batch",
        ):
            send(client, queue_url, texts)
            _fail_in_process(settings, patch, target)
            # What a run hands back comes later than a test can wait for.
            client.purge_queue(QueueUrl=queue_url)
    send(client, queue_url, texts)
    with _unusable_table(settings["LOGIN_DATABASE_URL"]):
        traces.outputs += _ingest(settings, traces.directory, expected=1)
    client.purge_queue(QueueUrl=queue_url)
    send(client, queue_url, [*texts, *_broken()])
    traces.outputs += _ingest(settings, traces.directory, expected=0)
    traces.outputs += _command(settings, traces.directory, "show")


def _broken() -> list[str]:
    ip, device = IPS[0], DEVICES[0]
    return [
        f"{JUNK} {ip} {device}",
        json.dumps({"ip": ip, "device_id": device, "note": JUNK}),
        body(1, ip=f"{ip}/24", device_id=device),
        body(2, ip=ip, device_id=device, user_id=f"{ip} {JUNK}"),
        body(3, ip=ip, device_id=device, locale=f"x{device}"),
        body(4, ip=ip, device_id=[device, JUNK]),
    ]


def _fail_in_process(settings: Mapping[str, str], patch: pytest.MonkeyPatch, target: str) -> None:
    """A run that fails where its values are at hand, with an error that quotes them."""

    def fail(*_inputs: object, **_named: object) -> NoReturn:
        try:
            raise KeyError(IPS)  # noqa: TRY301 (a chained error is what is wanted)
        except KeyError as cause:
            raise ValueError(DEVICES) from cause

    job = build_definitions({**settings, "LOGIN_BATCH_MESSAGES": "3"}).resolve_job_def(
        "ingest_logins"
    )
    with DagsterInstance.get() as instance, patch.context() as fault:
        fault.setattr(target, fail)
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success


@contextmanager
def _unusable_table(url: str) -> Iterator[None]:
    """The table lacks a column for a while."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE login_ingest.ledger RENAME batch_id TO another")
        yield
        connection.execute("ALTER TABLE login_ingest.ledger RENAME another TO batch_id")


def _ingest(settings: Mapping[str, str], cwd: Path, expected: int) -> list[bytes]:
    return _command(settings, cwd, "ingest", "--verbose", expected=expected)


def _command(
    settings: Mapping[str, str], cwd: Path, *arguments: str, expected: int = 0
) -> list[bytes]:
    done = commands.run(*arguments, env={**settings, "PATH": os.environ["PATH"]}, cwd=cwd)
    assert done.returncode == expected, done.stderr
    return [done.stdout.encode(), done.stderr.encode()]
