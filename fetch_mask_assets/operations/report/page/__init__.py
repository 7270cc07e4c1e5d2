"""The privacy report as one self-contained page, or as JSON.

The page asks nothing of anybody: no script, no font, no picture from elsewhere, and a policy in
its head that forbids them.
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

from fetch_mask_assets.operations.report.check_history import days_of
from fetch_mask_assets.operations.report.page.charts import columns, daily, shares
from fetch_mask_assets.operations.report.report import Report, Unreadable, as_json, findings, holds

_HERE = Path(__file__).parent


def render_json(report: Report) -> str:
    """The report as one JSON object, indented, with a line feed at its end."""
    text = json.dumps(as_json(report, not_protected()), indent=2, ensure_ascii=False)
    return f"{text}\n"


def render_page(report: Report) -> str:
    """The report as one page of HTML."""
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    template = _environment().get_template("page.html.j2")
    return template.render(
        report=report,
        holds=holds(report),
        findings=findings(report),
        style=Markup(style),  # noqa: S704 (our own file)
        style_hash=b64encode(sha256(style.encode()).digest()).decode(),
        limits=Markup(_limits_html()),  # noqa: S704 (our own file, rendered without raw HTML)
    )


def not_protected() -> str:
    """What is not protected: the text of docs/limits.md, which this package links to."""
    return (_HERE / "limits.md").read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=_cell, moment=_moment, duration=_duration)
    environment.tests.update(unreadable=lambda part: isinstance(part, Unreadable))
    environment.globals.update(columns=columns, daily=daily, shares=shares, days_of=days_of)
    return environment


def _limits_html() -> str:
    """The text as HTML below a heading of the page; its links lead nowhere on paper."""
    markdown = MarkdownIt("commonmark", {"html": False})
    markdown.add_render_rule("link_open", _nothing)
    markdown.add_render_rule("link_close", _nothing)
    tokens = markdown.parse(not_protected())
    # The first heading is the document's own, which the page has in its words.
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


def _cell(value: object) -> object:
    """A value as a cell of a table shows it."""
    if isinstance(value, Unreadable):
        return "could not be read"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None or value == "" else value


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"))
_FEW = 2


def _duration(seconds: float) -> str:
    """A time in the unit in which a person would say it."""
    for size, unit in _UNITS:
        if seconds >= _FEW * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
