"""A pipeline in this process, a harsh queue and a wire, and what is to be seen of them.

Belongs here: what can be done to the pipeline, and the evidence of it: what was sent, what the
queue's server knows to be true, what is in the tables, what runs say of themselves. Does not belong
here: what must hold (`invariants`), and the order of things (`test_model`, `test_mutations`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, NoReturn
from uuid import uuid4

import psycopg
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult, JobDefinition

from benchmarks.sqs_simulator.harsh_queue import HarshQueue
from benchmarks.sqs_simulator.queue_faults import Fault, FaultKind, FaultPlan
from benchmarks.sqs_simulator.sqs_protocol import Call
from fetch_mask_assets import settings
from fetch_mask_assets.definitions import build_definitions
from fetch_mask_assets.keys.keyset import Keyring
from fetch_mask_assets.keys.storage import create_keysets, keysets_at, read_keyring
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets.operations.quarantine.messages import MessageFilter
from fetch_mask_assets.operations.quarantine.postgres import Quarantine
from fetch_mask_assets.operations.rotation.key_changes import rotate
from fetch_mask_assets.pipeline.queue.sqs.batch_requests import BatchRequests, BatchResult
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.chaos import tables
from fetch_mask_assets_tests.chaos.invariants import ALL, Claim, Evidence, Sent, violations
from fetch_mask_assets_tests.chaos.wire import LEDGER, Moment, Wire, WireAction
from fetch_mask_assets_tests.support.canaries import raw_values

QUEUE = "logins"
IPS = {
    "203.0.113.213": "203.0.113.213",
    "::ffff:203.0.113.213": "203.0.113.213",
    "2001:db8:5eaf::c0de:77": "2001:db8:5eaf::c0de:77",
    "2001:0DB8:5EAF:0:0:0:C0DE:77": "2001:db8:5eaf::c0de:77",
    "198.51.100.177": "198.51.100.177",
}
"""IPs in several spellings, each with the one in which it is read back."""
DEVICES = ("canary-device-815-4711", "7f3c1e52-canary-uuid", "gerät-kanarie-0815")
REFUSED_KIND = "a device that the table refuses"

DIES_AT = (
    "fetch_mask_assets.defs.assets.require_ready",
    "fetch_mask_assets.pipeline.batch.checked_batch.mask_batch",
    "fetch_mask_assets.pipeline.warehouse.commit.insert_new_messages",
    "fetch_mask_assets.pipeline.warehouse.commit._copy_logins",
    "fetch_mask_assets.pipeline.warehouse.commit._insert_quarantine",
    "fetch_mask_assets.pipeline.queue.login_queue.LoginQueue.delete",
    "fetch_mask_assets.pipeline.queue.sqs.batch_requests.BatchRequests._failed",
)
"""Where a run can be killed: when it calls one of these."""

UNSEEN = frozenset({"ended", "runs", "memory_mib"})
"""What of the evidence only processes of their own would give."""

_CANARIES = (*IPS, *DEVICES)
_VISIBILITY = 43_200
_MAX_RELEASE_SECONDS = 900
_HIDING = (
    ("ReceiveMessage", FaultKind.LOST),
    ("DeleteMessageBatch", FaultKind.STALE),
    ("DeleteMessageBatch", FaultKind.ENTRIES),
    ("DeleteMessageBatch", FaultKind.SILENT),
    ("ChangeMessageVisibilityBatch", FaultKind.REFUSED),
)
"""What leaves messages hidden that nobody has to hand back, or that nobody can."""
_DRAINS = 3
_NUMBERS = {
    "LOGIN_VISIBILITY_SECONDS": str(_VISIBILITY),
    "LOGIN_BATCH_SECONDS": "20",
    "LOGIN_RECEIVERS": "2",
    "LOGIN_RECEIVE_WAIT_SECONDS": "1",
    "LOGIN_MAX_EMPTY_RECEIVES": "2",
}


class Laboratory:
    """A pipeline with its queue, database and keys. What is done to it, it remembers as `sent`."""

    def __init__(self, queue: HarshQueue, wire: Wire, url: str, keysets: Path) -> None:
        """Starts with nothing sent; `make_laboratory` makes one."""
        self.queue, self.wire, self.url, self.keysets = queue, wire, url, keysets
        self.sent: dict[str, Sent] = {}
        self.claims: list[Claim] = []
        self.deleted_uncommitted: set[str] = set()
        self.instance = DagsterInstance.ephemeral()
        self._hidden_for = _MAX_RELEASE_SECONDS
        queue.create(QUEUE)
        queue.on("DeleteMessageBatch", self._look_at_delete)

    # What can be done

    def send(self, count: int = 1, ip: str = "", device: str = "", kind: str = "ios") -> None:
        """Sends logins of one IP and device, each of another user."""
        ip, device = ip or next(iter(IPS)), device or DEVICES[0]
        for _ in range(count):
            user = f"user-{len(self.sent)}"
            members = {"user_id": user, "app_version": "2.3.0", "device_type": kind}
            body = json.dumps(members | {"ip": ip, "device_id": device})
            [message_id] = self.queue.send(QUEUE, [body])
            day = self.queue.lives[message_id].sent_on
            self.sent[message_id] = Sent(user, IPS[ip], device, day)

    def send_broken(self, body: str) -> None:
        """Sends a message that breaks the contract."""
        [message_id] = self.queue.send(QUEUE, [body])
        self.sent[message_id] = Sent()

    def run(self, *faults: Fault, seed: int = 0, cannot_be_green: bool = False) -> bool:
        """One run under faults of the queue; whether it was green."""
        self.queue.plan = FaultPlan(faults, seed)
        before = self._accepted_deletes()
        result = self._execute("ingest_logins", LOGIN_BATCH_MESSAGES=str(max(1, self.waiting())))
        accepted = self._accepted_deletes() - before
        self.claims.append(Claim(result.success, cannot_be_green, _says_deleted(result), accepted))
        self.queue.plan = FaultPlan()
        if any(self.queue.met[met] for met in _HIDING):
            self._hidden_for = _VISIBILITY
        return result.success

    def show_all(self) -> None:
        """Lets so much time pass that nothing is hidden any more, whoever held it."""
        self.queue.pass_time(_VISIBILITY + 1)
        self.queue.met.clear()
        self._hidden_for = _MAX_RELEASE_SECONDS

    def run_killed(self, target: str) -> None:
        """A run that ends when it calls `target`, and does nothing any more: not even hand back.

        The connections break, as those of a process that was killed; nothing else is cleaned up.
        """
        dead = Event()

        def die(*_inputs: object, **_named: object) -> NoReturn:
            dead.set()
            raise _KilledError

        settle = BatchRequests._send_chunk  # noqa: SLF001 (what a dead process does not do)

        def settle_if_alive(*inputs: Any) -> BatchResult:  # noqa: ANN401 (passed on)
            return BatchResult(0, 0) if dead.is_set() else settle(*inputs)

        with pytest.MonkeyPatch.context() as patch, suppress(_KilledError):
            patch.setattr(BatchRequests, "_send_chunk", settle_if_alive)
            patch.setattr(target, die)
            self.run(cannot_be_green=True)
        self.queue.plan = FaultPlan()
        self._hidden_for = _VISIBILITY

    def run_without_database(self) -> None:
        """A run that finds no database."""
        self.wire.is_refusing = True
        received = self.queue.calls["ReceiveMessage"]
        self.run(cannot_be_green=True)
        self.wire.is_refusing = False
        assert self.queue.calls["ReceiveMessage"] == received, "it received what it cannot use"

    def run_losing_commit(self, moment: Moment) -> None:
        """A run whose connection breaks as it commits, before or after that takes effect."""
        self.wire.on(moment, lambda _event: WireAction.CUT, nth=1, within=LEDGER)
        self.run()
        self.wire.forget_hooks()

    def run_refusing_rows(self) -> None:
        """A run while the table refuses one kind of row."""
        self._administer(
            "ALTER TABLE user_logins ADD CONSTRAINT refused"
            f" CHECK (device_type <> '{REFUSED_KIND}') NOT VALID"
        )
        self.run()
        self._administer("ALTER TABLE user_logins DROP CONSTRAINT refused")

    def rotate(self, name: str) -> None:
        """A new primary key for a keyset."""
        rotate(LoginDatabase(self.url), keysets_at(str(self.keysets)), name)

    def remask(self) -> None:
        """The job that brings old rows under the new keys."""
        assert self._execute("remask_logins").success, "re-masking failed"

    def replay(self) -> None:
        """Replays all that is quarantined."""
        list(Quarantine(self.url).replay(uuid4().hex, MessageFilter(), self.keyring))

    def run_dry(self) -> None:
        """Lets what was handed back, or what nobody hands back, come again, and loads it."""
        for _ in range(_DRAINS):
            self.queue.pass_time(self._hidden_for + 1)
            if not self.waiting():
                break
            self.run()

    # What is to be seen

    @property
    def keyring(self) -> Keyring:
        """The right keys."""
        return read_keyring(self.keysets)

    def waiting(self) -> int:
        """Messages that a receive would find."""
        return self.queue.counts(QUEUE).waiting

    def evidence(self) -> Evidence:
        """All that is to be seen from inside this process."""
        rows = tables.rows(self.url, self.keyring)
        return Evidence(
            sent=self.sent,
            on_queue=frozenset(self.queue.on_queue(QUEUE)),
            dead=frozenset(),
            deleted=frozenset(self.queue.deleted()),
            handed_out=self.queue.handed_out(),
            deleted_uncommitted=tuple(self.deleted_uncommitted),
            ledger=tables.ledger(self.url),
            rows=rows,
            quarantine=tables.quarantine(self.url),
            batches=tables.batches(self.url),
            opened_with_other_keys=tables.opened_with_other_keys(rows),
            leaks=self._leaks(),
            replayed=tables.replayed(self.url),
            claims=tuple(self.claims),
        )

    def violations(self, *, is_dry: bool = False) -> dict[str, list[str]]:
        """What does not hold, by invariant; whether it drained (I7) only once it has run dry."""
        names = [name for name in ALL if is_dry or name != "I7"]
        return violations(self.evidence(), names, unseen=UNSEEN)

    # Parts

    def _environment(self) -> dict[str, str]:
        url = self.wire.url(self.url)
        places = {settings.DATABASE_URL: url, settings.RECOVERY_DATABASE_URL: self.url}
        keys = {settings.KEYSETS: str(self.keysets)}
        return {**_NUMBERS, **self.queue.environment(QUEUE), **places, **keys}

    def _execute(self, job: str, **numbers: str) -> ExecuteInProcessResult:
        environment = {**self._environment(), **numbers}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return _job(environment, job).execute_in_process(
                instance=self.instance, raise_on_error=False
            )

    def _administer(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _accepted_deletes(self) -> int:
        # A stale handle is accepted, as SQS does, and nothing is deleted.
        return len(self.queue.deleted()) + self.queue.met["DeleteMessageBatch", FaultKind.STALE]

    def _look_at_delete(self, call: Call) -> None:
        self.deleted_uncommitted |= set(call.message_ids) - set(tables.ledger(self.url))

    def _leaks(self) -> dict[str, int]:
        events = raw_values(b"\n".join(self._events()), _CANARIES)
        return {"events": events, "tables": tables.raw_values(self.url, _CANARIES)}

    def _events(self) -> Iterator[bytes]:
        for run in self.instance.get_runs():
            for entry in self.instance.all_logs(run.run_id):
                yield entry.to_json().encode()  # type: ignore[no-untyped-call]  # Dagster leaves it out


@contextmanager
def make_laboratory(stack: Stack, template: str, directory: Path) -> Iterator[Laboratory]:
    """A laboratory of its own, with a new database, queue and keys."""
    name = f"laboratory_{uuid4().hex}"
    keysets = directory / name
    create_keysets(keysets)
    server = postgres.url(stack.state, postgres.OWNER)
    url = postgres.url(stack.state, name)
    # Not dropped, which takes a checkpoint each time: it goes with the whole server.
    with psycopg.connect(server, autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    with _quick_retries(), HarshQueue() as queue, Wire(url) as wire:
        laboratory = Laboratory(queue, wire, url, keysets)
        with laboratory.instance:
            yield laboratory
        assert not queue.errors
        assert not wire.errors


@contextmanager
def _quick_retries() -> Iterator[None]:
    """The same number of attempts, without seconds between them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
        yield


def _job(environment: Mapping[str, str], job: str) -> JobDefinition:
    return build_definitions(environment).resolve_job_def(job)


class _KilledError(BaseException):
    """No one catches it, as no one catches SIGKILL."""


def _says_deleted(result: ExecuteInProcessResult) -> int:
    events = result.asset_materializations_for_node("user_logins") if result.success else []
    return sum(int(str(event.metadata["deleted_from_queue"].value)) for event in events)
