"""`edge-ai status` and `edge-ai ledger verify` in homes of one side only, and beside a damaged outbox."""

from __future__ import annotations

import json
import sqlite3
import sys

import pytest

from edge_ai_assets import cli
from edge_ai_assets.home import Home
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets_tests import blocks

USECASE = """
name: pump
runs: {column: run}
label: {column: fault, positive: [1]}
features: [{name: Flow}]
sites: [{name: bergen}, {name: narvik, road: media}, {name: oslo}]
"""
DAY = 24 * 3600 * 1_000_000


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = Home(tmp_path / "home")
    monkeypatch.setenv("EDGE_AI_HOME", str(home.root))
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)
    home.root.mkdir()
    home.usecase.write_text(USECASE, "utf-8")
    return home


@pytest.fixture
def edge_ai(home, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edge-ai", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def scored(home, name, rows=3):
    site = home.site(name)
    site.root.mkdir(parents=True)
    with Outbox(site.outbox) as outbox:
        outbox.append([blocks.plain(rows)])
        insights.derive(outbox)
    return site


def damage(path, *, pages):
    """The whole file, or all its pages but the first, as a disk that fails gives them."""
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096) if pages else b"\xff" * len(data))


@pytest.mark.parametrize(("pages", "said"), [(True, "is damaged: "), (False, "it is no SQLite file")])
class TestADamagedOutbox:
    @pytest.fixture(autouse=True)
    def three(self, home, pages):
        for name in ("bergen", "narvik", "oslo"):
            scored(home, name)
        damage(home.site("narvik").outbox, pages=pages)

    def test_status_shows_the_others(self, edge_ai, said):
        code, out, _ = edge_ai("status", "--json")
        sites = json.loads(out)["sites"]
        assert code == 1 and [sites[name]["scored"] for name in sites] == [3, None, 3]
        assert said in sites["narvik"]["error"] and "narvik/outbox.db" in sites["narvik"]["error"]
        assert sites["oslo"]["error"] is None
        code, out, _ = edge_ai("status")
        assert code == 1 and "oslo" in out and "DAMAGED: narvik: " in out and out.count("yes") == 2

    def test_the_ledger_is_verified_at_the_others(self, edge_ai, said):
        code, out, _ = edge_ai("ledger", "verify", "--json")
        found = json.loads(out)
        assert code == 1 and [found[name]["holds"] for name in found] == [True, False, True]
        assert said in found["narvik"]["error"]
        code, out, error = edge_ai("ledger", "verify")
        assert code == 1 and "oslo" in out and error.startswith("narvik: ") and error.count("\n") == 1

    def test_any_other_command_says_it_in_a_line(self, edge_ai, said):
        code, _, error = edge_ai("returns", "list", "--site", "narvik")
        assert code == 1 and said in error and error.count("\n") == 1


def test_of_a_site_that_comes_by_media_azure_knows_no_numbers(home, edge_ai):
    scored(home, "bergen")
    code, out, _ = edge_ai("status", "--json")
    sites = json.loads(out)["sites"]
    assert code == 0 and not sites["narvik"]["here"] and sites["narvik"]["scored"] is None
    assert sites["narvik"]["link"] == "none"
    assert (
        sites["oslo"]["here"] and sites["oslo"]["scored"] == 0
    )  # of a home with both sides, not deployed yet
    assert "unknown here" in edge_ai("status")[1]


def test_a_site_knows_itself_and_no_other_and_nothing_of_azure(home, edge_ai):
    scored(home, "narvik")
    home.joined.write_text("narvik")
    code, out, _ = edge_ai("status", "--json")
    found = json.loads(out)
    assert code == 0 and set(found["global"].values()) == {None}
    assert [site["here"] for site in found["sites"].values()] == [False, True, False]
    assert found["sites"]["oslo"]["link"] is None
    code, out, _ = edge_ai("status")
    assert code == 0 and "Azure: unknown here" in out and "0 insights" not in out


def test_what_is_no_longer_kept_is_told_with_its_reason(home, edge_ai):
    site = scored(home, "bergen", 8)
    with Outbox(site.outbox) as outbox:
        outbox.expire(1, DAY, "quota of 1 MB")
    with sqlite3.connect(site.outbox) as db:  # as another package later tells of
        grave = (2, "expired", "anomaly", "quota of 1 MB", 9, 9, 1, 2 * DAY)
        db.execute("INSERT INTO tombstones VALUES (?, ?, ?, ?, ?, ?, ?, ?)", grave)
    removed = json.loads(edge_ai("status", "--json")[1])["sites"]["bergen"]["removed"]
    told = {
        "state": "expired",
        "kind": "anomaly",
        "reason": "quota of 1 MB",
        "rows": 9,
        "first": 1,
        "last": 9,
    }
    assert removed == [{**told, "at": "1970-01-03T00:00:00+00:00"}]
    out = edge_ai("status")[1]
    assert "no longer kept" in out and "quota of 1 MB" in out
