"""The page of a report: self-contained, escaped, and honest about what could not be read."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from datetime import date
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fetch_mask_assets.operations.report.page import not_protected, render_json, render_page
from fetch_mask_assets.operations.report.page.charts import (
    HEIGHT,
    WIDTH,
    Bar,
    columns,
    daily,
    shares,
)
from fetch_mask_assets.operations.report.report import (
    PARTS,
    Period,
    QuarantinePart,
    ReasonCount,
    Unreadable,
)
from fetch_mask_assets_tests.support.report_factory import DAY, NOON, report

_ROOT = Path(__file__).parents[3]
_VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Collects the tags and their attributes; fails where they are not nested."""

    def __init__(self, page: str) -> None:
        """Reads a page to its end."""
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_a_page_asks_nothing_of_anybody() -> None:
    page = render_page(report())
    tags = Reader(page).tags

    assert {tag for tag, _ in tags}.isdisjoint({"script", "link", "img", "iframe", "a", "object"})
    assert [name for _, names in tags for name in names if name in {"src", "href", "style"}] == []
    assert "url(" not in page
    assert "@import" not in page


def test_the_policy_of_the_page_allows_its_own_style_and_nothing_else() -> None:
    page = render_page(report())
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    [policy] = [
        names["content"]
        for tag, names in Reader(page).tags
        if tag == "meta" and names.get("http-equiv") == "Content-Security-Policy"
    ]

    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_a_page_has_a_language_headings_and_the_number_beside_each_chart() -> None:
    tags = Reader(render_page(report())).tags

    assert ("html", {"lang": "en"}) in tags
    assert sum(tag == "h1" for tag, _ in tags) == 1
    assert sum(tag == "h2" for tag, _ in tags) == len(PARTS) + 1
    assert all(names.get("aria-label") or names.get("aria-hidden") for tag, names in tags
               if tag == "svg")  # fmt: skip
    assert all(
        names.get("scope") for tag, names in tags if tag == "th" and "data-label" not in names
    )


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_could_not_be_read_says_so_on_the_page(part: str) -> None:
    page = render_page(report(**{part: Unreadable("the disk is gone.")}))

    assert "Not everything in this report holds." in page
    assert page.count("This part could not be read.") == 1
    assert page.count("the disk is gone.") == 2


def test_everything_unreadable_is_still_a_page() -> None:
    gone: Any = dict.fromkeys(PARTS, Unreadable("gone."))

    Reader(render_page(report(**gone)))
    assert json.loads(render_json(report(**gone)))["holds"] is False


def test_text_from_the_database_is_escaped() -> None:
    reason = ReasonCount("<b>", "<script>alert(1)</script>", 1, 1)
    page = render_page(report(quarantine=QuarantinePart((reason,), 1, 0, 0, 0, 0, 1, holds=True)))

    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_page_says_what_is_not_protected_in_the_words_of_the_documents() -> None:
    page = render_page(report())
    text = (_ROOT / "docs/limits.md").read_text(encoding="utf-8")

    assert not_protected() == text
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings
    assert [name for name in headings if f"<h3>{name}</h3>" not in page] == []


def test_columns_are_stacked_from_the_ground_and_the_highest_fills_the_chart() -> None:
    assert columns([(1, 1), (), (0, 1)]) == (
        Bar(20.0, 60.0, 160.0, 60.0, 0),
        Bar(20.0, 0.0, 160.0, 60.0, 1),
        Bar(420.0, 60.0, 160.0, 60.0, 1),
    )


@pytest.mark.parametrize("nothing", [[], [()], [(0, 0)]])
def test_a_chart_of_nothing_is_empty(nothing: list[tuple[int, ...]]) -> None:
    assert columns(nothing) == ()


def test_shares_fill_the_bar() -> None:
    assert shares((0, 0)) == ()
    assert shares((3, 0, 1)) == (
        Bar(0.0, 0, WIDTH * 3 / 4, HEIGHT, 0),
        Bar(WIDTH * 3 / 4, 0, WIDTH / 4, HEIGHT, 2),
    )


def test_days_on_which_nothing_was_have_their_place_in_a_chart() -> None:
    period = Period(NOON.replace(day=2), NOON.replace(day=5, hour=0))

    assert daily([(DAY, (1,))], period) == (
        (date(2026, 5, 2), ()),
        (date(2026, 5, 3), ()),
        (DAY, (1,)),
    )
