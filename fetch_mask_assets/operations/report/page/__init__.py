"""The privacy report as one self-contained page, or as JSON.

The page needs no script, no font and no picture from elsewhere; a policy in its head forbids them.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup

from fetch_mask_assets.operations.report.part import Unreadable, format_counts
from fetch_mask_assets.operations.report.parts import AUDIT, PARTS
from fetch_mask_assets.operations.report.report import Report, as_json

MAX_LISTED = 5
"""The first page lists at most so many faults, and so many notices; the details have the rest."""

_HERE = Path(__file__).parent


def render_json(report: Report) -> str:
    """The report as one JSON object, indented, with a line feed at its end."""
    text = json.dumps(as_json(report, not_protected()), indent=2, ensure_ascii=False)
    return f"{text}\n"


def render_page(report: Report) -> str:
    """The report as one page of HTML."""
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    audit = report.facts[AUDIT.name]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            parts=PARTS,
            last_hash=None if isinstance(audit, Unreadable) else audit["chain"]["last_hash"],
            max_listed=MAX_LISTED,
            style=Markup(style),  # noqa: S704 (our own file)
            style_hash=b64encode(sha256(style.encode()).digest()).decode(),
            limits=Markup(_limits_html()),  # noqa: S704 (our own file, rendered without raw HTML)
        )
    )


def not_protected() -> str:
    """A copy of docs/limits.md: what is not protected."""
    return (_HERE / "limits.md").read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=_cell, heading=_heading, moment=_moment, counts=format_counts)
    environment.tests.update(unreadable=lambda each: isinstance(each, Unreadable))
    return environment


def _limits_html() -> str:
    """The text as HTML below a heading of the page; its links lead nowhere on paper."""
    markdown = MarkdownIt("commonmark", {"html": False})
    markdown.add_render_rule("link_open", _nothing)
    markdown.add_render_rule("link_close", _nothing)
    tokens = markdown.parse(not_protected())
    # The page has another heading for the document.
    kept = tokens[3:] if tokens and tokens[0].tag == "h1" else tokens
    for token in kept:
        if token.tag == "h2":
            token.tag = "h3"
    return str(markdown.renderer.render(kept, markdown.options, {}))


def _nothing(
    _renderer: RendererHTML,
    _tokens: list[Token],
    _index: int,
    _options: Mapping[str, object],
    _environment: Mapping[str, object],
) -> str:
    return ""


def _heading(name: str) -> str:
    """The name of a value in words: `already_known` is "Already known"."""
    return name.removeprefix("is_").replace("_", " ").capitalize()


def _cell(value: object) -> object:
    """A value as a cell of a table shows it."""
    if isinstance(value, Unreadable):
        return "could not be read"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return Markup('<span class="day">{}</span> {:%H:%M} UTC').format(
            value.astimezone(UTC).date(), value.astimezone(UTC)
        )
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None or value == "" else value


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
