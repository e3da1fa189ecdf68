"""What a rollback means at a site's disk: an older release is taken on purpose, and the bad one by nobody."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import dagster as dg
import pytest

from edge_ai_assets import usecase as usecases
from edge_ai_assets.delivery import pack
from edge_ai_assets.delivery.errors import MissingError, RollbackError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.partitions import SITES
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.runtimes.interface import Failure, Running
from edge_ai_assets.scoring import folder
from edge_ai_assets.scoring.folder import Wish
from edge_ai_assets.stack_hub import delivery, provision, waiting
from edge_ai_assets.stack_hub.assets import deployment
from edge_ai_assets.stack_hub.delivery import NothingInstalled
from edge_ai_assets.stack_hub.far_releases import FarReleases
from edge_ai_assets.stack_hub.rollout import control, steps
from edge_ai_assets.usecase import Road, Site
from edge_ai_assets_tests.tiny_model import tiny_release


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def release(home, number):
    model = tiny_release(home.candidates / f"run-{number}", bias=-float(number), usecase=True)
    (model / "metrics.json").write_text(json.dumps({"f1": 0.9}))
    (model / "model_card.md").write_text("A tiny model.")
    Lineage(training_run=f"run-{number}", training_set="set", usecase="digest").write(model)
    return pack.release(model, home.registry, home.keys, "tiny")


@pytest.fixture
def site(home):
    """A linked site that has releases 1, 2 and 3 on its disk, and runs 3."""
    at = None
    for number in (1, 2, 3):
        release(home, number)
        at = at or provision.provision(home, "north")
        fetch(at)
    wish(at, 3)
    return at


def fetch(site, road=Road.LINK):
    return delivery.fetch(site, site.home.registry, road).release.version


def wish(site, version):
    folder.write_wish(site.root, Wish(folder.Release(f"sha256:{version}", version, "x"), "asked"))


def back(home, to, newest=3, sites=None):
    control.roll_back(home, "ann", "false alarms", to=to, release=newest, sites=sites)


def test_a_linked_site_takes_the_older_release(home, site):
    back(home, 2)
    assert fetch(site) == 2 and delivery.installed(site).version == 2
    back(home, 1)
    assert fetch(site) == 1 and delivery.installed(site).version == 1


def test_without_a_link_it_takes_it_from_its_own_disk(home, site):
    Link(site.root).cut()
    shutil.rmtree(home.registry)
    back(home, 1)
    assert fetch(site) == 1 and fetch(site, Road.MEDIA) == 1


def test_it_is_untried_until_it_was_asked_for(home, site):
    assert not delivery.untried(site)
    back(home, 2)
    assert delivery.untried(site)
    wish(site, 2)
    assert not delivery.untried(site)


def test_one_that_never_had_the_older_release_gets_it(home):
    for number in (1, 2):
        release(home, number)
    site = provision.provision(home, "north")
    assert fetch(site) == 2  # what came before was never there
    back(home, 1, newest=2)
    with pytest.raises(NothingInstalled):
        delivery.installed(site)
    assert fetch(site) == 1 and delivery.installed(site).version == 1


def test_where_none_is_left_the_bad_one_is_not_taken_either(home):
    release(home, 1)
    release(home, 2)
    site = provision.provision(home, "north")
    fetch(site)
    Link(site.root).cut()
    back(home, 1, newest=2)
    with pytest.raises(
        MissingError, match=r"rolled back to release 1 by ann .*: false alarms; none that it may"
    ):
        fetch(site)


def test_a_newer_release_ends_it_and_so_does_resume(home, site):
    back(home, 1)
    release(home, 4)
    assert fetch(site) == 4 and delivery.installed(site).version == 4
    back(home, 1, newest=4)
    assert fetch(site) == 1
    control.resume(home, "ann", "it was a sensor")
    assert fetch(site) == 4 and delivery.installed(site).version == 4


def test_other_sites_are_not_concerned(home, site):
    other = provision.provision(home, "south")
    back(home, 1, sites=["north"])
    assert (fetch(site), fetch(other)) == (1, 3)


def test_the_bad_release_that_is_carried_in_once_more_changes_nothing(home, site):
    Link(site.root).cut()
    back(home, 1)
    shutil.copy(pack.bundle(home.registry, home.keys, home.media), site.media)
    assert waiting.bundles(site) and fetch(site) == 1
    wish(site, 1)
    assert waiting.bundles(site) is None


def test_a_damaged_file_of_decisions_lets_start_again_what_served_and_nothing_else(home, site):
    back(home, 2)
    wish(site, 2)
    home.rollout.write_text("{")
    assert delivery.installed(site).version == 2
    with pytest.raises(Exception, match=r"rollout\.json cannot be read"):
        fetch(site)


def test_what_the_registry_lost_is_taken_from_the_sites_own_disk(home, site):
    with Layout(home.registry).editing() as tags:
        del tags["release-1"], tags["release-2"]
    back(home, 2)
    found = delivery.fetch(site, home.registry, Road.LINK)
    assert found.release.version == 2 and "the release in the registry" in found.refused


def test_only_a_site_that_was_rolled_back_takes_an_older_release(home, site):
    """Another site's rollback opens no door to an old copy of the registry."""
    back(home, 1, sites=["south"])
    old = home.root / "old"
    shutil.copytree(home.registry, old)
    with Layout(old).editing() as tags:
        del tags["release-3"]
        tags["latest"] = tags["release-2"]
    wish(site, 3)
    with pytest.raises(RollbackError, match="older than the installed release 3"):
        delivery.fetch(site, old, Road.LINK)


