"""Each invariant holds of a good end, and is able to fail."""

from __future__ import annotations

import signal
from dataclasses import replace
from datetime import date, timedelta

import pytest

from fetch_mask_assets_tests.chaos.invariants import (
    Batch,
    Claim,
    Ended,
    Evidence,
    Row,
    Sent,
    UnseenError,
    violations,
)

DAY = date(2024, 2, 29)
ROW = Row("user-1", "t1", "t2", "t1", "t2", DAY, "192.0.2.1", "device-1")
SUCCESS, FAILURE = {"run-1": "SUCCESS"}, {"run-2": "FAILURE"}
WELL, REFUSED, KILLED = Ended(0, "{}"), Ended(1, "refused"), Ended(-9, "", signal=9)
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
    handed_out={"m1": 2, "m2": 1, "m3": 1},
    deleted_uncommitted=(),
    ledger=("m1", "m2", "m3"),
    rows=(ROW, OTHER_ROW),
    quarantine=("m3",),
    batches=(Batch("run-1", 4, 2, 1, 1),),
    opened_with_other_keys=0,
    leaks={"a file": 0},
    ended=(WELL, REFUSED, KILLED),
    runs=SUCCESS | FAILURE,
    memory_mib=200,
    claims=(
        Claim(is_green=True, says_deleted=3, deleted=3),
        Claim(is_green=True, description={"loaded": 2}, recorded={"loaded": 2, "batches": 1}),
        Claim(is_green=False, could_not_be=True),
    ),
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
        pytest.param("I7", {"ended": (Ended(-9, "", 9, is_hung=True),)}, id="it never ended"),
        pytest.param("I8", {"batches": (Batch("run-1", 5, 2, 1, 1),)}, id="it does not balance"),
        pytest.param("I8", {"batches": ()}, id="rows without a record"),
        pytest.param("I8", {"replayed": 1}, id="a replay that moved nothing"),
        pytest.param(
            "I8", {"handed_out": {"m1": 1, "m2": 1, "m3": 1}}, id="received and not handed out"
        ),
        pytest.param(
            "I8",
            {"handed_out": {"m1": 1, "m2": 1, "m3": 1, "m4": 1}},
            id="already known and not handed out again",
        ),
        pytest.param("I9", {"ended": (WELL, REFUSED, Ended(1, ""))}, id="failed and said nothing"),
        pytest.param("I9", {"ended": (REFUSED, Ended(0, ""))}, id="ended well and said nothing"),
        pytest.param("I9", {"ended": (REFUSED, Ended(1, "", 15))}, id="sent one, failed silently"),
        pytest.param("I9", {"ended": (WELL,)}, id="a run failed, its process did not"),
        pytest.param("I9", {"runs": SUCCESS | {"run-3": "STARTED"}}, id="for ever under way"),
        pytest.param("I9", {"runs": SUCCESS | {"run-1": "FAILURE"}}, id="a batch, and no good run"),
        pytest.param("I9", {"runs": {"run-3": "SUCCESS"}}, id="a batch of no run"),
        pytest.param(
            "I9", {"claims": (Claim(is_green=True, could_not_be=True),)}, id="green and cannot be"
        ),
        pytest.param(
            "I9", {"claims": (Claim(is_green=True, says_deleted=2, deleted=1),)}, id="it boasts"
        ),
        pytest.param(
            "I9",
            {"claims": (Claim(is_green=True, description={"loaded": 3}, recorded={"loaded": 2}),)},
            id="it counts what is not recorded",
        ),
        pytest.param(
            "I9",
            {"claims": (Claim(is_green=False, description={"batches": 1}),)},
            id="a failed run counts a batch that is not there",
        ),
    ],
)
def test_each_invariant_is_able_to_fail(broken: str, changed: dict[str, object]) -> None:
    assert broken in violations(replace(GOOD, **changed))  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize("by", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
@pytest.mark.parametrize("sent", [None, signal.SIGTERM])
def test_a_process_that_dies_of_a_signal_that_nobody_sent_is_no_good_end(
    by: signal.Signals, sent: signal.Signals | None
) -> None:
    died = Ended(-by, "its last words", signal=sent)

    found = violations(replace(GOOD, ended=(WELL, REFUSED, died)))

    assert found == {"I9": [f"processes died of signals that nobody sent: [{by}]"]}


def test_what_a_replay_moved_is_in_the_balance() -> None:
    replayed = replace(GOOD, batches=(Batch("run-1", 3, 1, 2, 0),), replayed=1)

    assert violations(replayed) == {}


@pytest.mark.parametrize("part", ["ended", "runs", "memory_mib", "claims"])
def test_what_is_not_seen_must_be_named(part: str) -> None:
    seen_in_part = replace(GOOD, **{part: None})  # type: ignore[arg-type]  # any field

    assert "I1" in violations(replace(seen_in_part, rows=()), ["I1"], unseen=frozenset({part}))
    with pytest.raises(UnseenError, match=part):
        violations(seen_in_part)
    with pytest.raises(UnseenError, match=part):
        violations(GOOD, unseen=frozenset({part}))
