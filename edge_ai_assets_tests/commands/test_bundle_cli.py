"""`edge-ai bundle`, on two sides that share a medium."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from edge_ai_assets import usecase
from edge_ai_assets.commands.bundle import bundle
from edge_ai_assets.commands.here import NotHere
from edge_ai_assets.delivery import pack
from edge_ai_assets.delivery.errors import DeliveryError, MismatchError, RollbackError, UntrustedError
from edge_ai_assets.enrolment import invite, join
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.stack_hub import delivery, waiting
from edge_ai_assets_tests.tiny_model import tiny_release

CASE = usecase.loads(
    """
name: tiny
runs: {rows: 50}
features: [{name: a}]
label: {column: y, positive: [1]}
sites: [{name: narvik, road: media}]
"""
)


def release(home, number):
    model = tiny_release(home.candidates / f"run-{number}", bias=-float(number), usecase=True)
    (model / "metrics.json").write_text(json.dumps({"f1": 0.9}))
    (model / "model_card.md").write_text("A tiny model." * 100_000)  # more than one part of a MiB
    Lineage(training_run=f"run-{number}", training_set="set", usecase="digest").write(model)
    return pack.release(model, home.registry, home.keys, "tiny")


@pytest.fixture
def azure(tmp_path, monkeypatch):
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)
    home = Home(tmp_path / "azure")
    release(home, 1)
    usecase.dump(CASE, home.usecase)
    return home


@pytest.fixture
def medium(tmp_path):
    return tmp_path / "medium"


@pytest.fixture
def ship(azure, tmp_path, medium):
    home = Home(tmp_path / "ship")
    join(home, invite(azure, CASE, "narvik", medium), medium)
    return home


@pytest.fixture
def run(monkeypatch):
    def call(home, *arguments):
        monkeypatch.setenv("EDGE_AI_HOME", str(home.root))
        result = CliRunner().invoke(bundle, [str(each) for each in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def test_from_one_home_to_the_other(run, azure, ship, medium):
    built = json.loads(run(azure, "build", "--to", medium, "--json").stdout)
    assert (built["format"], built["version"], built["left_out"]) == (3, 1, 0)
    for home in (azure, ship):
        assert json.loads(run(home, "verify", built["bundle"], "--json").stdout)["verified"]
    assert not json.loads(run(ship, "inspect", built["bundle"], "--json").stdout)["verified"]
    for _ in range(2):  # again it is the same
        done = json.loads(run(ship, "import", built["bundle"], "--site", "narvik", "--json").stdout)
        assert (done["site"], done["release"]) == ("narvik", 1)
    site = ship.site("narvik")
    assert delivery.installed(site).version == 1
    assert waiting.bundles(site)  # the site's Dagster deploys it


def test_in_parts(run, azure, ship, medium):
    built = json.loads(run(azure, "build", "--to", medium, "--split", "1MiB", "--json").stdout)
    assert built["bundle"].endswith(".bundle.parts") and len(list(medium.glob("*.0*"))) >= 2
    assert not list(medium.glob("*.bundle"))
    run(ship, "verify", built["bundle"])
    lost = medium / "tiny-1.bundle.002"
    kept = lost.read_bytes()
    lost.write_bytes(kept[:-1])
    with pytest.raises(MismatchError, match=r"tiny-1.bundle.002 is damaged: copy it again"):
        run(ship, "import", built["bundle"], "--site", "narvik")
    lost.write_bytes(kept)
    run(ship, "import", built["bundle"], "--site", "narvik")
    assert delivery.installed(ship.site("narvik")).version == 1
    assert [path.name for path in ship.site("narvik").media.glob("*.bundle")] == ["tiny-1.bundle"]
    assert not list(ship.site("narvik").root.glob("tmp*"))


def test_a_bad_one_is_refused_with_the_reason_and_is_not_kept(run, azure, ship, medium, tmp_path):
    built = json.loads(run(azure, "build", "--to", medium, "--json").stdout)["bundle"]
    whole = (medium / "tiny-1.bundle").read_bytes()
    (medium / "tiny-1.bundle").write_bytes(whole[:-600])
    with pytest.raises(DeliveryError, match="torn"):
        run(ship, "import", built, "--site", "narvik")
    other = Home(tmp_path / "stranger")
    release(other, 1)
    foreign = pack.bundle(other.registry, other.keys, medium)
    for command in (["verify", foreign], ["import", foreign, "--site", "narvik"]):
        with pytest.raises(UntrustedError):
            run(ship, *command)
    assert not list(ship.site("narvik").media.glob("*.bundle"))


def test_an_older_one_is_refused(run, azure, ship, medium):
    old = json.loads(run(azure, "build", "--to", medium, "--json").stdout)["bundle"]
    release(azure, 2)
    new = json.loads(run(azure, "build", "--to", medium, "--json").stdout)["bundle"]
    run(ship, "import", new, "--site", "narvik")
    with pytest.raises(RollbackError, match="older than what is here"):
        run(ship, "import", old, "--site", "narvik")
    assert delivery.installed(ship.site("narvik")).version == 2


def test_wrong_usage(run, azure, ship, medium):
    assert run(azure, "build", "--to", medium, "--split", "4GB").exit_code == 2
    assert run(azure, "verify", medium / "nothing.bundle").exit_code == 2
    with pytest.raises(NotHere, match="bundles are built on Azure's side"):
        run(ship, "build", "--to", medium)
    with pytest.raises(NotHere, match="site 'oslo' is not in use case"):
        run(azure, "build", "--to", medium, "--site", "oslo")
