"""Messages are tried by a real process, which really dies of some."""

from __future__ import annotations

import json
import os
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from fetch_mask_assets.pipeline.queue import dry_run
from fetch_mask_assets.pipeline.queue.dry_run import DryRunError, dry_run_messages
from fetch_mask_assets.pipeline.queue.poison import IsolationResult
from fetch_mask_assets_tests.support.logins import bodies, body, raw_batch
from fetch_mask_assets_tests.support.poison import CRASHES, DEVOURS, RAISES, poisoned, python_path

# Each test starts interpreters.
pytestmark = pytest.mark.servers


@pytest.fixture
def poison_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the processes that this one starts."""
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path))


def test_messages_that_can_be_masked_pass_and_the_process_lives() -> None:
    deaths: list[int] = []
    raw = raw_batch([*bodies(500), "junk", body(1, ip="x"), "[" * 60_000])

    assert dry_run_messages(raw, range(raw.height), lambda: deaths.append(1)) == IsolationResult()
    assert deaths == []


@pytest.mark.usefixtures("poison_works")
@pytest.mark.parametrize("how", [CRASHES, DEVOURS, RAISES])
def test_a_message_that_kills_the_process_is_isolated(how: str) -> None:
    deaths: list[int] = []
    raw = raw_batch([*bodies(250), poisoned(250, how), *bodies(30)])
    result = dry_run_messages(raw, range(raw.height), lambda: deaths.append(1))

    assert result == IsolationResult(poison=frozenset({250}))
    assert deaths == [1]


@pytest.mark.usefixtures("poison_works")
def test_only_the_given_rows_are_tried() -> None:
    raw = raw_batch([poisoned(0, CRASHES), body(1), body(2)])

    assert dry_run_messages(raw, [2, 1], lambda: None) == IsolationResult()


@pytest.mark.usefixtures("poison_works")
def test_when_time_is_up_the_rest_is_untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "DRY_RUN_SECONDS", 0)
    raw = raw_batch([*bodies(200), body(1), poisoned(7, CRASHES), body(2)])
    result = dry_run_messages(raw, range(raw.height), lambda: None)

    assert result == IsolationResult(untried=frozenset({200, 201, 202}))


def test_the_process_has_no_credentials_and_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("LOGIN_DATABASE_URL", "postgresql://canary@nowhere/x")
    given: list[dict[str, str]] = []
    run = subprocess.run

    def recorded(*command: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        given.append(dict(options["env"]))  # type: ignore[call-overload]  # a dict
        return run(*command, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(subprocess, "run", recorded)
    assert dry_run_messages(raw_batch(bodies(1)), [0], lambda: None) == IsolationResult()
    assert "canary" not in str(given)
    assert given[0]["PATH"] == os.environ["PATH"]


def test_a_dry_run_takes_little_memory_here_however_large_the_batch() -> None:
    raw = raw_batch(["é" * 2**19] * 32)
    tracemalloc.start()
    try:
        assert dry_run_messages(raw, range(raw.height), lambda: None) == IsolationResult()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20


def test_a_process_that_neither_reads_nor_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "polars.py").write_text("import time; time.sleep(600)", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(dry_run, "_START_SECONDS", 0.5)
    monkeypatch.setattr(dry_run, "DRY_RUN_SECONDS", 0)
    with pytest.raises(DryRunError, match="no answer"):
        dry_run_messages(raw_batch(["x" * 2**20] * 8), range(8), lambda: None)


def test_a_request_that_cannot_be_made_isolates_no_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_inputs: object, **_named: object) -> str:
        raise MemoryError

    raw = raw_batch(bodies(1))
    monkeypatch.setattr(json, "dumps", fails)
    with pytest.raises(MemoryError):
        dry_run_messages(raw, [0], lambda: None)


def test_a_process_that_does_not_start_isolates_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "polars.py").write_text("raise SystemExit", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DryRunError, match="does not start"):
        dry_run_messages(raw_batch(bodies(1)), [0], lambda: None)


@pytest.mark.usefixtures("poison_works")
def test_a_process_that_does_not_start_at_once_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = ["no more processes", "no more memory"]
    run = subprocess.run

    def short_of_processes(*command: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        if failures:
            raise OSError(failures.pop())
        return run(*command, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(subprocess, "run", short_of_processes)
    raw = raw_batch([body(1), poisoned(2, CRASHES)])

    assert dry_run_messages(raw, [0, 1], lambda: None) == IsolationResult(poison=frozenset({1}))
    assert failures == []
