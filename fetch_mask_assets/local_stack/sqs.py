"""The SQS server of a checkout, and its two queues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import boto3
import psutil
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from mypy_boto3_sqs import SQSClient
from mypy_boto3_sqs.literals import QueueAttributeNameType
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from fetch_mask_assets.local_stack.errors import LocalStackError
from fetch_mask_assets.local_stack.layout import make_private_directory, write_private_file
from fetch_mask_assets.local_stack.processes import process_of, stop
from fetch_mask_assets.local_stack.state import LOOPBACK, State

REGION = "us-east-1"
CREDENTIAL = "local"
LOGIN_EVENTS = "login-events"
DEAD_LETTERS = "login-events-dead-letter"
MAX_RECEIVE_COUNT = 5

_SERVICES = ("sqs", "kms", "secretsmanager")
_MODULE = "ministack"
_ACCOUNT = "000000000000"
# A dead letter's age counts from the day it was sent, so its queue has to keep messages longer.
_LOGINS_KEPT = str(7 * 24 * 60 * 60)
_DEAD_LETTERS_KEPT = str(14 * 24 * 60 * 60)
_START_SECONDS = 30
# On SIGTERM the server saves its queues; one that hangs is killed, and loses newer messages.
_STOP_STEPS = ((signal.SIGTERM, 30.0), (signal.SIGKILL, 10.0))

# The shell ends at once, so that the server is no child of this command and outlives it.
_DETACHED = '"$@" </dev/null >server.log 2>&1 & echo $!'


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """The id and the creation time of a process: the id alone may be reused."""

    pid: int
    created: float


def start(directory: Path, state: State) -> None:
    """Starts the server in its directory; does nothing if it runs.

    Raises:
        LocalStackError: it does not start; names the log.
    """
    if not is_running(directory):
        make_private_directory(directory)
        make_private_directory(directory / "state")
        make_private_directory(directory / "tmp")
        _start_server(directory, state.sqs_port)
    _wait_until_ready(directory, state)


def stop_server(directory: Path) -> None:
    """Stops the server if it runs; it keeps the queues with their messages.

    Raises:
        LocalStackError: it does not end.
    """
    process = _process(directory)
    if process and stop([process], _STOP_STEPS):
        raise LocalStackError(f"The SQS server (process {process.pid}) does not stop: end it.")


def is_running(directory: Path) -> bool:
    """Return whether the server runs."""
    return _process(directory) is not None


def client(state: State) -> SQSClient:
    """A client of this server; it ignores the user's AWS settings."""
    return boto3.client(
        "sqs",
        endpoint_url=endpoint(state),
        region_name=REGION,
        aws_access_key_id=CREDENTIAL,
        aws_secret_access_key=CREDENTIAL,
        config=Config(connect_timeout=2, retries={"total_max_attempts": 2}),
    )


def endpoint(state: State) -> str:
    """The URL that the server listens on."""
    return f"http://{LOOPBACK}:{state.sqs_port}"


def queue_url(state: State, name: str = LOGIN_EVENTS) -> str:
    """The URL of one of the queues."""
    return f"{endpoint(state)}/{_ACCOUNT}/{name}"


def create_queues(
    sqs: SQSClient, name: str = LOGIN_EVENTS, dead_letters: str = DEAD_LETTERS
) -> str:
    """Creates a queue and its dead-letter queue if they do not exist; returns the queue's URL."""
    last = _create_queue(sqs, dead_letters, {"MessageRetentionPeriod": _DEAD_LETTERS_KEPT})
    policy = {"deadLetterTargetArn": _arn(sqs, last), "maxReceiveCount": MAX_RECEIVE_COUNT}
    url = _create_queue(sqs, name, {"MessageRetentionPeriod": _LOGINS_KEPT})
    existing = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
    if "RedrivePolicy" not in existing.get("Attributes", {}):
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    return url


def _create_queue(
    sqs: SQSClient, name: str, attributes: Mapping[QueueAttributeNameType, str]
) -> str:
    # Looked up first: the server does not recognise a queue from before a change of its port, and
    # would create an empty one beside it.
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    except sqs.exceptions.QueueDoesNotExist:
        return sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    return url


def _arn(sqs: SQSClient, url: str) -> str:
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return answer["Attributes"]["QueueArn"]


def _start_server(directory: Path, port: int) -> None:
    done = subprocess.run(  # noqa: S603 (a fixed script, our own interpreter)
        ["/bin/sh", "-c", _DETACHED, "sh", sys.executable, "-P", "-m", _MODULE],
        stdout=subprocess.PIPE,
        env=_environment(directory, port),
        cwd=directory,
        umask=0o077,
        start_new_session=True,
        check=True,
    )
    pid = int(done.stdout)
    write_private_file(_identity_file(directory), json.dumps(asdict(_identity(pid))))


def _environment(directory: Path, port: int) -> Mapping[str, str]:
    return {
        **os.environ,
        "GATEWAY_PORT": str(port),
        "BIND_HOST": LOOPBACK,
        "MINISTACK_HOST": LOOPBACK,
        "MINISTACK_ACCOUNT_ID": _ACCOUNT,
        "MINISTACK_REGION": REGION,
        "SERVICES": ",".join(_SERVICES),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(directory / "state"),
        "TMPDIR": str(directory / "tmp"),
        # Its errors quote requests, and requests hold message bodies.
        "LOG_LEVEL": "CRITICAL",
        # It would listen on these ports too, on every interface.
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "USE_SSL": "0",
        # It would stop containers of an earlier run: there are none.
        "DOCKER_HOST": f"unix://{directory}/no-docker",
    }


def _identity(pid: int) -> ProcessIdentity:
    try:
        return ProcessIdentity(pid, psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return ProcessIdentity(pid, 0.0)


@retry(
    retry=retry_if_exception_type(BotoCoreError),
    stop=stop_after_delay(_START_SECONDS),
    wait=wait_fixed(0.1),
    reraise=True,
)
def _answer(state: State) -> None:
    client(state).list_queues()


def _wait_until_ready(directory: Path, state: State) -> None:
    try:
        _answer(state)
    except BotoCoreError:
        raise LocalStackError(
            f"The SQS server does not answer on port {state.sqs_port}:"
            f" see {directory / 'server.log'}."
        ) from None


def _process(directory: Path) -> psutil.Process | None:
    try:
        identity = ProcessIdentity(
            **json.loads(_identity_file(directory).read_text(encoding="utf-8"))
        )
    except (OSError, ValueError, TypeError):
        return None
    return process_of(identity.pid, _MODULE, identity.created)


def _identity_file(directory: Path) -> Path:
    return directory / "process.json"
