"""The wire passes everything on, breaks where it is told to, and sees COMMIT on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from fetch_mask_assets_tests.chaos.postgres_protocol import MessageSplitter
from fetch_mask_assets_tests.chaos.wire import (
    Direction,
    Event,
    Moment,
    Wire,
    WireAction,
    WireFault,
    WirePlan,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def wire(database_url: str) -> Iterator[Wire]:
    """A proxy before the test's own database, which has a table of one column."""
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE numbers (number integer)")
    with Wire(database_url) as proxy:
        yield proxy
    assert proxy.errors == []


@pytest.fixture
def url(wire: Wire, database_url: str) -> str:
    """The test's own database by way of the wire."""
    return wire.url(database_url)


def test_everything_passes_where_there_is_no_fault(wire: Wire, url: str, database_url: str) -> None:
    with psycopg.connect(url) as connection:
        with connection.cursor().copy("COPY numbers FROM STDIN") as copy:
            for number in range(100_000):
                copy.write_row((number,))
        connection.execute("INSERT INTO numbers VALUES (%s)", [7])
    assert _rows(database_url) == 100_001
    assert wire.seen[Moment.COMMIT_SENT] == wire.seen[Moment.COMMIT_ANSWERED] == 1
    assert wire.seen[Moment.COPY_DATA] >= 1
    assert not wire.met


@pytest.mark.parametrize("order", [WireAction.CUT, WireAction.RESET])
def test_a_commit_that_the_server_never_sees_does_not_take_effect(
    wire: Wire, url: str, database_url: str, order: WireAction
) -> None:
    wire.on(Moment.COMMIT_SENT, lambda _event: order, nth=1)
    with pytest.raises(psycopg.OperationalError):
        _insert(url)
    assert _rows(database_url) == 0
    _insert(url)
    assert _rows(database_url) == 1
    assert wire.met == {order: 1}


@pytest.mark.parametrize("order", [WireAction.CUT, WireAction.RESET])
def test_a_commit_whose_answer_is_lost_has_taken_effect(
    wire: Wire, url: str, database_url: str, order: WireAction
) -> None:
    wire.on(Moment.COMMIT_ANSWERED, lambda _event: order, nth=1)
    with pytest.raises(psycopg.OperationalError):
        _insert(url)
    assert _rows(database_url) == 1


def test_a_hook_can_ask_for_the_transaction_that_it_means(wire: Wire, url: str) -> None:
    seen: list[Event] = []
    wire.on(Moment.COMMIT_SENT, seen.append, within="INSERT INTO numbers")
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1")
        connection.commit()
        connection.execute("INSERT INTO numbers VALUES (1)")
    assert [event.statements for event in seen] == [("BEGIN", "INSERT INTO numbers VALUES (1)")]


def test_parameters_are_in_no_event(wire: Wire, url: str) -> None:
    seen: list[Event] = []
    wire.on(Moment.STATEMENT, seen.append)
    with psycopg.connect(url) as connection:
        connection.execute("SELECT %s::text", ["canary"])
    assert seen
    assert "canary" not in str(seen)


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("most_bytes", [0, 5, 200])
def test_a_connection_breaks_after_so_many_bytes(
    wire: Wire, url: str, direction: Direction, most_bytes: int
) -> None:
    fault = WireFault(
        kind=WireAction.CUT, direction=direction, connections=(1,), most_bytes=most_bytes
    )
    wire.plan = WirePlan((fault,), seed=3)
    with pytest.raises(psycopg.OperationalError), psycopg.connect(url) as connection:
        connection.execute("SELECT repeat('x', 10000)")
    _insert(url)
    assert wire.met == {f"cut {direction}": 1}


def test_a_slow_wire_still_passes_everything(wire: Wire, url: str, database_url: str) -> None:
    wire.plan = WirePlan((WireFault(kind=WireAction.PASS, chance=1, seconds=0.01),))
    _insert(url)
    assert _rows(database_url) == 1
    assert wire.met["slow"] > 1


def test_a_swallowed_message_gets_no_answer(wire: Wire, url: str) -> None:
    wire.on(Moment.STATEMENT, lambda _event: WireAction.SWALLOW, nth=1)
    connection = psycopg.connect(url, autocommit=True)
    connection.pgconn.send_query(b"SELECT 1")
    connection.pgconn.flush()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        psycopg.connect(_swallowing(wire, url), connect_timeout=2)
    assert connection.pgconn.is_busy()
    wire.break_all()
    connection.close()


def test_open_connections_can_be_broken_and_new_ones_refused(wire: Wire, url: str) -> None:
    connection = psycopg.connect(url)
    wire.is_refusing = True
    wire.break_all()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    wire.is_refusing = False
    _insert(url)


def test_one_seed_chooses_alike_and_another_otherwise() -> None:
    fault = WireFault(kind=WireAction.CUT, chance=0.5, most_bytes=1_000)

    def choices(seed: int) -> list[int]:
        plan = WirePlan((fault,), seed)
        return [at for number in range(100) for _, at in plan.met_by(number)]

    assert choices(1) == choices(1) != choices(2)
    assert 20 < len(choices(1)) < 80


def test_messages_are_split_wherever_the_stream_is_cut() -> None:
    start, query = b"\0\0\0\x09\0\x03\0\0\0", b"Q\0\0\0\x0bCOMMIT\0"
    stream = start + query * 2
    splitter = MessageSplitter(starts=True)
    messages = [message for byte in stream for message in splitter.feed(bytes([byte]))]
    assert [message.raw for message in messages] == [start, query, query]
    assert [message.statement for message in messages] == [None, "COMMIT", "COMMIT"]


def _swallowing(wire: Wire, url: str) -> str:
    wire.on(Moment.CONNECTED, lambda _event: WireAction.SWALLOW)
    return url


def _insert(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")


def _rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM numbers").fetchall()
    return int(count)
