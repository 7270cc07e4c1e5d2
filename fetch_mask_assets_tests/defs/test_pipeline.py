"""Real runs of the chain: good ones, failing ones, and what they leave on the queue."""

from __future__ import annotations

import json
import logging
import resource
from hashlib import md5
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

import polars as pl
import psycopg
import pytest
from dagster import AssetCheckSeverity

from benchmarks.sqs_simulator.harsh_queue import HarshQueue
from fetch_mask_assets.defs.ingestion import ingestion_definitions, login_queue_resource
from fetch_mask_assets.errors import QueueError
from fetch_mask_assets.keys.storage import create_keysets
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets.pipeline.batch.balance import Balance
from fetch_mask_assets.pipeline.batch.frames import mask_batch
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue, QueueSettings, connect_queue
from fetch_mask_assets.pipeline.warehouse.commit import BatchToCommit, commit_batch
from fetch_mask_assets.settings import Tuning
from fetch_mask_assets_tests.defs.conftest import WITHOUT_CHECKS, checks, failure, metadata
from fetch_mask_assets_tests.support.logins import bodies, body, masked_batch, register

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fetch_mask_assets.keys.keyset import Keyring
    from fetch_mask_assets_tests.defs.conftest import Pipeline

CANARY_IP = "203.0.113.77"
CANARY_DEVICE = "canary-device-4711"
ONE_SENTENCE = (
    "A batch lives only inside the run that received it: select raw_login_batch, masked_logins"
    " and user_logins together"
)

# Good runs


def test_a_drained_fifo_dead_letter_queue_recognises_messages_by_their_ids(
    pipeline: Pipeline,
) -> None:
    name = f"dead-letters-{uuid4().hex}.fifo"
    url = pipeline.sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})["QueueUrl"]
    ids = [
        pipeline.sqs.send_message(
            QueueUrl=url, MessageBody=text, MessageGroupId=text, MessageDeduplicationId=text
        )["MessageId"]
        for text in map(str, range(4))
    ]
    # Committed from the login queue, before SQS moved them and reset their send times.
    register(pipeline.database.url, pipeline.keyring)
    first = masked_batch(pipeline.keyring, bodies(3), ids[:3])
    commit_batch(pipeline.database.url, BatchToCommit("earlier", first, lambda _: b""))

    tuning = Tuning(batch_messages=4)
    with connect_queue(QueueSettings.of(url, tuning)) as queue:
        login_queue = login_queue_resource(tuning, 1, is_moved=queue.is_fifo).over(queue)
        drain = ingestion_definitions(pipeline.environment, tuning, login_queue)
        job = drain.resolve_job_def("ingest_logins")
        result = job.execute_in_process(instance=pipeline.instance)

    counts = pipeline.database.batch_counts(result.run_id)
    assert counts is not None
    assert Balance(received=4, quarantined=1, already_known=3) == counts.balance
    assert pipeline.rows() == 3
    pipeline.sqs.delete_queue(QueueUrl=url)


def test_a_run_loads_what_waits_and_deletes_it(pipeline: Pipeline) -> None:
    sent = pipeline.send([*bodies(23), "not json", body(99, ip="999.1.1.1")])
    result = pipeline.run(messages=25)
    assert result.success
    assert pipeline.in_queue() == (0, 0)
    assert pipeline.rows() == 23
    ledger = pipeline.database.query("SELECT message_id FROM login_ingest.ledger")
    assert sorted(ledger) == sorted((message_id,) for message_id in sent)
    assert all(check.passed for name, check in checks(result).items() if name != _WARNS)
    assert len(checks(result)) == 14


def test_a_process_that_held_a_batch_writes_no_crash_dump(pipeline: Pipeline) -> None:
    pipeline.run()

    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)


def test_tokens_in_the_table_unmask_to_what_was_sent(pipeline: Pipeline) -> None:
    sent = [body(number, ip=ip, device_id=f"däv-{number}") for number, ip in enumerate(_SPELLINGS)]
    pipeline.send(sent)
    assert pipeline.run(messages=len(sent)).success
    rows = pipeline.database.query(
        "SELECT masked_ip, masked_device_id FROM user_logins ORDER BY user_id"
    )
    keyring = pipeline.keyring
    assert [keyring.masker("ip").unmask(ip) for ip, _ in rows] == list(_SPELLINGS.values())
    assert [keyring.masker("device_id").unmask(device) for _, device in rows] == [
        f"däv-{number}" for number in range(len(sent))
    ]
    assert len({ip for ip, _ in rows}) == len(set(_SPELLINGS.values()))


