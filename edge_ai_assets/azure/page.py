"""The page for everyone, as one file: the fleet, anomalies by day, releases. Nothing is loaded from
anywhere."""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from edge_ai_assets.home import Home
from edge_ai_assets.returns import daily, judged
from edge_ai_assets.returns import tables as deltas
from edge_ai_assets.usecase import UseCase

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color:
#1b1f24 } table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid #d0d7de }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
svg text { font: 12px system-ui, sans-serif; fill: #57606a }
.note { color: #57606a }
</style></head><body>
<h1>$title</h1><p>$description</p><p class="note">$note</p>
<h2>Sites</h2>$sites
<h2>Anomalies by day</h2>$chart
<h2>Releases, by the word of the people on the sites</h2>$releases
</body></html>
""")


def publish(home: Home, usecase: UseCase) -> Path:
    """Write the page to the lake's `report/index.html`, atomically; its path."""
    now = datetime.now(UTC)
    simulated = "All readings are simulated. " if usecase.simulated else ""
    text = PAGE.substitute(
        title=html.escape(usecase.name),
        description=html.escape(usecase.description),
        note=f"{simulated}As of {now:%Y-%m-%d %H:%M} UTC; days are those on which the scores were made.",
        sites=_sites(home, usecase, now),
        chart=_chart(_anomalies(home)),
        releases=_table(
            ["release", "rows judged", "F1", "false alarms", "missed"],
            [
                [
                    row["release"][7:19],
                    row["rows"],
                    f"{row['f1']:.3f}",
                    f"{row['false_alarm_rate']:.1%}",
                    f"{row['miss_rate']:.1%}",
                ]
                for row in judged.by_release(home.tables)
            ],
        ),
    )
    path = home.lake / "report" / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, "utf-8")
    os.replace(fresh, path)
    return path


def _sites(home: Home, usecase: UseCase, now: datetime) -> str:
    """Freshness and completeness of each site: a package number without gaps is complete so far."""
    received: dict[str, list[dict[str, Any]]] = {}
    for row in deltas.rows(home.tables, "packages"):
        received.setdefault(row["site"], []).append(row)
    rows: list[list[Any]] = []
    for site in usecase.sites:
        packages = received.get(site.name, [])
        if not packages:
            rows.append([site.name, site.ring, 0, 0, "nothing yet"])
            continue
        newest = max(packages, key=lambda row: row["number"])
        age = (now - newest["created_at"]).total_seconds() / 3600
        insights = sum(row["rows"] for row in packages)
        rows.append([site.name, site.ring, insights, newest["last"], f"{age:.1f} hours ago"])
    return _table(["site", "ring", "insights", "complete through score", "last package made"], rows)


def _anomalies(home: Home) -> list[tuple[str, int]]:
    """Anomalies of the newest 60 days."""
    days: Counter[str] = Counter()
    for row in deltas.rows(home.tables, daily.NAME, ["day", "anomalies"]):
        days[str(row["day"])] += row["anomalies"]
    return sorted(days.items())[-60:]


def _chart(days: Sequence[tuple[str, int]]) -> str:
    if not days:
        return "<p class='note'>nothing came home yet</p>"
    top, width = max(count for _, count in days) or 1, 900 / max(len(days), 6)
    bars = "".join(
        f"<g><title>{day}: {count}</title><rect x='{place * width:.1f}' y='{200 - 180 * count / top:.1f}' "
        f"width='{width * 0.8:.1f}' height='{180 * count / top:.1f}' fill='#0969da'/></g>"
        for place, (day, count) in enumerate(days)
    )
    ends = f"<text x='0' y='218'>{days[0][0]}</text><text x='0' y='14'>{top} anomalies</text>"
    return f"<svg viewBox='0 0 900 224' role='img' aria-label='anomalies by day'>{bars}{ends}</svg>"


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    def cells(tag: str, values: Sequence[Any], numbers: Sequence[bool]) -> str:
        return "".join(
            f"<{tag}{' class=n' if number else ''}>{html.escape(str(value))}</{tag}>"
            for value, number in zip(values, numbers, strict=True)
        )

    listed = list(rows)
    numbers = [bool(listed) and isinstance(listed[0][column], int | float) for column in range(len(names))]
    body = "".join(f"<tr>{cells('td', row, numbers)}</tr>" for row in listed)
    return f"<table><thead><tr>{cells('th', names, numbers)}</tr></thead><tbody>{body}</tbody></table>"
