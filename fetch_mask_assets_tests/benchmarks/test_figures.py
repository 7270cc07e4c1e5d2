"""Medians, ratios, goals, prices and the sections of the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import stages
from benchmarks.document import PAGE, replaced
from benchmarks.figures import ContenderResult, Curve, Point, Round, Spread, StageResult
from benchmarks.goals import GOALS, goals_table
from benchmarks.growth_plots import write_plot
from benchmarks.on_paper import PRICES, Dollars, Load, bill, read_prices, sqs_dollars
from benchmarks.queue.messages import body
from benchmarks.stages import STAGES
from benchmarks.tables import number, stage_table
from fetch_mask_assets.pipeline.contract.login_event import LoginEvent, decode_login_event

_MESSAGES = 1_000


def _round(cpu: float, wall: float = 1.0, peak: int = 0, messages: int = _MESSAGES) -> Round:
    return Round(
        messages=messages,
        cpu_seconds=cpu,
        wall_seconds=wall,
        server_cpu_seconds=0.5,
        requests=200,
        peak_bytes=peak,
        stored_bytes=300_000,
    )


def _stage(name: str, *contenders: tuple[Round, ...]) -> StageResult:
    results = (ContenderResult(f"contender {n}", each) for n, each in enumerate(contenders))
    return StageResult(name, "A stage", tuple(results))


def test_a_ratio_is_formed_within_each_turn() -> None:
    # The second turn met a machine that was ten times as slow.
    stage = _stage(
        stages.JOB, (_round(1), _round(12), _round(1.1)), (_round(2), _round(20), _round(2))
    )

    assert stage.ratio(lambda each: each.cpu_seconds) == Spread(0.55, 0.5, 0.6)


def test_a_result_is_read_as_it_was_written() -> None:
    stage = _stage(stages.JOB, (_round(1), _round(12)), (_round(2), _round(20)))

    assert StageResult.from_json(stage.as_json()) == stage


def test_the_table_of_a_stage_compares_each_contender_with_the_second() -> None:
    stage = _stage(stages.JOB, (_round(1),), (_round(2),), (_round(6),))
    [*_, own, baseline, other] = stage_table(stage).splitlines()

    assert [line.split("|")[-2].strip() for line in (own, baseline, other)] == [
        "0.5",
        "1.00",
        "3.00",
    ]
    assert "1,000 (1,000 to 1,000)" in own


def test_a_stage_without_messages_is_shown_in_seconds() -> None:
    stage = _stage(stages.EMPTY_JOB, (_round(1.5, messages=0),), (_round(3, messages=0),))

    assert "CPU, s" in stage_table(stage)
    assert "1.50 (1.50 to 1.50)" in stage_table(stage)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_a_number_has_about_three_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("cpu", "verdict"), [(0.4, "met"), (0.41, "not met")])
def test_a_goal_is_met_up_to_its_limit(cpu: float, verdict: str) -> None:
    stage = _stage(stages.JOB, (_round(cpu),), (_round(1),))
    [line] = [each for each in goals_table([stage]).splitlines() if "the whole job" in each]

    assert line.split("|")[-2].strip() == verdict


def test_a_goal_whose_stage_was_left_out_is_not_measured() -> None:
    assert goals_table([]).count("not measured") == len(GOALS)
    assert {goal.stage for goal in GOALS} <= {stage.name for stage in STAGES}


def test_the_memory_of_a_message_is_without_its_body() -> None:
    beyond = 2_000
    small, large = 1_000_000, 1_000_000 + 9_000 * (beyond + len(body(0)))
    stage = _stage(
        stages.MEMORY,
        (_round(1, peak=large, messages=10_000),),
        (_round(1, peak=small, messages=1_000),),
    )
    [line] = [each for each in goals_table([stage]).splitlines() if "memory" in each]

    assert "2.00 (2.00 to 2.00)" in line


@pytest.mark.parametrize(
    ("millions", "dollars"), [(0, 0), (50, 20), (100, 40), (150, 55), (300, 94)]
)
def test_each_tier_of_sqs_has_its_price(millions: float, dollars: float) -> None:
    tiers = [(100, 0.4), (200, 0.3), (float("inf"), 0.24)]

    assert sqs_dollars(millions, tiers) == pytest.approx(dollars)


def test_a_bill_multiplies_the_measured_figures() -> None:
    load = Load(events_a_day=86_400_000, peak_to_mean=2, utilisation=0.5, retention_days=10)
    dollars = Dollars([(float("inf"), 0.4)], 0.04, 0.08, 0.1)
    due = bill(ContenderResult("any", (_round(1),)), load, dollars)

    # A thousand messages a second, each a millisecond: one core, four for peaks and idle time.
    assert (due.cores, due.database_cores) == (4, 2)
    assert due.requests_a_day == pytest.approx(17_280_000)
    assert due.sqs == pytest.approx(17.28 * 30 * 0.4)
    assert due.gigabytes == pytest.approx(300 * 86.4e6 * 10 / 1e9)
    assert due.processes == pytest.approx(4 * 730 * 0.04)
    assert due.database == pytest.approx(2 * 730 * 0.08 + 259.2 * 0.1)
    assert due.total == due.sqs + due.processes + due.database


def test_the_prices_can_be_read() -> None:
    load, dollars = read_prices(PRICES)

    assert load.events_a_day == 1_000_000_000
    assert sqs_dollars(6_000, dollars.sqs_million_requests) == pytest.approx(2_400)


def test_a_section_of_the_page_is_replaced_and_the_rest_stays() -> None:
    page = "before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter <!-- b: begin --><!-- b: end -->"

    assert replaced(page, "a", r"new \1") == page.replace("\nold\n", "\n\nnew \\1\n\n")


def test_a_page_without_the_section_is_refused() -> None:
    with pytest.raises(ValueError, match="no section"):
        replaced("<!-- a: begin -->", "a", "text")


@pytest.mark.parametrize("name", ["benchmark", "growth", "on paper"])
def test_the_page_has_each_section(name: str) -> None:
    assert "text" in replaced(PAGE.read_text(encoding="utf-8"), name, "text")


def test_a_plot_of_the_same_figures_is_the_same_file(tmp_path: Path) -> None:
    points = tuple(Point(size, (_round(1), _round(2, 3))) for size in (0, 10))
    for name in ("first.svg", "second.svg"):
        write_plot(Curve("ledger", "Rows of the ledger", "rows", points), tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("first.svg", "second.svg"))

    assert first == second
    assert b"Rows of the ledger, rows" in first


def test_every_sample_is_a_login_and_shares_values_as_its_module_states() -> None:
    events = [decode_login_event(body(number)) for number in range(1_000)]
    logins = [event.values for event in events if isinstance(event, LoginEvent)]

    assert len(logins) == 1_000
    assert len({login["device_id"] for login in logins}) == 750
    assert len({login["ip"] for login in logins}) == 900
    assert len({login["user_id"] for login in logins}) == 250
