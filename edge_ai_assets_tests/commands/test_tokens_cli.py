"""`edge-ai tokens`: a token that is made here works in the service, and is never seen again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_ai_assets.commands.tokens import tokens
from edge_ai_assets.scoring.tokens import Tokens, TokensError, listed

PLAIN = {"TERM": "dumb", "COLUMNS": "160", "NO_COLOR": "1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def run(*arguments):
    """Run a command of `edge-ai tokens`; what it raises is `edge-ai`'s to tell."""
    result = CliRunner().invoke(tokens, [*map(str, arguments)], env=PLAIN)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def made(path, name="panel", *options):
    return json.loads(run("add", name, "--file", path, "--json", *(options or ("--role", "score"))).stdout)


def test_a_token_is_alone_on_standard_output_and_works(path):
    result = run("add", "line 3 [panel]", "--file", path, "--role", "feedback", "--role", "score")
    token = result.stdout.strip()
    assert result.exit_code == 0 and result.stdout == token + "\n" and "once" in result.stderr
    caller = Tokens(path).caller(b"Bearer " + token.encode())
    assert caller == ("line 3 [panel]", frozenset({"score", "feedback"}))


def test_json_has_the_token_and_what_is_kept_of_it(path):
    found = made(path, "visitor", "--role", "operate", "--days", "3")
    assert Tokens(path).caller(b"Bearer " + found.pop("token").encode())
    (shown,) = json.loads(run("list", "--file", path, "--json").stdout)["tokens"]
    assert shown == found and found["roles"] == ["operate"] and found["expired"] is False
    assert found["expires"] > found["created"]


def test_a_list_shows_all_and_no_secret(path):
    secrets = [made(path, name)["token"] for name in ("one [bold]", "two")]
    for result in (run("list", "--file", path), run("list", "--file", path, "--json")):
        assert "one [bold]" in result.stdout and "two" in result.stdout
        for token, kept in zip(secrets, listed(path), strict=True):
            assert token.split("_", 2)[2] not in result.stdout and kept.sha256 not in result.stdout


def test_an_expired_token_is_marked(path):
    made(path)
    path.write_text(path.read_text().replace('"expires": null', '"expires": "2020-01-01T00:00:00Z"'))
    assert "(expired)" in run("list", "--file", path).stdout


def test_a_revoked_token_is_gone(path):
    kept, lost = made(path, "kept"), made(path, "lost")
    result = run("revoke", lost["id"], "--file", path, "--json")
    assert json.loads(result.stdout)["revoked"]["name"] == "lost"
    service = Tokens(path)
    assert service.caller(b"Bearer " + kept["token"].encode())
    assert service.caller(b"Bearer " + lost["token"].encode()) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "panel"),
        ("add", "panel", "--role", "score"),
        ("add", "panel", "--file", "x"),
        ("add", "panel", "--file", "x", "--role", "admin"),
        ("add", "panel", "--file", "x", "--role", "score", "--days", "0"),
        ("list",),
        ("revoke", "--file", "x"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_makes_nothing(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments).exit_code == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [("list",), ("revoke", "00000000")], ids=" ".join)
def test_a_file_that_is_not_there_is_a_sentence(path, arguments):
    with pytest.raises(TokensError, match="is not there"):
        run(*arguments, "--file", path)


@pytest.mark.parametrize("name", ["", "x" * 41, "a\nb"])
def test_a_name_that_is_not_possible_is_a_sentence(path, name):
    with pytest.raises(TokensError, match="name"):
        run("add", name, "--file", path, "--role", "score")
