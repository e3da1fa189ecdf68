"""`edge-ai rollout`, as people use it: on a home with releases and sites, and without Dagster running."""

from __future__ import annotations

import json
from types import SimpleNamespace

import dagster as dg
import pytest
from typer.testing import CliRunner

from edge_ai_assets import keys, local
from edge_ai_assets.commands.rollout import rollout
from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.runtimes.interface import Failure, Running
from edge_ai_assets.stack_hub import delivery
from edge_ai_assets.stack_hub.rollout import course, looking, standing
from edge_ai_assets.stack_hub.rollout.control import RolloutError
from edge_ai_assets.stack_hub.rollout.evidence import Evidence
from edge_ai_assets.stack_hub.rollout.rings import SiteState
from edge_ai_assets_tests.tiny_model import tiny_release

USECASE = """
name: tiny
runs: {rows: 50}
features: [{name: a}]
label: {column: y, positive: [1]}
sites:
  - {name: north, ring: canary}
  - {name: south, ring: early}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with two releases, and a Dagster instance."""
    home = Home(tmp_path_factory.mktemp("home"))
    home.usecase.write_text(USECASE)
    for number in (1, 2):
        model = tiny_release(home.candidates / f"run-{number}", bias=0.1 * number)
        (model / "usecase.yaml").write_text(USECASE)
        (model / "metrics.json").write_text(json.dumps({"f1": 0.9}))
        (model / "model_card.md").write_text("A tiny model.")
        Lineage(training_run=f"run-{number}", training_set="set", usecase="digest").write(model)
        pack.release(model, home.registry, home.keys, "tiny")
    local.set_up(home)
    return home


@pytest.fixture
def home(made, monkeypatch):
    """It, with nothing decided; its sites run release 1."""
    monkeypatch.setenv("EDGE_AI_HOME", str(made.root))
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)
    monkeypatch.setattr(delivery, "state", lambda site, target, road: SiteState(serving=1))
    made.rollout.unlink(missing_ok=True)
    return made


def run(*arguments):
    result = CliRunner().invoke(rollout, [str(each) for each in arguments], env={"COLUMNS": "160"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def answer(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def test_where_a_release_is_on_its_way(home):
    found = answer("status")
    assert (found["release"], found["decision"], found["ring"], found["next"]) == (
        2,
        "asked",
        "canary",
        ["north"],
    )
    assert found["sites"]["south"] == {
        "ring": "early",
        "release": 1,
        "linked": True,
        "held": None,
        "withdrawn": None,
        "fell_back": None,
        "evidence": None,
    }
    assert "asked: release 2 goes to ring canary" in run("status").stdout


def test_the_evidence_that_holds_it(home, monkeypatch):
    states = {
        "north": SiteState(serving=2),
        "south": SiteState(serving=1, fell=Failure("sha256:2", "it crashed", "then")),
    }
    monkeypatch.setattr(delivery, "state", lambda site, target, road: states[site.name])
    monkeypatch.setattr(
        course, "runtime", lambda root, name: type("R", (), {"status": lambda self: Running("x", 2, None)})()
    )
    evidence = Evidence(version=2, since=0.0, at=course.time.time(), rows=10, anomalies=1)
    monkeypatch.setattr(looking, "count", lambda site, serves: (evidence, None))
    found = answer("status")
    assert found["decision"] == "waiting"
    assert found["sites"]["north"]["evidence"]["says"] == "waiting"
    assert found["sites"]["north"]["evidence"]["challenger_anomaly_rate"] == 0.1
    text = run("status").stdout
    assert "too little evidence: 10 of 200 scores" in text and "fell back: it crashed" in text


def test_paused_rolled_back_and_resumed_each_recorded(home, monkeypatch):
    assert (
        answer("pause", "--reason", "the network is worked on")["paused"]["why"] == "the network is worked on"
    )
    assert answer("status")["decision"] == "paused"
    back = answer("rollback", "--to", 1, "--site", "north", "--reason", "false alarms")["rolled_back"]
    assert (back[0]["to"], back[0]["release"], back[0]["sites"]) == (1, 2, ["north"])
    assert "rolled back to 1" in answer("status")["sites"]["north"]["held"]
    with monkeypatch.context() as newer:
        newer.setattr(standing.pack, "newest", lambda registry, keys: SimpleNamespace(version=3))
        assert answer("status")["sites"]["north"]["held"] is None
    assert answer("resume", "--site", "north", "--reason", "it was a sensor")["rolled_back"] == []
    after = answer("resume", "--reason", "done", "--accept", "canary")
    assert after["paused"] is None and after["accepted"][0]["ring"] == "canary"
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        records = instance.fetch_observations(keys.IMAGE, limit=3).records
        assert [record.asset_observation.metadata["rollout"].value for record in records] == [
            "resumed",
            "rolled_back",
            "paused",
        ]
        (record,) = instance.fetch_observations(
            dg.AssetRecordsFilter(keys.SITE_DEPLOYMENT, asset_partitions=["north"]), limit=1
        ).records
        assert "it was a sensor" in record.asset_observation.description


def test_people_read_one_line(home):
    assert run("pause", "--reason", "a holiday").stdout.endswith("a holiday\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resume", "--reason", "x"), "nothing to resume"),
        (("rollback", "--to", 2, "--reason", "x"), "release 2 is none to go back to: there are 1"),
        (("pause", "--reason", ""), "a reason is missing"),
    ],
)
def test_what_cannot_be_done_is_an_error(home, arguments, said):
    with pytest.raises(RolloutError, match=said):
        run(*arguments)


def test_a_reason_must_be_given(home):
    assert run("pause").exit_code == 2
