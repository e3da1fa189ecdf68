"""The page for everyone: what it tells is what the tables say, and nothing in it can do harm."""

import base64
import hashlib
import json
import re
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from types import SimpleNamespace

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets import usecase
from edge_ai_assets.azure import page, page_data, page_html
from edge_ai_assets.azure.page_data import DIGITS, collect, packed
from edge_ai_assets.home import Home
from edge_ai_assets.returns.inbox import daily, tables
from edge_ai_assets.returns.inbox.heads import Head
from edge_ai_assets.returns.inbox.watermark import Watermark
from edge_ai_assets_tests.fleet_report import EVIL, fleet

CASE = usecase.loads("""
name: mill
description: 'A <script>alert("x")</script> & $more'
runs: {column: run}
features: [{name: Flow}]
label: {column: fault, positive: [1]}
sites: [{name: north, ring: canary}, {name: south}]
""")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def unpacked(text):
    """As the page's script reads it."""
    numbers, number, unit = [], 0, 1
    for digit in text:
        value = DIGITS.index(digit)
        number += (value & 31) * unit
        unit *= 32
        if value < 32:
            numbers.append(number)
            number, unit = 0, 1
    return numbers


@given(st.lists(st.integers(0, 2**40)))
def test_packed_numbers_come_back(numbers):
    assert unpacked(packed(numbers)) == numbers


