"""What the page for everyone tells: sites, days, releases. Only facts, no HTML: that is `page_html`'s."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from edge_ai_assets.azure import arrivals, gold, gold_star
from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.returns.inbox import daily, judged
from edge_ai_assets.returns.inbox import tables as deltas
from edge_ai_assets.returns.inbox.watermark import Watermark
from edge_ai_assets.usecase import UseCase

MOST_DAYS = 365
MOST_ASSETS = 200
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
"""Of `packed` numbers: a digit has five bits, from the lowest on; the upper 32 say that another follows."""
SPAN = "SELECT max(day), min(day) FROM daily WHERE day <= ?"
SITE_DAYS = """
SELECT site, list(date_diff('day', ?::DATE, day) ORDER BY day), list(anomalies ORDER BY day) FROM (
    SELECT site, day, sum(anomalies)::BIGINT AS anomalies FROM daily WHERE day BETWEEN ? AND ?
    GROUP BY site, day
) GROUP BY site
"""
FLEET_DAYS = """
SELECT date_diff('day', ?::DATE, day), sum(insights)::BIGINT FROM daily WHERE day BETWEEN ? AND ? GROUP BY day
"""
SERVED = """
SELECT site, day, release FROM (
    SELECT site, day, arg_max(release, scores) AS release FROM (
        SELECT site, day, release, greatest(sum(insights), coalesce(sum(scored), 0)) AS scores FROM daily
        WHERE day BETWEEN ? AND ? GROUP BY site, day, release
    ) GROUP BY site, day
) QUALIFY release IS DISTINCT FROM lag(release) OVER (PARTITION BY site ORDER BY day) ORDER BY site, day
"""
RAN = """
SELECT site, day, running FROM packages WHERE running <> ''
QUALIFY running IS DISTINCT FROM lag(running) OVER (PARTITION BY site ORDER BY number) ORDER BY site, number
"""
TOTALS = "SELECT site, sum(insights)::BIGINT, sum(anomalies)::BIGINT FROM daily GROUP BY site"


class Release(msgspec.Struct, frozen=True):
    """A release, and how good it was by the word of the people on the sites."""

    version: int
    made: datetime
    rows: int = 0
    """Scores that people judged; without any, the rest is None."""
    f1: float | None = None
    false_alarms: float | None = None
    missed: float | None = None


class Site(msgspec.Struct, frozen=True):
    """A site: what is known of it, and its days."""

    name: str
    ring: str
    mark: Watermark
    insights: int
    anomalies: int
    days: str
    """For each day of the report 0 when nothing came of it, else its anomalies and 1; `packed`."""
    runs: list[tuple[int, int]]
    """Since which day (its place) which release served; 0 for one that is not known here."""
    release: int
    """What serves now, though that may be since after the last of the days; 0 as above, or for none."""

    @property
    def state(self) -> str:
        """In one word, the worst first."""
        if self.mark.refused:
            return "refused"
        if self.mark.gaps:
            return "gap"
        if self.mark.stale:
            return "stale"
        return "whole" if self.mark.head.number else "silent"


class Asset(msgspec.Struct, frozen=True):
    """A plant asset, and what came home of it over all days."""

    site: str
    name: str
    scored: int | None
    """None where the site lets no aggregates out."""
    insights: int
    anomalies: int


class Report(msgspec.Struct, frozen=True):
    """All that the page tells."""

    name: str
    description: str
    simulated: bool
    made: datetime
    first: date
    """The first of the days; there are as many as `insights` has."""
    insights: list[int]
    """Of all sites, by day."""
    sites: list[Site]
    """Those that lack something first, then by name."""
    releases: list[Release]
    """Oldest first."""
    assets: list[Asset] = []
    """Those with most anomalies first, at most MOST_ASSETS; none if the use case names none."""


def collect(home: Home, usecase: UseCase, now: datetime) -> Report:
    """What is known of the fleet at a moment."""
    releases = pack.known(home.registry, home.keys)
    numbers = {one.image: one.version for one in releases}
    said = {row["release"]: row for row in judged.by_release(home.tables)}
    days = _days(home.tables, now.date())
    last = days.first + timedelta(len(days.insights) - 1)
    ran = _ran(home.tables)
    rings = {site.name: str(site.ring) for site in usecase.sites}
    sites = []
    for mark in sorted(arrivals.watermarks(home, usecase), key=lambda mark: mark.whole):
        counts = [0] * len(days.insights)
        for place, anomalies in days.anomalies.get(mark.site, ()):
            counts[place] = anomalies + 1
        told = ran.get(mark.site) or days.served.get(mark.site, [])
        runs = [(day, numbers.get(image, 0)) for day, image in told]
        insights, anomalies = days.totals.get(mark.site, (0, 0))
        steps = _steps(runs, days.first, last)
        ring = rings.get(mark.site, "")
        newest = runs[-1][1] if runs else 0
        sites.append(Site(mark.site, ring, mark, insights, anomalies, packed(counts), steps, newest))
    return Report(
        usecase.name,
        usecase.description,
        usecase.simulated,
        now,
        days.first,
        days.insights,
        sites,
        [_release(one, said.get(one.image)) for one in releases],
        days.assets,
    )


def packed(numbers: list[int]) -> str:
    """Numbers >= 0 as text: a character for one below 32, two below 1,024, and so on. See DIGITS."""
    found = []
    for number in numbers:
        while number >= 32:
            found.append(DIGITS[32 + number % 32])
            number //= 32
        found.append(DIGITS[number])
    return "".join(found)


def _release(one: Any, row: dict[str, Any] | None) -> Release:
    if row is None:
        return Release(one.version, one.created)
    return Release(
        one.version, one.created, row["rows"], row["f1"], row["false_alarm_rate"], row["miss_rate"]
    )


class _Days(msgspec.Struct, frozen=True):
    """What the daily table tells, by site."""

    first: date
    insights: list[int]
    """Of all sites, by day."""
    anomalies: dict[str, list[tuple[int, int]]] = {}
    """Places of days, and what came of them."""
    served: dict[str, list[tuple[date, str]]] = {}
    """Since when which image made most of a day's scores."""
    totals: dict[str, tuple[int, int]] = {}
    """Insights and anomalies over all time."""
    assets: list[Asset] = []


