"""Azure's side turns by itself: files, packages, drift; the same again after a restart; nothing twice."""

import dagster as dg
import pytest

from edge_ai_assets import keys, usecase
from edge_ai_assets.azure import automation, watch
from edge_ai_assets.azure.definitions import build_defs
from edge_ai_assets.home import Home
from edge_ai_assets.settings import Settings


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def defs(tmp_path):
    return build_defs(settings=Settings(home=tmp_path))


def job(name):
    @dg.asset(name=f"{name}_asset")
    def made() -> None:
        pass

    return dg.define_asset_job(name, selection=[made])


INGEST, FIRST, RETRAIN, BRING_HOME = (
    job(name) for name in ("ingest", "first_release", "retrain", "bring_home")
)
CASE = usecase.load(usecase.BUNDLED / "pump-station.yaml")


def tick(sensor, instance, cursor=None):
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    return sensor(context), context.cursor


def land(home, name="a.csv", text="x"):
    home.landing.mkdir(parents=True, exist_ok=True)
    (home.landing / name).write_text(text)


class TestReadingsLanded:
    def sensor(self, home):
        return automation.readings_landed(INGEST, FIRST, home)

    def test_an_empty_landing_zone_asks_for_nothing(self, home, instance):
        assert isinstance(tick(self.sensor(home), instance)[0], dg.SkipReason)

    def test_the_first_files_go_on_to_a_release(self, home, instance):
        land(home)
        assert tick(self.sensor(home), instance)[0].job_name == "first_release"

    def test_with_a_champion_files_are_only_taken_in(self, home, instance):
        land(home)
        home.champion.mkdir(parents=True)
        assert tick(self.sensor(home), instance)[0].job_name == "ingest"

    def test_the_same_files_are_the_same_request_after_a_restart(self, home, instance):
        land(home)
        assert tick(self.sensor(home), instance)[0].run_key == tick(self.sensor(home), instance)[0].run_key

    def test_another_file_is_another_request(self, home, instance):
        land(home)
        before = tick(self.sensor(home), instance)[0].run_key
        land(home, "b.csv")
        assert tick(self.sensor(home), instance)[0].run_key != before

    @pytest.mark.parametrize("name", [".a.csv.part", "taken/a.csv", "unreadable/a.csv"])
    def test_files_that_are_being_written_or_were_taken_do_not_count(self, home, instance, name):
        (home.landing / name).parent.mkdir(parents=True)
        (home.landing / name).write_text("x")
        assert isinstance(tick(self.sensor(home), instance)[0], dg.SkipReason)


class TestPackagesArrived:
    def sensor(self, home):
        return automation.packages_arrived(BRING_HOME, home)

    def arrive(self, home, site, number):
        (home.uplink / site).mkdir(parents=True, exist_ok=True)
        (home.uplink / site / f"{site}-{number:08}.zip").write_bytes(b"")

    def test_nothing_arrived(self, home, instance):
        assert isinstance(tick(self.sensor(home), instance)[0], dg.SkipReason)

    def test_a_package_asks_once(self, home, instance):
        self.arrive(home, "bergen", 1)
        keys = {tick(self.sensor(home), instance)[0].run_key for _ in range(3)}
        assert len(keys) == 1

    def test_three_weeks_of_packages_of_a_site_that_was_away_ask_for_one_run(self, home, instance):
        for number in range(1, 22):
            self.arrive(home, "tromso", number)
        assert isinstance(tick(self.sensor(home), instance)[0], dg.RunRequest)

    def test_a_later_package_asks_anew(self, home, instance):
        self.arrive(home, "bergen", 1)
        before = tick(self.sensor(home), instance)[0].run_key
        self.arrive(home, "bergen", 2)
        assert tick(self.sensor(home), instance)[0].run_key != before

    def test_packages_behind_one_that_is_missing_ask_once(self, home, instance, monkeypatch):
        self.arrive(home, "bergen", 3)
        before = tick(self.sensor(home), instance)[0].run_key
        monkeypatch.setattr(automation, "turn", lambda: -1)
        assert tick(self.sensor(home), instance)[0].run_key == before
        self.arrive(home, "bergen", 1)
        assert tick(self.sensor(home), instance)[0].run_key.endswith("/-1")

    def test_what_is_half_uploaded_does_not_count(self, home, instance):
        (home.uplink / "bergen" / ".partial").mkdir(parents=True)
        (home.uplink / "bergen" / ".partial" / "bergen-00000001.zip").write_bytes(b"")
        assert isinstance(tick(self.sensor(home), instance)[0], dg.SkipReason)


