"""The command line: help, exit codes, one line a problem, and JSON that scripts can rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edge_ai_assets import cli, metadata, runs, usecase
from edge_ai_assets.commands import here
from edge_ai_assets.home import Home

SIMPLE = """
name: mill
runs: {column: run}
features: [{name: "Flow [bar]", range: [0, 10]}]
label: {column: fault, positive: [1]}
sites: [{name: north}, {name: south}]
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    found = Home(tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_AI_HOME", str(found.root))
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)
    return found


@pytest.fixture
def set_up(home):
    home.root.mkdir()
    home.usecase.write_text(SIMPLE, "utf-8")
    return home


@pytest.fixture
def edge_ai(home, monkeypatch, capsys):
    """Run a command: exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edge-ai", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def commands(group=None, path=()):
    group = group or typer.main.get_command(cli.app)
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_has_help_that_says_what_it_does(path):
    done = CliRunner().invoke(cli.app, [*path, "--help"], env={"TERM": "dumb", "COLUMNS": "120"})
    assert done.exit_code == 0 and "usage:" in done.output.lower()
    assert len(done.output.split("Options")[0]) > 60  # more than its name


def test_the_commands_the_readme_names_are_there():
    known = {" ".join(path) for path in commands()}
    wanted = {"status", "explain", "link down", "link up", "link status", "usecase init", "usecase check"}
    assert known >= wanted | {"demo", "ui", "score", "reset"}


@pytest.mark.parametrize("arguments", [["nonsense"], ["status", "--jsn"], ["score"], ["link", "sideways"]])
def test_wrong_usage_is_exit_code_2(edge_ai, arguments):
    code, out, error = edge_ai(*arguments)
    assert (code, out) == (2, "") and error


@pytest.mark.parametrize(
    "arguments", [["status"], ["link", "status"], ["link", "down"], ["explain", "north/1"]]
)
def test_a_home_that_does_not_exist_is_exit_code_2(edge_ai, home, arguments):
    code, out, error = edge_ai(*arguments)
    assert (code, out) == (2, "") and f"{home.root} does not exist" in error and "make demo" in error
    assert not home.root.exists()


@pytest.mark.parametrize("site", ["nowhere", "", "../north"])
@pytest.mark.parametrize("action", ["up", "down", "status"])
def test_a_site_that_is_none_is_exit_code_2_and_changes_no_link(edge_ai, set_up, action, site):
    code, out, error = edge_ai("link", action, "--site", site)
    assert (code, out) == (2, "") and "it has north, south" in error
    assert not (set_up.root / "sites").exists()


def test_links_are_cut_restored_and_shown(edge_ai, set_up):
    code, out, _ = edge_ai("link", "status", "--json")
    assert code == 0 and not (set_up.root / "sites").exists()  # to look changes nothing
    up = {"state": "up", "since": None, "changes": 0}
    assert json.loads(out) == {"north": up, "south": up}
    down = json.loads(edge_ai("link", "down", "--site", "south", "--json")[1])
    assert list(down) == ["south"] and down["south"]["state"] == "down" and down["south"]["changes"] == 1
    assert json.loads(edge_ai("link", "status", "--json")[1])["north"]["state"] == "up"
    assert "down" in edge_ai("link", "status")[1]
    assert json.loads(edge_ai("link", "up", "--json")[1])["south"] | {"since": ""} == {
        **{"state": "up", "since": "", "changes": 2}
    }


def test_status_of_a_home_where_nothing_happened_yet(edge_ai, set_up):
    code, out, _ = edge_ai("status", "--json")
    found = json.loads(out)
    assert code == 0 and list(found["sites"]) == ["north", "south"]
    assert {found["sites"]["north"][part] for part in ("scored", "uploaded", "withheld", "pending")} == {0}
    assert {found["global"][part] for part in ("insights", "duplicates", "releases")} == {0}


def test_a_use_case_with_a_typo_is_a_line_a_problem(edge_ai, tmp_path):
    path = tmp_path / "mill [bar].yaml"
    path.write_text(SIMPLE.replace("range", "rnage").replace("[{name: north}", "[{nmae: north}"))
    code, out, error = edge_ai("usecase", "check", path)
    assert (code, out) == (2, "")
    assert [line.split(": ")[:3] for line in error.splitlines()] == [
        ["edge-ai", f"{path}:4", "features.0.rnage"],
        ["edge-ai", f"{path}:6", "sites.0.name"],
        ["edge-ai", f"{path}:6", "sites.0.nmae"],
    ]


def test_a_use_case_that_is_fine(edge_ai, tmp_path):
    (tmp_path / "mill.yaml").write_text(SIMPLE)
    code, out, _ = edge_ai("usecase", "check", tmp_path / "mill.yaml", "--json")
    digest = usecase.loads(SIMPLE).digest
    expected = {"name": "mill", "digest": digest, "features": 1, "sites": 2}
    assert code == 0 and json.loads(out).items() >= expected.items()
    assert "fine: 1 features, 2 sites" in edge_ai("usecase", "check", tmp_path / "mill.yaml")[1]


def test_a_unit_in_an_error_is_no_markup(edge_ai, home, tmp_path):
    (tmp_path / "mill.yaml").write_text(SIMPLE.replace("[0, 10]", "[10, 0]"))
    assert "'Flow [bar]': range [10.0, 0.0] must rise" in edge_ai("usecase", "check", "mill.yaml")[2]


@pytest.mark.parametrize("text", ["[/]", "[/red] [bold", "a \\[b] [link=x]"])
def test_no_text_breaks_the_error_line(text, capsys):
    with pytest.raises(SystemExit):
        cli.fail(2, f"first {text}\nsecond")
    assert capsys.readouterr().err.splitlines() == [f"edge-ai: first {text}", "edge-ai: second"]


def test_a_draft_is_written_and_never_over_another_file(edge_ai, tmp_path):
    rows = [
        f"2026-01-01T{hour % 24:02}:{hour // 24:02}:00,{hour % 7},{int(hour % 20 == 0)}"
        for hour in range(300)
    ]
    (tmp_path / "mine.csv").write_text("\n".join(["time,Flow [m³/h],failure", *rows]))
    assert edge_ai("usecase", "init", "mine.csv", "--out", "mine.yaml")[0] == 0
    before = Path("mine.yaml").read_text("utf-8")
    assert usecase.loads(before).features[0].name == "Flow [m³/h]"
    code, _, error = edge_ai("usecase", "init", "mine.csv", "--out", "mine.yaml")
    assert code == 2 and "is not overwritten" in error
    assert edge_ai("usecase", "init", "mine.csv")[1] == before == Path("mine.yaml").read_text("utf-8")


def test_a_file_that_holds_nothing_is_exit_code_2(edge_ai, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    code, out, error = edge_ai("usecase", "init", "empty.csv")
    assert (code, out) == (2, "") and "empty.csv" in error and "Traceback" not in error


def test_a_score_at_a_site_that_serves_nothing_is_exit_code_3(edge_ai, set_up, tmp_path):
    (tmp_path / "mine.csv").write_text("run,Flow [bar],fault\n1,1,0\n")
    code, out, error = edge_ai("score", "mine.csv", "--site", "north")
    assert (code, out) == (3, "") and "materialize site/deployment" in error
    assert edge_ai("score", "mine.csv", "--site", "nowhere")[0] == 2


def test_reset_leaves_alone_what_no_demo_made(edge_ai, set_up):
    code, _, error = edge_ai("reset")
    assert code == 1 and "was not made by a demo" in error and set_up.usecase.exists()


def test_reset_of_nothing_is_fine(edge_ai):
    assert edge_ai("reset")[0] == 0


def test_a_defect_of_ours_is_no_exit_code_of_theirs(home, set_up, monkeypatch):
    monkeypatch.setattr(here, "home_and_usecase", lambda: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["edge-ai", "link", "status"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_as_a_process(set_up):
    done = subprocess.run(
        [sys.executable, "-m", "edge_ai_assets.cli", "link", "down", "--site", "nowhere"],
        env={"EDGE_AI_HOME": str(set_up.root), "PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("edge-ai: site 'nowhere'")


def test_tables_of_metadata():
    found = metadata.table({"few": 1, "many": 9}, "reason", "rows")
    assert [record.data for record in found.records] == [
        {"reason": "many", "rows": 9},
        {"reason": "few", "rows": 1},
    ]
    kinds = metadata.records([{"a": True, "b": 1, "c": 0.5, "d": "x", "e": 1}], list("abcd")).schema.columns
    assert [(column.name, column.type) for column in kinds] == [
        *(("a", "bool"), ("b", "int"), ("c", "float"), ("d", "string"))
    ]
    empty = metadata.records([], ["a"])
    assert empty.records == [] and [column.name for column in empty.schema.columns] == ["a"]
    assert metadata.plain(None) is None
    assert metadata.picture(b"\x89PNG", "a title").value == "![a title](data:image/png;base64,iVBORw==)"


def test_a_run_in_flight_is_one_that_has_not_ended():
    import dagster as dg

    # A queued run needs a code location to come from; the others do not.
    states = [state for state in dg.DagsterRunStatus if state != dg.DagsterRunStatus.QUEUED]
    with dg.DagsterInstance.ephemeral() as instance:
        assert not runs.in_flight(instance, "job")
        for state in states:
            instance.add_run(dg.DagsterRun(job_name=f"job {state.value}", status=state))
        under_way = {state.value for state in states if runs.in_flight(instance, f"job {state.value}")}
        assert under_way == {"NOT_STARTED", "STARTING", "STARTED", "CANCELING"}
        assert runs.in_flight(instance, "other", "job STARTED") and not runs.in_flight(instance)
    assert dg.DagsterRunStatus.QUEUED in runs.IN_FLIGHT
