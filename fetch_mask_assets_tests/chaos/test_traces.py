"""Nothing raw in any trace: every failure on one stack that tells all it can, then a search.

Belongs here: traces of processes and servers (environments, logs, write-ahead log) and of every
failure. What Dagster itself keeps of a failing run in its own process is in `defs/test_leaks`.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psycopg
import pytest

from benchmarks.sqs_simulator.queue_faults import Fault, FaultKind, FaultPlan
from fetch_mask_assets.keys.storage import create_keysets
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.local_stack import stack as local_stack
from fetch_mask_assets.pipeline.contract.rejection import Reason
from fetch_mask_assets_tests.chaos.wire import ROWS, Event, WireAction
from fetch_mask_assets_tests.chaos.wire import Moment as WireMoment
from fetch_mask_assets_tests.chaos.world import DEAD, QUEUE, Running, World, make_world
from fetch_mask_assets_tests.support import canaries, traces
from fetch_mask_assets_tests.support.logins import body
from fetch_mask_assets_tests.support.people import person
from fetch_mask_assets_tests.support.poison import CRASHES, python_path
from fetch_mask_assets_tests.support.receiver import receiving

IPS = ("203.0.113.213", "2001:db8:5eaf::c0de:77")
DEVICES = ("canary-device-815-4711", "gerät-kanarie-0815")
JUNK = "canary-of-a-message-that-is-none"
UNKNOWN_IP, UNKNOWN_DEVICE = "198.51.100.177", "canary-that-nobody-sent"
CANARIES = (*IPS, *DEVICES, JUNK, UNKNOWN_IP, UNKNOWN_DEVICE)
PLANTED = "planted-in-{}-4711"

TRIAL = "fetch_mask_assets.pipeline.queue.dry_run_process"
pytestmark = [pytest.mark.chaos, pytest.mark.servers, pytest.mark.timeout(1_800)]

INGEST = ("ingest", "--verbose", "--no-wait", "--max-batches", "1")
WHY = ("--reason", "asked for", "--ticket", "T-1", "--yes")

# The libraries that see bodies and statements; the root, so that none is forgotten.
_DEBUG = """
import logging
logging.basicConfig(level=logging.DEBUG)
for name in ("boto3", "botocore", "urllib3", "psycopg"):
    logging.getLogger(name).setLevel(logging.DEBUG)
"""

# Many commands in one process, since each start takes seconds: each line of standard input is one.
_SHELL = """
import io, json, os, sys, traceback
import click
from fetch_mask_assets.cli.main import cli
from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.pipeline.queue.process_limits import disable_core_dumps
disable_core_dumps()
for line in sys.__stdin__:
    arguments, text, settings = json.loads(line)
    os.environ.update(settings)
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
    code = 0
    try:
        code = cli(arguments, standalone_mode=False) or 0
    except SystemExit as end:
        code = end.code or 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except FetchMaskError as error:
        click.secho(f"Error: {error}", err=True)
        code = 1
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    os.write(int(sys.argv[1]), b"%d\\n" % code)
"""

# What tells most: every statement, every parameter, every detail of every error.
_TALKATIVE = (
    "log_statement = 'all'",
    "log_min_messages = 'debug1'",
    "log_min_error_statement = 'debug5'",
    "log_min_duration_statement = 0",
    "log_error_verbosity = 'verbose'",
    "log_parameter_max_length = -1",
    "log_parameter_max_length_on_error = -1",
    "wal_keep_size = '1GB'",
)

_MANY_CORES = ("/bin/sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh")


@dataclass
class Watch:
    """What processes showed to others while they ran, by process."""

    shown: defaultdict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    trial_limits: set[str] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)

    def go_on(self) -> None:
        """Looks at every process below this one, again and again."""
        while not self.ended.wait(0.02):
            for pid in _descendants(os.getpid()):
                with suppress(OSError):
                    self._look(Path("/proc") / str(pid))

    def _look(self, directory: Path) -> None:
        command = (directory / "cmdline").read_bytes()
        self.shown["cmdline"].add(command)
        self.shown["environ"].add((directory / "environ").read_bytes())
        if TRIAL.encode() in command:
            self.trial_limits.add(core_limit(directory))


def _descendants(pid: int) -> Iterator[int]:
    """Each process below one. The kernel's lists take a twentieth of a look at all processes."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in path.read_text().split():
                yield int(child)
                yield from _descendants(int(child))