def test_the_metadata_of_a_run_counts_and_holds_no_value(pipeline: Pipeline) -> None:
    pipeline.send(
        [
            body(1, ip=CANARY_IP, device_id=CANARY_DEVICE),
            body(2, ip=CANARY_IP, app_version="beta", extra="x"),
            json.dumps({"ip": CANARY_IP, "device_id": CANARY_DEVICE}),
        ]
    )
    result = pipeline.run(messages=3)
    received = metadata(result, "raw_login_batch")
    assert (received["messages"], received["redelivered"]) == (3, 0)
    assert (received["end_reason"], received["dagster/row_count"]) == ("messages", 3)
    masked = metadata(result, "masked_logins")
    assert (masked["logins"], masked["rejected"], masked["distinct_ips"]) == (2, 1, 1)
    assert (masked["unparsed_versions"], masked["events_with_extra_fields"]) == (1, 1)
    loaded = metadata(result, "user_logins")
    expected = {"received": 3, "loaded": 2, "quarantined": 1, "already_known": 0}
    assert expected.items() <= loaded.items()
    assert (loaded["deleted_from_queue"], loaded["not_deleted"]) == (3, 0)
    _assert_no_canary(pipeline)


def test_messages_that_break_the_contract_are_quarantined_and_can_be_opened(
    pipeline: Pipeline,
) -> None:
    broken = [
        "not json",
        json.dumps({"event": "purchase"}),
        body(1, ip="999.1.1.1"),
        body(2, device_id=None),
        body(3, user_id=f"me@{CANARY_IP}", ip=CANARY_IP),
    ]
    ids = pipeline.send(broken)
    assert pipeline.run(messages=5).success
    quarantine = {
        message_id: (reason, field, sealed)
        for message_id, reason, field, sealed in pipeline.database.query(
            "SELECT message_id, reason, field, sealed_body FROM login_ingest.quarantine"
        )
    }
    assert [quarantine[message_id][:2] for message_id in ids] == [
        ("not_json", None),
        ("missing", "user_id"),
        ("not_an_ip", "ip"),
        ("null", "device_id"),
        ("repeats_masked_value", "user_id"),
    ]
    sealer = pipeline.keyring.sealer
    assert [sealer.open(quarantine[message_id][2], message_id) for message_id in ids] == broken
    assert pipeline.rows() == 0