class TestCompletenessDue:
    """Nothing arrives of a site that is silent, so nobody else would see it."""

    @pytest.fixture
    def instance(self, tmp_path):
        with dg.DagsterInstance.local_temp(str(tmp_path)) as made:  # a schedule opens it by its reference
            yield made

    def tick(self, instance):
        context = dg.build_schedule_context(instance=instance)
        return automation.completeness_due(BRING_HOME)(context)

    def test_it_looks_though_nothing_arrived(self, instance):
        assert isinstance(self.tick(instance), dg.RunRequest)

    def test_not_while_packages_are_received(self, defs, instance):
        instance.create_run_for_job(defs.resolve_job_def("bring_home"), status=dg.DagsterRunStatus.STARTED)
        assert "being received" in self.tick(instance).skip_message

    def test_azure_has_it(self, defs):
        assert defs.resolve_schedule_def("completeness_due").job.name == "bring_home"


class TestDriftSeen:
    @pytest.fixture(autouse=True)
    def world(self, monkeypatch):
        self.release, self.feedback, self.now = "sha256:one", 1000, 1_000_000.0
        monkeypatch.setattr(watch, "champion_release", lambda home: self.release)
        monkeypatch.setattr(watch, "feedback_rows", lambda home, sites: self.feedback if sites else 0)
        monkeypatch.setattr(automation.time, "time", lambda: self.now)

    def sensor(self, home, **changes):
        retraining = CASE.retraining.model_copy(
            update={"cooldown_minutes": 60, "feedback_rows": 200, **changes}
        )
        return automation.drift_seen(RETRAIN, home, CASE.model_copy(update={"retraining": retraining}))

    def look(self, instance, sites, release="sha256:one"):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(keys.DRIFT, metadata={watch.SITES: sites, watch.RELEASE: release})
        )

    def test_drift_was_not_looked_for(self, home, instance):
        assert "not been looked" in tick(self.sensor(home), instance)[0].skip_message

    def test_no_drift(self, home, instance):
        self.look(instance, [])
        assert "no site drifts" in tick(self.sensor(home), instance)[0].skip_message

    def test_drift_retrains(self, home, instance):
        self.look(instance, ["bergen"])
        request, cursor = tick(self.sensor(home), instance)
        assert request.tags[automation.REASON] == "drift"
        assert float(cursor) == self.now

    def test_it_cools_down_through_a_restart(self, home, instance):
        self.look(instance, ["bergen"])
        _, cursor = tick(self.sensor(home), instance)
        self.now += 59 * 60
        assert "cool-down" in tick(self.sensor(home), instance, cursor)[0].skip_message
        self.now += 2 * 60
        assert isinstance(tick(self.sensor(home), instance, cursor)[0], dg.RunRequest)

    def test_without_a_cool_down_the_same_drift_is_still_one_run(self, home, instance):
        self.look(instance, ["bergen"])
        first, cursor = tick(self.sensor(home, cooldown_minutes=0), instance)
        again, _ = tick(self.sensor(home, cooldown_minutes=0), instance, cursor)
        assert first.run_key == again.run_key

    def test_it_waits_until_people_judged_enough(self, home, instance):
        self.look(instance, ["bergen"])
        self.feedback = 199
        assert "199 scores" in tick(self.sensor(home), instance)[0].skip_message

    def test_drift_under_a_former_release_is_no_reason(self, home, instance):
        self.look(instance, ["bergen"], release="sha256:zero")
        assert "former release" in tick(self.sensor(home), instance)[0].skip_message

    def test_not_while_a_training_runs(self, home, instance):
        self.look(instance, ["bergen"])
        other = build_defs(settings=Settings(home=home.root)).resolve_job_def("retrain")
        instance.create_run_for_job(other, status=dg.DagsterRunStatus.STARTED)
        assert "under way" in tick(self.sensor(home), instance)[0].skip_message