class Elements(HTMLParser):
    """Tags with their attributes, and the text in each kind of element."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.inside, self.open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append((tag, dict(attrs).get("type", "")))
        self.inside.setdefault(self.open[-1], [])

    def handle_endtag(self, tag):
        if self.open and self.open[-1][0] == tag:
            self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.inside[self.open[-1]].append(data)


def facts(text):
    return json.loads("".join(Elements(text).inside["script", "application/json"]))


def test_the_page_before_anything_came(home):
    path = page.publish(home, CASE)
    text = path.read_text("utf-8")
    assert text.count("nothing yet") >= 3 and "north" in text and "south" in text
    assert [each.name for each in path.parent.iterdir()] == ["index.html"]


def test_the_page_loads_nothing(home):
    text = page.publish(home, CASE).read_text("utf-8")
    urls = set(re.findall(r"https?://[^\s\"']*", text))
    assert urls == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not [word for word in ("url(", "@import", "import(", "fetch(") if word in text]
    assert not [tag for tag, attrs in Elements(text).tags if {"src", "srcset", "style"} & attrs.keys()]
    assert [tag for tag, _ in Elements(text).tags].count("link") == 0


def test_the_policy_allows_this_style_and_this_script_alone(home):
    found = Elements(page.publish(home, CASE).read_text("utf-8"))
    (policy,) = [attrs["content"] for _, attrs in found.tags if "http-equiv" in attrs]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"

    def hashed(kind):
        (text,) = ["".join(found.inside[kind])]
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules["style-src"] == hashed(("style", ""))
    assert rules["script-src"] == hashed(("script", "module"))
    assert "unsafe" not in policy and not [
        name for _, attrs in found.tags for name in attrs if name.startswith("on")
    ]


def test_whatever_a_site_is_called_is_text(home):
    report = fleet(3, 5, {0: EVIL})
    text = page_html.render(report)
    found = Elements(text)
    assert "<img" not in text and [tag for tag, _ in found.tags].count("script") == 2
    assert facts(text)["sites"][0][0] == EVIL
    assert EVIL in "".join(found.inside["th", ""])


def test_name_and_description_are_text(home):
    text = page.publish(home, CASE).read_text("utf-8")
    assert "&lt;script&gt;" in text and "&amp; $more" in text


def test_the_page_is_replaced_whole_or_not_at_all(home, monkeypatch):
    path = page.publish(home, CASE)
    before = path.read_bytes()
    monkeypatch.setattr(page.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        page.publish(home, CASE.model_copy(update={"description": "other"}))
    assert path.read_bytes() == before


def test_plant_assets_have_a_table_where_there_are_such(home):
    report = fleet(1, 5)
    assert 'id="assets"' not in page_html.render(report)
    pump = page_data.Asset("north", EVIL, None, 1_234, 7)
    text = page_html.render(msgspec.structs.replace(report, assets=[pump]))
    found = Elements(text)
    assert "Plant assets" in "".join(found.inside["h2", ""])
    assert "<img" not in text and EVIL in "".join(found.inside["th", ""])
    assert ">–</td>" in text and ">1,234</td>" in text


def test_plant_assets_are_told_of_by_what_came_home(home):
    schema = tables.schemas()["insights"]
    empty = {**dict.fromkeys(schema.names), "site": "north", "package": 1, "day": D, "release": "r1"}
    made = [
        {
            **empty,
            "sequence": number,
            "kind": "anomaly",
            "score": 0.5,
            "fields": f'{{"_asset":"P-{number % 2}"}}',
        }
        for number in range(5)
    ]
    tables.merge(home.tables, "insights", pa.Table.from_pylist(made, schema))
    daily.refresh(home.tables, assets=True)
    report = collect(home, CASE, NOW)
    assert report.assets == [
        page_data.Asset("north", f"P-{n}", None, rows, rows) for n, rows in ((0, 3), (1, 2))
    ]
    assert (report.insights, report.sites[0].anomalies) == ([5], 5)


def test_a_thousand_sites_and_a_year_stay_small():
    text = page_html.render(fleet(1_000, 365))
    assert len(text.encode()) < 2_000_000
    assert len(facts(text)["sites"]) == 1_000


def insights(home, rows):
    """Merge insights (site, day, release, anomaly) and bring the daily table up to them."""
    schema = tables.schemas()["insights"]
    empty = dict.fromkeys(schema.names)
    made = [
        {
            **empty,
            "site": site,
            "sequence": number,
            "package": 1,
            "day": day,
            "release": release,
            "kind": "anomaly" if anomaly else "normal",
            "score": 0.5,
            "fields": "{}",
        }
        for number, (site, day, release, anomaly) in enumerate(rows)
    ]
    tables.merge(home.tables, "insights", pa.Table.from_pylist(made, schema))
    daily.refresh(home.tables)


D = date(2026, 2, 1)


def test_days_of_each_site_are_what_came_home(home):
    insights(
        home,
        [
            ("north", D, "r1", True),
            ("north", D, "r1", True),
            ("north", D, "r1", False),
            ("south", D, "r1", False),
            ("north", D + timedelta(2), "r2", True),
        ],
    )
    report = collect(home, CASE, NOW)
    days = {site.name: unpacked(site.days) for site in report.sites}
    assert (report.first, report.insights) == (D, [4, 0, 1])
    assert days == {"north": [3, 0, 2], "south": [1, 0, 0]}
    assert [(site.insights, site.anomalies) for site in report.sites] == [(4, 3), (1, 0)]


def test_a_year_is_told_and_totals_are_of_all_time(home):
    last = date(2026, 3, 1)
    insights(home, [("north", last - timedelta(back), "r1", True) for back in (0, 364, 365, 500)])
    report = collect(home, CASE, NOW)
    assert len(report.insights) == page_data.MOST_DAYS == 365 and report.first == last - timedelta(364)
    assert report.sites[0].anomalies == 4 and sum(report.insights) == 2


def test_a_site_whose_clock_is_years_ahead_does_not_move_the_others_out(home):
    insights(home, [("north", D, "r1", True), ("south", date(2031, 1, 1), "r1", True)])
    report = collect(home, CASE, NOW)
    assert (report.first, report.insights) == (D, [1]) and report.sites[1].anomalies == 1


@pytest.fixture
def released(monkeypatch):
    known = [SimpleNamespace(image=f"r{n}", version=n, created=NOW) for n in (1, 2)]
    monkeypatch.setattr(page_data.pack, "known", lambda *_: known)


def packages(home, rows):
    """Packages (site, number, day, running) that came."""
    schema = tables.schemas()["packages"]
    empty = dict.fromkeys(schema.names)
    made = []
    for site, number, day, running in rows:
        at = datetime(2026, 2, day, 23, tzinfo=UTC)
        told = {"digest": "0" * 64, "created_at": at, "received_at": at, "running": running}
        made.append({**empty, "site": site, "number": number, **told})
    tables.merge(home.tables, "packages", pa.Table.from_pylist(made, schema))


def test_which_release_runs_is_told_by_packages_and_else_by_scores(home, released):
    days = [(D + timedelta(n), f"r{1 + n // 2}") for n in range(4)]
    insights(home, [(site, day, release, False) for day, release in days for site in ("north", "south")])
    packages(home, [("north", 2, 2, "r2"), ("north", 1, 1, "r1"), ("north", 3, 2, "r2"), ("south", 1, 1, "")])
    runs = {site.name: site.runs for site in collect(home, CASE, NOW).sites}
    assert runs == {"north": [(0, 1), (1, 2)], "south": [(0, 1), (2, 2)]}


def test_of_two_releases_in_a_day_the_later_one_runs(home, released):
    insights(home, [("north", D, "r1", True)] * 9 + [("north", D, "r2", True)])
    packages(home, [("north", 1, 1, "r1"), ("north", 2, 1, "r2")])
    assert collect(home, CASE, NOW).sites[0].runs == [(0, 2)]


def test_the_table_tells_the_release_that_runs_though_no_insight_came_since(home, released):
    insights(home, [("north", D, "r1", True)])
    packages(home, [("north", 1, 1, "r1"), ("north", 2, 9, "r2")])
    report = collect(home, CASE, NOW)
    assert len(report.insights) == 1 and report.sites[0].runs == [(0, 1)]
    assert (report.sites[0].release, report.sites[1].release) == (2, 0)


def test_a_release_that_is_not_in_the_registry_is_unknown(home):
    insights(home, [("north", D, "r7", True)])
    assert collect(home, CASE, NOW).sites[0].runs == [(0, 0)]


def test_a_home_of_an_older_version_has_a_page(home):
    """Its daily table has fewer columns, and gets the others only when something comes."""
    from deltalake import write_deltalake

    insights(home, [("north", D, "r1", True)])
    older = pa.Table.from_pylist(tables.rows(home.tables, daily.NAME)).drop_columns(
        ["scored", "anomalies_share"]
    )
    write_deltalake(home.tables / daily.NAME, older, mode="overwrite", schema_mode="overwrite")
    report = collect(home, CASE, NOW)
    assert report.insights == [1] and report.sites[0].runs == [(0, 0)]


def test_sites_that_lack_something_come_first(home, monkeypatch):
    marks = [mark(name, whole) for name, whole in (("a", True), ("b", False), ("c", True), ("d", False))]
    monkeypatch.setattr(page_data.arrivals, "watermarks", lambda *_: marks)
    assert [site.name for site in collect(home, CASE, NOW).sites] == ["b", "d", "a", "c"]


def mark(name, whole):
    return Watermark(name, Head(1, "0" * 64), () if whole else ((2, 3),), (), 1.0, False, 0.0)


@pytest.mark.parametrize(
    ("days", "said"),
    [(0.0, "0 minutes"), (1 / 24, "60 minutes"), (0.1, "2 hours"), (1.9, "46 hours"), (2, "2 days")],
)
def test_how_long_a_site_is_silent_is_said_as_people_would(days, said):
    assert page_html._span(days) == said


def test_states_are_told_the_worst_first():
    states = {site.name: site.state for site in fleet(80, 2).sites}
    assert states["site-0000"] == "whole" and states["site-0006"] == "stale" and states["site-0010"] == "gap"
    assert states["site-0076"] == "gap"  # and stale: 76 = 6 mod 7 = 10 mod 11
    assert states["site-0079"] == "silent"