def test_a_file_of_decisions_that_is_too_large_lets_start_again_what_served(home, site, monkeypatch):
    back(home, 2)
    wish(site, 2)
    monkeypatch.setattr(control, "MAX_BYTES", 10)
    assert delivery.installed(site).version == 2


def test_one_that_failed_in_a_cluster_is_not_untried(home, site, monkeypatch):
    (site.root / folder.DESIRED).unlink()
    newest = delivery.installed(site)
    failed = Failure(newest.image, "it was not ready", "2026-01-01")
    serves = [Running("sha256:2", 2, None), Running("sha256:2", 2, None, failed)]
    found = []
    for each in serves:
        cluster = SimpleNamespace(status=lambda each=each: each)
        monkeypatch.setattr(delivery, "runtime", lambda root, name, cluster=cluster: cluster)
        found.append(delivery.untried(site))
    assert found == [True, False]


def test_a_site_that_cannot_be_looked_at_fails_no_deployment_of_another(home, site, monkeypatch):
    case = usecases.load(usecases.BUNDLED / "pump-station.yaml")
    case = case.model_copy(update={"sites": (Site(name="north"), Site(name="south"))})
    provision.provision(home, "south")
    (home.site("south").root / "runtime.toml").write_text("kind = ")
    serves = Running("sha256:3", 3, "http://127.0.0.1:9")
    monkeypatch.setattr(delivery, "deploy", lambda site, release: serves)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(SITES.name), ["north", "south"])
        resources = {"home": home, "usecase": case}
        done = dg.materialize(
            [deployment.deployment], partition_key="north", instance=instance, resources=resources
        )
    (check,) = done.get_asset_check_evaluations()
    assert not check.passed and "south" in check.description
    assert done.asset_materializations_for_node("site__deployment")


def test_a_pause_holds_the_registry_that_a_site_pulls_from_by_itself(home, site):
    far = SimpleNamespace(registry=lambda: SimpleNamespace(head=lambda name: "sha256:4"))
    case = SimpleNamespace(at=lambda name: Site(name=name))
    waits = FarReleases(far, case)
    assert waits(site) == "sha256:4"
    control.pause(home, "ann", "the network is worked on")
    assert waits(site) is None
    control.resume(home, "ann", "done")
    assert waits(site) == "sha256:4"


def test_an_old_release_that_is_damaged_keeps_nobody_from_going_back_to_another(home, site):
    layout = Layout(home.registry)
    layout.path.joinpath("blobs", *layout.resolve("release-1").digest.split(":")).write_bytes(b"bad sector")
    case = usecases.load(usecases.BUNDLED / "pump-station.yaml")
    assert "rolled back from 3 to 2" in steps.roll_back(home, case, "ann", "x").events[0].description
