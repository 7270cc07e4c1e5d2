"""What must hold once a fault is over and the pipeline has run dry: I1 to I9.

An independent reference: it knows what was sent and what is in the tables and on the queues, and
nothing of how the product works. Each invariant gives its violations as sentences with counts and
message ids, never with a value.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date

MAX_SECONDS = 240.0
MAX_MEMORY_MIB = 700


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as it was sent; of one that breaks the contract, only that it does."""

    user_id: str | None = None
    ip: str = field(default="", repr=False)
    device_id: str = field(default="", repr=False)
    day: date | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row of user_logins, with its linked tokens and what the right keys open them to."""

    user_id: str
    ip_token: str
    device_token: str
    linked_ip: str
    linked_device: str
    day: date
    ip: str | None = field(repr=False)
    device_id: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch record."""

    run_id: str
    received: int
    loaded: int
    quarantined: int
    already_known: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A process of the product that has ended."""

    exit_code: int
    said: str = field(repr=False)
    """What it printed for its user to read."""
    signal: int | None = None
    """What the harness sent it while it ran; None: nothing."""
    seconds: float = 0.0
    is_hung: bool = False
    """Whether it did not end in time, so that the harness ended it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run says of itself, and what is true of it."""

    is_green: bool
    could_not_be: bool = False
    """Whether what it met leaves no way for it to be green."""
    says_deleted: int = 0
    deleted: int = 0
    """Deletes that the queue's server has accepted in its time."""
    description: Mapping[str, int] = field(default_factory=dict)
    """What it counts of itself, by the names of the batch records."""
    recorded: Mapping[str, int] = field(default_factory=dict)
    """What the batch records of its time come to."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is to be seen, after a scenario or a step.

    What cannot be seen from where it is gathered is None; `violations` is told of it by name.
    """

    sent: Mapping[str, Sent]
    on_queue: frozenset[str]
    dead: frozenset[str]
    deleted: frozenset[str]
    handed_out: Mapping[str, int]
    """How often the queue's server has handed each message out."""
    deleted_uncommitted: tuple[str, ...]
    ledger: tuple[str, ...]
    rows: tuple[Row, ...]
    quarantine: tuple[str, ...]
    batches: tuple[Batch, ...]
    opened_with_other_keys: int
    leaks: Mapping[str, int]
    replayed: int = 0
    """Messages that went from the quarantine into user_logins."""
    ended: tuple[Ended, ...] | None = None
    runs: Mapping[str, str] | None = None
    """Dagster's runs and their status."""
    memory_mib: float | None = None
    claims: tuple[Claim, ...] | None = None


class UnseenError(Exception):
    """Evidence is missing of which nobody said so, or it is there and somebody said it is not."""

    def __init__(self, missing: Iterable[str], named: Iterable[str]) -> None:
        """Names the fields."""
        super().__init__(f"not seen: {sorted(missing)}; named as such: {sorted(named)}")


def i1_nothing_lost(seen: Evidence) -> list[str]:
    """Every message sent is a row, or in quarantine, or still on a queue."""
    users = {row.user_id for row in seen.rows}
    kept = {*seen.quarantine, *seen.on_queue, *seen.dead}
    lost = [id_ for id_, sent in seen.sent.items() if id_ not in kept and sent.user_id not in users]
    return _some(lost, "messages are nowhere")


def i2_nothing_twice(seen: Evidence) -> list[str]:
    """One row for each message, whatever was delivered how often."""
    rows = Counter(row.user_id for row in seen.rows)
    user_of = {id_: sent.user_id for id_, sent in seen.sent.items()}
    both = [id_ for id_ in seen.quarantine if user_of.get(id_) in rows]
    return [
        *_some(_repeated(rows), "logins have more than one row"),
        *_some(_repeated(Counter(seen.quarantine)), "messages are quarantined twice"),
        *_some(_repeated(Counter(seen.ledger)), "messages are twice in the ledger"),
        *_some(both, "messages are a row and in quarantine"),
        *_some(set(rows) - set(user_of.values()), "rows were never sent"),
    ]


