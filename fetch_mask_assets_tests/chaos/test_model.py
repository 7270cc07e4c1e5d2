"""Whatever happens in whatever order, the invariants hold after every step."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from benchmarks.sqs_simulator.queue_faults import Fault, FaultKind
from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets_tests.chaos.laboratory import (
    DEVICES,
    DIES_AT,
    IPS,
    REFUSED_KIND,
    Laboratory,
    make_laboratory,
)
from fetch_mask_assets_tests.chaos.wire import Moment

_RECEIVE, _DELETE = "ReceiveMessage", "DeleteMessageBatch"
_HAND_BACK = "ChangeMessageVisibilityBatch"
_QUEUE_FAULTS = (
    Fault(kind=FaultKind.EARLY, operation=_RECEIVE, chance=0.7),
    Fault(kind=FaultKind.SHUFFLE, operation=_RECEIVE, chance=0.7),
    Fault(kind=FaultKind.PART, operation=_RECEIVE, chance=0.5),
    Fault(kind=FaultKind.LOST, operation=_RECEIVE, chance=0.3),
    Fault(kind=FaultKind.LOST, operation=_DELETE, chance=0.5),
    Fault(kind=FaultKind.RESET, operation=_DELETE, chance=0.3),
    Fault(kind=FaultKind.ENTRIES, operation=_DELETE, chance=0.7),
    Fault(kind=FaultKind.ENTRIES, operation=_DELETE, chance=0.7, is_senders_fault=True),
    Fault(kind=FaultKind.SILENT, operation=_DELETE, chance=0.7),
    Fault(kind=FaultKind.STALE, operation=_DELETE, chance=0.5),
    Fault(kind=FaultKind.REFUSED, chance=0.4, code="ServiceUnavailable"),
)
_CANARY = next(iter(IPS))
_BROKEN = (
    "not json",
    "{}",
    f'{{"ip": "{_CANARY}", "device_id": "{DEVICES[0]}"}}',
    f'{{"ip": "{_CANARY}", "ip": "{_CANARY}"}}',
)


class Model(RuleBasedStateMachine):
    """Rules are what can happen; `make` gives each example a laboratory of its own."""

    stack: Stack
    template: str
    directory: Path

    def __init__(self) -> None:
        """An empty queue, an empty table, new keys."""
        super().__init__()
        self._opened = ExitStack()
        self.laboratory: Laboratory = self._opened.enter_context(
            make_laboratory(self.stack, self.template, self.directory)
        )
        self._dirty = True

    @rule(
        count=st.integers(1, 4),
        ip=st.sampled_from(list(IPS)),
        device=st.sampled_from(DEVICES),
        kind=st.sampled_from(["ios", REFUSED_KIND]),
    )
    def send(self, count: int, ip: str, device: str, kind: str) -> None:
        self.laboratory.send(count, ip, device, kind)

    @rule(body=st.sampled_from(_BROKEN))
    def send_broken(self, body: str) -> None:
        self.laboratory.send_broken(body)

    @precondition(lambda self: self.laboratory.waiting())
    @rule(faults=st.sets(st.sampled_from(_QUEUE_FAULTS), max_size=4), seed=st.integers(0, 99))
    def deliver(self, faults: set[Fault], seed: int) -> None:
        self.laboratory.run(*sorted(faults, key=repr), seed=seed)

    @precondition(lambda self: self.laboratory.waiting())
    @rule(point=st.sampled_from(DIES_AT))
    def crash(self, point: str) -> None:
        self.laboratory.run_killed(point)

    @precondition(lambda self: self.laboratory.waiting())
    @rule()
    def queue_outage(self) -> None:
        refused = Fault(kind=FaultKind.REFUSED, chance=1.0, code="ServiceUnavailable")
        self.laboratory.run(refused, cannot_be_green=True)

    @precondition(lambda self: self.laboratory.waiting())
    @rule()
    def database_outage(self) -> None:
        self.laboratory.run_without_database()

    @precondition(lambda self: self.laboratory.waiting())
    @rule(moment=st.sampled_from([Moment.COMMIT_SENT, Moment.COMMIT_ANSWERED]))
    def lose_commit(self, moment: Moment) -> None:
        self.laboratory.run_losing_commit(moment)

    @precondition(lambda self: self.laboratory.waiting())
    @rule()
    def refuse_rows(self) -> None:
        self.laboratory.run_refusing_rows()

    @rule(name=st.sampled_from(["ip", "device_id", "quarantine"]))
    def rotate(self, name: str) -> None:
        self.laboratory.rotate(name)

    @rule()
    def remask(self) -> None:
        self.laboratory.remask()

    @rule()
    def replay(self) -> None:
        self.laboratory.replay()

    @rule(seconds=st.sampled_from([6, 60, 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.laboratory.queue.pass_time(seconds)

    @invariant()
    def holds(self) -> None:
        assert self.laboratory.violations() == {}

    def teardown(self) -> None:
        """The fault is over: it runs dry, and all nine hold."""
        with self._opened:
            self.laboratory.run_dry()
            assert self.laboratory.violations(is_dry=True) == {}


@pytest.fixture
def model(stack: Stack, template_database: str, tmp_path: Path) -> type[RuleBasedStateMachine]:
    """The model, with a place for its laboratories."""
    return type(
        "PlacedModel",
        (Model,),
        {"stack": stack, "template": template_database, "directory": tmp_path},
    )


@pytest.mark.parametrize(
    "faults",
    [
        (Fault(kind=FaultKind.LOST, operation=_RECEIVE, chance=1),),
        (Fault(kind=FaultKind.STALE, operation=_DELETE, chance=1),),
        (
            Fault(
                kind=FaultKind.ENTRIES, operation=_DELETE, chance=1, share=1, is_senders_fault=True
            ),
        ),
        (Fault(kind=FaultKind.SILENT, operation=_DELETE, chance=1, share=1),),
        (
            Fault(kind=FaultKind.REFUSED, operation=_RECEIVE, calls=(3,), code="AccessDenied"),
            Fault(kind=FaultKind.REFUSED, operation=_HAND_BACK, chance=1, code="InternalError"),
        ),
    ],
    ids=["received by nobody", "deleted in vain", "not deleted", "not named", "not handed back"],
)
def test_what_nobody_hands_back_comes_again_when_its_visibility_ends(
    stack: Stack, template_database: str, tmp_path: Path, faults: tuple[Fault, ...]
) -> None:
    with make_laboratory(stack, template_database, tmp_path) as laboratory:
        laboratory.send(3)
        laboratory.run(*faults)
        laboratory.queue.pass_time(901)
        assert not laboratory.waiting()
        laboratory.run_dry()
        assert laboratory.violations(is_dry=True) == {}


@pytest.mark.timeout(0)
def test_the_invariants_hold_after_every_step(model: type[RuleBasedStateMachine]) -> None:
    examples = max(1, settings().max_examples // 100)
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            suppress_health_check=list(HealthCheck),
        ),
    )
