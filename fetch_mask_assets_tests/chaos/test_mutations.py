"""Each invariant is seen to fail: with a mistake put into the product, the reference says which."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from benchmarks.sqs_simulator.queue_faults import Fault, FaultKind
from fetch_mask_assets.defs import assets
from fetch_mask_assets.errors import DatabaseError, QueueError
from fetch_mask_assets.keys.storage import create_keysets
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets.pipeline.batch import checked_batch
from fetch_mask_assets.pipeline.batch.balance import Balance
from fetch_mask_assets.pipeline.queue.limits import DrainLimits
from fetch_mask_assets.pipeline.queue.login_queue import LoginQueue, ReceiveResult
from fetch_mask_assets.pipeline.queue.sqs.batch_requests import BatchRequests, BatchResult
from fetch_mask_assets.pipeline.warehouse import commit as warehouse_commit
from fetch_mask_assets.pipeline.warehouse import ledger
from fetch_mask_assets_tests.chaos.laboratory import Laboratory, make_laboratory

if TYPE_CHECKING:
    import polars as pl

Mutation = Callable[[Laboratory, pytest.MonkeyPatch], None]
_MAPPED = "::ffff:203.0.113.213"


@pytest.fixture
def laboratory(stack: Stack, template_database: str, tmp_path: Path) -> Iterator[Laboratory]:
    """A laboratory of the test's own."""
    with make_laboratory(stack, template_database, tmp_path) as made:
        yield made


def _nothing_wrong(_laboratory: Laboratory, _patch: pytest.MonkeyPatch) -> None:
    """No mistake."""


def _delete_before_commit(_laboratory: Laboratory, patch: pytest.MonkeyPatch) -> None:
    receive, queues = LoginQueue.receive, list[LoginQueue]()

    def receive_and_keep(queue: LoginQueue, limits: DrainLimits) -> ReceiveResult:
        queues.append(queue)
        return receive(queue, limits)

    def delete_and_fail(*inputs: Any) -> NoReturn:  # noqa: ANN401 (passed on)
        queues[-1].delete(inputs[1].batch.raw["message_id"])
        raise DatabaseError("it went away")

    patch.setattr(LoginQueue, "receive", receive_and_keep)
    patch.setattr(warehouse_commit, "_to_commit", delete_and_fail)


def _known_ids_are_new(_laboratory: Laboratory, patch: pytest.MonkeyPatch) -> None:
    again = "ON CONFLICT (sent_at, message_id) DO UPDATE SET batch_id = EXCLUDED.batch_id"
    statement = ledger._INSERT_LEDGER.replace("ON CONFLICT DO NOTHING", again)  # noqa: SLF001 (what is mutated)
    patch.setattr(ledger, "_INSERT_LEDGER", statement)


def _no_conflict_clause(_laboratory: Laboratory, patch: pytest.MonkeyPatch) -> None:
    statement = ledger._INSERT_LEDGER.replace("ON CONFLICT DO NOTHING", "")  # noqa: SLF001 (what is mutated)
    patch.setattr(ledger, "_INSERT_LEDGER", statement)


def _failures_ignored(_laboratory: Laboratory, patch: pytest.MonkeyPatch) -> None:
    failed = BatchRequests._failed  # noqa: SLF001 (what is mutated)

    def ignored(*inputs: Any) -> Mapping[str, bool]:  # noqa: ANN401 (passed on)
        failed(*inputs)
        return {}

    patch.setattr(BatchRequests, "_failed", ignored)


def _raw_value_in_an_error(_laboratory: Laboratory, patch: pytest.MonkeyPatch) -> None:
    def mask(raw: pl.DataFrame, _keyring: object) -> NoReturn:
        # An error of our own passes the redaction, unless there is an address in it.
        raise QueueError(f"cannot mask {json.loads(raw['body'][0])['device_id']}")

    patch.setattr(checked_batch, "mask_batch", mask)


