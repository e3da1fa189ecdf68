"""What the assets and sensors of a site call: provisioning, fetching, what waits, what is not there yet."""

from __future__ import annotations

import logging
import stat

import dagster as dg
import pytest

from edge_ai_assets import usecase
from edge_ai_assets.delivery import pack, signing
from edge_ai_assets.delivery.errors import DeliveryError, MissingError
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.partitions import SITES
from edge_ai_assets.profiles import StackHubProfile
from edge_ai_assets.returns.outbox.outbox import Feedback, Outbox, OutboxError, PackageRow
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.runtimes import choice
from edge_ai_assets.runtimes.interface import Running
from edge_ai_assets.scoring import batch, folder, supervisor
from edge_ai_assets.scoring.batch import FileScored
from edge_ai_assets.scoring.client import ServiceError
from edge_ai_assets.scoring.folder import Failure, Release, Status, Wish
from edge_ai_assets.stack_hub import connecting, delivery, provision, returning, scoring, waiting
from edge_ai_assets.stack_hub.assets import scores
from edge_ai_assets.stack_hub.far_ends import FarEnds
from edge_ai_assets.stack_hub.scoring import NotServing
from edge_ai_assets.usecase import Road
from edge_ai_assets_tests import blocks
from edge_ai_assets_tests.parcels import seal
from edge_ai_assets_tests.tiny_model import tiny_release

LOG = logging.getLogger(__name__)
PULLS = (Road.LINK, Road.QUEUE)
"""Roads on which a release comes from the registry."""
USECASE = """
name: tiny
runs: {{rows: 50}}
features: [{{name: a}}]
label: {{column: y, positive: [1]}}
sites: [{{name: north, road: {road}}}]
"""


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path)
    signing.create(made.keys, "release")
    return made


@pytest.fixture
def site(home):
    return provision.provision(home, "north")


@pytest.fixture
def serving(site, monkeypatch):
    """A service that answers, as its folder says it."""
    state = Status("north", 1, "1", "http://127.0.0.1:9", 2, Release("sha256:1", 1, "x"))
    monkeypatch.setattr(supervisor, "status", lambda folder: state if folder == site.root else None)
    (site.root / "current").symlink_to(tiny_release(site.root.parent / "release", usecase=True))
    return state


def scored(site, rows=3):
    with Outbox(site.outbox) as outbox:
        outbox.append([blocks.plain(rows)])


class TestProvision:
    def test_a_site_has_its_keys_and_azure_knows_the_public_one(self, home, site):
        assert site.readings.is_dir() and site.spool.is_dir()
        assert (home.keys / "sites" / "north.pub.pem").read_bytes() == (
            signing.public_path(provision.private_key(site)).read_bytes()
        )
        assert provision.release_key(site).read_bytes() == (home.keys / "release.pub.pem").read_bytes()

    def test_again_changes_nothing(self, home, site):
        before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
        assert provision.provision(home, "north") == site
        assert {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()} == before

    def test_secrets_are_the_site_s_alone(self, home, site):
        other = provision.provision(home, "south")
        for name in (provision.PSEUDONYM_KEY, "site.pem"):
            assert stat.S_IMODE((site.keys / name).stat().st_mode) == 0o600
            assert (site.keys / name).read_bytes() != (other.keys / name).read_bytes()
        assert len((site.keys / provision.PSEUDONYM_KEY).read_bytes()) == 32
        assert not list((home.keys / "sites").glob("*.key"))

    def test_a_pinned_key_stays_whoever_offers_another(self, home, site):
        pinned = provision.release_key(site).read_bytes()
        (home.keys / "release.pub.pem").write_bytes(b"another")
        provision.provision(home, "north")
        assert provision.release_key(site).read_bytes() == pinned

    def test_before_the_first_release_there_is_nothing_to_trust(self, tmp_path):
        with pytest.raises(MissingError, match="materialize release/image first"):
            provision.provision(Home(tmp_path / "other"), "north")


