"""The page for everyone, as one file: the fleet, anomalies by day, releases. Nothing is loaded from
anywhere, and it reads in any browser, light or dark, on paper and aloud."""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any

from edge_ai_assets.azure import arrivals
from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.returns.inbox import daily, judged
from edge_ai_assets.returns.inbox import tables as deltas
from edge_ai_assets.usecase import UseCase

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$title: the fleet</title>
<style>
:root { --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --paper: #fff; --bar: #0072b2 }
@media (prefers-color-scheme: dark) {
:root { --ink: #e6edf3; --soft: #a3adb8; --line: #3d444d; --paper: #0d1117; --bar: #56b4e9 } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
color: var(--ink); background: var(--paper) }
h1 { margin: 0 } h2 { margin: 2.5rem 0 .25rem; font-size: 1.25rem } p { margin: .25rem 0; max-width: 45rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px }
tbody th { font-weight: 600 }
.n { text-align: right; font-variant-numeric: tabular-nums }
.note, caption { color: var(--soft) }
dl { display: flex; flex-wrap: wrap; gap: .5rem 3rem; margin: 1.5rem 0 } dt { color: var(--soft) }
dd { margin: 0; font-size: 1.75rem; font-weight: 600; font-variant-numeric: tabular-nums }
svg { display: block; width: 100%; min-width: 36rem; height: auto; margin-top: .5rem }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft) }
rect { fill: var(--bar) } line { stroke: var(--line) }
</style></head><body><main>
<h1>$title</h1><p>$description</p><p class="note">$note</p>
$figures
<h2>Sites</h2>
<p class="note">“Complete through 812”: what became of each score up to that one is known here.</p>
$sites
<h2>Anomalies by day</h2>
<p class="note">Insights that sites called a fault, by the UTC day of the score.</p>
$chart
<h2>Releases</h2>
<p class="note">Figures by the word of the people on the sites, who choose what they judge.</p>
$releases
</main></body></html>
""")
NOTHING = "–"
MOST_DAYS = 60
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 900, 240, 48, 12, 24
WIDEST_BAR = 48


def publish(home: Home, usecase: UseCase) -> Path:
    """Write the page to the lake's `report/index.html`, atomically; its path."""
    now = datetime.now(UTC)
    simulated = "All readings are simulated. " if usecase.simulated else ""
    days = _anomalies(home)
    text = PAGE.substitute(
        title=html.escape(usecase.name),
        description=html.escape(usecase.description),
        note=f"{simulated}As of {_moment(now)}.",
        figures=_figures(home, usecase),
        sites=_sites(home, usecase),
        chart=_chart(days),
        releases=_releases(home),
    )
    path = home.lake / "report" / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, "utf-8")
    os.replace(fresh, path)
    return path


def _figures(home: Home, usecase: UseCase) -> str:
    """The few figures that are read first."""
    rows = deltas.rows(home.tables, daily.NAME, ["insights", "anomalies"])
    figures = {
        "sites": len(usecase.sites),
        "insights": sum(row["insights"] for row in rows),
        "anomalies": sum(row["anomalies"] for row in rows),
        "newest release": max((one.version for one in pack.known(home.registry, home.keys)), default=NOTHING),
    }
    parts = (f"<div><dt>{name}</dt><dd>{_said(value)}</dd></div>" for name, value in figures.items())
    return f"<dl>{''.join(parts)}</dl>"


def _sites(home: Home, usecase: UseCase) -> str:
    """Freshness and completeness of each site, those that lack something first."""
    rings = {site.name: site.ring for site in usecase.sites}
    counted = Counter[str]()
    for row in deltas.rows(home.tables, "packages", ["site", "rows"]):
        counted[row["site"]] += row["rows"]
    rows = [
        [
            mark.site,
            rings.get(mark.site, NOTHING),
            mark.head.number,
            counted[mark.site],
            mark.sentence,
            _moment(datetime.fromtimestamp(mark.head.received_at / 1e6, UTC))
            if mark.head.number
            else NOTHING,
        ]
        for mark in sorted(arrivals.watermarks(home, usecase), key=lambda mark: mark.whole)
    ]
    names = ["site", "ring", "packages", "insights", "completeness", "last heard of"]
    return _table(names, rows, numbers={2, 3})