@dataclass
class Shell:
    """A process of the product that takes one command after another."""

    process: subprocess.Popen[bytes]
    answers: io.BufferedReader
    codes: dict[str, int] = field(default_factory=dict)

    def __call__(self, what: str, *arguments: str, text: str = "", **settings: str) -> int:
        """Runs a command; its exit code, which is remembered under a name for the failure."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps([arguments, text, settings]).encode() + b"\n")
        self.process.stdin.flush()
        self.codes[what] = int(self.answers.readline() or -1)
        return self.codes[what]


@dataclass
class Seen:
    """What was found out while it ran, and all that is left behind."""

    world: World
    watch: Watch
    codes: dict[str, int] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    since: str = ""
    exits: dict[str, int] = field(default_factory=dict)
    reasons: set[str] = field(default_factory=set)

    @cached_property
    def texts(self) -> list[tuple[str, bytes]]:
        """Each trace with the kind of place where it was found, read once."""
        return list(self._texts())

    def places(self, canary: str) -> set[str]:
        """The kinds of places that hold a value in any form."""
        forms = canaries.forms(canary)
        return {place for place, text in self.texts if any(form in text for form in forms)}

    def _texts(self) -> Iterator[tuple[str, bytes]]:
        layout, world = self.world.stack.layout, self.world
        for place, shown in self.watch.shown.items():
            yield from ((place, text) for text in shown)
        for path, text in traces.files(world.directory):
            yield _kind_of_file(Path(path), world), text
        for path, text in traces.files(layout.dagster_home):
            yield "compute log" if "compute_logs" in path else "Dagster's files", text
        yield "server log", (layout.postgres / "server.log").read_bytes()
        yield from traces.write_ahead_log(layout.postgres / "data", self.since)
        yield from (("table", text) for _, text in traces.tables(world.database_url))
        storage = postgres.url(world.stack.state, "dagster")
        yield from (("storage", text) for _, text in traces.tables(storage))


def core_limit(directory: Path) -> str:
    """The largest core file that a process may leave, from its directory in /proc."""
    lines = (directory / "limits").read_text().splitlines()
    return next(line.split()[4:6] for line in lines if line.startswith("Max core"))[0]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """A world of the module's own, after all failures."""
    checkout, directory = (tmp_path_factory.mktemp(name) for name in ("stack", "world"))
    with ExitStack() as stack:
        stack.callback(local_stack.down, checkout, delete=True)
        running = local_stack.up(checkout)
        administrator = postgres.url(running.state, postgres.OWNER)
        with psycopg.connect(administrator, autocommit=True) as connection:
            for setting in _TALKATIVE:
                connection.execute(f"ALTER SYSTEM SET {setting}".encode())
            connection.execute("SELECT pg_reload_conf()")
            since = connection.execute(_SEGMENT).fetchall()[0][0]
        world = stack.enter_context(make_world(running, directory))
        watch = stack.enter_context(_watching())
        found = Seen(world, watch, since=since)
        _fail_in_every_way(found)
        _plant(found)
        with psycopg.connect(administrator, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
            connection.execute("SELECT pg_switch_wal()")
        watch.ended.set()
        yield found


def test_every_failure_took_place(seen: Seen) -> None:
    assert seen.codes == {**seen.codes, **_EXPECTED}
    assert seen.exits == {
        "SIGKILL in the copy": -signal.SIGKILL,
        "SIGTERM": 1,
        "poison": -signal.SIGSEGV,
    }
    assert seen.reasons >= {*_BROKEN, Reason.REFUSED_BY_DATABASE}


@pytest.mark.parametrize("canary", CANARIES, ids=range(len(CANARIES)))
def test_no_trace_holds_a_raw_value_in_any_form(seen: Seen, canary: str) -> None:
    assert seen.places(canary) == set()


@pytest.mark.parametrize(
    ("planted", "place"),
    [
        ("storage", "storage"),
        ("compute", "compute log"),
        ("stdout", "standard output or error"),
        ("stderr", "standard output or error"),
        ("table", "table"),
        ("table", "write-ahead log"),
        ("table", "server log"),
        ("file", "temporary file"),
        ("cmdline", "cmdline"),
        ("environ", "environ"),
    ],
)
def test_the_search_finds_what_is_planted(seen: Seen, planted: str, place: str) -> None:
    assert place in seen.places(PLANTED.format(planted))


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("server log", b"COPY login_ingest.ledger"),
        ("server log", b"COPY user_logins"),
        ("server log", b"DETAIL"),
        ("standard output or error", b"DEBUG:psycopg"),
        ("standard output or error", b"SQLSTATE 53100"),
        ("standard output or error", b"SQLSTATE 42703"),
        ("standard output or error", b"AWS refused SQS ReceiveMessage"),
        ("standard output or error", b"AWS refused SQS delete_message_batch"),
        ("standard output or error", b"1 kill the process"),
        ("write-ahead log", b"user-1"),
    ],
)
def test_the_traces_are_as_talkative_as_can_be(seen: Seen, place: str, text: bytes) -> None:
    assert any(text in each for where, each in seen.texts if where == place)