class TestWhatFollows:
    """Automation conditions, evaluated as the daemon does."""

    def made(self, instance, *made):
        for key in made:
            instance.report_runless_asset_event(dg.AssetMaterialization(key))

    def asked(self, defs, instance, cursor=None):
        result = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
        return {
            key for key in defs.resolve_asset_graph().get_all_asset_keys() if result.get_num_requested(key)
        }, result.cursor

    def test_nothing_happens_in_a_fresh_instance(self, defs, instance):
        assert self.asked(defs, instance)[0] == set()

    @pytest.mark.parametrize(
        ("moved", "follows"),
        [
            (keys.RAW_TELEMETRY, {keys.TRAINING_SET}),
            (keys.CANDIDATE, {keys.CHAMPION, keys.IMAGE, keys.BUNDLE}),
            (keys.IMAGE, {keys.BUNDLE}),
            (keys.INBOX, {keys.HISTORY, keys.INSIGHTS, keys.FEEDBACK, keys.DRIFT, keys.REPORT}),
        ],
    )
    def test_what_comes_after_follows(self, defs, instance, moved, follows):
        self.made(
            instance,
            keys.RAW_TELEMETRY,
            keys.TRAINING_SET,
            keys.CANDIDATE,
            keys.CHAMPION,
            keys.IMAGE,
            keys.BUNDLE,
        )
        self.made(instance, keys.INBOX, keys.INSIGHTS, keys.FEEDBACK, keys.DRIFT, keys.REPORT)
        _, cursor = self.asked(defs, instance)
        self.made(instance, moved)
        asked, _ = self.asked(defs, instance, cursor)
        assert asked == follows

    def test_a_new_training_set_does_not_train_by_itself(self, defs, instance):
        self.made(instance, keys.RAW_TELEMETRY, keys.TRAINING_SET, keys.CANDIDATE)
        _, cursor = self.asked(defs, instance)
        self.made(instance, keys.TRAINING_SET)
        assert keys.CANDIDATE not in self.asked(defs, instance, cursor)[0]

    def test_what_a_run_already_made_is_not_made_again(self, defs, instance):
        """A sensor's run makes the whole chain; the next tick sees all of it moved, and asks for nothing."""
        chain = [
            keys.RAW_TELEMETRY,
            keys.TRAINING_SET,
            keys.CANDIDATE,
            keys.CHAMPION,
            keys.IMAGE,
            keys.BUNDLE,
        ]
        self.made(instance, *chain)
        asked, cursor = self.asked(defs, instance)
        assert asked == set()
        self.made(instance, *chain)
        assert self.asked(defs, instance, cursor)[0] == set()

    def test_once_is_enough(self, defs, instance):
        self.made(instance, keys.RAW_TELEMETRY, keys.TRAINING_SET)
        _, cursor = self.asked(defs, instance)
        self.made(instance, keys.RAW_TELEMETRY)
        asked, cursor = self.asked(defs, instance, cursor)
        assert asked == {keys.TRAINING_SET}
        self.made(instance, keys.TRAINING_SET)
        assert self.asked(defs, instance, cursor)[0] == set()


def test_the_schedule_is_the_use_case_s(defs):
    schedule = defs.resolve_schedule_def("retraining_due")
    assert schedule.cron_schedule == CASE.retraining.cron
    request = schedule.evaluate_tick(dg.build_schedule_context()).run_requests[0]
    assert request.tags[automation.REASON] == "schedule"
