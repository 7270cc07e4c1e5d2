"""A pipeline in this process, a harsh queue and a wire, and a reference that judges them: I1 to I9.

Belongs here: what can be done to the pipeline, and what must hold afterwards, worked out from what
was sent, from what the queue's server knows to be true and from what is in the tables. Does not
belong here: in which order things are done (`test_model`, `test_mutations`).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, NoReturn
from uuid import uuid4

import psycopg
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult, JobDefinition

from fetch_mask_assets import settings
from fetch_mask_assets.definitions import build_definitions
from fetch_mask_assets.domain.errors import TokenError
from fetch_mask_assets.domain.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.gateways.database import LoginDatabase
from fetch_mask_assets.gateways.key_changes import rotate
from fetch_mask_assets.gateways.keysets import create_keysets, keysets_at, read_keyring
from fetch_mask_assets.gateways.quarantine import Choice, Quarantine
from fetch_mask_assets.gateways.queue import LoginQueue, Settled
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets_tests.canaries import forms
from fetch_mask_assets_tests.chaos.harsh_queue import HarshQueue
from fetch_mask_assets_tests.chaos.queue_faults import Fault, FaultPlan, Kind
from fetch_mask_assets_tests.chaos.sqs_protocol import Call
from fetch_mask_assets_tests.chaos.wire import LEDGER, Moment, Order, Wire

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
    "fetch_mask_assets.defs.assets.mask_batch",
    "fetch_mask_assets.gateways.database._insert_ledger",
    "fetch_mask_assets.gateways.database._copy_logins",
    "fetch_mask_assets.gateways.database._insert_quarantine",
    "fetch_mask_assets.gateways.queue.LoginQueue.delete",
    "fetch_mask_assets.gateways.queue.LoginQueue._failed",
)
"""Where a run can be killed: when it calls one of these."""

_VISIBILITY = 43_200
_LONGEST_HAND_BACK = 900
_DRAINS = 3
_NUMBERS = {
    "LOGIN_VISIBILITY_SECONDS": str(_VISIBILITY),
    "LOGIN_BATCH_SECONDS": "20",
    "LOGIN_RECEIVERS": "2",
    "LOGIN_RECEIVE_WAIT_SECONDS": "1",
    "LOGIN_EMPTY_ANSWERS": "2",
}


@dataclass(frozen=True, slots=True)
class Login:
    """A login as it was sent, with its IP as it is read back."""

    user_id: str
    ip: str = field(repr=False)
    device_id: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run said of itself, and what is true."""

    is_green: bool
    could_not_be: bool
    says_deleted: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class Tables:
    """What the tables hold."""

    rows: Sequence[tuple[str, str, str, str, str]]
    """User, tokens of IP and device, the same under the view of linked tokens."""
    ledger: frozenset[str]
    quarantine: Counter[str]
    balances: Sequence[tuple[int, int, int, int]]
    replayed: int