def test_no_process_may_leave_a_core_file_or_dumps_itself(seen: Seen) -> None:
    assert seen.held == {"core": "0", "handles SIGSEGV": "False"}
    assert seen.watch.trial_limits == {"0"}
    assert not list(seen.world.directory.rglob("core*"))


# What happens


def _fail_in_every_way(seen: Seen) -> None:
    site = python_path(seen.world.directory)
    with (Path(site) / "sitecustomize.py").open("a", encoding="utf-8") as code:
        code.write(_DEBUG)
    stack = seen.world.stack
    settings = {
        "PYTHONPATH": site,
        "LOGIN_MAX_RUNS": "2",
        "DAGSTER_HOME": stack.environment["DAGSTER_HOME"],
        "DAGSTER_POSTGRES_URL": stack.environment["DAGSTER_POSTGRES_URL"],
    }
    with _shell(seen.world, settings) as shell:
        _queue_fails(seen.world, shell)
        _database_fails(seen.world, shell)
        # Now, because the messages are replayed and erased later.
        seen.reasons = _reasons(seen.world)
        _killed(seen, settings)
        _run(seen.world, shell, "after the kills")
        seen.world.queue.send(QUEUE, [_login(901, user_id=f"{CRASHES}-1\n")])
        poisoned = seen.world.start(*INGEST, under=_MANY_CORES, **settings)
        seen.exits["poison"] = poisoned.wait().exit_code
        seen.world.queue.pass_time(3_600)
        _run(seen.world, shell, "isolation")
        _dead_letters(seen.world, shell)
        _people_fail(seen.world, shell)
        seen.codes = shell.codes


def _reasons(world: World) -> set[str]:
    with psycopg.connect(world.database_url) as connection:
        lines = connection.execute("SELECT reason FROM login_ingest.quarantine")
        return {reason for (reason,) in lines}


def _queue_fails(world: World, shell: Shell) -> None:
    _send(world)
    for operation in ("GetQueueAttributes", "ReceiveMessage"):
        world.queue.plan = FaultPlan((_denied(operation),))
        _run(world, shell, f"{operation} denied")
    world.queue.plan = FaultPlan((_denied("DeleteMessageBatch"),))
    _run(world, shell, "DeleteMessageBatch denied")
    _send(world)
    world.queue.plan = FaultPlan((_denied("ChangeMessageVisibilityBatch"),))
    with _broken_table(world):
        _run(world, shell, "hand-back denied")
    world.queue.plan = FaultPlan(
        (Fault(kind=FaultKind.REFUSED, chance=0.2, code="ThrottlingException"),), 7
    )
    _run(world, shell, "throttled")
    world.queue.plan = FaultPlan()


