"""`edge-ai keys`, as people use it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from edge_ai_assets.commands.keys import keys
from edge_ai_assets.delivery.errors import KeyFileError, MissingError
from edge_ai_assets.enrolment import EnrolmentError


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_AI_HOME", str(tmp_path / "azure"))

    def call(*arguments):
        result = CliRunner().invoke(keys, [str(each) for each in arguments], env={"COLUMNS": "160"})
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def test_made_listed_rotated_and_revoked(run, tmp_path):
    sticks = [tmp_path / name for name in ("a", "b", "c")]
    given = [part for stick in sticks for part in ("--root-keys", stick)]
    made = json.loads(
        run("make", *given, "--threshold", 2, "--targets", "ann", "--targets", "bob", "--json").stdout
    )
    assert made["version"] == 1 and made["roles"]["root"]["threshold"] == 2
    assert [key["name"] for key in made["roles"]["targets"]["keys"]] == ["ann", "bob"]
    rotated = run("rotate", "--old", "ann", "--new", "eve", *given[:4], "--json")
    names = {key["name"] for key in json.loads(rotated.stdout)["roles"]["targets"]["keys"]}
    assert names == {"eve", "bob"}
    after = json.loads(run("revoke", "--old", "bob", *given[2:], "--json").stdout)
    assert after["version"] == 3 and [key["name"] for key in after["roles"]["targets"]["keys"]] == ["eve"]
    assert json.loads(run("list", "--json").stdout) == after
    assert "targets    1 of 1: eve (ed25519, here)" in run("list").stdout
    assert not list((tmp_path / "azure" / "keys").glob("root-*.pem"))


def test_a_new_root_key_is_made_where_it_is_kept_away(run, tmp_path):
    run("make", "--root-keys", tmp_path / "a")
    run("rotate", "--role", "root", "--old", "root-1", "--new", "root-2", "--root-keys", tmp_path / "a")
    assert (tmp_path / "a" / "root-2.pem").exists()


def test_without_the_root_keys_nothing_changes(run, tmp_path):
    run("make", "--root-keys", tmp_path / "a")
    with pytest.raises(
        KeyFileError, match="needs 1 root keys, 0 are here: bring the folder that holds root-1"
    ):
        run("rotate", "--old", "release", "--new", "other")
    assert "root 1," in run("list").stdout


def test_keys_are_azure_s_matter(run, tmp_path):
    (tmp_path / "azure").mkdir()
    (tmp_path / "azure" / "joined.txt").write_text("narvik")
    with pytest.raises(EnrolmentError, match="is the home of site 'narvik'"):
        run("list")


def test_before_there_are_keys_it_is_said_what_makes_them(run):
    with pytest.raises(MissingError, match="the first release makes it, or `edge-ai keys make`"):
        run("list")


def test_a_role_that_is_none_is_wrong_usage(run):
    assert run("revoke", "--role", "king", "--old", "x").exit_code == 2