class Laboratory:
    """A pipeline with its queue, database and keys. What is done to it, it remembers as `sent`."""

    def __init__(self, queue: HarshQueue, wire: Wire, url: str, keysets: Path) -> None:
        """Starts with nothing sent; `make_laboratory` makes one."""
        self.queue, self.wire, self.url, self.keysets = queue, wire, url, keysets
        self.sent: dict[str, Login | None] = {}
        self.ran: list[Ran] = []
        self.uncommitted: set[str] = set()
        self.instance = DagsterInstance.ephemeral()
        self._strangers = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
        self._hidden_for = _LONGEST_HAND_BACK
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
            self.sent[message_id] = Login(user, IPS[ip], device)

    def send_broken(self, body: str) -> None:
        """Sends a message that breaks the contract."""
        [message_id] = self.queue.send(QUEUE, [body])
        self.sent[message_id] = None

    def run(self, *faults: Fault, seed: int = 0, cannot_be_green: bool = False) -> bool:
        """One run under faults of the queue; whether it was green."""
        self.queue.plan = FaultPlan(faults, seed)
        stale = self.queue.met["DeleteMessageBatch", Kind.STALE]
        before = self._deleted()
        result = self._execute("ingest_logins", LOGIN_BATCH_MESSAGES=str(max(1, self.waiting())))
        deleted = (
            self._deleted() - before + self.queue.met["DeleteMessageBatch", Kind.STALE] - stale
        )
        self.ran.append(Ran(result.success, cannot_be_green, _says_deleted(result), deleted))
        self.queue.plan = FaultPlan()
        return result.success

    def run_killed(self, target: str) -> None:
        """A run that ends when it calls `target`, and does nothing any more: not even hand back.

        The connections break, as those of a process that was killed; nothing else is cleaned up.
        """
        dead = Event()

        def die(*_inputs: object, **_named: object) -> NoReturn:
            dead.set()
            raise _KilledError

        settle = LoginQueue._settle_chunk  # noqa: SLF001 (what a dead process does not do)

        def settle_if_alive(*inputs: Any) -> Settled:  # noqa: ANN401 (passed on)
            return Settled(0, 0) if dead.is_set() else settle(*inputs)

        with pytest.MonkeyPatch.context() as patch, suppress(_KilledError):
            patch.setattr(LoginQueue, "_settle_chunk", settle_if_alive)
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
        self.wire.on(moment, lambda _event: Order.CUT, nth=1, within=LEDGER)
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
        list(Quarantine(self.url).replay(uuid4().hex, Choice(), self.keyring))

    def run_dry(self) -> None:
        """Lets what was handed back, or was held by a killed process, come again, and loads it."""
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

    def tables(self) -> Tables:
        """What the tables hold."""
        with psycopg.connect(self.url) as connection:
            return Tables(
                rows=connection.execute(_ROWS).fetchall(),
                ledger=frozenset(id_ for (id_,) in connection.execute(_LEDGER)),
                quarantine=Counter(id_ for (id_,) in connection.execute(_QUARANTINE)),
                balances=connection.execute(_BALANCES).fetchall(),
                replayed=connection.execute(_REPLAYED).fetchall()[0][0],
            )

    def violations(self, *, is_dry: bool = False) -> dict[str, str]:
        """What does not hold, by invariant; never a value."""
        tables = self.tables()
        found = {
            "I1": self._lost(tables),
            "I2": _twice(tables),
            "I3": self._deleted_too_early(tables),
            "I4": self._leaks(),
            "I5": self._unopened(tables),
            "I6": self._unequal(tables),
            "I7": self._undrained() if is_dry else "",
            "I8": _unbalanced(tables),
            "I9": self._untrue(),
        }
        return {name: sentence for name, sentence in found.items() if sentence}

    def _lost(self, tables: Tables) -> str:
        users = {row[0] for row in tables.rows}
        kept = {*tables.quarantine, *self.queue.on_queue(QUEUE)}
        lost = [
            id_
            for id_, login in self.sent.items()
            if id_ not in kept and (login is None or login.user_id not in users)
        ]
        return _count(lost, "messages are nowhere")

    def _deleted_too_early(self, tables: Tables) -> str:
        deleted = {life.message_id for life in self.queue.lives.values() if life.deleted_at}
        return _count(
            self.uncommitted | (deleted - tables.ledger), "messages were deleted uncommitted"
        )

    def _leaks(self) -> str:
        written = {
            "tables": b"\n".join(self._table_texts()),
            "events": b"\n".join(self._events()),
        }
        looked_for = [form for canary in (*IPS, *DEVICES) for form in forms(canary)]
        found = [place for place, text in written.items() for form in looked_for if form in text]
        return _count(found, f"raw values in {', '.join(sorted(set(found)))}")

    def _unopened(self, tables: Tables) -> str:
        sent = {login.user_id: login for login in self.sent.values() if login}
        keyring, strangers = self.keyring, self._strangers
        wrong = [
            user
            for user, ip, device, *_ in tables.rows
            if (_open(keyring.ip.unmask, ip), _open(keyring.device_id.unmask, device))
            != (sent[user].ip, sent[user].device_id)
            or _open(strangers.ip.unmask, ip)
            or _open(strangers.device_id.unmask, device)
        ]
        return _count(wrong, "rows do not open to what was sent, or open to strangers")

    def _unequal(self, tables: Tables) -> str:
        sent = {login.user_id: login for login in self.sent.values() if login}
        ips = {(sent[user].ip, ip) for user, _, _, ip, _ in tables.rows}
        devices = {(sent[user].device_id, device) for user, _, _, _, device in tables.rows}
        return _count([*_forked(ips), *_forked(devices)], "values and tokens are not one to one")

    def _undrained(self) -> str:
        return _count(self.queue.on_queue(QUEUE), "messages are still on the queue")

    def _untrue(self) -> str:
        untrue = [
            ran
            for ran in self.ran
            if ran.is_green and (ran.could_not_be or ran.says_deleted > ran.deleted)
        ]
        return _count(untrue, "runs are green and did not do what they say")

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

    def _deleted(self) -> int:
        return sum(life.deleted_at is not None for life in self.queue.lives.values())

    def _look_at_delete(self, call: Call) -> None:
        with psycopg.connect(self.url) as connection:
            committed = {id_ for (id_,) in connection.execute(_LEDGER)}
        self.uncommitted |= set(call.message_ids) - committed

    def _table_texts(self) -> Iterator[bytes]:
        with psycopg.connect(self.url) as connection:
            for (table,) in connection.execute(_TABLES).fetchall():
                for (line,) in connection.execute(f"SELECT t::text FROM {table} t".encode()):
                    yield line.encode()

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
        backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
        patch.setattr(backoff, lambda *_: 0.01)
        patch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
        yield