def _database_fails(world: World, shell: Shell) -> None:
    for what, state, times in (
        ("lock time-out", "55P03", 1),
        ("disk full", "53100", 1_000),
    ):
        _send(world)
        with _raising(world, state, times):
            _run(world, shell, what)
    with _broken_table(world):
        _run(world, shell, "COPY breaks")
    world.wire.on(WireMoment.COPY_DATA, lambda _event: WireAction.CUT, nth=1, within=ROWS)
    _run(world, shell, "cut in the COPY")
    world.wire.forget_hooks()
    world.administer("ALTER TABLE user_logins ADD CONSTRAINT refused CHECK (locale <> 'no_NO')")
    world.queue.send(QUEUE, [_login(900, locale="no_NO")])
    _run(world, shell, "refused row")
    world.administer("ALTER TABLE user_logins DROP CONSTRAINT refused")
    world.queue.send(QUEUE, _BROKEN.values())
    _run(world, shell, "bad bodies")
    world.wire.is_refusing = True
    _run(world, shell, "no database")
    world.wire.is_refusing = False


def _killed(seen: Seen, settings: Mapping[str, str]) -> None:
    world = seen.world
    for what, moment, by in (
        ("SIGKILL in the copy", WireMoment.COPY_DATA, signal.SIGKILL),
        ("SIGTERM", WireMoment.STATEMENT, signal.SIGTERM),
    ):
        _send(world)
        victims: list[Running] = []

        def strike(
            _event: Event, by: signal.Signals = by, victims: list[Running] = victims
        ) -> WireAction:
            seen.held |= _held(victims[0].process.pid)
            victims[0].kill(by)
            return WireAction.CUT if by is signal.SIGKILL else WireAction.PASS

        world.wire.on(moment, strike, nth=1, within=ROWS)
        victims.append(world.start(*INGEST, under=_MANY_CORES, **settings))
        seen.exits[what] = victims[0].wait().exit_code
        world.wire.forget_hooks()
        world.queue.pass_time(3_600)


def _dead_letters(world: World, shell: Shell) -> None:
    world.queue.send(DEAD, [_login(902), *_BROKEN.values()])
    shell("dead letters shown", "dead-letters", "show")
    shell("dead letters drained", "dead-letters", "drain", "--max-batches", "1", "--verbose")


def _people_fail(world: World, shell: Shell) -> None:
    with person(world.database_url, "login_ingest_recovery") as steward:
        as_steward = {"LOGIN_RECOVERY_DATABASE_URL": steward.url}
        for field_, known, unknown in (
            ("--ip", IPS, UNKNOWN_IP),
            ("--device-id", DEVICES, UNKNOWN_DEVICE),
        ):
            wanted = "\n".join([*known, unknown])
            shell(f"find {field_}", "find", field_, text=wanted, **as_steward)
        shell("find what is no IP", "find", "--ip", text=DEVICES[0])
        asked = ("unmask", "request", "--file", "-", *WHY[:4])
        shell("a value for a token", *asked, text="\n".join(CANARIES))
        shell("reveal refused", "unmask", "reveal", "999", "--output", str(world.directory / "no"))
        shell("quarantine listed", "quarantine", "list")
        shell("show refused", "quarantine", "show", "no-such-id")
        others = world.keysets.with_name("others")
        create_keysets(others)
        shell("replay refused", "quarantine", "replay", "--all", MASKING_KEYSETS=str(others))
        shell("replay", "quarantine", "replay", "--all", MASKING_KEYSETS=str(world.keysets))
        shell("erase refused", "erase", "--ip", *WHY, text=DEVICES[0])
        shell("erase --ip", "erase", "--ip", *WHY, text=f"{IPS[0]}\n{UNKNOWN_IP}")
        shell("erase --device-id", "erase", "--device-id", *WHY, text=DEVICES[0])
        no_member = {"LOGIN_RECOVERY_DATABASE_URL": world.loader_url}
        shell("replay by a stranger", "quarantine", "replay", "--all", **no_member)
        shell("find by a stranger", "find", "--ip", text=IPS[0])
    with receiving(400) as receiver:
        settings = {"LOGIN_ALERT_WEBHOOK": receiver.url, "LOGIN_ALERT_COMMAND": "/bin/false"}
        shell("alert fails", "alert", "test", **settings)
    shell("report", "show", LOGIN_DATABASE_URL=world.database_url)


