"""Each invariant holds of a good end, and is able to fail."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from fetch_mask_assets_tests.chaos.invariants import Batch, Ended, Evidence, Row, Sent, violations

DAY = date(2024, 2, 29)
ROW = Row("user-1", "t1", "t2", "t1", "t2", DAY, "192.0.2.1", "device-1")
OTHER_ROW = Row("user-2", "t1", "t3", "t1", "t3", DAY, "192.0.2.1", "device-2")
GOOD = Evidence(
    sent={
        "m1": Sent("user-1", "192.0.2.1", "device-1", DAY),
        "m2": Sent("user-2", "192.0.2.1", "device-2", DAY),
        "m3": Sent(),
    },
    on_queue=frozenset(),
    dead=frozenset(),
    deleted=frozenset({"m1", "m2", "m3"}),
    deleted_uncommitted=(),
    ledger=("m1", "m2", "m3"),
    rows=(ROW, OTHER_ROW),
    quarantine=("m3",),
    batches=(Batch("run-1", 4, 2, 1, 1),),
    opened_with_other_keys=0,
    leaks={"a file": 0},
    ended=(Ended(0, "{}"), Ended(1, "refused"), Ended(-9, "", was_killed=True)),
    runs={"run-1": "SUCCESS", "run-2": "FAILURE"},
    memory_mib=200,
)


def test_a_good_end_violates_nothing() -> None:
    assert violations(GOOD) == {}


@pytest.mark.parametrize(
    ("broken", "changed"),
    [
        pytest.param("I1", {"rows": (ROW,)}, id="a login is nowhere"),
        pytest.param("I1", {"quarantine": ()}, id="a reject is nowhere"),
        pytest.param("I2", {"rows": (ROW, ROW, OTHER_ROW)}, id="a login has two rows"),
        pytest.param("I2", {"quarantine": ("m3", "m3")}, id="a reject is quarantined twice"),
        pytest.param("I2", {"quarantine": ("m1", "m3")}, id="a row is in quarantine as well"),
        pytest.param("I2", {"sent": {}}, id="a row was never sent"),
        pytest.param("I3", {"deleted_uncommitted": ("m1",)}, id="deleted before the commit"),
        pytest.param("I3", {"ledger": ("m1", "m2")}, id="deleted without a commit"),
        pytest.param("I4", {"leaks": {"a file": 1}}, id="a raw value in a file"),
        pytest.param("I5", {"rows": (replace(ROW, ip=None), OTHER_ROW)}, id="a token is shut"),
        pytest.param("I5", {"rows": (replace(ROW, ip="x"), OTHER_ROW)}, id="it opens to another"),
        pytest.param(
            "I5", {"rows": (replace(ROW, day=DAY + timedelta(1)), OTHER_ROW)}, id="another day"
        ),
        pytest.param("I5", {"opened_with_other_keys": 1}, id="a token opens with other keys"),
        pytest.param(
            "I6", {"rows": (replace(ROW, linked_ip="t9"), OTHER_ROW)}, id="two tokens of one IP"
        ),
        pytest.param(
            "I6", {"rows": (replace(ROW, linked_device="t3"), OTHER_ROW)}, id="one of two devices"
        ),
        pytest.param("I7", {"on_queue": frozenset({"m1"})}, id="something is left"),
        pytest.param("I7", {"memory_mib": 10_000}, id="memory is not bounded"),
        pytest.param("I7", {"ended": (Ended(0, "{}", seconds=9_999),)}, id="time is not bounded"),
        pytest.param("I8", {"batches": (Batch("run-1", 5, 2, 1, 1),)}, id="it does not balance"),
        pytest.param("I8", {"batches": ()}, id="rows without a record"),
        pytest.param("I9", {"ended": (*GOOD.ended, Ended(1, ""))}, id="failed and said nothing"),
        pytest.param("I9", {"ended": (Ended(0, "{}"),)}, id="a run failed, its process did not"),
        pytest.param("I9", {"runs": {**GOOD.runs, "run-3": "STARTED"}}, id="for ever under way"),
        pytest.param("I9", {"runs": {"run-2": "FAILURE"}}, id="a batch of no run"),
    ],
)
def test_each_invariant_is_able_to_fail(broken: str, changed: dict[str, object]) -> None:
    assert broken in violations(replace(GOOD, **changed))  # type: ignore[arg-type]  # any field
