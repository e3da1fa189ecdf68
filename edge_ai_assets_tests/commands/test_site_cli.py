"""`edge-ai site`: invite, join and enrol as people do it, on two sides that share a medium."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edge_ai_assets import usecase
from edge_ai_assets.commands.here import NotHere
from edge_ai_assets.commands.site import sites
from edge_ai_assets.delivery import ceremony, signing
from edge_ai_assets.enrolment import EnrolmentError, fingerprint
from edge_ai_assets.home import Home
from edge_ai_assets.stack_hub import provision

PLAIN = {"TERM": "dumb", "COLUMNS": "160", "NO_COLOR": "1"}
CASE = usecase.loads(
    """
name: fleet
runs: {rows: 50}
features: [{name: a}]
label: {column: y, positive: [1]}
sites: [{name: narvik, road: media}, {name: bergen}]
"""
)


@pytest.fixture
def azure(tmp_path):
    home = Home(tmp_path / "azure")
    ceremony.make(home.keys)
    usecase.dump(CASE, home.usecase)
    return home


@pytest.fixture
def ship(tmp_path):
    return Home(tmp_path / "new" / "ship")


@pytest.fixture
def medium(tmp_path):
    return tmp_path / "medium"


@pytest.fixture
def run(monkeypatch):
    """Run a command in a home; what it raises is `edge-ai`'s to tell."""
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)

    def in_home(home, *arguments):
        monkeypatch.setenv("EDGE_AI_HOME", str(home.root))
        result = CliRunner().invoke(sites, [*map(str, arguments)], env=PLAIN)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return in_home


@pytest.fixture
def invitation(run, azure, medium):
    run(azure, "invite", "narvik", "--to", medium)
    return medium / "narvik.invitation.json"


@pytest.fixture
def answer(run, ship, invitation, medium):
    run(ship, "join", invitation, "--to", medium)
    return medium / "narvik.enrolment.json"


def shown(result):
    """What is on standard output, as names and values."""
    assert result.exit_code == 0
    return dict(re.split(r" {1,}", line, maxsplit=1) for line in result.stdout.splitlines())


def test_both_sides_show_the_same_fingerprints_and_say_to_compare_them(run, azure, ship, medium):
    invited = run(azure, "invite", "narvik", "--to", medium)
    joined = run(ship, "join", medium / "narvik.invitation.json", "--to", medium)
    enrolled = run(azure, "enrol", medium / "narvik.enrolment.json")
    release = fingerprint((azure.keys / "root.json").read_bytes())
    own = fingerprint(signing.load_private(provision.private_key(ship.site("narvik"))).public_key())
    assert release != own
    assert shown(invited)["root"] == shown(joined)["root"] == release
    assert shown(joined)["site_key"] == shown(enrolled)["site_key"] == own
    assert "over the phone" in joined.stderr and "over the phone" in enrolled.stderr
    assert f"remove {provision.known_key(azure, 'narvik')}" in enrolled.stderr
    assert signing.load_public(provision.known_key(azure, "narvik"))


def test_each_step_says_which_is_next_by_its_name(run, azure, ship, medium):
    said = run(azure, "invite", "narvik", "--to", medium).stderr
    assert "edge-ai site join narvik.invitation.json --to" in said
    said = run(ship, "join", medium / "narvik.invitation.json", "--to", medium).stderr
    assert "edge-ai site enrol narvik.enrolment.json" in said and "media" in said


def test_json_is_one_object_and_nothing_else(run, azure, ship, medium):
    invited = run(azure, "invite", "narvik", "--to", medium, "--json")
    joined = run(ship, "join", medium / "narvik.invitation.json", "--to", medium, "--json")
    enrolled = run(azure, "enrol", medium / "narvik.enrolment.json", "--json")
    assert not invited.stderr + joined.stderr + enrolled.stderr
    one, two, three = (json.loads(result.stdout) for result in (invited, joined, enrolled))
    assert set(one) == {"site", "invitation", "root"}
    assert set(two) == {"site", "home", "enrolment", "root", "site_key", "media"}
    assert set(three) == {"site", "site_key", "known_by"}
    assert one["site"] == two["site"] == three["site"] == "narvik"
    assert one["invitation"] == str(medium / "narvik.invitation.json") and two["home"] == str(ship.root)
    assert (one["root"], two["site_key"]) == (two["root"], three["site_key"])


