"""Each class of bad input, by name, through the queue, a run and the commit."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from dagster import DagsterInstance

from benchmarks.sqs_simulator.harsh_queue import HarshQueue
from benchmarks.sqs_simulator.queue_faults import Fault, FaultKind, FaultPlan
from fetch_mask_assets import settings
from fetch_mask_assets.definitions import build_definitions
from fetch_mask_assets.keys.storage import create_keysets, read_keyring
from fetch_mask_assets.local_stack import postgres
from fetch_mask_assets.pipeline.warehouse.database import LoginDatabase
from fetch_mask_assets_tests.defs.conftest import metadata
from fetch_mask_assets_tests.support.logins import body

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from fetch_mask_assets.keys.keyset import Keyring
    from fetch_mask_assets.local_stack.stack import Stack
    from fetch_mask_assets_tests.defs.conftest import Pipeline

Row = tuple[str, str, str, str, str | None, int | None]
"""A row as its reader with the keys sees it: user, device type, IP, device, locale, version."""

REQUIRED = ("user_id", "app_version", "device_type", "ip", "device_id")
IP = "198.51.100.200"


@dataclass(frozen=True)
class Case:
    """A body, and why it is rejected as `field: reason`; None if it loads."""

    body: str
    rejected: str | None = None
    original_ip: str | None = None


def _event(name: str, **changes: object) -> dict[str, object]:
    login: dict[str, object] = {
        "user_id": f"user of {name}"[:128],
        "app_version": "2.3.0",
        "device_type": "android",
        "ip": IP,
        "locale": "en_US",
        "device_id": uuid4().hex,
    }
    return login | changes


def _changed(name: str, rejected: str | None = None, **changes: object) -> Case:
    ip = changes.get("ip", IP)
    return Case(json.dumps(_event(name, **changes)), rejected, ip if isinstance(ip, str) else None)


def _with(name: str, member: str, rejected: str | None = None) -> Case:
    """An event with one more member, as it stands in the JSON."""
    return Case(json.dumps(_event(name)).removesuffix("}") + f", {member}}}", rejected, IP)


def _without(name: str, field: str, rejected: str | None = None) -> Case:
    kept = {key: value for key, value in _event(name).items() if key != field}
    return Case(json.dumps(kept), rejected, IP)


_NOT_IPS = (
    "256.1.1.1",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.4:80",
    "1.2.3.4/32",
    "0x7f.1",
    "127.1",
    "010.1.1.1",
    " 1.2.3.4",
    "1.2.3.4\n",
    "1.2.3.4,5.6.7.8",
    "fe80::1%eth0",
    "[2001:db8::7]",
    "3232235777",
    "１.2.3.4",  # noqa: RUF001 (a digit that is not ASCII)
    "localhost",
    "None",
)
_IPS = {
    "127.0.0.1": "127.0.0.1",
    "10.0.0.1": "10.0.0.1",
    "0.0.0.0": "0.0.0.0",  # noqa: S104 (an address like any other)
    "224.0.0.1": "224.0.0.1",
    "255.255.255.255": "255.255.255.255",
    "199.172.111.135": "199.172.111.135",
    "::ffff:199.172.111.135": "199.172.111.135",
    "::FFFF:C7AC:6F87": "199.172.111.135",
    "2001:0DB8:0:0:0:0:0:7": "2001:db8::7",
    "2001:db8::0:7": "2001:db8::7",
    "::1": "::1",
}
_TEXTS = {
    "sql": "'; DROP TABLE user_logins; --",
    "tab": "a\tb",
    "newlines": "a\nb\r\nc",
    "quotes": "\"'`",
    "backslashes": "\\ \\\\ \\n",
    "end of copy": "\\.",
    "null of copy": "\\N",
    "csv": '",",""',
    "format": "%s %(x)s {0} ${x}",
    "emoji": "😀\u200d💻",
    "right to left": "\u202eabc",
    "last character": "\U0010ffff",
    "the word null": "NULL",
}
_VERSION_NUMBERS = {
    "2": 2_000_000,
    "2.3": 2_003_000,
    "2.3.0": 2_003_000,
    "02.3.0": 2_003_000,
    "6.02": 6_002_000,
    "2147.483.647": 2_147_483_647,
}
_NO_VERSIONS = (
    "2.3.0-beta",
    "v2",
    "2.3.0.1",
    "2..0",
    "2.1000.0",
    "99999999999.0.0",
    "2147.483.648",
)
_NOT_JSON = {
    "empty": "",
    "blank": " \t\r\n",
    "not json": "user_id=1",
    "bare word": "hello",
    "single quotes": "{'user_id': 1}",
    "byte order mark": "\ufeff{}",
    "cut off": '{"user_id": "a',
    "a raw line feed in a text": '{"user_id": "a\nb"}',
    "a comment": '{"a": 1} // b',
}


def _bodies() -> Iterator[tuple[str, Case]]:
    for name, text in _NOT_JSON.items():
        yield name, Case(text, "not_json")
    two = json.dumps(_event("two values"))
    yield "trailing comma", Case(two.removesuffix("}") + ",}", "not_json")
    yield "two values", Case(two + two, "not_json")
    for top in ("null", "[]", f"[{two}]", "17", "true", '"text"'):
        yield f"at the top {top[:8]}", Case(top, "not_an_object")
    other = '{"foo": "oops_wrong_msg_type", "bar": "123"}'
    yield "another type of message", Case(other, "user_id: missing")
    yield "wrapped", Case(json.dumps({"login": _event("x")}), "user_id: missing")
    yield "in sns dress", Case(json.dumps({"Message": two}), "user_id: missing")
    for name in ("NaN", "Infinity", "-Infinity"):
        yield name, _with(name, f'"extra": {name}', "not_json")
    yield "1e999", _with("1e999", '"extra": 1e999', "number_out_of_range")
    for digits in (5_000, 60_000):
        yield f"{digits} digits", _with("x", f'"extra": {"9" * digits}', "number_out_of_range")


def _sizes() -> Iterator[tuple[str, Case]]:
    for depth, rejected in ((1_200, "nested_too_deep"), (100_000, "body_too_long")):
        for open_, close in (("[", "]"), ('{"a":', "}")):
            inner = open_ * depth + "1" + close * depth
            yield f"nested {depth} {open_}", _with("x", f'"extra": {inner}', rejected)
    yield "nested 30000 and open", Case("[" * 30_000, "nested_too_deep")
    frame = len(json.dumps(_event("1 MiB", extra="")))
    yield "1 MiB", _changed("1 MiB", "body_too_long", extra="x" * (2**20 - frame))
    yield "1 MiB of blanks", Case(" " * 2**20, "body_too_long")
    yield "a field of 1 MB", _changed("x", "body_too_long", user_id="x" * 1_000_000)
    keys: dict[str, object] = {f"k{number}": 1 for number in range(70_000)}
    yield "70000 keys", Case(json.dumps(_event("x", **keys)), "body_too_long")
    many: dict[str, object] = {f"k{number}": 1 for number in range(4_000)}
    yield "4000 keys", Case(json.dumps(_event("4000 keys", **many)), None, IP)


def _fields() -> Iterator[tuple[str, Case]]:
    for field in REQUIRED:
        yield f"{field} missing", _without("x", field, f"{field}: missing")
        yield f"{field} null", _changed("x", f"{field}: null", **{field: None})
        for blank in ("", " ", "\u00a0\t"):
            yield f"{field} blank {blank!a}", _changed("x", f"{field}: blank", **{field: blank})
    for field in (*REQUIRED, "locale"):
        for value in (1, 1.5, True, ["1.2.3.4"], {"a": 1}):
            yield f"{field} as {value!r}", _changed("x", f"{field}: wrong_type", **{field: value})
        for control in ("\0", "\x07", "\x1b", "\x7f", "\x85"):
            text = f"a{control}b"
            name, why = f"{field} with {control!a}", f"{field}: control_character"
            yield name, _changed("x", why, **{field: text})
        surrogate = f"{field}: not_unicode"
        yield f"{field} with a lone surrogate", _changed("x", surrogate, **{field: "a\ud800"})
        yield f"{field} too long", _changed("x", f"{field}: too_long", **{field: "x" * 257})
        yield f"{field} twice", _with("x", f'"{field}": "y"', "duplicate_key")
    yield "a key twice, escaped", _with("x", '"i\\u0070": "1.2.3.4"', "duplicate_key")


def _values() -> Iterator[tuple[str, Case]]:
    for text in _NOT_IPS:
        yield f"not an ip {text!a}", _changed("x", "ip: not_an_ip", ip=text)
    for number, (text, original) in enumerate(_IPS.items()):
        event = json.dumps(_event(f"spelling {number}", ip=text))
        yield f"ip {text}", Case(event, original_ip=original)
    for name, text in _TEXTS.items():
        yield f"text: {name}", _changed(name, device_type=text, locale=text)
        yield f"user: {name}", _changed(name, user_id=text)
        yield f"device: {name}", _changed(f"device: {name}", device_id=text + uuid4().hex)
    for version in (*_VERSION_NUMBERS, *_NO_VERSIONS):
        yield f"version {version}", _changed(f"version {version}", app_version=version)
    shapes = {"uuid": str(uuid4()), "hex": uuid4().hex, "longest": "y" * 128, "digit": "1"}
    for shape, device in (shapes | {"usual": "593-47-5928"}).items():
        yield f"device {shape}", _changed(f"device {shape}", device_id=device)
    why, device = "user_id: repeats_masked_value", "593-47-5928"
    yield "device id in the user id", _changed("x", why, user_id=f"me {device}", device_id=device)


def _loads() -> Iterator[tuple[str, Case]]:
    yield "ordinary", _changed("ordinary")
    reordered = dict(reversed(_event("reordered").items()))
    yield "keys in another order", Case(json.dumps(reordered, indent=4), None, IP)
    yield "extra fields", _changed("extra fields", email="e", IP=5, nested={"ip": 1})
    yield "locale null", _changed("locale null", locale=None)
    yield "locale missing", _without("locale missing", "locale")


CASES: Mapping[str, Case] = dict([*_bodies(), *_sizes(), *_fields(), *_values(), *_loads()])


@dataclass(frozen=True)
class Landed:
    """Where the messages came to, by message id where the tables know it."""

    ids: Mapping[str, str]
    rows: frozenset[Row]
    row_count: int
    rejected: Mapping[str, tuple[str, str]]
    balance: tuple[int, int, int, int]
    left_on_queue: int


@pytest.fixture(scope="module")
def landed(
    stack: Stack, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Landed]:
    """All cases, sent to a queue of the module's own and taken by one run."""
    name = f"bad_inputs_{uuid4().hex}"
    keysets = tmp_path_factory.mktemp("bad-inputs") / "keysets"
    create_keysets(keysets)
    server = postgres.url(stack.state, postgres.OWNER)
    with psycopg.connect(server, autocommit=True) as administrator, HarshQueue() as queue:
        administrator.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}".encode())
        try:
            queue.create("logins")
            texts = [case.body for case in CASES.values()]
            ids = dict(zip(CASES, queue.send("logins", texts), strict=True))
            database = LoginDatabase(postgres.url(stack.state, name))
            _run(queue, database, keysets)
            left = len(queue.on_queue("logins"))
            yield _look(ids, database, read_keyring(keysets), left)
        finally:
            administrator.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _run(queue: HarshQueue, database: LoginDatabase, keysets: Path) -> None:
    environment = {
        **queue.environment("logins"),
        settings.DATABASE_URL: database.url,
        settings.KEYSETS: str(keysets),
        "LOGIN_BATCH_MESSAGES": str(len(CASES)),
    }
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        for name, value in environment.items():
            patch.setenv(name, value)
        job = build_definitions(environment).resolve_job_def("ingest_logins")
        assert job.execute_in_process(instance=instance, raise_on_error=False).success