def i3_deleted_after_commit(seen: Evidence) -> list[str]:
    """What was deleted from the queue was committed before."""
    return [
        *_some(seen.deleted_uncommitted, "messages were deleted before they were committed"),
        *_some(seen.deleted - set(seen.ledger), "messages were deleted and never committed"),
    ]


def i4_nothing_raw(seen: Evidence) -> list[str]:
    """No raw value outside the queue and the sealed quarantine."""
    return [f"{count} raw values in {where}" for where, count in seen.leaks.items() if count]


def i5_tokens_open(seen: Evidence) -> list[str]:
    """Every token gives its original back with the right keys, and nothing with others."""
    sent = {each.user_id: each for each in seen.sent.values()}
    wrong = [
        row.user_id
        for row in seen.rows
        if row.user_id in sent
        and (row.ip, row.device_id) != (sent[row.user_id].ip, sent[row.user_id].device_id)
    ]
    late = [
        row.user_id for row in seen.rows if row.user_id in sent and row.day != sent[row.user_id].day
    ]
    opened = seen.opened_with_other_keys
    return [
        *_some(wrong, "rows do not open to what was sent"),
        *_some(late, "rows have another day than their messages"),
        *([f"{opened} tokens open with other keys"] if opened else []),
    ]


def i6_equal_stays_equal(seen: Evidence) -> list[str]:
    """Equal values, equal tokens; different values, different tokens."""
    sent = {each.user_id: each for each in seen.sent.values()}
    known = [row for row in seen.rows if row.user_id in sent]
    ips = [(sent[row.user_id].ip, row.linked_ip) for row in known]
    devices = [(sent[row.user_id].device_id, row.linked_device) for row in known]
    return [*_one_to_one("IPs", ips), *_one_to_one("device ids", devices)]


def i7_bounded(seen: Evidence) -> list[str]:
    """Memory and time are bounded, and the pipeline drains by itself after the fault."""
    ended, memory = seen.ended or (), seen.memory_mib or 0.0
    slow = max((each.seconds for each in ended), default=0.0)
    hung = sum(each.is_hung for each in ended)
    return [
        *_some(seen.on_queue, "messages are still on the queue"),
        *([f"{hung} processes did not end"] if hung else []),
        *([f"a process took {slow:.0f} s"] if slow > MAX_SECONDS else []),
        *([f"a process took {memory:.0f} MiB"] if memory > MAX_MEMORY_MIB else []),
    ]


def i8_balance(seen: Evidence) -> list[str]:
    """The balance: received = loaded + quarantined + already known."""
    off = [
        batch.run_id
        for batch in seen.batches
        if batch.received != batch.loaded + batch.quarantined + batch.already_known
    ]
    loaded = sum(batch.loaded for batch in seen.batches) + seen.replayed
    quarantined = sum(batch.quarantined for batch in seen.batches) - seen.replayed
    counts = (loaded, quarantined, loaded + quarantined)
    there = (len(seen.rows), len(seen.quarantine), len(seen.ledger))
    return [
        *_some(off, "batches do not balance"),
        *([f"the records say {counts}, the tables {there}"] if counts != there else []),
        *_never_handed_out(seen),
    ]


def i9_failures_are_said(seen: Evidence) -> list[str]:
    """A run that failed says so; nothing green that did not happen."""
    return [*_untold(seen.ended or ()), *_untrue(seen.claims or ()), *_at_odds_with_dagster(seen)]


INVARIANTS: Mapping[str, Callable[[Evidence], list[str]]] = {
    "I1": i1_nothing_lost,
    "I2": i2_nothing_twice,
    "I3": i3_deleted_after_commit,
    "I4": i4_nothing_raw,
    "I5": i5_tokens_open,
    "I6": i6_equal_stays_equal,
    "I7": i7_bounded,
    "I8": i8_balance,
    "I9": i9_failures_are_said,
}
ALL = tuple(INVARIANTS)


