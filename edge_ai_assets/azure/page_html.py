"""The page for everyone as text: facts into the template, every value escaped. What is told is `page_data`'s,
how it looks and moves `report_page/`'s.

It works without its script, too: then there are no charts, and the table is neither sorted nor filtered.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from edge_ai_assets.azure.page_data import DIGITS, Asset, Release, Report, Site

PARTS = Path(__file__).parent / "report_page"
SCRIPTS = ["data.js", "chart.js", "fleet.js", "report.js"]
NOTHING, NO_BREAK = "–", "\xa0"
WORDS = {
    "whole": "complete",
    "silent": "nothing yet",
    "stale": "stale",
    "gap": "gap",
    "refused": "refused",
}
"""A site's state, for people."""


def render(report: Report) -> str:
    """The whole page: nothing is loaded from anywhere."""
    style = (PARTS / "report.css").read_text("utf-8")
    script = "\n".join((PARTS / name).read_text("utf-8") for name in SCRIPTS)
    simulated = "All readings are simulated. " if report.simulated else ""
    attention = sum(site.state in ("stale", "gap", "refused") for site in report.sites)
    newest = report.releases[-1].version if report.releases else NOTHING
    return Template((PARTS / "index.html").read_text("utf-8")).substitute(
        policy=f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src {_hash(style)}; "
        f"script-src {_hash(script)}",
        style=style,
        script=script,
        title=html.escape(report.name),
        description=html.escape(report.description),
        note=f"{simulated}As of {_moment(report.made)}.",
        sites_count=f"{len(report.sites):,}",
        attention=f"{attention:,}",
        insights=f"{sum(site.insights for site in report.sites):,}",
        anomalies=f"{sum(site.anomalies for site in report.sites):,}",
        newest=str(newest),
        assets=_assets(report.assets),
        sites="".join(_site(place, site) for place, site in enumerate(report.sites)) or _empty(9),
        releases="".join(_release(one) for one in reversed(report.releases)) or _empty(7),
        data=_embedded(report),
    )


def _site(place: int, site: Site) -> str:
    """A row of the fleet's table; `data-v` is what it is sorted by."""
    head = site.mark.head
    heard = NOTHING
    if head.number:
        at = _moment(datetime.fromtimestamp(head.received_at / 1e6, UTC))
        ago = f"{_span(site.mark.silent or 0.0)} ago"
        heard = f"{at}, {ago.replace(' ', NO_BREAK)}"
    order = list(WORDS)[::-1].index(site.state)  # the worst first
    cells = [
        _cell(site.ring or NOTHING),
        _cell(WORDS[site.state], order, kind=f"state {site.state}"),
        _cell(site.mark.sentence),
        _cell(heard, head.received_at),
        _cell(site.release or NOTHING, site.release, kind="n"),
        _cell(f"{head.number:,}", head.number, kind="n"),
        _cell(f"{site.insights:,}", site.insights, kind="n"),
        _cell(f"{site.anomalies:,}", site.anomalies, kind="n"),
    ]
    name = html.escape(site.name)
    return f'<tr data-i="{place}" data-s="{site.state}"><th scope="row">{name}</th>{"".join(cells)}</tr>\n'


def _assets(assets: list[Asset]) -> str:
    """The section of plant assets; nothing where there are none."""
    rows = []
    for one in assets:
        scored = NOTHING if one.scored is None else f"{one.scored:,}"
        figures = [_cell(said, kind="n") for said in (scored, f"{one.insights:,}", f"{one.anomalies:,}")]
        rows.append(
            f'<tr>{_cell(one.site)}<th scope="row">{html.escape(one.name)}</th>{"".join(figures)}</tr>\n'
        )
    section = Template((PARTS / "assets.html").read_text("utf-8"))
    return section.substitute(assets="".join(rows)) if rows else ""


def _release(one: Release) -> str:
    def figure(value: float | None, form: str) -> str:
        return _cell(NOTHING if value is None else f"{value:{form}}", kind="n")

    # The bar says the same as the number beside it, so it is not read aloud.
    width = f'<rect width="{100 * (one.f1 or 0):.1f}" height="8"/>'
    drawn = f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none">{width}</svg>'
    bar = f'<td aria-hidden="true">{"" if one.f1 is None else drawn}</td>'
    return (
        f'<tr><th scope="row">{one.version}</th>{_cell(_moment(one.made))}{_cell(f"{one.rows:,}", kind="n")}'
        f"{figure(one.f1, '.3f')}{bar}{figure(one.false_alarms, '.1%')}{figure(one.missed, '.1%')}</tr>\n"
    )


def _span(days: float) -> str:
    """In the unit that people would say it in, as of the page's making."""
    if days >= 2:
        return f"{days:,.0f} days"
    return f"{days * 24:.0f} hours" if days * 24 >= 2 else f"{days * 24 * 60:.0f} minutes"


def _cell(said: Any, order: float | None = None, kind: str = "") -> str:
    by = "" if order is None else f' data-v="{order}"'
    named = f' class="{kind}"' if kind else ""
    return f"<td{named}{by}>{html.escape(str(said))}</td>"


def _empty(columns: int) -> str:
    return f'<tr><td colspan="{columns}">nothing yet</td></tr>'


def _embedded(report: Report) -> str:
    """The facts that are drawn, as JSON that cannot end the script element it stands in."""
    facts = {
        "first": report.first.isoformat(),
        "insights": report.insights,
        "digits": DIGITS,
        "sites": [[site.name, site.days, _flat(site.runs)] for site in report.sites],
    }
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _flat(steps: Iterable[tuple[int, int]]) -> list[int]:
    return [number for step in steps for number in step]


def _hash(inline: str) -> str:
    """Of the text of an inline element, as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