_EXPECTED = {
    "GetQueueAttributes denied": 1,
    "ReceiveMessage denied": 1,
    "DeleteMessageBatch denied": 1,
    "hand-back denied": 1,
    "lock time-out": 0,
    "disk full": 1,
    "COPY breaks": 1,
    "cut in the COPY": 0,
    "refused row": 0,
    "bad bodies": 0,
    "no database": 1,
    "after the kills": 0,
    "isolation": 0,
    "dead letters shown": 0,
    "dead letters drained": 0,
    "find --ip": 0,
    "find --device-id": 0,
    "find what is no IP": 1,
    "a value for a token": 1,
    "reveal refused": 1,
    "quarantine listed": 0,
    "show refused": 1,
    "replay refused": 1,
    "replay": 0,
    "erase refused": 1,
    "erase --ip": 0,
    "erase --device-id": 0,
    "replay by a stranger": 1,
    "find by a stranger": 1,
    "alert fails": 1,
    "report": 0,
}


def _run(world: World, shell: Shell, what: str) -> None:
    shell(what, *INGEST)
    # What a run hands back, or cannot, shows at once.
    world.queue.pass_time(3_600)


def _send(world: World) -> None:
    first = len(world.queue.lives)
    world.queue.send(QUEUE, [_login(first + number) for number in range(4)])


def _login(number: int, **changes: object) -> str:
    ip, device = IPS[number % len(IPS)], DEVICES[number // 2 % len(DEVICES)]
    return body(number, **{"ip": ip, "device_id": device} | changes)


def _broken_bodies() -> dict[Reason, str]:
    """A body for each reason that a body can give, with values wherever they fit."""
    whole = _login(0)
    more = f"{IPS[0]} {JUNK} {DEVICES[0]}"
    return {
        Reason.BODY_TOO_LONG: _login(0, note=more * 20_000),
        Reason.NOT_JSON: more,
        Reason.NUMBER_OUT_OF_RANGE: whole[:-1] + ', "number": 1e999}',
        Reason.NESTED_TOO_DEEP: whole[:-1] + ', "deep": ' + "[" * 500 + "]" * 500 + "}",
        Reason.DUPLICATE_KEY: whole[:-1] + f', "{JUNK}": 1, "{JUNK}": 2}}',
        Reason.NOT_AN_OBJECT: json.dumps([whole, more]),
        Reason.MISSING: json.dumps({"ip": IPS[0], "device_id": DEVICES[0], JUNK: more}),
        Reason.NULL: _login(0, user_id=None),
        Reason.WRONG_TYPE: _login(0, device_id=[*DEVICES, JUNK]),
        Reason.BLANK: _login(0, user_id=" "),
        Reason.TOO_LONG: _login(0, user_id=more * 200),
        Reason.CONTROL_CHARACTER: _login(0, user_id=f"{JUNK}\0"),
        Reason.NOT_UNICODE: _login(0, user_id=f"{JUNK}\ud800"),
        Reason.NOT_AN_IP: _login(0, ip=f"{IPS[0]}/24"),
        Reason.REPEATS_MASKED_VALUE: _login(0, user_id=IPS[0]),
    }


_BROKEN: Mapping[Reason, str] = _broken_bodies()


def _denied(operation: str) -> Fault:
    return Fault(kind=FaultKind.REFUSED, operation=operation, chance=1, code="AccessDenied")


@contextmanager
def _broken_table(world: World) -> Iterator[None]:
    world.administer("ALTER TABLE login_ingest.ledger RENAME batch_id TO another")
    yield
    world.administer("ALTER TABLE login_ingest.ledger RENAME another TO batch_id")


@contextmanager
def _raising(world: World, state: str, times: int) -> Iterator[None]:
    """A trigger quotes the row in everything that an error can say."""
    world.administer(
        "CREATE SEQUENCE public.strikes",
        "GRANT USAGE ON SEQUENCE public.strikes TO PUBLIC",
        "CREATE FUNCTION public.strike() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF nextval('public.strikes') <= {times} THEN"
        f" RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE = NEW::text, DETAIL = NEW::text,"
        " HINT = NEW::text; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER strike BEFORE INSERT ON user_logins"
        # Not the row of nobody's that a run tries before it receives.
        " FOR EACH ROW WHEN (NEW.user_id LIKE 'user-%') EXECUTE FUNCTION public.strike()",
    )
    yield
    world.administer(
        "DROP TRIGGER strike ON user_logins",
        "DROP FUNCTION public.strike",
        "DROP SEQUENCE public.strikes",
    )


def _held(pid: int) -> dict[str, str]:
    directory = Path("/proc") / str(pid)
    status = (directory / "status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt:"))
    handles = bool(caught >> (signal.SIGSEGV - 1) & 1)
    return {"core": core_limit(directory), "handles SIGSEGV": str(handles)}


