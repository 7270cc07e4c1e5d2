"""The privacy report in a real browser: at a desk, on a phone, in the dark, and on paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from fetch_mask_assets.operations.report.page import render_page
from fetch_mask_assets.operations.report.part import Unreadable
from fetch_mask_assets.operations.report.parts import PARTS
from fetch_mask_assets_tests.support.report_factory import check, checks, facts, report

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, ConsoleMessage, Page

    from fetch_mask_assets.operations.report.report import Report

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

WIDTHS = (1280, 390)
A4_WIDTH, A4_HEIGHT, MARGIN = 794, 1123, 60  # CSS pixels


@dataclass
class Reader:
    """Opens pages with every part expanded; notes messages and requests of the browser."""

    browser: Browser
    directory: Path
    noted: list[str] = field(default_factory=list)

    def opens(
        self,
        made: Any,  # noqa: ANN401 (Playwright's)
        width: int,
        *,
        expanded: bool = True,
        **options: Any,  # noqa: ANN401 (Playwright's)
    ) -> Page:
        """A report's page in a window of a width."""
        path = self.directory / "report.html"
        path.write_text(render_page(made), encoding="utf-8")
        page: Page = self.browser.new_page(viewport={"width": width, "height": 900}, **options)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.noted.append(str(error)))
        page.on("request", lambda request: self.noted.append(request.url))
        page.goto(path.as_uri())
        # Nothing but the page was requested.
        assert self.noted.pop(0) == path.as_uri()
        if expanded:
            for each in page.locator("summary").all():
                each.click()
        return page

    def _note(self, message: ConsoleMessage) -> None:
        self.noted.append(message.text)


@pytest.fixture
def reader(browser: Browser, tmp_path: Path) -> Reader:
    """A reader with a browser."""
    return Reader(browser, tmp_path)


def full() -> Any:  # noqa: ANN401 (a report, whose parts a test changes)
    """A report with long lists, a failed check and a part that could not be read."""
    balance = facts()["balance"]
    many = [balance["batches"][0] | {"batch_id": number} for number in range(100)]
    given = [
        check(passed=3, failed=number) | {"name": f"a_check_with_a_long_name_{number}"}
        for number in range(20)
    ]
    return report(
        balance=balance | {"batches": many, "unbalanced_batches": many[:3]},
        checks=checks(*given),
        keys=Unreadable("no connection to the database."),
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window_and_the_console_is_silent(
    reader: Reader, width: int
) -> None:
    page = reader.opens(full(), width)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert reader.noted == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_part_has_a_visible_heading(reader: Reader, width: int) -> None:
    page = reader.opens(full(), width)

    for part in (*(each.name for each in PARTS), "limits"):
        assert page.locator(f"h2#{part}").is_visible()
    assert page.get_by_role("heading", level=1).inner_text() == "Privacy report"
    assert page.get_by_text("This part could not be read.").count() == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_have_their_roles_and_their_numbers(reader: Reader, width: int) -> None:
    page = reader.opens(full(), width)

    table = page.get_by_role("table", name="Checks")
    row = table.get_by_role("row").filter(has_text="a_check_with_a_long_name_7")
    assert row.get_by_role("cell").all_inner_texts()[1:4] == ["3", "0", "7"]


def test_on_a_phone_each_number_has_its_name_beside_it(reader: Reader) -> None:
    page = reader.opens(full(), 390)

    name = page.locator("td[data-label='Received']").first.evaluate(
        "each => getComputedStyle(each, '::before').content"
    )
    assert name == '"Received"'


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_its_background(reader: Reader, scheme: str) -> None:
    page = reader.opens(full(), 1280, color_scheme=scheme)

    for selector in (
        "p",
        "details caption",
        ".verdict.broken",
        ".verdict.holds",
        "dt",
        "td.number",
    ):
        ink, ground = (
            page.locator(selector).first.evaluate("each => getComputedStyle(each).color"),
            page.evaluate("getComputedStyle(document.body).backgroundColor"),
        )
        assert contrast(ink, ground) >= 4.5, selector


def test_the_details_are_closed_on_screen_until_they_are_opened(reader: Reader) -> None:
    page = reader.opens(full(), 1280, expanded=False)
    table = page.get_by_role("table", name="Checks")

    assert not table.is_visible()
    page.locator("summary").first.press("Enter")
    assert table.is_visible()


@pytest.mark.parametrize("made", [report(), full()], ids=["holds", "broken"])
def test_the_first_page_fits_one_sheet_and_two_screens(reader: Reader, made: Report) -> None:
    page = reader.opens(made, 1280, expanded=False)

    assert page.evaluate("document.documentElement.scrollHeight") < 2 * 900
    page.emulate_media(media="print")
    page.set_viewport_size({"width": A4_WIDTH, "height": A4_HEIGHT})
    end = page.evaluate("document.querySelector('.details').getBoundingClientRect().top")
    assert end < A4_HEIGHT - 2 * MARGIN


def test_on_paper_it_is_black_on_white_and_table_heads_are_repeated(reader: Reader) -> None:
    page = reader.opens(full(), A4_WIDTH, expanded=False, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")

    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    head = page.locator("details thead").first
    assert head.evaluate("each => getComputedStyle(each).display") == "table-header-group"
    assert page.evaluate("document.documentElement.scrollWidth") <= A4_WIDTH
    # Closed details are printed, too: the first page alone is one sheet.
    assert page.pdf(format="A4", prefer_css_page_size=True).count(b"/Type /Page\n") > 2


def contrast(one: str, other: str) -> float:
    """The ratio of two colours. Source: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    darker, lighter = sorted(map(_luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    numbers = colour[colour.index("(") + 1 : -1].split(",")[:3]
    red, green, blue = (_linear(int(number) / 255) for number in numbers)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