def _days(tables: Path, today: date) -> _Days:
    """Up to the newest day with an insight, MOST_DAYS at most. A site whose clock is days ahead does not move
    everybody else out of it."""
    import duckdb

    if deltas.existing(tables, daily.NAME) is None:
        return _Days(today, [0])
    with duckdb.connect() as db:
        db.register("daily", gold.read(tables, daily.NAME, gold_star.schema(daily.NAME)))
        newest, oldest = db.execute(SPAN, [today + timedelta(days=1)]).fetchall()[0]
        last = newest or today
        first = max(oldest or today, last - timedelta(days=MOST_DAYS - 1))
        insights = [0] * ((last - first).days + 1)
        for place, count in db.execute(FLEET_DAYS, [first, first, last]).fetchall():
            insights[place] = count
        anomalies = {
            site: list(zip(places, counts, strict=True))
            for site, places, counts in db.execute(SITE_DAYS, [first, first, last]).fetchall()
        }
        served: defaultdict[str, list[tuple[date, str]]] = defaultdict(list)
        for site, day, image in db.execute(SERVED, [first, last]).fetchall():
            served[site].append((day, image))
        totals = {site: (count, found) for site, count, found in db.execute(TOTALS).fetchall()}
        assets = [Asset(*row) for row in db.execute(daily.ASSETS, [MOST_ASSETS]).fetchall()]
    return _Days(first, insights, anomalies, served, totals, assets)


def _ran(tables: Path) -> dict[str, list[tuple[date, str]]]:
    """Since when, by its own clock, which image ran at each site, as its packages tell; none of sites whose
    packages are of a version that did not."""
    import duckdb
    import pyarrow as pa
    import pyarrow.compute as pc

    table = deltas.existing(tables, "packages")
    if table is None or "running" not in {field.name for field in table.schema().fields}:
        return {}
    rows = table.to_pyarrow_table(columns=["site", "number", "created_at", "running"])
    rows = rows.append_column("day", pc.cast(rows["created_at"], pa.date32())).drop_columns(["created_at"])
    found: defaultdict[str, list[tuple[date, str]]] = defaultdict(list)
    with duckdb.connect() as db:
        db.register("packages", rows)
        for site, day, image in db.execute(RAN).fetchall():
            found[site].append((day, image))
    return found


def _steps(runs: list[tuple[date, int]], first: date, last: date) -> list[tuple[int, int]]:
    """Since which day's place which release served: one step a day, only where it changes."""
    by_place = {max(0, (day - first).days): release for day, release in runs if day <= last}
    steps: list[tuple[int, int]] = []
    for place in sorted(by_place):
        if not steps or steps[-1][1] != by_place[place]:
            steps.append((place, by_place[place]))
    return steps