def violations(
    seen: Evidence, names: Iterable[str] = ALL, *, unseen: frozenset[str] = frozenset()
) -> dict[str, list[str]]:
    """What does not hold, by invariant; empty if all of it does.

    Args:
        seen: what there is to judge by.
        names: the invariants that must hold already.
        unseen: the fields of the evidence that cannot be seen from where it was gathered.

    Raises:
        UnseenError: the fields that are None are others than those.
    """
    missing = frozenset(each.name for each in fields(seen) if getattr(seen, each.name) is None)
    if missing != unseen:
        raise UnseenError(missing, unseen)
    found = {name: INVARIANTS[name](seen) for name in names}
    return {name: sentences for name, sentences in found.items() if sentences}


def _never_handed_out(seen: Evidence) -> list[str]:
    """Counts of the records that are more than the queue's server has handed out."""
    handed_out = sum(seen.handed_out.values())
    again = handed_out - len(seen.handed_out)
    received = sum(batch.received for batch in seen.batches)
    known = sum(batch.already_known for batch in seen.batches)
    return [
        *([f"{received} received of {handed_out} handed out"] if received > handed_out else []),
        *([f"{known} already known of {again} handed out again"] if known > again else []),
    ]


def _untold(ended: Iterable[Ended]) -> list[str]:
    """Processes of which nobody would learn how they ended."""
    # Sent before a process is ready for it, a signal is all that there is to say.
    others = [each for each in ended if each.signal is None or each.exit_code != -each.signal]
    died = sorted({-each.exit_code for each in others if each.exit_code < 0})
    failed = sum(each.exit_code > 0 and not each.said for each in others)
    good = sum(each.exit_code == 0 and not each.said for each in others)
    return [
        *([f"processes died of signals that nobody sent: {died}"] if died else []),
        *([f"{failed} processes failed and said nothing"] if failed else []),
        *([f"{good} processes ended well and said nothing"] if good else []),
    ]


def _untrue(claims: Collection[Claim]) -> list[str]:
    green = [each for each in claims if each.is_green]
    unrecorded = sum(
        any(count > each.recorded.get(name, 0) for name, count in each.description.items())
        for each in claims
    )
    impossible = sum(each.could_not_be for each in green)
    exaggerated = sum(each.says_deleted > each.deleted for each in green)
    return [
        *([f"{impossible} runs are green and could not be"] if impossible else []),
        *([f"{exaggerated} runs say they deleted more than they did"] if exaggerated else []),
        *([f"{unrecorded} runs count more than is recorded"] if unrecorded else []),
    ]


def _at_odds_with_dagster(seen: Evidence) -> list[str]:
    if seen.runs is None:
        return []
    ended_as = {"SUCCESS", "FAILURE", "CANCELED"}
    under_way = [run_id for run_id, status in seen.runs.items() if status not in ended_as]
    unknown = {batch.run_id for batch in seen.batches} - set(seen.runs)
    failed = sum(status != "SUCCESS" for status in seen.runs.values())
    owned = sum(bool(each.exit_code) for each in seen.ended or ())
    no_green = seen.batches and "SUCCESS" not in seen.runs.values()
    return [
        *([f"{failed} runs failed, and {owned} processes said so"] if failed > owned else []),
        *_some(under_way, "runs are still under way though their process has ended"),
        *_some(unknown, "batches are of a run that Dagster does not know"),
        *(["there are batches and no run was good"] if no_green else []),
    ]


def _one_to_one(what: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    tokens: defaultdict[str, set[str]] = defaultdict(set)
    values: defaultdict[str, set[str]] = defaultdict(set)
    for value, token in pairs:
        tokens[value].add(token)
        values[token].add(value)
    split = sum(len(found) > 1 for found in tokens.values())
    merged = sum(len(found) > 1 for found in values.values())
    return [
        *([f"{split} {what} have several tokens"] if split else []),
        *([f"{merged} tokens stand for several {what}"] if merged else []),
    ]


def _repeated(counts: Mapping[str, int]) -> list[str]:
    return [name for name, count in counts.items() if count > 1]


def _some(ids: Iterable[str | None], what: str) -> list[str]:
    found = sorted(str(id_) for id_ in ids)
    return [f"{len(found)} {what}, such as {', '.join(found[:3])}"] if found else []