def test_bodies_with_lone_surrogates_spoil_no_batch(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    lone = "\ud800"
    broken = [body(1).replace("user-1", f"u{lone}"), lone, f'{{"ip": "{CANARY_IP}{lone}"}}']
    with HarshQueue() as queue:
        queue.create("logins")
        ids = queue.send("logins", [body(2), *broken, body(3)])
        for name, text in queue.environment("logins").items():
            monkeypatch.setenv(name, text)
        result = pipeline.run(messages=5)
        assert result.success
        assert queue.on_queue("logins") == {}
        assert queue.errors == []
    assert pipeline.rows() == 2
    quarantine = pipeline.database.query(
        "SELECT message_id, reason, field FROM login_ingest.quarantine"
    )
    assert sorted(quarantine) == sorted(
        [
            (ids[1], "not_unicode", "user_id"),
            (ids[2], "not_json", None),
            (ids[3], "missing", "user_id"),
        ]
    )


def test_redelivered_messages_that_cannot_be_tried_return_to_the_queue_and_the_others_load(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipeline.send(bodies(3))
    assert len(pipeline.receive(visibility=0)) == 3
    pipeline.send([body(4), body(5)])
    # The process that tries messages cannot start.
    (tmp_path / "polars.py").write_text("raise SystemExit", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = pipeline.run(messages=5)
    assert result.success
    assert pipeline.rows() == 2
    received = metadata(result, "raw_login_batch")
    assert (received["messages"], received["returned_to_queue"]) == (2, 3)
    # They are hidden for as long as a received message is, so that few receives are spent.
    assert pipeline.in_queue() == (0, 3)


def test_an_empty_queue_is_a_good_run_that_writes_nothing(pipeline: Pipeline) -> None:
    result = pipeline.run()
    assert result.success
    assert metadata(result, "raw_login_batch")["end_reason"] == "dry"
    assert all(check.passed for check in checks(result).values())
    assert pipeline.is_untouched()


def test_equal_values_have_equal_tokens_in_another_run(pipeline: Pipeline) -> None:
    for _ in range(2):
        pipeline.send([body(1)])
        assert pipeline.run(messages=1).success
    assert pipeline.rows() == 2
    assert pipeline.database.query(
        "SELECT DISTINCT masked_ip IS NULL, masked_device_id IS NULL FROM user_logins"
    ) == [(False, False)]
    assert (
        len(pipeline.database.query("SELECT DISTINCT masked_ip, masked_device_id FROM user_logins"))
        == 1
    )


def test_more_runs_take_what_one_leaves(pipeline: Pipeline) -> None:
    pipeline.send(bodies(20))
    received = [
        metadata(pipeline.run(messages=count), "raw_login_batch")["messages"] for count in (8, 8, 4)
    ]
    assert received == [8, 8, 4]
    assert pipeline.rows() == 20


# Delivered more than once


def test_messages_that_were_committed_but_not_deleted_are_recognised(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.send([*bodies(4), "not json"])
    kept: list[str] = []

    def fail(queue: LoginQueue, message_ids: Iterable[str]) -> NoReturn:
        kept.extend(queue._unsettled[each][0] for each in message_ids)  # noqa: SLF001 (the handles)
        raise QueueError("SQS refused delete_message_batch: ServiceUnavailable.")

    with monkeypatch.context() as fault:
        fault.setattr(LoginQueue, "delete", fail)
        result = pipeline.run(messages=5)
    assert not result.success
    assert "ServiceUnavailable" in failure(result)
    assert pipeline.rows() == 4
    assert len(kept) == 5
    for handle in kept:
        pipeline.sqs.change_message_visibility(
            QueueUrl=pipeline.queue_url, ReceiptHandle=handle, VisibilityTimeout=0
        )
    again = pipeline.run(messages=5)
    assert again.success
    loaded = metadata(again, "user_logins")
    assert (loaded["received"], loaded["already_known"], loaded["loaded"]) == (5, 5, 0)
    assert checks(again)["redelivered_messages"].passed is False
    assert pipeline.rows() == 4
    assert pipeline.in_queue() == (0, 0)


# Runs that fail after receiving


def test_a_failing_commit_hands_the_messages_back(pipeline: Pipeline) -> None:
    sent = pipeline.send(bodies(3))
    _execute(pipeline, "ALTER TABLE login_ingest.ledger RENAME batch_id TO another")
    result = pipeline.run(messages=3)
    assert not result.success
    assert "SQLSTATE 42703" in failure(result)
    assert pipeline.in_queue() == (0, 3)
    _execute(pipeline, "ALTER TABLE login_ingest.ledger RENAME another TO batch_id")
    # They come back after five seconds; nobody would see them for a minute otherwise.
    again = pipeline.run(messages=3, LOGIN_MAX_EMPTY_RECEIVES="50", LOGIN_BATCH_SECONDS="20")
    assert metadata(again, "user_logins")["loaded"] == 3
    ledger = pipeline.database.query("SELECT message_id FROM login_ingest.ledger")
    assert sorted(ledger) == sorted((message_id,) for message_id in sent)


@pytest.mark.parametrize(
    "target",
    [
        "fetch_mask_assets.pipeline.batch.checked_batch.mask_batch",
        "fetch_mask_assets.pipeline.batch.checked_batch.broken_rules",
        "fetch_mask_assets.defs.assets.require_ready",
        "fetch_mask_assets.defs.checks.quarantined_violation_count",
        "fetch_mask_assets.pipeline.warehouse.database.TableFacts",
        "fetch_mask_assets.pipeline.warehouse.commit.commit_batch",
        "fetch_mask_assets.pipeline.queue.login_queue.LoginQueue.receive",
        "fetch_mask_assets.pipeline.queue.login_queue.LoginQueue.delete",
    ],
)
def test_the_text_of_an_unexpected_error_is_in_no_event(
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pipeline.send([body(1, ip=CANARY_IP, device_id=CANARY_DEVICE)])

    def fail(*_inputs: object, **_named: object) -> NoReturn:
        try:
            raise KeyError(CANARY_IP)  # noqa: TRY301 (a chained error is what is wanted)
        except KeyError as cause:
            raise ValueError(CANARY_DEVICE) from cause

    monkeypatch.setattr(target, fail)
    caplog.set_level(logging.DEBUG)
    result = pipeline.run(messages=1)
    assert not result.success
    assert "failed with ValueError in fail (test_pipeline.py" in failure(result)
    _assert_no_canary(pipeline)
    shown = caplog.text + "".join(capfd.readouterr())
    assert CANARY_IP not in shown
    assert CANARY_DEVICE not in shown


@pytest.mark.parametrize(
    "target",
    [
        "fetch_mask_assets.defs.assets.table_metadata.receive_metadata",
        "fetch_mask_assets.defs.assets.table_metadata.masking_metadata",
        "fetch_mask_assets.defs.assets.table_metadata.commit_metadata",
    ],
)
def test_the_text_of_an_unexpected_error_in_reporting_is_in_no_event(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    pipeline.send([body(1, ip=CANARY_IP, device_id=CANARY_DEVICE)])

    def fail(*_inputs: object, **_named: object) -> NoReturn:
        raise ValueError(CANARY_DEVICE)

    monkeypatch.setattr(target, fail)
    assert not pipeline.run(messages=1).success
    _assert_no_canary(pipeline)


# Runs that must not receive


def test_nothing_is_received_while_the_database_is_down(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.send(bodies(2))
    url = f"postgresql://someone:secret@127.0.0.1:{free_port()}/logins"
    monkeypatch.setenv("LOGIN_DATABASE_URL", url)
    result = pipeline.run()
    assert not result.success
    assert "LOGIN_DATABASE_URL" in failure(result)
    _assert_never_received(pipeline, 2)


def test_nothing_is_received_while_the_schema_is_another(pipeline: Pipeline) -> None:
    pipeline.send(bodies(2))
    _execute(pipeline, "UPDATE login_ingest.schema_version SET version_num = '0000'")
    result = pipeline.run()
    assert not result.success
    assert "fetch-mask migrate" in failure(result)
    _assert_never_received(pipeline, 2)


def test_nothing_is_received_with_other_keys(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert pipeline.run(LOGIN_MAX_EMPTY_RECEIVES="2").success
    pipeline.send(bodies(2))
    create_keysets(tmp_path / "others")
    monkeypatch.setenv("MASKING_KEYSETS", str(tmp_path / "others"))
    result = pipeline.run()
    assert not result.success
    assert "the masking keys do not fit the database" in failure(result)
    _assert_never_received(pipeline, 2)


def test_nothing_is_received_without_keys(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipeline.send(bodies(2))
    monkeypatch.setenv("MASKING_KEYSETS", str(tmp_path / "nowhere"))
    result = pipeline.run()
    assert not result.success
    assert "MASKING_KEYSETS" in failure(result)
    assert not (tmp_path / "nowhere").exists()
    _assert_never_received(pipeline, 2)


@pytest.mark.parametrize(
    "only",
    [
        ["raw_login_batch"],
        ["masked_logins"],
        ["user_logins"],
        ["raw_login_batch", "masked_logins"],
        ["raw_login_batch", "user_logins"],
        ["masked_logins", "user_logins"],
    ],
    ids="+".join,
)
def test_a_part_of_the_chain_receives_nothing_and_says_why(
    pipeline: Pipeline, only: list[str]
) -> None:
    pipeline.send(bodies(1))
    result = pipeline.run(only=only)
    assert not result.success
    assert ONE_SENTENCE in failure(result)
    _assert_never_received(pipeline, 1)


def test_a_part_of_the_chain_outside_the_job_says_why_too(pipeline: Pipeline) -> None:
    pipeline.send(bodies(1))
    result = pipeline.run(job="__ASSET_JOB", only=["raw_login_batch"])
    assert not result.success
    assert ONE_SENTENCE in failure(result)
    _assert_never_received(pipeline, 1)


# Sabotaged masking


@pytest.fixture
def masking_with_md5(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change to the masking that looks like masking."""

    def hashed(raw: pl.DataFrame, keyring: Keyring) -> pl.DataFrame:
        ips = pl.Series([json.loads(text)["ip"] for text in raw["body"]])
        digests = [md5(ip.encode(), usedforsecurity=False).hexdigest() for ip in ips]
        return mask_batch(raw, keyring).with_columns(masked_ip=pl.Series(digests))

    monkeypatch.setattr("fetch_mask_assets.pipeline.batch.checked_batch.mask_batch", hashed)


@pytest.fixture
def masking_that_masks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that lets device ids through."""

    def clear(raw: pl.DataFrame, keyring: Keyring) -> pl.DataFrame:
        devices = [json.loads(text)["device_id"] for text in raw["body"]]
        return mask_batch(raw, keyring).with_columns(masked_device_id=pl.Series(devices))

    monkeypatch.setattr("fetch_mask_assets.pipeline.batch.checked_batch.mask_batch", clear)


@pytest.mark.usefixtures("masking_with_md5")
def test_hashes_for_tokens_fail_the_blocking_checks_and_nothing_is_written(
    pipeline: Pipeline,
) -> None:
    pipeline.send([body(1, ip=CANARY_IP, device_id=CANARY_DEVICE), body(2)])
    result = pipeline.run(messages=2)
    assert not result.success
    failed = {name for name, check in checks(result).items() if not check.passed}
    assert failed == {"tokens_well_formed", "tokens_can_be_unmasked", "tokens_hold_no_digest"}
    assert not result.asset_materializations_for_node("user_logins")
    assert pipeline.is_untouched()
    assert pipeline.in_queue() == (0, 2)
    _assert_no_canary(pipeline)


@pytest.mark.usefixtures("masking_with_md5")
def test_hashes_for_tokens_are_refused_by_the_write_path_of_a_run_without_checks(
    pipeline: Pipeline,
) -> None:
    pipeline.send(bodies(2))
    result = pipeline.run(messages=2, job=WITHOUT_CHECKS)
    assert not result.success
    assert not checks(result)
    assert "tokens_well_formed (2)" in failure(result)
    assert pipeline.is_untouched()


@pytest.mark.usefixtures("masking_that_masks_nothing")
def test_raw_values_are_refused_by_checks_and_by_the_write_path_without_being_shown(
    pipeline: Pipeline,
) -> None:
    pipeline.send([body(1, ip=CANARY_IP, device_id=CANARY_DEVICE)] * 2)
    checked = pipeline.run(messages=1)
    assert not checked.success
    assert not checks(checked)["no_raw_value"].passed
    unchecked = pipeline.run(messages=1, job=WITHOUT_CHECKS)
    assert not unchecked.success
    assert "no_raw_value (1)" in failure(unchecked)
    assert pipeline.is_untouched()
    _assert_no_canary(pipeline)


@pytest.mark.parametrize("job", ["ingest_logins", WITHOUT_CHECKS])
def test_a_line_that_alone_breaks_a_rule_is_quarantined_and_its_check_warns(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    def one_clear(raw: pl.DataFrame, keyring: Keyring) -> pl.DataFrame:
        clear = pl.when(raw["body"].str.contains(CANARY_DEVICE)).then(pl.lit(CANARY_DEVICE))
        return mask_batch(raw, keyring).with_columns(
            masked_device_id=clear.otherwise("masked_device_id")
        )

    monkeypatch.setattr("fetch_mask_assets.pipeline.batch.checked_batch.mask_batch", one_clear)
    sent = [*bodies(9), body(9, device_id=CANARY_DEVICE)]
    ids = pipeline.send(sent)
    result = pipeline.run(messages=10, job=job)
    assert result.success
    assert (pipeline.rows(), pipeline.in_queue()) == (9, (0, 0))
    [(message_id, reason, field, sealed)] = pipeline.database.query(
        "SELECT message_id, reason, field, sealed_body FROM login_ingest.quarantine"
    )
    assert (message_id, reason) == (ids[9], "breaks_masking_rule")
    assert pipeline.keyring.sealer.open(sealed, message_id) == sent[9]
    warned = {name for name, check in checks(result).items() if not check.passed}
    if job != WITHOUT_CHECKS:
        assert field in warned - {_WARNS}
        assert checks(result)[field].severity == AssetCheckSeverity.WARN
        assert checks(result)[field].metadata["quarantined_rows"].value == 1
    _assert_no_canary(pipeline)


def test_a_run_without_checks_loads_what_is_masked_well(pipeline: Pipeline) -> None:
    pipeline.send(bodies(2))
    assert pipeline.run(messages=2, job=WITHOUT_CHECKS).success
    assert pipeline.rows() == 2


# Parts

_WARNS = "rejected_messages"  # two of twenty-five are more than the normal five in a hundred

_SPELLINGS = {
    "192.0.2.44": "192.0.2.44",
    "::ffff:192.0.2.44": "192.0.2.44",
    "2001:0DB8:0:0:0:0:0:7": "2001:db8::7",
    "2001:db8::7": "2001:db8::7",
    "127.0.0.1": "127.0.0.1",
    "::1": "::1",
}


def _execute(pipeline: Pipeline, statement: str) -> None:
    with psycopg.connect(pipeline.database.url, autocommit=True) as connection:
        connection.execute(statement.encode())


def _assert_never_received(pipeline: Pipeline, count: int) -> None:
    messages = pipeline.receive()
    counts = [message["Attributes"]["ApproximateReceiveCount"] for message in messages]
    assert counts == ["1"] * count
    assert pipeline.is_untouched()


def _assert_no_canary(pipeline: Pipeline) -> None:
    logs: list[Any] = []
    for run in pipeline.instance.get_runs():
        logs += pipeline.instance.all_logs(run.run_id)
    assert len(logs) > 5
    text = "".join(entry.to_json() + repr(entry) for entry in logs)
    assert CANARY_IP not in text
    assert CANARY_DEVICE not in text