def _look(
    ids: Mapping[str, str], database: LoginDatabase, keyring: Keyring, left_on_queue: int
) -> Landed:
    rows: list[Row] = [
        (
            user,
            kind,
            keyring.masker("ip").unmask(ip),
            keyring.masker("device_id").unmask(device),
            locale,
            version,
        )
        for user, kind, ip, device, locale, version in database.query(
            "SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version"
            " FROM user_logins"
        )
    ]
    rejected = {
        message_id: (f"{field}: {reason}" if field else reason, sealed)
        for message_id, reason, field, sealed in database.query(
            "SELECT message_id, reason, field, sealed_body FROM login_ingest.quarantine"
        )
    }
    [balance] = database.query(
        "SELECT received, loaded, quarantined, already_known FROM login_ingest.batch"
    )
    return Landed(
        ids=ids,
        rows=frozenset(rows),
        row_count=len(rows),
        rejected={
            message_id: (why, keyring.sealer.open(sealed, message_id))
            for message_id, (why, sealed) in rejected.items()
        },
        balance=(balance[0], balance[1], balance[2], balance[3]),
        left_on_queue=left_on_queue,
    )


@pytest.mark.parametrize("name", CASES, ids=[repr(name)[1:-1] for name in CASES])
def test_a_message_loads_byte_for_byte_or_is_sealed_with_its_reason(
    landed: Landed, name: str
) -> None:
    case, message_id = CASES[name], landed.ids[name]

    if case.rejected:
        assert landed.rejected[message_id] == (case.rejected, case.body)
    else:
        assert message_id not in landed.rejected
        assert _row(case) in landed.rows


