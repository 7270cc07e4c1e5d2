"""The page of a report: self-contained, escaped, with a first page and details."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fetch_mask_assets.operations.report.page import (
    MAX_LISTED,
    not_protected,
    render_json,
    render_page,
)
from fetch_mask_assets.operations.report.part import Unreadable
from fetch_mask_assets.operations.report.parts import PARTS
from fetch_mask_assets_tests.support.report_factory import changed, check, checks, report

_ROOT = Path(__file__).parents[3]
NAMES = [part.name for part in PARTS]
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


def test_a_page_loads_nothing() -> None:
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


def test_a_page_has_a_language_headings_and_scopes() -> None:
    tags = Reader(render_page(report())).tags

    assert ("html", {"lang": "en"}) in tags
    assert sum(tag == "h1" for tag, _ in tags) == 1
    assert {names["id"] for tag, names in tags if tag == "h2"} == {
        "summary", "verify", *NAMES, "limits"
    }  # fmt: skip
    assert all(
        names.get("scope") for tag, names in tags if tag == "th" and "data-label" not in names
    )


@pytest.mark.parametrize("part", NAMES)
def test_an_unreadable_part_is_named_on_the_first_page_and_in_its_details(part: str) -> None:
    page = render_page(report(**{part: Unreadable("the disk is gone.")}))

    assert "Not everything in this report holds." in page
    assert page.count("This part could not be read.") == 1
    assert page.count("the disk is gone.") == 2


def test_the_first_page_has_a_row_for_each_part_and_its_faults_before_the_details() -> None:
    first, _, details = render_page(report(keys=Unreadable("gone."))).partition("<details>")

    assert [part.title for part in PARTS if f">{part.title}</th>" not in first] == []
    assert first.count(">holds</span>") == len(PARTS) - 1
    assert first.count(">could not be read</span>") == 1
    assert "gone." in first
    assert "<table" in details


def test_the_first_page_lists_few_faults_and_the_details_all() -> None:
    failed = tuple(check(failed=number) for number in range(1, 20))
    first, _, details = render_page(report(checks=checks(*failed))).partition("<details>")

    assert first.count("balance_holds failed") == MAX_LISTED
    assert f"And {19 - MAX_LISTED} more, in the details." in first
    assert details.count("balance_holds failed") == 19


def test_the_first_page_has_the_hash_of_the_audit_to_be_filed() -> None:
    first, _, _ = render_page(report()).partition("<details>")

    assert '<dd class="hash">0102</dd>' in first


def test_everything_unreadable_is_still_a_page() -> None:
    gone: Any = dict.fromkeys(NAMES, Unreadable("gone."))

    Reader(render_page(report(**gone)))
    assert json.loads(render_json(report(**gone)))["holds"] is False


def test_text_from_the_database_is_escaped() -> None:
    reasons = changed("quarantine", "reasons", field="<b>", reason="<script>alert(1)</script>")
    page = render_page(report(quarantine=reasons))

    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_page_has_the_text_of_the_limits() -> None:
    page = render_page(report())
    text = (_ROOT / "docs/limits.md").read_text(encoding="utf-8")

    assert not_protected() == text
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "What deterministic tokens reveal",
        "What depends on its surroundings",
        "Behaviour to know",
    ]
    assert "<pre>" not in page
    assert [name for name in headings if f"<h3>{name}</h3>" not in page] == []
