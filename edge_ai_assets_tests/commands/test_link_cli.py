"""`edge-ai link`: of each site, as far as its link is in this home."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from edge_ai_assets.commands.here import NotHere
from edge_ai_assets.commands.link import links
from edge_ai_assets.home import Home

USECASE = """
name: pump
runs: {column: run}
label: {column: fault, positive: [1]}
features: [{name: Flow}]
sites: [{name: bergen}, {name: narvik, road: media}]
"""
PLAIN = {"TERM": "dumb", "COLUMNS": "160", "NO_COLOR": "1"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = Home(tmp_path / "home")
    monkeypatch.setenv("EDGE_AI_HOME", str(home.root))
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)
    home.root.mkdir()
    home.usecase.write_text(USECASE, "utf-8")
    return home


def link(*arguments):
    result = CliRunner().invoke(links, list(arguments), env=PLAIN)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_links_are_cut_restored_and_shown(home):
    up = {"state": "up", "since": None, "changes": 0}
    assert json.loads(link("status", "--json"))["bergen"] == up
    assert not (home.root / "sites").exists()  # to look changes nothing
    down = json.loads(link("down", "--site", "bergen", "--json"))
    assert down["bergen"]["state"] == "down" and down["bergen"]["changes"] == 1
    assert "down" in link("status")
    assert json.loads(link("up", "--json"))["bergen"]["changes"] == 2


def test_a_site_without_a_link_has_none_and_it_cannot_be_cut(home):
    none = {"state": "none", "since": None, "changes": 0}
    for action in ("status", "down", "up"):
        assert json.loads(link(action, "--json"))["narvik"] == none
    assert "ever" not in link("status", "--site", "narvik")
    with pytest.raises(NotHere, match="'narvik' has no link: its packages are carried"):
        link("down", "--site", "narvik")
    assert not home.site("narvik").root.exists()


def test_the_link_of_another_home_is_unknown_and_cannot_be_cut(home):
    home.joined.write_text("narvik")
    assert json.loads(link("status", "--json"))["bergen"]["state"] == "unknown here"
    with pytest.raises(NotHere, match="run this in the site's own home"):
        link("up", "--site", "bergen")
    assert not (home.root / "sites").exists()