class TestDelivery:
    @pytest.mark.parametrize("road", list(Road))
    def test_without_a_link_and_a_bundle_nothing_is_fetched(self, home, site, road):
        Link(site.root).cut()
        with pytest.raises(
            delivery.NothingInstalled, match=f"no bundle lies in {site.media}: carry one"
        ) as raised:
            delivery.fetch(site, home.registry, road)
        assert ("`edge-ai link up`" in str(raised.value)) is (road in PULLS)

    def test_an_empty_registry_is_an_error_of_delivery(self, home, site):
        with pytest.raises(DeliveryError):
            delivery.fetch(site, home.registry, Road.LINK)

    def test_nothing_installed_says_what_to_do(self, site):
        with pytest.raises(
            delivery.NothingInstalled, match="site north has no release: materialize site/rel"
        ):
            delivery.installed(site)

    def test_state_of_a_site_that_never_served(self, site):
        found = delivery.state(site, Target("sha256:1"), Road.LINK)
        assert (found.serving, found.failed, found.linked, found.fell) == (None, None, True, None)

    @pytest.mark.parametrize(("image", "failed"), [("sha256:2", "it is broken"), ("sha256:3", None)])
    def test_only_a_failure_of_the_release_in_question_counts(self, site, monkeypatch, image, failed):
        failure = Failure("sha256:2", "it is broken", "")
        state = Status("north", 1, "1", current=Release("sha256:1", 1, "x"), failed=failure)
        monkeypatch.setattr(supervisor, "status", lambda folder: state)
        found = delivery.state(site, Target(image), Road.LINK)
        assert (found.serving, found.failed) == (1, failed)

    @pytest.mark.parametrize(
        ("road", "up", "linked"),
        [(road, up, road in PULLS and up) for road in Road for up in (True, False)],
    )
    def test_only_a_site_with_a_link_that_is_up_is_linked(self, site, road, up, linked):
        if not up:
            Link(site.root).cut()
        assert delivery.state(site, Target("sha256:1"), road).linked is linked


class Target:
    def __init__(self, image):
        self.image, self.version = image, 9


class FakeRuntime:
    """Runs what it is told to, and links nothing into the site's folder, as a cluster does."""

    def __init__(self):
        self.running, self.deployed = None, []

    def deploy(self, release, *, timeout):
        self.deployed.append((release, timeout))
        self.running = Running(release.release_id, release.version, "http://10.0.0.9:8080")
        return self.running

    def status(self):
        return self.running

    def stop(self):
        self.running = None


class TestAnotherRuntime:
    """A site whose runtime.toml names another one is deployed, found running and packed through it."""

    @pytest.fixture
    def fake(self, site, monkeypatch):
        made = FakeRuntime()

        def chosen(folder, name):
            assert (folder, name) == (site.root, "north")
            return made

        for module in (delivery, scoring, returning, choice):
            monkeypatch.setattr(module, "runtime", chosen)
        return made

    @pytest.fixture
    def release(self, home, site):
        model = tiny_release(home.candidates / "run", usecase=True)
        (model / "metrics.json").write_text("{}")
        (model / "model_card.md").write_text("A tiny model.")
        Lineage(training_run="run", training_set="set", usecase="digest").write(model)
        pack.release(model, home.registry, home.keys, "tiny")
        return delivery.fetch(site, home.registry, Road.LINK).release

    def test_it_is_deployed_and_found_running(self, site, fake, release):
        assert delivery.untried(site) and delivery.state(site, release, Road.LINK).serving is None
        running = delivery.deploy(site, release)
        [(asked, timeout)] = fake.deployed
        assert (asked.release_id, asked.version, asked.path) == (
            release.image,
            release.version,
            delivery.unpacked(site, release),
        )
        assert timeout == delivery.READY_SECONDS and scoring.running(site) == running
        assert not delivery.untried(site)
        assert delivery.state(site, release, Road.LINK).serving == release.version

    def test_its_use_case_is_the_store_s_as_nothing_is_linked(self, site, fake, release):
        delivery.deploy(site, release)
        assert not (site.root / "current").exists()
        assert scoring.deployed_usecase(site).name == "tiny"

    def test_it_is_packed_and_its_readings_wait(self, site, fake, release):
        (site.readings / "a.csv").write_text("x")
        assert waiting.readings(site) is None
        delivery.deploy(site, release)
        assert waiting.readings(site) is not None
        scored(site, 3)
        with Outbox(site.outbox) as outbox:
            outbox.unfold(3)
            outbox.classify(dict.fromkeys(range(1, 4), "normal"))
        assert returning.pack_all(site).withheld_rows == 3