def _failed_read_is_empty(_laboratory: Laboratory, patch: pytest.MonkeyPatch) -> None:
    receive = LoginQueue._receive  # noqa: SLF001 (what is mutated)

    def emptied(*inputs: Any) -> list[Any]:  # noqa: ANN401 (passed on)
        try:
            return list(receive(*inputs))
        except QueueError:
            return []

    patch.setattr(LoginQueue, "_receive", emptied)


def _record_lies(_laboratory: Laboratory, patch: pytest.MonkeyPatch) -> None:
    more = "%(received)s + 1, %(loaded)s + 1"
    statement = warehouse_commit._INSERT_RECORD.replace("%(received)s, %(loaded)s", more)  # noqa: SLF001 (what is mutated)
    patch.setattr(warehouse_commit, "_INSERT_RECORD", statement)


def _other_keys(laboratory: Laboratory, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(assets, "require_ready", lambda *_: None)
    patch.setattr(warehouse_commit, "lock_keys", lambda *_: None)
    other = laboratory.keysets.with_name("other")
    create_keysets(other)
    laboratory.keysets = other


def _no_links(laboratory: Laboratory, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(warehouse_commit, "write_links", lambda *_: None)
    laboratory.rotate("ip")


def _no_hand_back(_laboratory: Laboratory, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LoginQueue, "release", lambda _queue: BatchResult(0, 0))


def _commit_that_is_none(_laboratory: Laboratory, patch: pytest.MonkeyPatch) -> None:
    """The transaction is rolled back, and the run goes on."""
    patch.setattr(warehouse_commit, "commit_batch", lambda *_: Balance())


_MISTAKES: Mapping[str, tuple[Mutation, frozenset[str]]] = {
    "nothing": (_nothing_wrong, frozenset()),
    "delete before commit": (_delete_before_commit, frozenset({"I1", "I3"})),
    "a commit that is none": (_commit_that_is_none, frozenset({"I1", "I3"})),
    "known message ids are taken for new": (_known_ids_are_new, frozenset({"I2"})),
    "no conflict clause": (_no_conflict_clause, frozenset({"I7"})),
    "a raw value in an exception": (_raw_value_in_an_error, frozenset({"I4"})),
    "other keys used silently": (_other_keys, frozenset({"I5", "I6"})),
    "no links after a rotation": (_no_links, frozenset({"I6"})),
    "messages are not handed back": (_no_hand_back, frozenset({"I7"})),
    "a batch record that lies": (_record_lies, frozenset({"I8"})),
    "failed entries of a delete ignored": (_failures_ignored, frozenset({"I9"})),
    "a failed read is an empty one": (_failed_read_is_empty, frozenset({"I9"})),
}


_FOR_EVERY_CHANGE = ("nothing", "delete before commit")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in _FOR_EVERY_CHANGE else pytest.mark.chaos)
        for name in _MISTAKES
    ],
)
def test_a_mistake_breaks_the_invariant_that_it_must(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The same story for each: a good run, the mistake, redelivery, outages, and a run dry."""
    mutate, expected = _MISTAKES[name]
    laboratory.send(2)
    laboratory.run()
    with monkeypatch.context() as patch:
        mutate(laboratory, patch)
        laboratory.send(2, _MAPPED)
        laboratory.run(
            Fault(kind=FaultKind.ENTRIES, operation="DeleteMessageBatch", chance=1.0, share=1.0)
        )
        laboratory.show_all()
        laboratory.run(_REFUSED, cannot_be_green=True)
        # Fails after it has received, so that the messages must be handed back.
        with monkeypatch.context() as fault:
            fault.setattr(warehouse_commit, "_refuse_broken", _fail)
            laboratory.run(cannot_be_green=True)
        laboratory.run_dry()

    assert expected <= set(laboratory.violations(is_dry=True))
    assert expected or laboratory.violations(is_dry=True) == {}


_REFUSED = Fault(
    kind=FaultKind.REFUSED, operation="ReceiveMessage", chance=1.0, code="InternalError"
)


def _fail(_batch: object) -> NoReturn:
    raise DatabaseError("it went away")


def test_every_invariant_is_seen_to_fail() -> None:
    seen = frozenset[str]().union(*(expected for _, expected in _MISTAKES.values()))

    assert seen == {f"I{number}" for number in range(1, 10)}
