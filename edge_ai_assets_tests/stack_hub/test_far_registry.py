"""A registry between both sides: Azure publishes to it, a site in a home of its own pulls from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from edge_ai_assets import profiles, usecase
from edge_ai_assets.azure import lease as azure_lease
from edge_ai_assets.azure.assets import release
from edge_ai_assets.azure.far_registry import FarRegistry
from edge_ai_assets.delivery import pack, signed
from edge_ai_assets.delivery.errors import DeniedError, RollbackError, UnreachableError
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.enrolment import EnrolmentError, invite, join
from edge_ai_assets.home import Home, SiteHome, point
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.partitions import SITES
from edge_ai_assets.profiles import AzureProfile, StackHubProfile
from edge_ai_assets.resources import registries
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.scoring import folder
from edge_ai_assets.scoring.folder import Wish
from edge_ai_assets.settings import Settings
from edge_ai_assets.stack_hub import definitions, delivery, lease, provision
from edge_ai_assets.stack_hub.assets import deployment
from edge_ai_assets.stack_hub.delivery import NothingInstalled
from edge_ai_assets.stack_hub.far_ends import FarEnds
from edge_ai_assets.stack_hub.far_releases import LOOK_SECONDS, FarReleases
from edge_ai_assets.stack_hub.rollout import steps
from edge_ai_assets.usecase import Road
from edge_ai_assets_tests.contract.acr import PASSWORD, USER, Acr, Canned
from edge_ai_assets_tests.tiny_model import INPUTS, tiny_release

USECASE = """
name: tiny
time: {columns: [time]}
runs: {column: run}
features:
  - {name: "Pressure [bar]", unit: bar, range: [0, 25]}
  - {name: Temperature, range: [-40, 150]}
  - {name: Pump type, kind: category, categories: [centrifugal, screw]}
label: {column: fault, positive: [1]}
egress:
  kinds: [anomaly, lineage]
  fields: [{name: _score, leaves: rounded, digits: 3}]
sites:
  - {name: bergen}