def test_every_case_is_accounted_for_and_gone_from_the_queue(landed: Landed) -> None:
    loaded = sum(case.rejected is None for case in CASES.values())

    assert landed.balance == (len(CASES), loaded, len(CASES) - loaded, 0)
    assert (landed.row_count, len(landed.rejected)) == (loaded, len(CASES) - loaded)
    assert landed.left_on_queue == 0


def _row(case: Case) -> Row:
    """What must stand in the table, without a decoder of ours."""
    sent = json.loads(case.body)
    version = _VERSION_NUMBERS.get(sent["app_version"])
    device = sent["device_id"]
    return (
        sent["user_id"],
        sent["device_type"],
        case.original_ip or "",
        device,
        sent.get("locale"),
        version,
    )


# Bounds


_BOUNDED = """
import resource, sys
from fetch_mask_assets.pipeline.batch.frames import mask_batch
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, new_keyset, open_keyring
from fetch_mask_assets_tests.defs.test_bad_inputs import worst_bodies
from fetch_mask_assets_tests.support.logins import raw_batch
keyring = open_keyring({name: new_keyset(name) for name in KEYSET_NAMES})
raw = raw_batch(worst_bodies())
mask_batch(raw.head(1), keyring)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(mask_batch(raw, keyring)["reason"].drop_nulls().len(), raw.height)
"""