class TestScoring:
    def test_without_a_service_it_says_what_to_do(self, site):
        with pytest.raises(NotServing, match="at site north: materialize site/deployment"):
            scoring.score_waiting(site, LOG)

    def test_an_unreadable_file_is_set_aside_and_the_others_are_scored(self, site, serving, monkeypatch):
        from edge_ai_assets.readings.raw import ReadingsError

        def score_file(path, **_):
            if path.name.startswith("bad"):
                raise ReadingsError(f"{path}: the file is empty")
            path.unlink()
            return FileScored(10, 1, 2, 3, 4)

        monkeypatch.setattr(batch, "score_file", score_file)
        for turn in range(2):
            for name in ("a.csv", "bad.csv", "c.csv"):
                (site.readings / name).write_text(str(turn))
            done = scoring.score_waiting(site, LOG)
        numbers = (done.scored, done.rejected, done.baseline, done.anomalies, done.outside)
        assert numbers == (20, 2, 4, 6, 8) and (done.files, done.unreadable, done.release) == (2, 1, 1)
        aside = sorted((site.readings / "unreadable").iterdir())
        assert [path.name for path in aside if "reason" not in path.name] == ["bad.csv", "bad.csv.1"]
        assert [path.read_text() for path in aside if "reason" not in path.name] == ["0", "1"]
        reasons = [path for path in aside if "reason" in path.name]
        assert [path.name for path in reasons] == ["bad.csv.1.reason.txt", "bad.csv.reason.txt"]
        assert all("the file is empty" in path.read_text() for path in reasons)

    def test_a_file_the_service_refuses_is_set_aside_and_its_values_stay_out_of_the_log(
        self, site, serving, monkeypatch, caplog
    ):
        def score_file(path, **_):
            if path.name == "a.csv":
                raise ServiceError("row 3: 'Flow' is 4711, it must be between 0 and 9", 422)
            path.unlink()
            return FileScored(10, 1, 2, 3, 4)

        monkeypatch.setattr(batch, "score_file", score_file)
        for name in ("a.csv", "b.csv"):
            (site.readings / name).write_text("x")
        done = scoring.score_waiting(site, LOG)
        assert (done.files, done.unreadable) == (1, 1) and not batch.waiting(site)
        assert "4711" in (site.readings / "unreadable" / "a.csv.reason.txt").read_text()
        assert "a.csv.reason.txt" in caplog.text and "4711" not in caplog.text

    def test_what_was_interrupted_comes_first_though_it_is_hidden(self, site, serving, monkeypatch):
        taken = []
        monkeypatch.setattr(batch, "interrupted", lambda _: site.readings / ".x-mine.csv")
        monkeypatch.setattr(
            batch, "score_file", lambda path, **_: taken.append(path.name) or FileScored(1, 0, 0, 0, 0)
        )
        (site.readings / "a.csv").write_text("x")
        assert scoring.score_waiting(site, LOG).files == 2 and taken == [".x-mine.csv", "a.csv"]

    def test_a_service_that_goes_away_ends_it_and_the_files_stay(self, site, serving, monkeypatch):
        def score_file(path, **_):
            raise ServiceError("no answer")

        monkeypatch.setattr(batch, "score_file", score_file)
        (site.readings / "a.csv").write_text("x")
        with pytest.raises(ServiceError):
            scoring.score_waiting(site, LOG)
        assert [path.name for path in batch.waiting(site)] == ["a.csv"]

    def test_the_use_case_is_the_one_that_was_released(self, site, serving):
        assert scoring.deployed_usecase(site).name == "tiny"


class TestInsights:
    def test_everything_is_classified_however_much_waits(self, home, site, monkeypatch):
        from edge_ai_assets.stack_hub import disk

        scored(site, 7)
        monkeypatch.setattr(disk, "AT_ONCE", 3)
        instance = dg.DagsterInstance.ephemeral()
        instance.add_dynamic_partitions(str(SITES.name), ["north"])
        done = dg.materialize(
            [scores.insights], partition_key="north", instance=instance, resources={"home": home}
        )
        (found,) = done.asset_materializations_for_node("site__insights")
        with Outbox(site.outbox) as outbox:
            assert not outbox.untouched()
        assert found.metadata["rows"].value == 7


