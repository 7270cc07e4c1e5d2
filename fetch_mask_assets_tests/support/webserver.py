"""Dagster's webserver and daemon as real processes, asked as the pages ask them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fetch_mask_assets
from fetch_mask_assets.local_stack import stack as local_stack
from fetch_mask_assets.local_stack.processes import session_processes, stop
from fetch_mask_assets.local_stack.state import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fetch_mask_assets.local_stack.stack import Stack

CHECKOUT = Path(fetch_mask_assets.__file__).parents[1]
SECONDS = 240
DAEMON = "dagster-daemon run"

LOCATION = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "fetch_mask_assets.definitions",
}


@dataclass
class Webserver:
    """A running webserver, and everything that it has answered."""

    url: str
    stack: Stack
    answers: list[str] = field(default_factory=list)

    def ask(self, query: str, **variables: object) -> Any:  # noqa: ANN401 (GraphQL's data)
        """The data of a GraphQL answer."""
        request = urllib.request.Request(  # noqa: S310 (our own loopback URL)
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            text = answer.read().decode()
        self.answers.append(text)
        parsed = json.loads(text)
        assert "errors" not in parsed, text
        return parsed["data"]

    def launch(self, **selection: object) -> str:
        """Launches ingest_logins; the run's id."""
        selector = {**LOCATION, "pipelineName": "ingest_logins", **selection}
        params = {"selector": selector, "runConfigData": {}, "mode": "default"}
        return _launched(self.ask(_LAUNCH, params=params)["launchRun"])

    def execute_again(self, run_id: str, strategy: str) -> str:
        """Executes a run again, `ALL_STEPS` of it or `FROM_FAILURE` on; the new run's id."""
        params = {"parentRunId": run_id, "strategy": strategy}
        return _launched(self.ask(_AGAIN, params=params)["launchRunReexecution"])

    def failures(self, run_id: str) -> str:
        """What the page of a run says of its failure."""
        events = self.ask(_FAILURES, runId=run_id)["logsForRun"]["events"]
        return " ".join(str(event) for event in events if event)

    def status_at_the_end(self, run_id: str) -> str:
        """The status of a run once it has ended."""
        give_up = time.monotonic() + SECONDS
        while time.monotonic() < give_up:
            status = self.ask(_STATUS, runId=run_id)["runOrError"]["status"]
            if status in {"SUCCESS", "FAILURE", "CANCELED"}:
                return str(status)
            time.sleep(0.3)
        raise TimeoutError("the run did not end")


@contextmanager
def serving(checkout: Path, **changes: str) -> Iterator[Webserver]:
    """Webserver and daemon on a stack of their own, with the checkout's workspace."""
    try:
        stack = local_stack.up(checkout)
        # A run that a crowded machine loses must not hold its messages for long.
        quick = {
            "LOGIN_MAX_EMPTY_RECEIVES": "2",
            "LOGIN_BATCH_SECONDS": "5",
            "LOGIN_VISIBILITY_SECONDS": "20",
        }
        settings = {**os.environ, **stack.environment, **quick, **changes}
        # In the stack's own directory: Dagster reads .env from where it is started.
        with webserver(stack, checkout, settings, DAEMON) as server:
            yield server
    finally:
        local_stack.down(checkout, delete=True)


@contextmanager
def webserver(
    stack: Stack, cwd: Path, settings: Mapping[str, str], *others: str
) -> Iterator[Webserver]:
    """A webserver in an environment, and others of Dagster's programs beside it."""
    port = free_port()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        page = f"dagster-webserver --host 127.0.0.1 --port {port}"
        processes += [_start(command.split(), settings, cwd) for command in (page, *others)]
        server = Webserver(f"http://127.0.0.1:{port}", stack)
        _wait_until_it_answers(server, processes)
        yield server
    finally:
        for process in processes:
            _end(process)


_LAUNCH = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on InvalidSubsetError { message }
    ... on RunConfigValidationInvalid { errors { message } }
} }
"""

_AGAIN = """
mutation ($params: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
} }
"""

_FAILURES = """
query ($runId: ID!) { logsForRun(runId: $runId) { ... on EventConnection { events {
    ... on RunFailureEvent { message }
    ... on ExecutionStepFailureEvent { error { message cause { message } } }
} } } }
"""

_STATUS = "query ($runId: ID!) { runOrError(runId: $runId) { ... on Run { status } } }"


def _launched(answer: Mapping[str, Any]) -> str:
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def _start(command: list[str], settings: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    program = str(Path(sys.executable).parent / command[0])
    with (cwd / f"{command[0]}.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 (our own program, no shell)
            [program, *command[1:], "-w", str(CHECKOUT / "workspace.yaml")],
            env=settings,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_until_it_answers(server: Webserver, processes: list[subprocess.Popen[bytes]]) -> None:
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        assert [process.poll() for process in processes] == [None] * len(processes)
        try:
            server.ask("{ version }")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
        else:
            return
    raise TimeoutError("the webserver does not answer")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it started, and nothing else."""
    known = session_processes(process.pid)
    stop(known, ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)))
    process.wait(10)
