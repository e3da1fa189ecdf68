"""What a withdrawn release means at a site: nobody begins to run it, who runs it is told and goes back if
there is something to go back to, and nobody stops."""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edge_ai_assets import keys, usecase
from edge_ai_assets.azure import lease as azure_lease
from edge_ai_assets.azure.assets import release as azure_release
from edge_ai_assets.azure.far_registry import FarRegistry
from edge_ai_assets.azure.withdraw_job import withdraw_release
from edge_ai_assets.commands.here import NotHere
from edge_ai_assets.commands.withdraw import withdraw as command
from edge_ai_assets.delivery import metadata, pack
from edge_ai_assets.delivery.errors import DeliveryError, DeniedError, UnreachableError, WithdrawnError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.runtimes.interface import DeploymentFailed, Failure, Running
from edge_ai_assets.scoring import folder
from edge_ai_assets.scoring.folder import Wish
from edge_ai_assets.scoring.lease import Lease
from edge_ai_assets.stack_hub import delivery, lease, lease_sensor, provision, waiting, withdrawn
from edge_ai_assets.stack_hub.delivery import NothingInstalled
from edge_ai_assets.stack_hub.lease import State
from edge_ai_assets.stack_hub.rollout import control, standing, steps
from edge_ai_assets.stack_hub.rollout.control import RolloutError
from edge_ai_assets.usecase import Road
from edge_ai_assets_tests.tiny_model import tiny_release

CASE = usecase.loads("""
name: tiny
runs: {rows: 50}
features: [{name: a}]
label: {column: y, positive: [1]}
sites: [{name: north}, {name: south, road: media}]
""")