"""
CASE = usecase.loads(USECASE)


class Sides:
    """Both homes, and the registry in between."""

    def __init__(self, root: Path, acr: Acr) -> None:
        self.azure, self.ship, self.acr, self.medium = (
            Home(root / "azure"),
            Home(root / "ship"),
            acr,
            root / "usb",
        )
        said: dict[str, Any] = {"repository": acr.repository, "user": USER, "token": {"env": "TOKEN"}}
        section = profiles.Registry.model_validate(said)
        self.far = FarRegistry(AzureProfile(registry=section))
        self.profile = StackHubProfile(registry=section)
        self.ends = FarEnds(self.profile)

    @property
    def site(self) -> SiteHome:
        return self.ship.site("bergen")

    def release(self, number: int) -> None:
        model = tiny_release(self.azure.candidates / f"run-{number}", inputs=INPUTS[:3], bias=0.1 * number)
        (model / "usecase.yaml").write_text(USECASE, "utf-8")
        (model / "metrics.json").write_text(json.dumps({"f1": 0.9}))
        (model / "model_card.md").write_text("A tiny model.")
        Lineage(training_run=f"run-{number}", training_set="set", usecase=CASE.digest).write(model)
        pack.release(model, self.azure.registry, self.azure.keys, "tiny")
        self.far.publish(self.azure)

    def fetch_alone(self) -> int:
        """Without what the run does about what was not taken."""
        registry = self.ends.registry()
        return SiteStore(self.site.root).fetch(registry, provision.trust(self.site)).version

    def fetch(self) -> int:
        return delivery.fetch(self.site, self.ship.registry, Road.LINK, self.ends.registry()).release.version


@pytest.fixture
def sides(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", PASSWORD)
    with Acr(auth="bearer") as acr:
        made = Sides(tmp_path, acr)
        made.release(1)
        join(made.ship, invite(made.azure, CASE, "bergen", made.medium, far_registry=True), made.medium)
        yield made


def test_a_site_of_its_own_pulls_what_azure_published(sides):
    assert sides.fetch() == 1
    sides.release(2)
    assert sides.fetch() == 2
    assert not sides.ship.registry.exists()


def test_without_another_registry_a_linked_site_is_not_invited(sides):
    with pytest.raises(EnrolmentError, match=r"or set \[registry\] in azure\.toml"):
        invite(sides.azure, CASE, "bergen", sides.medium)


def test_without_a_section_nothing_is_published_elsewhere(sides):
    asked = len(sides.acr.asked)
    assert FarRegistry().publish(sides.azure) is None and FarEnds().registry() is None
    assert len(sides.acr.asked) == asked


def test_a_link_that_is_down_asks_nobody(sides):
    Link(sides.site.root).cut()
    asked = len(sides.acr.asked)
    with pytest.raises(NothingInstalled, match="its link is down"):
        sides.fetch()
    assert FarReleases(sides.ends, CASE)(sides.site) is None
    assert len(sides.acr.asked) == asked


def test_the_asset_pushes_what_it_released(sides):
    point(sides.azure.champion, sides.azure.candidates / "run-1")
    sides.acr.manifests.clear()
    sides.acr.tags.clear()
    sides.acr.blobs.clear()
    resources = {"home": sides.azure, "usecase": CASE, "far_registry": sides.far}
    for pushes in (True, False):
        done = dg.materialize([release.image], resources=resources)
        (event,) = done.get_asset_materialization_events()
        metadata = event.materialization.metadata
        assert metadata["registry"].value == sides.acr.repository
        assert (metadata["pushed_bytes"].value > 0) is pushes
    assert sides.fetch() == 1


def test_a_registry_that_is_out_of_reach_gets_the_release_later(sides):
    point(sides.azure.champion, tiny_release(sides.azure.candidates / "run-2", inputs=INPUTS[:3], bias=9.0))
    shutil.copytree(sides.azure.candidates / "run-1", sides.azure.champion, dirs_exist_ok=True)
    (sides.azure.champion / "metrics.json").write_text(json.dumps({"f1": 0.95}))
    sides.acr.canned = [Canned("HEAD", ".", 503, {"Retry_After": "9999"}, times=1)]
    resources = {"home": sides.azure, "usecase": CASE, "far_registry": sides.far}
    done = dg.materialize([release.image], resources=resources)
    (event,) = done.get_asset_materialization_events()
    assert done.success and "pushed_bytes" not in event.materialization.metadata
    assert "release-2" not in sides.acr.tags
    sensor = azure_lease.lease_renewed(sides.azure, CASE, sides.far)
    with dg.build_sensor_context() as context:
        assert "tags were pushed to" in sensor.evaluate_tick(context).skip_message
    assert sides.fetch() == 2


class TestOutOfReach:
    @pytest.fixture
    def away(self, sides):
        sides.fetch()
        newest = delivery.installed(sides.site)
        wish = Wish(folder.Release(newest.image, newest.version, "x"), "asked")
        folder.write_wish(sides.site.root, wish)
        sides.acr.canned = [Canned("GET", ".", 503, {"Retry_After": "9999"}, times=99)]
        return sides

    def test_what_is_there_stays_and_it_is_said(self, away):
        with pytest.raises(UnreachableError, match="too busy or out of order"):
            away.fetch()
        assert delivery.installed(away.site).version == 1

    def test_what_was_never_tried_is_deployed_all_the_same(self, away):
        (away.site.root / folder.DESIRED).unlink()
        assert away.site.root.exists()
        found = delivery.fetch(away.site, away.ship.registry, Road.LINK, away.ends.registry())
        assert "too busy" in found.refused["the release in the registry"]

    def test_before_the_first_release_too(self, sides):
        sides.acr.canned = [Canned("GET", ".", 503, {"Retry_After": "9999"}, times=99)]
        with pytest.raises(UnreachableError):
            sides.fetch()

    def test_a_bundle_that_was_carried_is_taken_all_the_same(self, away):
        away.acr.canned = []
        away.release(2)
        shutil.copy(pack.bundle(away.azure.registry, away.azure.keys, away.medium), away.site.media)
        away.acr.canned = [Canned("GET", ".", 503, {"Retry_After": "9999"}, times=99)]
        assert away.fetch() == 2


class TestRefused:
    """What the registry has is not taken: what came otherwise is, and only then is it an error."""

    @pytest.fixture
    def carried(self, sides):
        """Release 2 came on a medium; the registry still has release 1."""
        sides.fetch()
        tags = dict(sides.acr.tags)
        sides.release(2)
        sides.acr.tags = tags
        shutil.copy(pack.bundle(sides.azure.registry, sides.azure.keys, sides.medium), sides.site.media)
        return sides

    def fetched(self, sides):
        return delivery.fetch(sides.site, sides.ship.registry, Road.LINK, sides.ends.registry())

    def test_a_registry_that_is_behind_does_not_hold_up_what_was_carried(self, carried):
        found = self.fetched(carried)
        assert found.release.version == 2
        assert "older than what is here" in found.refused["the release in the registry"]

    def test_nor_does_one_that_lets_nobody_in(self, carried):
        carried.acr.canned = [Canned("GET", ".", 403, times=99)]
        assert self.fetched(carried).release.version == 2

    def test_it_is_an_error_once_what_was_carried_runs(self, carried):
        found = self.fetched(carried).release
        wish = Wish(folder.Release(found.image, found.version, "x"), "asked")
        folder.write_wish(carried.site.root, wish)
        with pytest.raises(RollbackError):
            self.fetched(carried)


class TestNewRelease:
    def test_it_waits_until_the_site_has_it(self, sides):
        waits = FarReleases(sides.ends, CASE)
        assert waits(sides.site) == sides.acr.tags["latest"]
        sides.fetch()
        assert waits(sides.site) is None

    def test_it_is_looked_for_once_a_minute_by_one_request(self, sides):
        now = [1000.0]
        waits = FarReleases(sides.ends, CASE, seconds=lambda: now[0])
        sides.fetch()
        sides.release(2)
        waits(sides.site)
        asked = sides.acr.count("HEAD", "manifests/latest")
        for _ in range(10):
            waits(sides.site)
        assert sides.acr.count("HEAD", "manifests/latest") == asked
        now[0] += LOOK_SECONDS
        assert waits(sides.site) == sides.acr.tags["latest"]
        assert sides.acr.count("HEAD", "manifests/latest") > asked

    def test_out_of_reach_nothing_waits_and_refused_is_said(self, sides, monkeypatch):
        sides.acr.canned = [Canned("HEAD", ".", 503, {"Retry_After": "9999"}, times=9)]
        assert FarReleases(sides.ends, CASE)(sides.site) is None
        monkeypatch.setenv("TOKEN", "wrong")
        sides.acr.canned = []
        with pytest.raises(DeniedError):
            FarReleases(sides.ends, CASE)(sides.site)

    @pytest.mark.parametrize("configured", [True, False])
    def test_the_sensor_is_there_when_a_registry_is(self, sides, configured):
        profile = sides.profile if configured else StackHubProfile()
        settings = Settings(home=sides.ship.root, stack_hub=profile)
        defs = definitions.build_defs(settings=settings)
        names = {sensor.name for sensor in defs.get_repository_def().sensor_defs}
        assert ("release_in_registry" in names) is configured

    def test_it_asks_for_one_run(self, sides):
        settings = Settings(home=sides.ship.root, stack_hub=sides.profile)
        repository = definitions.build_defs(settings=settings).get_repository_def()
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(str(SITES.name), ["bergen"])
            sensor = repository.get_sensor_def("release_in_registry")
            context = dg.build_sensor_context(instance=instance, repository_def=repository)
            (request,) = sensor.evaluate_tick(context).run_requests
            assert request.partition_key == "bergen" or "bergen" in request.tags.values()
            done = dg.materialize(
                [deployment.release],
                partition_key="bergen",
                instance=instance,
                resources={"home": sides.ship, "usecase": CASE, "far_ends": sides.ends},
            )
            assert done.success
            assert not sensor.evaluate_tick(context).run_requests


class TestWithdrawn:
    """The word and the release before it come by the same road as a new one, and then it rests."""

    @pytest.mark.parametrize("pushed_by", ["command", "sensor"])
    def test_a_site_of_its_own_goes_back(self, sides, pushed_by):
        sides.fetch()
        sides.release(2)
        assert sides.fetch() == 2
        waits = FarReleases(sides.ends, CASE, seconds=iter(range(0, 9999, 100)).__next__)
        assert waits(sides.site) is None
        steps.withdraw(sides.azure, CASE, "ann", "false alarms", release=2)
        if pushed_by == "command":
            sides.far.publish(sides.azure)
        else:
            with dg.build_sensor_context() as context:
                azure_lease.lease_renewed(sides.azure, CASE, sides.far).evaluate_tick(context)
        assert waits(sides.site) and sides.fetch() == 1
        assert delivery.installed(sides.site).version == 1 and waits(sides.site) is None
        sides.release(3)
        assert waits(sides.site) and sides.fetch() == 3 and waits(sides.site) is None

    def test_the_word_comes_first_and_the_tag_later(self, sides):
        """A push that was cut in between: nobody installs it by the old tag."""
        sides.release(2)
        before = sides.acr.tags["latest"]
        steps.withdraw(sides.azure, CASE, "ann", "false alarms", release=2)
        sides.far.publish(sides.azure)
        sides.acr.tags["latest"] = before
        assert sides.fetch() == 1

    def test_a_site_that_knows_no_withdrawals_keeps_what_it_has(self, sides, monkeypatch):
        """As an older version reads it: the field means nothing to it, the tag leads to an older release."""
        sides.fetch()
        sides.release(2)
        assert sides.fetch() == 2
        monkeypatch.setattr(signed, "said_of", lambda custom: None)
        steps.withdraw(sides.azure, CASE, "ann", "false alarms", release=2)
        sides.far.publish(sides.azure)
        with pytest.raises(RollbackError, match="older than the installed release 2"):
            sides.fetch_alone()
        assert delivery.installed(sides.site).version == 2


class TestLease:
    def test_a_site_renews_its_lease_from_there(self, sides, monkeypatch):
        sides.fetch()
        before = provision.trust(sides.site).lease()
        monkeypatch.setattr("edge_ai_assets.delivery.authority.RENEW", 10**9)
        sensor = azure_lease.lease_renewed(sides.azure, CASE, sides.far)
        with dg.build_sensor_context() as context:
            monkeypatch.setattr("edge_ai_assets.delivery.authority._now", later(before))
            said = sensor.evaluate_tick(context).skip_message
        assert "1 tags were pushed to" in said or "tags were pushed" in said
        lease.looked_at(sides.ship, CASE, sides.ends)
        assert provision.trust(sides.site).lease().issued > before.issued

    def test_one_that_is_out_of_reach_is_asked_once_and_not_for_each_site(self, sides):
        sides.fetch()
        sides.acr.canned = [Canned("HEAD", ".", 503, {"Retry_After": "9999"}, times=99)]
        (found,) = lease.looked_at(sides.ship, CASE, sides.ends)
        assert found.good and "too busy" in found.sentence


def later(before):
    from datetime import timedelta

    return lambda: before.issued + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({}, "Anonymous"),
        ({"user": "u", "token": {"env": "TOKEN"}}, "Password"),
        ({"entra": "default"}, "Entra"),
    ],
)
def test_what_a_section_makes(said, shown, monkeypatch):
    monkeypatch.setenv("TOKEN", "very-secret")
    section = profiles.Registry.model_validate({"repository": "acr.azurecr.io/edge/pump", **said})
    made = registries.registry(section)
    assert made.repository == "acr.azurecr.io/edge/pump" and made.at.base == "https://acr.azurecr.io/"
    assert type(made.at._credential).__name__ == shown
    assert "very-secret" not in repr(made.at._credential)