def test_a_site_joins_in_a_home_that_does_not_exist(run, ship, invitation, tmp_path):
    assert not ship.root.parent.exists()
    found = shown(run(ship, "join", invitation, "--to", tmp_path / "not" / "there"))
    assert ship.own_site == "narvik" and ship.site("narvik").media.is_dir()
    assert found["enrolment"] == str(tmp_path / "not" / "there" / "narvik.enrolment.json")


def test_a_relative_home_and_medium_are_those_of_this_folder(run, azure, invitation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = shown(run(Home(Path("here")), "join", "medium/narvik.invitation.json", "--to", "."))
    assert found["home"] == str(tmp_path / "here") and (tmp_path / "narvik.enrolment.json").exists()


def test_done_again_it_says_the_same(run, azure, ship, invitation, answer, medium):
    for home, arguments in [
        (azure, ("invite", "narvik", "--to", medium)),
        (ship, ("join", invitation, "--to", medium)),
        (azure, ("enrol", answer)),
    ]:
        assert run(home, *arguments).output == run(home, *arguments).output


class TestRefused:
    """EnrolmentError or NotHere; `edge-ai` makes one line and exit code 2 of it."""

    def test_a_home_that_is_not_there_has_nobody_to_invite(self, run, ship, medium):
        for arguments in (("invite", "narvik", "--to", medium), ("enrol", medium / "x.json")):
            with pytest.raises(NotHere, match="does not exist: set EDGE_AI_HOME to the home of Azure's"):
                run(ship, *arguments)
        assert not ship.root.exists()

    def test_a_site_invites_and_enrols_nobody(self, run, ship, answer, medium):
        for arguments in (("invite", "narvik", "--to", medium), ("enrol", answer)):
            with pytest.raises(NotHere, match="is the home of site 'narvik': set EDGE_AI_HOME to that of"):
                run(ship, *arguments)
        assert not ship.keys.exists()

    @pytest.mark.parametrize(
        ("name", "said"), [("oslo", "is not in use case"), ("bergen", "has road 'link'")]
    )
    def test_a_site_that_cannot_be_invited(self, run, azure, medium, name, said):
        with pytest.raises(EnrolmentError, match=said):
            run(azure, "invite", name, "--to", medium)

    def test_azure_s_home_does_not_join(self, run, azure, invitation, medium):
        with pytest.raises(EnrolmentError, match="is Azure's home"):
            run(azure, "join", invitation, "--to", medium)

    def test_files_that_are_mixed_up(self, run, azure, ship, invitation, answer, medium):
        with pytest.raises(EnrolmentError, match="invitation format 1, this version reads 2"):
            run(ship, "join", answer, "--to", medium)
        with pytest.raises(EnrolmentError, match="enrolment format 2, this version reads 1"):
            run(azure, "enrol", invitation)

    @pytest.mark.parametrize("command", [("join", "--to", "m"), ("enrol",)], ids=" ".join)
    def test_a_file_that_is_not_there(self, run, azure, ship, tmp_path, command):
        home = ship if command[0] == "join" else azure
        with pytest.raises(EnrolmentError, match=r"absent\.json is not there"):
            run(home, command[0], tmp_path / "absent.json", *command[1:])


@pytest.mark.parametrize(
    "arguments",
    [
        ("invite",),
        ("invite", "narvik"),
        ("invite", "--to", "m"),
        ("join", "--to", "m"),
        ("join", "x"),
        ("enrol",),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_makes_nothing(run, ship, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert run(ship, *arguments).exit_code == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["invite", "join", "enrol"])
def test_the_help_teaches_the_step(run, ship, name):
    said = " ".join(run(ship, name, "--help").stdout.split())
    assert "of three steps" in said and ("fingerprint" in said)
    assert {"invite": "First", "join": "Second", "enrol": "Last"}[name] in said


def test_the_commands_stand_in_the_order_in_which_they_are_used():
    assert list(typer.main.get_command(sites).commands) == ["invite", "join", "enrol"]