def publish(home, number):
    model = tiny_release(home.candidates / f"run-{number}", bias=-float(number), usecase=True)
    (model / "metrics.json").write_text(json.dumps({"f1": 0.9}))
    (model / "model_card.md").write_text("A tiny model.")
    Lineage(training_run=f"run-{number}", training_set="set", usecase="digest").write(model)
    return pack.release(model, home.registry, home.keys, "tiny")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with three releases; north has them all, what south has was carried there: release 3."""
    home = Home(tmp_path_factory.mktemp("made"))
    usecase.dump(CASE, home.usecase)
    north = None
    for number in (1, 2, 3):
        publish(home, number)
        north = provision.provision(home, "north")
        fetch(north)
    south = provision.provision(home, "south")
    shutil.copy(pack.bundle(home.registry, home.keys, home.media), south.media)
    fetch(south, Road.MEDIA)
    return home


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    shutil.copytree(made.root, tmp_path / "home")
    home = Home(tmp_path / "home")
    monkeypatch.setenv("EDGE_AI_HOME", str(home.root))
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)
    for name in ("north", "south"):
        runs(home.site(name), 3)
    return home


@pytest.fixture
def served(monkeypatch):
    """Lets sites serve what they were asked to, though no process runs; `failed` by site."""
    failed = {}

    def runtime(root, name):
        wish = folder.read_wish(root)
        running = (
            Running(wish.release.release_id, wish.release.version, None, failed.get(name)) if wish else None
        )
        return SimpleNamespace(
            status=lambda: running, trust=lambda note: (root / "note.json").write_bytes(note)
        )

    for module in (withdrawn, delivery, lease):
        monkeypatch.setattr(module, "runtime", runtime)
    monkeypatch.setattr(folder, "supervised", lambda root: True)
    return failed


def image_of(home, version):
    return pack.get(home.registry, home.keys, version).image


def runs(site, version):
    folder.write_wish(site.root, Wish(folder.Release(image_of(site.home, version), version, "x"), "asked"))


def fetch(site, road=Road.LINK):
    return delivery.fetch(site, site.home.registry, road).release.version


def take_back(home, *versions):
    return [steps.withdraw(home, CASE, "ann", "the licence forbids it", release=n) for n in versions][-1]


def carry(home, site):
    """The next bundle comes to a site, alone."""
    for path in site.media.iterdir():
        path.unlink()
    shutil.copy(pack.bundle(home.registry, home.keys, home.root / "stick"), site.media)


class TestOneThatRunsIt:
    def test_over_the_link_it_goes_back(self, home):
        take_back(home, 3)
        site = home.site("north")
        assert fetch(site) == 2 and delivery.installed(site).version == 2 and delivery.untried(site)

    def test_without_a_link_it_goes_back_by_its_own_disk_once_it_heard(self, home, served):
        take_back(home, 3)
        site = home.site("north")
        assert waiting.service(site) is None and delivery.installed(site).version == 3
        lease.looked_at(home, CASE)
        Link(site.root).cut()
        shutil.rmtree(home.registry)
        assert "is to serve" in waiting.service(site)
        assert delivery.installed(site).version == 2 and fetch(site) == 2

    def test_with_nothing_else_it_goes_on_and_is_told(self, home, served):
        take_back(home, 3, 2, 1)
        site = home.site("south")
        carry(home, site)
        with pytest.raises(WithdrawnError, match="it was withdrawn by ann"):
            fetch(site, Road.MEDIA)
        assert delivery.installed(site).version == 3  # after a blackout, too
        assert waiting.service(site) is None and waiting.bundles(site) is None
        found = lease.standing(site)
        assert found.state is State.WITHDRAWN and not found.good
        assert "south runs release 3, which was withdrawn by ann on" in found.sentence
        assert "the licence forbids it; it goes on until it has another" in found.sentence

    def test_what_is_carried_then_takes_its_place(self, home, served):
        take_back(home, 3)
        site = home.site("south")
        carry(home, site)
        assert waiting.bundles(site) and fetch(site, Road.MEDIA) == 2
        assert delivery.installed(site).version == 2

    def test_one_that_failed_in_its_place_is_not_asked_for_again(self, home, served):
        take_back(home, 3)
        lease.looked_at(home, CASE)
        site = home.site("north")
        served["north"] = Failure(image_of(home, 2), "it was not ready", "2026-01-01")
        assert waiting.service(site) is None
        served["north"] = Failure(image_of(home, 1), "long ago", "2026-01-01")
        assert waiting.service(site)

    def test_where_a_rollback_leaves_nothing_it_is_the_rollbacks_matter(self, home, served):
        site = home.site("south")
        take_back(home, 3)
        SiteStore(site.root).renew(Layout(home.registry), provision.trust(site))
        control.roll_back(home, "bob", "false alarms", to=1, release=3, sites=None)
        assert withdrawn.serving(site)[0] == 3 and waiting.service(site) is None

    def test_that_its_lease_is_over_is_said_too(self, home, served):
        take_back(home, 3)
        lease.looked_at(home, CASE)
        found = lease.standing(home.site("north"), datetime.now(UTC) + timedelta(days=400))
        assert found.state is State.STALE and "which was withdrawn by ann" in found.sentence
        assert "its trust lease ended" in found.sentence and "it goes on" not in found.sentence

    def test_a_cluster_that_does_not_answer_stops_nothing(self, home, served, monkeypatch):
        take_back(home, 3)
        lease.looked_at(home, CASE)

        def away(*_):
            raise DeploymentFailed("what serves is not known")

        monkeypatch.setattr(withdrawn, "runtime", lambda root, name: SimpleNamespace(status=away))
        assert lease.standing(home.site("north")).state is State.FRESH

    def test_its_service_is_told_by_the_note(self, home, served):
        lease.looked_at(home, CASE)
        site = home.site("north")
        assert "withdrawn" not in json.loads((site.root / "note.json").read_bytes())
        take_back(home, 3)
        lease.looked_at(home, CASE)
        shutil.copy(site.root / "note.json", site.root / folder.LEASE)
        assert folder.withdrawn(site.root) == {image_of(home, 3)}
        said = Lease(site.root).withdrawn(image_of(home, 3))
        assert said.startswith("withdrawn by ann") and Lease(site.root).withdrawn(image_of(home, 2)) is None

    def test_a_damaged_list_lets_start_again_what_served(self, home, served, monkeypatch):
        site = home.site("north")
        layout = Layout(site.root / "store")
        with layout.editing() as tags:
            tags[metadata.TAG] = metadata.put(layout, {"timestamp.json": b"{"})
        assert delivery.installed(site).version == 3
        monkeypatch.setattr(folder, "supervised", lambda root: False)
        assert waiting.service(site)


class TestOneThatDoesNot:
    def test_a_new_site_never_gets_it(self, home):
        take_back(home, 3)
        new = provision.provision(home, "new")
        assert fetch(new) == 2

    def test_one_that_has_it_and_never_ran_it_does_not_begin(self, home):
        site = home.site("south")
        (site.root / folder.DESIRED).unlink()
        take_back(home, 3)
        carry(home, site)
        assert fetch(site, Road.MEDIA) == 2
        take_back(home, 2, 1)
        carry(home, site)
        with pytest.raises(WithdrawnError):
            fetch(site, Road.MEDIA)
        with pytest.raises(NothingInstalled):
            delivery.installed(site)

    def test_a_rollback_does_not_lead_to_it(self, home):
        take_back(home, 2)
        control.roll_back(home, "bob", "false alarms", to=2, release=3, sites=None)
        site = home.site("north")
        lease.renew(site, home, CASE)
        assert fetch(site) == 1 and delivery.installed(site).version == 1

    def test_the_rollback_that_is_offered_passes_it_over(self, home):
        take_back(home, 2)
        assert steps.roll_back(home, CASE, "bob", "false alarms").state.backs[-1].to == 1
        with pytest.raises(RolloutError, match=r"release 2 is none to go back to: there are 1$"):
            steps.roll_back(home, CASE, "bob", "false alarms", to=2)

    def test_past_one_that_was_rolled_back_from_it_goes_further_back(self, home):
        """Release 2 was bad here, 3 followed and is withdrawn: what is left is 1, older than both."""
        control.roll_back(home, "bob", "false alarms", to=1, release=2, sites=None)
        site = home.site("south")
        take_back(home, 3)
        lease.renew(home.site("north"), home, CASE)
        assert fetch(home.site("north")) == 1
        SiteStore(site.root).renew(Layout(home.registry), provision.trust(site))  # and where it is not yet
        assert fetch(site) == 1 and delivery.installed(site).version == 1

    def test_where_each_was_withdrawn_what_serves_stays_and_not_what_was_asked_for(self, home, monkeypatch):
        site = home.site("north")  # was asked to run 3, which failed: 2 goes on
        take_back(home, 3, 2, 1)
        lease.renew(site, home, CASE)
        running = Running(image_of(home, 2), 2, None, None)
        for module in (withdrawn, delivery):
            monkeypatch.setattr(module, "runtime", lambda *_: SimpleNamespace(status=lambda: running))
        assert delivery.installed(site).version == 2 and withdrawn.way_out(site) is None

    def test_another_release_ends_it_all(self, home):
        take_back(home, 3)
        publish(home, 4)
        assert fetch(home.site("north")) == 4


class TestAnyOrder:
    @settings(max_examples=25, deadline=None)
    @given(
        st.sampled_from([1, 2, 3]),
        st.lists(
            st.sampled_from(["w1", "w2", "w3", "fetch", "look", "carry", "cut", "up", "start"]),
            min_size=4,
            max_size=9,
        ),
    )
    def test_none_begins_to_run_what_it_heard_of(self, made, first, done):
        """And one that runs something always has something to run."""
        with tempfile.TemporaryDirectory() as name:
            home = Home(shutil.copytree(made.root, Path(name) / "home"))
            site = home.site("north")
            runs(site, first)
            for step in done:
                before = folder.read_wish(site.root).release.version
                if step[0] == "w":
                    take_back(home, int(step[1]))
                elif step == "cut":
                    Link(site.root).cut()
                elif step == "up":
                    Link(site.root).restore()
                elif step == "look":
                    lease.looked_at(home, CASE)
                elif step == "carry":
                    carry(home, site)
                elif step == "start":
                    runs(site, delivery.installed(site).version)
                else:
                    try:
                        fetch(site)
                    except DeliveryError:
                        continue
                now = delivery.installed(site)
                assert now.image not in withdrawn.on_disk(site) or now.version == before


class TestToldInDagster:
    def test_the_check_says_it_once(self, home, served):
        sensor = lease_sensor.lease_watched(home, CASE)
        said, cursor = [], None
        for step in (None, 3, None):
            if step:
                take_back(home, step)
            result = sensor(dg.build_sensor_context(cursor=cursor))
            cursor = result.cursor or cursor
            said += [(event.passed, event.description) for event in result.asset_events]
        assert [passed for passed, _ in said] == [True, False]
        assert "north runs release 3, which was withdrawn by ann" in said[1][1]

    def test_the_decision_is_recorded_and_what_stands_says_it(self, home, served):
        (event,) = take_back(home, 3).events
        assert event.asset_key == keys.IMAGE and event.metadata["rollout"].value == "withdrawn"
        assert event.metadata["release"].value == 3 and event.metadata["newest"].value == 2
        assert event.description.endswith(": the licence forbids it")
        found = standing.standing(home, CASE)
        assert found["release"] == 2 and [each["release"] for each in found["withdrawn"]] == [3]
        assert found["sites"]["north"]["withdrawn"].startswith("withdrawn by ann")

    def test_the_job_does_the_same_and_publishes_it(self, home, monkeypatch):
        published = []

        class Away(FarRegistry):
            def publish(self, home):
                published.append(home)
                raise UnreachableError("the registry is away")

        resources = {"home": home, "usecase": CASE, "far_registry": Away()}
        config = {"release": 3, "reason": "bad", "who": "ann"}
        with dg.DagsterInstance.ephemeral() as instance:
            assert withdraw_release.execute_in_process(
                {"ops": {"withdraw": {"config": config}}}, instance=instance, resources=resources
            ).success
            (record,) = instance.fetch_observations(keys.IMAGE, 10).records
        assert record.asset_observation.metadata["rollout"].value == "withdrawn" and published == [home]
        assert str(pack.withdrawn(home.registry, home.keys)[3]).endswith(": bad")

    def test_the_list_is_kept_fresh_though_each_was_withdrawn(self, home):
        take_back(home, 3, 2, 1)
        with dg.build_sensor_context() as context:
            skipped = azure_lease.lease_renewed(home, CASE).evaluate_tick(context).skip_message
        assert skipped == "what sites trust by is fresh"


class TestRefused:
    @pytest.mark.parametrize(
        ("release", "why", "said"),
        [
            (9, "bad", "there is no release 9: there are 1, 2, 3"),
            (3, " ", "a reason is missing"),
            (3, "x" * 501, "the reason has 501 characters, 500 are allowed"),
            (3, "\x00", "which is no text"),
        ],
    )
    def test_what_cannot_be_said(self, home, release, why, said):
        with pytest.raises(RolloutError, match=said):
            steps.withdraw(home, CASE, "ann", why, release=release)
        assert not pack.withdrawn(home.registry, home.keys)

    def test_in_the_home_of_a_site(self, home):
        home.joined.write_text("north")
        with pytest.raises(RolloutError, match="withdrawn on Azure's side"):
            take_back(home, 3)


def test_its_bundles_are_removed_and_others_stay(home):
    (home.media / "south").mkdir()
    for name in ("tiny-3.bundle", "south/tiny-3.bundle.001", "south/tiny-31.bundle", "other-3.bundle"):
        (home.media / name).write_bytes(b"x")
    take_back(home, 3)
    left = {path.relative_to(home.media).as_posix() for path in home.media.rglob("*") if path.is_file()}
    assert left - {".lock"} == {"south/tiny-31.bundle", "other-3.bundle"}


class TestCommand:
    @pytest.fixture
    def run(self, home, monkeypatch):
        monkeypatch.chdir(home.root)
        app = typer.Typer()
        app.command()(command)

        def invoke(*arguments):
            result = CliRunner().invoke(app, list(arguments))
            if result.exception and not isinstance(result.exception, SystemExit):
                raise result.exception
            return result.stdout

        return invoke

    def test_by_number_or_by_digest(self, home, run):
        found = json.loads(run("3", "--reason", "bad", "--json"))
        assert found == {
            "withdrawn": 3,
            "newest": 2,
            "registry": str(home.registry),
            "not_published_yet": None,
        }
        said = run(image_of(home, 2)[:19], "--reason", "bad, too")
        assert "release 2 was withdrawn by" in said and ": bad, too\n" in said
        assert "the newest release is 1 now" in said

    @pytest.mark.parametrize("error", [UnreachableError("away"), DeniedError("the secret is over")])
    def test_what_cannot_be_published_is_withdrawn_and_recorded_all_the_same(
        self, home, run, monkeypatch, error
    ):
        def publish(self, home):
            raise error

        monkeypatch.setattr(FarRegistry, "publish", publish)
        found = json.loads(run("3", "--reason", "bad", "--json"))
        assert found["withdrawn"] == 3 and found["not_published_yet"] == str(error)
        assert 3 in pack.withdrawn(home.registry, home.keys)

    @pytest.mark.parametrize("name", ["sha256:00000000", "abc", "latest"])
    def test_by_a_name_that_is_none(self, run, name):
        with pytest.raises(NotHere, match="is 0 releases: give a release's number"):
            run(name, "--reason", "bad")

    def test_in_the_home_of_a_site(self, home, run):
        home.joined.write_text("north")
        with pytest.raises(NotHere, match="releases are withdrawn on Azure's side"):
            run("3", "--reason", "bad")


def test_the_bundles_asset_carries_the_word_when_nothing_else_is_left(home):
    take_back(home, 3, 2, 1)
    done = dg.materialize([azure_release.bundle], resources={"home": home, "usecase": CASE})
    (event,) = done.get_asset_materialization_events()
    assert event.materialization.metadata["release"].value.startswith("none: each was withdrawn")
    site = home.site("south")
    shutil.copy(event.materialization.metadata["path"].value, site.media)
    with pytest.raises(WithdrawnError):
        fetch(site, Road.MEDIA)
    assert len(withdrawn.on_disk(site)) == 1