def worst_bodies() -> list[str]:
    """Bodies of up to 1 MiB, each dear in another way."""
    mib = 2**20
    return [
        "[" * mib,
        '{"a":' * (mib // 5),
        '{"a":[' * (64 * 1024 // 6),
        "[" * 65_535,
        "[[" + "]," * 32_000,
        '{"a": ' + "9" * (mib - 10) + "}",
        '{"a": ' + "9" * 65_000 + "}",
        '{"a": "' + "x" * (mib - 10) + '"}',
        '{"a": "' + "\\ud800" * 10_000 + '"}',
        json.dumps({f"{number}": 0 for number in range(80_000)}),
        '{"a": [' + "[]," * 21_000 + "0]}",
        '{"a": [' + "{}," * 21_000 + "0]}",
        '{"a": [' + "0," * 32_000 + "0]}",
        '{"a": [' + "1e-9," * 13_000 + "0]}",
        '{"a": "' + "\\" * 32_000 + '"}',
        " " * mib,
        "😀" * (mib // 4),
        json.dumps(_event("x", user_id="1:" * 60_000)),
        json.dumps(_event("x", ip=":" * 60_000)),
        json.dumps(_event("x", device_id="\u0130" * 10_000)),
    ]


def test_the_dearest_bodies_are_masked_in_bounded_memory_and_time() -> None:
    """In a process that may take 256 MiB more than it has at its start, and a minute."""
    done = subprocess.run(  # noqa: S603 (our own interpreter, no shell)
        [sys.executable, "-c", _BOUNDED, "256"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    count = len(worst_bodies())
    assert (done.returncode, done.stdout) == (0, f"{count} {count}\n"), done.stderr


# The way back from a whole batch


@pytest.mark.parametrize("good", [1, 0], ids=["nine of ten", "all ten"])
def test_bad_messages_do_not_hold_up_the_good_ones(pipeline: Pipeline, good: int) -> None:
    pipeline.send([*(f"junk {n}" for n in range(10 - good)), *(body(n) for n in range(good))])

    result = pipeline.run(messages=10)

    assert result.success
    assert metadata(result, "masked_logins")["rejected"] == 10 - good
    assert pipeline.rows() == good
    assert pipeline.in_queue() == (0, 0)


def test_the_same_content_under_two_message_ids_is_two_rows_of_equal_tokens(
    pipeline: Pipeline,
) -> None:
    pipeline.send([body(1), body(1)])

    pipeline.run(messages=2)

    rows = pipeline.database.query("SELECT masked_ip, masked_device_id FROM user_logins")
    assert (len(rows), len(set(rows))) == (2, 1)


def test_a_message_twice_in_a_batch_is_one_row_and_its_newest_handle_deletes_it(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HarshQueue() as queue:
        queue.create("logins")
        queue.send("logins", [body(1)])
        # The first answer's message shows again at once, so that one drain has it twice.
        queue.plan = FaultPlan(
            (Fault(kind=FaultKind.EARLY, operation="ReceiveMessage", calls=(1,)),)
        )
        for name, value in queue.environment("logins").items():
            monkeypatch.setenv(name, value)
        result = pipeline.run(
            messages=2, LOGIN_RECEIVERS="1", **{settings.QUEUE_URL: queue.url("logins")}
        )

        assert metadata(result, "user_logins")["received"] == 2
        assert metadata(result, "user_logins")["already_known"] == 1
        assert pipeline.rows() == 1
        assert queue.on_queue("logins") == {}