class TestReturning:
    def test_a_site_that_never_scored_has_zeros(self, site):
        assert returning.counts(site) == returning.recount(site) == returning.NOTHING
        assert returning.counts(site).conserved and not site.outbox.exists()
        assert set(returning.as_dict(returning.NOTHING).values()) == {0}

    def test_counts_are_those_of_the_outbox(self, site):
        scored(site, 7)
        assert returning.as_dict(returning.counts(site)) == {
            **dict.fromkeys(("uploaded", "withheld", "quarantined", "expired"), 0),
            **{"scored": 7, "pending": 7},
        }
        assert returning.counts(site) == returning.recount(site)

    @pytest.mark.parametrize("road", [road for road in Road if road is not Road.QUEUE])
    def test_packing_and_letting_leave_need_an_outbox(self, site, serving, home, road):
        with pytest.raises(OutboxError, match="there is no outbox"):
            returning.pack_all(site)
        with pytest.raises(OutboxError, match="there is no outbox"):
            returning.let_leave(site, usecase.loads(USECASE.format(road=road)), home.uplink)

    def test_a_site_with_a_queue_packs_and_sends_nothing_by_itself(self, site, serving, home):
        """The function does: what waits for it stays as it is."""
        scored(site, 4)
        with Outbox(site.outbox) as outbox:
            outbox.unfold(4)
            outbox.classify(dict.fromkeys(range(1, 5), "anomaly"))
        before = returning.counts(site)
        assert not returning.pack_all(site, queued=True).packages and not list(site.spool.glob("*.zip"))
        left = returning.let_leave(site, usecase.loads(USECASE.format(road="queue")), home.uplink)
        assert (left.names, left.bytes, left.waiting, left.interrupted) == ([], 0, 4, None)
        assert returning.counts(site) == before and not home.uplink.exists()

    def test_what_was_sealed_before_the_road_was_the_queue_is_sent_by_the_site(self, home, site):
        """Azure merges nothing of the function's before it."""
        case = usecase.loads(USECASE.format(road="queue"))
        with Outbox(site.outbox) as outbox:
            rows = seal(outbox, site.spool, "north", [10, 20])
        Link(site.root).cut()
        assert "down" in returning.let_leave(site, case, home.uplink).interrupted
        Link(site.root).restore()
        assert returning.let_leave(site, case, home.uplink).names == [row.name for row in rows]
        assert not connecting.unsent(site)
        assert returning.let_leave(site, case, home.uplink).names == []

    def test_with_a_real_queue_and_no_uplink_it_has_to_be_carried(self, home, site):
        with Outbox(site.outbox) as outbox:
            seal(outbox, site.spool, "north", [10])
        ends = {"queues": "https://a.queue.hub.example", "blobs": "https://a.blob.hub.example"}
        queue = {"queue": {**ends, "credential": {"key": {"env": "NOT_ASKED_FOR"}}}}
        far = FarEnds(StackHubProfile.model_validate(queue))
        left = returning.let_leave(site, usecase.loads(USECASE.format(road="queue")), home.uplink, far)
        assert not left.names and "edge-ai returns export --site north" in left.interrupted

    def test_what_may_not_leave_is_counted_though_nothing_is_packed(self, site, serving):
        scored(site, 5)
        with Outbox(site.outbox) as outbox:
            outbox.unfold(5)
            outbox.classify(dict.fromkeys(range(1, 6), "normal"))
        done = returning.pack_all(site)
        counts = returning.counts(site)
        assert (done.packages, done.rows) == ([], 0) and counts.conserved and counts.pending == 0
        assert done.withheld_rows == counts.withheld == 5


