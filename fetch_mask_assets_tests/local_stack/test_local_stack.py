"""The local stack: real servers, real signals, real files."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg
import pytest
from click.testing import CliRunner
from dagster import DagsterInstance, DagsterRunStatus, job, op
from dotenv import dotenv_values
from mypy_boto3_sqs import SQSClient

from fetch_mask_assets.cli.local import local
from fetch_mask_assets.local_stack import environment as local_environment
from fetch_mask_assets.local_stack import sqs as local_sqs
from fetch_mask_assets.local_stack import stack as local_stack
from fetch_mask_assets.local_stack.errors import LocalStackError
from fetch_mask_assets.local_stack.layout import Layout
from fetch_mask_assets.local_stack.processes import stop, wait_for_end
from fetch_mask_assets.local_stack.samples import samples
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets.local_stack.state import free_port, load_state
from fetch_mask_assets.pipeline.contract.login_event import LoginEvent, decode_login_event


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "a checkout"
    directory.mkdir()
    try:
        yield directory
    finally:
        local_stack.down(directory, delete=True)


def test_up_twice_keeps_ports_password_processes_and_data(checkout: Path) -> None:
    first = local_stack.up(checkout)
    _write_note(first, "kept")
    pids = _pids(first)
    second = local_stack.up(checkout)
    assert second == first
    assert _pids(second) == pids
    assert _notes(second) == ["kept"]


def test_rows_and_messages_survive_down_and_up(checkout: Path) -> None:
    first = local_stack.up(checkout)
    _write_note(first, "kept")
    _send(first, "waiting")
    local_stack.down(checkout, delete=False)
    second = local_stack.up(checkout)
    assert second == first
    assert _notes(second) == ["kept"]
    assert _receive(second) == ["waiting"]


def test_committed_rows_and_saved_messages_survive_a_kill_of_both_servers(checkout: Path) -> None:
    first = local_stack.up(checkout)
    _send(first, "waiting")
    local_stack.down(checkout, delete=False)
    local_stack.up(checkout)
    _write_note(first, "kept")
    _kill(first)
    second = local_stack.up(checkout)
    assert second == first
    assert _notes(second) == ["kept"]
    assert _receive(second) == ["waiting"]


def test_a_stale_process_id_of_a_stranger_is_neither_believed_nor_signalled(checkout: Path) -> None:
    stack = local_stack.up(checkout)
    _kill(stack)
    with _stranger() as stranger:
        _name_as_running(stack, stranger.pid)
        assert [each.is_running for each in local_stack.status(checkout)] == [False, False]
        local_stack.up(checkout)
        _kill(stack)
        _name_as_running(stack, stranger.pid)
        local_stack.down(checkout, delete=False)
        assert stranger.poll() is None


def test_a_port_that_a_stranger_took_is_given_up_with_nothing_lost(checkout: Path) -> None:
    first = local_stack.up(checkout)
    _write_note(first, "kept")
    _send(first, "waiting")
    local_stack.down(checkout, delete=False)
    with _listener(first.state.postgres_port), _listener(first.state.sqs_port):
        second = local_stack.up(checkout)
    assert second.state.postgres_port != first.state.postgres_port
    assert second.state.sqs_port != first.state.sqs_port
    assert _dotenv(checkout) == second.environment
    assert _notes(second) == ["kept"]
    assert _receive(second) == ["waiting"]


def test_everything_below_the_directory_and_the_settings_are_private(checkout: Path) -> None:
    previous = os.umask(0)
    try:
        stack = local_stack.up(checkout)
        _send(stack, "waiting")
        assert _open_to_others(checkout) == []
        local_stack.down(checkout, delete=False)
        assert _open_to_others(checkout) == []
    finally:
        os.umask(previous)


def test_no_password_is_in_a_command_line_and_no_directory_of_the_user_is_touched(
    checkout: Path,
) -> None:
    before = checkout.stat()
    stack = local_stack.up(checkout)
    lines = [" ".join(psutil.Process(pid).cmdline()) for pid in _pids(stack)]
    assert not [line for line in lines if stack.state.postgres_password in line]
    assert stack.state.postgres_password not in repr(stack)
    after = checkout.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


def test_both_servers_listen_on_the_loopback_interface_only(stack: Stack) -> None:
    listening = [
        (each.laddr.ip, each.laddr.port)
        for pid in _pids(stack)
        for each in psutil.Process(pid).net_connections()
        if each.status == psutil.CONN_LISTEN
    ]
    ports = (stack.state.postgres_port, stack.state.sqs_port)
    assert sorted(listening) == sorted(("127.0.0.1", port) for port in ports)


def test_postgres_asks_for_the_password(stack: Stack) -> None:
    url = stack.environment["LOGIN_DATABASE_URL"].replace(stack.state.postgres_password, "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def test_the_log_of_postgres_holds_no_value_and_no_statement(stack: Stack) -> None:
    url = stack.environment["LOGIN_DATABASE_URL"]
    with (
        psycopg.connect(url) as connection,
        pytest.raises(psycopg.errors.InvalidTextRepresentation),
    ):
        connection.execute("SELECT '203.0.113.77'::integer")
    log = (stack.layout.postgres / "server.log").read_text()
    assert "ready to accept connections" in log
    assert "203.0.113.77" not in log


def test_the_log_of_the_sqs_server_holds_no_message(stack: Stack, queue_url: str) -> None:
    client = local_sqs.client(stack.state)
    client.send_message(QueueUrl=queue_url, MessageBody="203.0.113.77")
    client.receive_message(QueueUrl=queue_url)
    with pytest.raises(client.exceptions.ClientError):
        client.send_message(QueueUrl=f"{queue_url}-none", MessageBody="203.0.113.77")
    assert "203.0.113.77" not in (stack.layout.sqs / "server.log").read_text()


def test_two_checkouts_do_not_disturb_one_another(checkout: Path, stack: Stack) -> None:
    other = local_stack.up(checkout)
    _write_note(other, "theirs")
    assert not {stack.state.postgres_port, stack.state.sqs_port} & {
        other.state.postgres_port,
        other.state.sqs_port,
    }
    local_stack.down(checkout, delete=True)
    assert local_stack.is_up(stack.layout.checkout)


def test_two_ups_at_once_make_one_stack(checkout: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(local_stack.up, [checkout, checkout])
    assert one == other


def test_the_login_queue_hands_what_is_received_too_often_to_the_dead_letter_queue(
    sqs: SQSClient, queue_url: str
) -> None:
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])["Attributes"]
    policy = json.loads(attributes["RedrivePolicy"])
    assert policy["maxReceiveCount"] == 5
    assert policy["deadLetterTargetArn"].endswith("-dead-letter")
    assert attributes["MessageRetentionPeriod"] == "604800"


def test_a_login_queue_without_a_dead_letter_queue_gets_one(sqs: SQSClient) -> None:
    name = f"bare-{uuid4().hex}"
    bare = sqs.create_queue(QueueName=name)["QueueUrl"]
    assert local_sqs.create_queues(sqs, name, f"{name}-dead-letter") == bare
    answer = sqs.get_queue_attributes(QueueUrl=bare, AttributeNames=["RedrivePolicy"])
    assert json.loads(answer["Attributes"]["RedrivePolicy"])["maxReceiveCount"] == 5


def test_the_settings_keep_a_line_of_the_users_and_their_tuning(checkout: Path) -> None:
    dotenv = checkout / ".env"
    dotenv.write_text("# mine\nMINE='a b'\nLOGIN_MAX_RUNS=7\nAWS_ENDPOINT_URL=http://old")
    stack = local_stack.up(checkout)
    local_stack.up(checkout)
    assert dotenv.read_text().startswith("# mine\nMINE='a b'\nLOGIN_")
    expected = {**stack.environment, "MINE": "a b", "LOGIN_MAX_RUNS": "7"}
    assert _dotenv(checkout) == expected
    local_stack.down(checkout, delete=True)
    assert dotenv.read_text() == "# mine\nMINE='a b'\n"


def test_settings_of_another_place_are_never_overwritten(checkout: Path) -> None:
    line = "LOGIN_DATABASE_URL=postgresql://etl@warehouse.example/logins\n"
    (checkout / ".env").write_text(line)
    with pytest.raises(LocalStackError, match="move that file away"):
        local_stack.up(checkout)
    assert (checkout / ".env").read_text() == line
    assert not (checkout / ".fetch-mask").exists()


def test_settings_with_blanks_and_quotes_come_back_as_they_were() -> None:
    ours = {"DAGSTER_HOME": "/a b/it's \\ here", "LOGIN_QUEUE_URL": "http://127.0.0.1:1/0/q"}
    text = local_environment.merged("", ours)
    assert local_environment.merged(text, ours) == text
    assert local_environment.without(text, ours) == ""


def test_down_with_delete_leaves_nothing(checkout: Path) -> None:
    servers = [psutil.Process(pid) for pid in _pids(local_stack.up(checkout))]
    local_stack.down(checkout, delete=True)
    assert list(checkout.iterdir()) == []
    assert wait_for_end(0, servers) == []


def test_down_where_nothing_is_does_nothing(checkout: Path) -> None:
    local_stack.down(checkout, delete=True)
    assert list(checkout.iterdir()) == []


def test_status_says_what_is_down(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    assert _status() == (1, {"Postgres": False, "SQS": False})
    stack = local_stack.up(checkout)
    assert _status() == (0, {"Postgres": True, "SQS": True})
    local_sqs.stop_server(stack.layout.sqs)
    assert _status() == (1, {"Postgres": True, "SQS": False})


def test_dagsters_instance_loads_from_the_settings_and_keeps_runs(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    with DagsterInstance.get() as instance:
        result = _hello.execute_in_process(instance=instance)
        kept = instance.get_run_by_id(result.run_id)
        assert kept is not None
        assert kept.status is DagsterRunStatus.SUCCESS
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 2
        assert not instance.telemetry_enabled
        assert stack.state.postgres_password not in repr(instance.get_ref().to_dict())


def test_samples_are_seeded() -> None:
    assert samples(50, seed=1) == samples(50, seed=1)
    assert samples(50, seed=1) != samples(50, seed=2)
    assert samples(80, seed=1)[:50] == samples(50, seed=1)


def test_samples_hold_a_few_messages_that_are_no_logins() -> None:
    decoded = [decode_login_event(body) for body in samples(600, seed=1)]
    rejected = [each for each in decoded if not isinstance(each, LoginEvent)]
    assert len(rejected) == 6
    assert {(each.reason, each.field) for each in rejected} == {
        ("missing", "app_version"),
        ("not_json", None),
        ("not_an_ip", "ip"),
        ("missing", "device_id"),
    }


def test_samples_repeat_addresses_and_devices_and_vary_in_all_that_matters() -> None:
    bodies = [body for body in samples(600, seed=1) if _is_login(body)]
    logins = [json.loads(body) for body in bodies]
    assert Counter(each["ip"] for each in logins).most_common(1)[0][1] > 20
    assert Counter(each["device_id"] for each in logins).most_common(1)[0][1] > 20
    assert {"2.3.0", "0.96", "3.11.2", "2.3.0-beta"} <= {each["app_version"] for each in logins}
    assert {"2001:db8::7", "2001:0DB8:0:0:0:0:0:7", "::ffff:192.0.2.44", "192.0.2.44"} <= {
        each["ip"] for each in logins
    }
    assert [each for each in logins if "locale" not in each]
    assert [each for each in logins if each.get("locale", "") is None]
    devices = {(each["user_id"], each["device_id"]) for each in logins}
    assert max(Counter(user for user, _ in devices).values()) > 1
    assert {bool(re.fullmatch(r"\d{3}-\d{2}-\d{4}", device)) for _, device in devices} == {
        True,
        False,
    }


def test_the_samples_command_prints_one_message_a_line() -> None:
    result = CliRunner().invoke(local, ["samples", "--count", "7", "--seed", "3"])
    assert result.output.splitlines() == samples(7, seed=3)


@pytest.mark.parametrize(
    "stop_signal", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM]
)
def test_dev_stops_all_that_it_started_also_a_run_under_way(
    checkout: Path, stop_signal: signal.Signals
) -> None:
    _write_definitions(checkout)
    mark, port = uuid4().hex, free_port()
    with _dev(checkout, mark, port) as process:
        _wait_for(lambda: (checkout / "run_began").exists() and _answers(port), process)
        assert _waiting(checkout) > 0
        process.send_signal(stop_signal)
        assert process.wait(timeout=60) == 0
    assert _marked(mark) == []
    assert not any(each.is_running for each in local_stack.status(checkout))


def test_dev_that_ends_by_itself_leaves_nothing_but_a_stack_that_was_up(checkout: Path) -> None:
    _write_definitions(checkout)
    local_stack.up(checkout)
    mark, port = uuid4().hex, free_port()
    with _dev(checkout, mark, port) as process:
        _wait_for((checkout / "run_began").exists, process)
        (dagster,) = psutil.Process(process.pid).children()
        dagster.kill()
        assert process.wait(timeout=60) != 0
    assert _marked(mark) == []
    assert local_stack.is_up(checkout)


@op
def _greet() -> None:
    """Does nothing."""


@job
def _hello() -> None:
    _greet()


def _write_note(stack: Stack, text: str) -> None:
    with psycopg.connect(stack.environment["LOGIN_DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS note (text text)")
        connection.execute("INSERT INTO note VALUES (%s)", [text])


def _notes(stack: Stack) -> list[str]:
    with psycopg.connect(stack.environment["LOGIN_DATABASE_URL"]) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM note")]


def _send(stack: Stack, body: str) -> None:
    queue_url = stack.environment["LOGIN_QUEUE_URL"]
    local_sqs.client(stack.state).send_message(QueueUrl=queue_url, MessageBody=body)


def _receive(stack: Stack) -> list[str]:
    queue_url = stack.environment["LOGIN_QUEUE_URL"]
    answer = local_sqs.client(stack.state).receive_message(QueueUrl=queue_url, WaitTimeSeconds=1)
    return [message["Body"] for message in answer["Messages"]]


def _waiting(checkout: Path) -> int:
    values = _dotenv(checkout)
    state = load_state(Layout.of(checkout).state)
    assert state is not None
    answer = local_sqs.client(state).get_queue_attributes(
        QueueUrl=str(values["LOGIN_QUEUE_URL"]), AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def _dotenv(checkout: Path) -> Mapping[str, str | None]:
    return dotenv_values(checkout / ".env")


def _pid_files(stack: Stack) -> tuple[Path, Path]:
    return stack.layout.postgres / "data" / "postmaster.pid", stack.layout.sqs / "process.json"


def _pids(stack: Stack) -> tuple[int, int]:
    postmaster, server = _pid_files(stack)
    return int(postmaster.read_text().split()[0]), json.loads(server.read_text())["pid"]


def _kill(stack: Stack) -> None:
    servers = [psutil.Process(pid) for pid in _pids(stack)]
    assert stop(servers, [(signal.SIGKILL, 10.0)]) == []


def _name_as_running(stack: Stack, pid: int) -> None:
    postmaster, server = _pid_files(stack)
    _, *rest = postmaster.read_text().splitlines()
    postmaster.write_text("\n".join([str(pid), *rest]) + "\n")
    server.write_text(json.dumps({**json.loads(server.read_text()), "pid": pid}))


@contextmanager
def _stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        yield process
        process.kill()


def _listener(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def _open_to_others(checkout: Path) -> list[str]:
    paths = [checkout / ".env", checkout / ".fetch-mask", *(checkout / ".fetch-mask").rglob("*")]
    # A running Postgres makes and removes files.
    modes = {path: path.lstat().st_mode for path in paths if path.exists()}
    return [f"{path} {stat.filemode(mode)}" for path, mode in modes.items() if mode & 0o077]


def _status() -> tuple[int, dict[str, bool]]:
    result = CliRunner().invoke(local, ["status", "--json"])
    services = json.loads(result.output)
    return result.exit_code, {each["name"]: each["is_running"] for each in services}


def _is_login(body: str) -> bool:
    return isinstance(decode_login_event(body), LoginEvent)


_DEFINITIONS = """
import time
from pathlib import Path

import dagster as dg

@dg.op
def sleep():
    Path("run_began").touch()
    time.sleep(300)

@dg.job
def long():
    sleep()

@dg.sensor(job=long, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=1)
def once(context):
    yield dg.RunRequest(run_key="once")

defs = dg.Definitions(jobs=[long], sensors=[once])
"""


def _write_definitions(checkout: Path) -> None:
    (checkout / "pipeline.py").write_text(_DEFINITIONS)
    (checkout / "workspace.yaml").write_text(
        "load_from: [{python_file: {relative_path: pipeline.py, working_directory: .}}]"
    )


def _dev(checkout: Path, mark: str, port: int) -> subprocess.Popen[bytes]:
    # As a script's `&` starts it: with SIGINT switched off.
    program = "from fetch_mask_assets.cli.local import local; local()"
    command = [sys.executable, "-c", program, "dev", "--port", str(port)]
    return subprocess.Popen(  # noqa: S603 (our own command)
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *command],
        cwd=checkout,
        env={**os.environ, "MARK": mark},
    )


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _marked(mark: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter() if _has_mark(each, mark)]


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("MARK") == mark
    except psutil.Error:
        return False