def _anomalies(home: Home) -> list[tuple[date, int]]:
    """Anomalies of each day up to the newest one, MOST_DAYS at most; a day without any counts 0."""
    days: Counter[date] = Counter()
    for row in deltas.rows(home.tables, daily.NAME, ["day", "anomalies"]):
        days[row["day"]] += row["anomalies"]
    if not days:
        return []
    last = max(days)
    shown = min(MOST_DAYS, (last - min(days)).days + 1)
    return [(day, days[day]) for day in (last - timedelta(shown - 1 - back) for back in range(shown))]


def _chart(days: Sequence[tuple[date, int]]) -> str:
    if not days:
        return f"<p>{NOTHING} nothing came home yet</p>"
    step = _step(max(count for _, count in days))
    steps = max(1, -(-max(count for _, count in days) // step))
    floor, slot = HEIGHT - BOTTOM, (WIDTH - LEFT) / max(len(days), 7)
    unit = (floor - TOP) / (step * steps)
    bar = min(WIDEST_BAR, slot * 0.8)
    parts = []
    for tick in range(steps + 1):
        y = floor - tick * step * unit
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick * step:,}</text>')
    every = -(-len(days) // 7)
    for place, (day, count) in enumerate(days):
        x, tall = LEFT + (place + 0.5) * slot, count * unit
        parts.append(
            f'<rect x="{x - bar / 2:.1f}" y="{floor - tall:.1f}" width="{bar:.1f}" height="{tall:.1f}">'
            f"<title>{day}: {count:,}</title></rect>"
        )
        if place % every == 0:
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{day}</text>')
    most, total = max(days, key=lambda item: item[1]), sum(count for _, count in days)
    aloud = (
        f"{total:,} anomalies from {days[0][0]} to {days[-1][0]}, most on {most[0]}: {most[1]:,}. By day: "
        + ", ".join(f"{day} {count}" for day, count in days)
    )
    drawn = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{aloud}">{"".join(parts)}</svg>'
    return f'<div class="wide">{drawn}</div>'


def _step(most: int) -> int:
    """A round distance of grid lines, five of them at most: 1, 2 or 5 times a power of ten."""
    power = int(10 ** max(0, len(str(most)) - 2))
    return next(base * power for base in (1, 2, 5, 10, 20) if base * power * 5 >= most)


def _releases(home: Home) -> str:
    """Every release, newest first; those nobody judged have no figures."""
    said = {row["release"]: row for row in judged.by_release(home.tables)}
    rows: list[list[Any]] = []
    for release in reversed(pack.known(home.registry, home.keys)):
        row = said.get(release.image)
        figures = (
            [f"{row['f1']:.3f}", f"{row['false_alarm_rate']:.1%}", f"{row['miss_rate']:.1%}"]
            if row
            else [NOTHING] * 3
        )
        rows.append([release.version, _moment(release.created), row["rows"] if row else 0, *figures])
    return _table(
        ["release", "made", "rows judged", "F1", "false alarms", "missed"], rows, numbers={2, 3, 4, 5}
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]], numbers: set[int]) -> str:
    """Rows under a head; the first cell of each names it."""

    def cell(tag: str, place: int, value: Any) -> str:
        scope = {"th": ' scope="row"', "thead": ' scope="col"'}.get(tag, "")
        tag = "th" if tag == "thead" else tag
        return f"<{tag}{scope}{' class=n' if place in numbers else ''}>{_said(value)}</{tag}>"

    head = "".join(cell("thead", place, name) for place, name in enumerate(names))
    body = "".join(
        f"<tr>{''.join(cell('td' if place else 'th', place, value) for place, value in enumerate(row))}</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _said(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else html.escape(str(value))


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