class TestWaiting:
    def test_readings_wait_only_where_a_service_answers(self, site, monkeypatch):
        (site.readings / "a.csv").write_text("x")
        assert waiting.readings(site) is None
        state = Status("north", 1, "1", current=Release("sha256:1", 1, "x"))
        monkeypatch.setattr(supervisor, "status", lambda folder: state)
        first = waiting.readings(site)
        assert first is not None and waiting.readings(site) == first
        (site.readings / "b.csv").write_text("x")
        assert waiting.readings(site) != first
        for name in ("a.csv", "b.csv"):
            (site.readings / name).unlink()
        (site.readings / ".c.csv").write_text("half")
        assert waiting.readings(site) is None

    def test_scores_wait_until_they_are_classified_and_packed(self, site):
        assert waiting.scores(site) is None
        scored(site)
        first = waiting.scores(site)
        assert first is not None and waiting.scores(site) == first
        with Outbox(site.outbox) as outbox:
            outbox.unfold(3)
            outbox.classify(dict.fromkeys((1, 2, 3), "anomaly"))
            assert waiting.scores(site) is not None
            outbox.dispose("withheld", {"x": [1, 2, 3]})
            assert waiting.scores(site) is None
            outbox.add_feedback([Feedback(1, True, None, "operator", 5)])
        assert waiting.scores(site) not in (None, first)

    def test_scores_wait_though_files_wait_as_well(self, site, serving):
        scored(site)
        (site.readings / "a.csv").write_text("x")
        assert waiting.readings(site) is not None and waiting.scores(site) is not None

    def test_progress_is_another_marker(self, site):
        scored(site)
        seen = [waiting.scores(site)]
        with Outbox(site.outbox) as outbox:
            outbox.unfold(3)
            for work in (
                lambda: outbox.classify({1: "anomaly"}),
                lambda: outbox.classify({2: "anomaly", 3: "anomaly"}),
                lambda: outbox.dispose("withheld", {"x": [1, 2]}),
            ):
                work()
                seen.append(waiting.scores(site))
        assert None not in seen and len(set(seen)) == len(seen)

    def test_packages_wait_to_be_carried_until_they_were_or_came_by_the_link(self, site):
        assert waiting.to_carry(site) is None
        scored(site)
        with Outbox(site.outbox) as outbox:
            outbox.unfold(3)
            outbox.classify(dict.fromkeys((1, 2, 3), "anomaly"))
            assert waiting.to_carry(site) is None and waiting.newest_package(site) == 0
            outbox.seal(package(1), [1, 2], [], {}, {})
            assert waiting.to_carry(site) == "1" and waiting.newest_package(site) == 1
            outbox.exported(1, 5)
            assert waiting.to_carry(site) is None
            outbox.seal(package(2), [3], [], {}, {})
        assert waiting.to_carry(site) == "2" and waiting.newest_package(site) == 2
        with Outbox(site.outbox) as outbox:
            outbox.uploaded(2, 5)
        assert waiting.to_carry(site) is None

    def test_a_bundle_waits_until_somebody_looked_at_it(self, site):
        assert waiting.bundles(site) is None
        (site.media / ".tiny-1.bundle").write_bytes(b"half")
        (site.media / "notes.txt").write_text("x")
        assert waiting.bundles(site) is None
        (site.media / "tiny-1.bundle").write_bytes(b"half")
        first = waiting.bundles(site)
        assert first is not None and waiting.bundles(site) == first
        site.taken.write_text(first)
        assert waiting.bundles(site) is None
        (site.media / "tiny-1.bundle").write_bytes(b"the whole")
        assert waiting.bundles(site) not in (None, first)
        (site.media / "tiny-1.bundle").unlink()
        assert waiting.bundles(site) is None

    def test_a_service_is_missed_where_one_was_deployed(self, site):
        """Link or no link: after a reboot at sea nobody else starts it."""
        assert waiting.service(site) is None
        folder.write_wish(site.root, Wish(Release("sha256:1", 1, "x"), "first"))
        first = waiting.service(site)
        assert first is not None
        folder.write_wish(site.root, Wish(Release("sha256:1", 1, "x"), "second"))
        assert waiting.service(site) == first  # tried and failed: not at once again
        folder.write_status(site.root, Status("north", 1, "1", since="2026-11-21"))
        assert waiting.service(site) not in (None, first)  # it served meanwhile: at once

    def test_a_service_that_was_killed_while_it_started_is_missed_too(self, site):
        """It had written that it serves nothing, and since when: never."""
        folder.write_wish(site.root, Wish(Release("sha256:1", 1, "x"), "first"))
        folder.write_status(site.root, Status("north", 1, "1"))
        assert supervisor.status(site.root) is None and waiting.service(site) is not None

    def test_a_service_whose_supervisor_lives_is_left_to_it(self, site):
        folder.write_wish(site.root, Wish(Release("sha256:1", 1, "x"), "first"))
        with folder.hold(site.root / folder.LOCK, seconds=1):
            assert waiting.service(site) is None
        assert waiting.service(site) is not None


def package(number):
    """The row of a sealed package."""
    return PackageRow(
        number=number,
        name=f"north-{number:08}.zip",
        digest=f"d{number}",
        previous=f"d{number - 1}" if number > 1 else "",
        rows=1,
        feedback=0,
        bytes=10,
        created_at=1,
    )