def _job(environment: Mapping[str, str], job: str) -> JobDefinition:
    return build_definitions(environment).resolve_job_def(job)


class _KilledError(BaseException):
    """No one catches it, as no one catches SIGKILL."""


def _says_deleted(result: ExecuteInProcessResult) -> int:
    events = result.asset_materializations_for_node("user_logins") if result.success else []
    return sum(int(str(event.metadata["deleted_from_queue"].value)) for event in events)


def _twice(tables: Tables) -> str:
    rows = Counter(row[0] for row in tables.rows)
    counts = (*rows.items(), *tables.quarantine.items())
    return _count((name for name, count in counts if count > 1), "messages came more than once")


def _unbalanced(tables: Tables) -> str:
    off = [line for line in tables.balances if line[0] != sum(line[1:])]
    loaded = sum(line[1] for line in tables.balances) + tables.replayed
    quarantined = sum(line[2] for line in tables.balances) - tables.replayed
    says = (loaded, quarantined, loaded + quarantined)
    are = (len(tables.rows), tables.quarantine.total(), len(tables.ledger))
    return _count(off, "batches do not balance") or (
        "" if says == are else f"the records say {says}, and there are {are}"
    )


def _forked(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """What is paired with several others, on either side."""
    partners: defaultdict[str, set[str]] = defaultdict(set)
    for value, token in pairs:
        partners[value].add(token)
        partners[token].add(value)
    return [name for name, others in partners.items() if len(others) > 1]


def _open(unmask: Callable[[str], str], token: str) -> str | None:
    try:
        return unmask(token)
    except TokenError:
        return None


def _count(found: Iterable[object], what: str) -> str:
    number = len(list(found))
    return f"{number} {what}" if number else ""


_ROWS = """
SELECT login.user_id, login.masked_ip, login.masked_device_id,
       coalesce(ip.new_token, login.masked_ip), coalesce(device.new_token, login.masked_device_id)
FROM user_logins AS login
LEFT JOIN login_ingest.token_link AS ip
       ON ip.field = 'ip' AND ip.old_token = login.masked_ip
LEFT JOIN login_ingest.token_link AS device
       ON device.field = 'device_id' AND device.old_token = login.masked_device_id
"""
_LEDGER = "SELECT message_id FROM login_ingest.ledger"
_QUARANTINE = "SELECT message_id FROM login_ingest.quarantine"
_BALANCES = "SELECT received, loaded, quarantined, already_known FROM login_ingest.batch"
_REPLAYED = "SELECT coalesce(sum(replayed), 0)::int FROM login_ingest.replay"
_TABLES = """
SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""