@contextmanager
def _shell(world: World, settings: Mapping[str, str]) -> Iterator[Shell]:
    answers, say = os.pipe()
    with (
        (world.directory / "shell.out").open("wb") as out,
        (world.directory / "shell.err").open("wb") as err,
        subprocess.Popen(  # noqa: S603 (our own program)
            [*_MANY_CORES, sys.executable, "-c", _SHELL, str(say)],
            env={**world.settings(), **settings},
            cwd=world.directory,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            pass_fds=[say],
        ) as process,
        os.fdopen(answers, "rb") as reader,
    ):
        os.close(say)
        yield Shell(process, reader)


@contextmanager
def _watching() -> Iterator[Watch]:
    watch = Watch()
    thread = threading.Thread(target=watch.go_on)
    thread.start()
    try:
        yield watch
    finally:
        watch.ended.set()
        thread.join()


# What is planted

_PLANTER = """
import os, sys, tempfile
print(os.environ["TO_STDOUT"])
print(os.environ["TO_STDERR"], file=sys.stderr)
tempfile.NamedTemporaryFile(delete=False).write(os.environ["TO_FILE"].encode())
"""


def _plant(seen: Seen) -> None:
    world = seen.world
    names = ("stdout", "stderr", "file", "environ")
    settings = {f"TO_{name.upper()}": PLANTED.format(name) for name in names}
    held = f"{_PLANTER}\nimport time; time.sleep(1)"
    world.start_driver(sys.executable, "-c", held, PLANTED.format("cmdline"), **settings).wait()
    world.administer(
        "CREATE TABLE public.planted (planted text)",
        f"INSERT INTO public.planted VALUES ('{PLANTED.format('table')}')",
    )
    storage = postgres.url(world.stack.state, "dagster")
    with psycopg.connect(storage) as connection:
        connection.execute("CREATE TABLE planted (planted bytea)")
        connection.execute("INSERT INTO planted VALUES (%s)", [PLANTED.format("storage").encode()])
    log = world.stack.layout.dagster_home / "storage" / "run" / "compute_logs" / "step.err"
    log.parent.mkdir(parents=True)
    log.write_text(PLANTED.format("compute"))


def _kind_of_file(path: Path, world: World) -> str:
    if path.suffix in {".out", ".err"}:
        return "standard output or error"
    return "temporary file" if path.is_relative_to(world.directory / "tmp") else "own files"


_SEGMENT = "SELECT pg_walfile_name(pg_switch_wal() + 1)"
