"""lake/landing against the contract stub of Data Factory: the asset that runs a pipeline, and the sensor on
the runs of others."""

import signal
import threading

import dagster as dg
import pytest

from edge_ai_assets import keys
from edge_ai_assets.azure import pipeline_runs
from edge_ai_assets.azure.assets import landing
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import plain
from edge_ai_assets.profiles import Ingestion
from edge_ai_assets.resources.calling.patience import Patience
from edge_ai_assets.resources.identity import credentials
from edge_ai_assets.resources.ingestion import pipeline_run
from edge_ai_assets.resources.ingestion.data_factory import MARK
from edge_ai_assets_tests.contract.control_plane_stub import RESET, Reply, Tokens, serving
from edge_ai_assets_tests.contract.data_factory import BROKEN, SUBSCRIPTION, DataFactoryStub


@pytest.fixture
def stub(tmp_path):
    with serving(tmp_path / "stub") as made:
        yield made


@pytest.fixture
def azure(stub):
    return DataFactoryStub(stub)


@pytest.fixture
def section(stub, monkeypatch):
    monkeypatch.setattr(credentials, "token", lambda *_: Tokens())
    monkeypatch.setattr(landing, "AGAIN", 0)
    monkeypatch.setattr(pipeline_run, "POLL", Patience(first=0.01, most=0.02))
    names = {"resource_group": "rg", "factory": "adf", "pipeline": "land readings"}
    return Ingestion(
        subscription=SUBSCRIPTION, endpoint=stub.endpoint, ca=stub.ca, parameters={"folder": "x"}, **names
    )


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def made(section, instance, tmp_path):
    job = dg.define_asset_job("land", selection=[keys.LANDING])
    resources = {"home": Home(tmp_path), "ingestion": section}
    defs = dg.Definitions([landing.landing], resources=resources, jobs=[job])

    def made(run_id=None):
        land = defs.resolve_job_def("land")
        return land.execute_in_process(instance=instance, run_id=run_id, raise_on_error=False)

    return made


def latest(instance):
    return plain(instance.get_latest_materialization_event(keys.LANDING))


def test_the_pipeline_is_run_and_what_it_did_is_told(azure, stub, made, instance, tmp_path):
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "a.csv").write_text("x")
    result = made()
    assert result.success
    told = latest(instance)
    assert (told["rows_read"], told["rows_written"]) == (500, 499)
    assert (told["files_written"], told["bytes_written"], told["files_waiting"]) == (2, 1024, 1)
    assert (told["status"], told["seconds"], told["invoked_by"]) == ("Succeeded", 90.0, "Manual")
    activities = [record.data for record in told["activities"].records]
    assert [each["activity"] for each in activities] == ["Look", "Copy readings"]
    (run,) = azure.runs.values()
    assert run["parameters"] == {"folder": "x", MARK: result.run_id} and told["pipeline_run"] == run["runId"]


def test_a_failed_pipeline_fails_the_asset_once_with_the_activity_s_words(azure, stub, made, instance):
    azure.course, azure.activities = ["Failed"], [BROKEN]
    result = made()
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "Copy readings: 2200: The source is gone" in failure.event_specific_data.error_display_string
    assert stub.count("createRun") == 1 and latest(instance) is None


def test_a_dagster_run_that_is_started_again_takes_up_its_pipeline_run(azure, stub, made, instance):
    """Its first worker was killed after the start, before it could tell anybody."""
    first = azure.add("InProgress", 1, **{MARK: RUN})
    azure.runs[first]["_course"] = ["InProgress", "Succeeded"]
    assert made(run_id=RUN).success
    assert stub.count("createRun") == 0 and latest(instance)["pipeline_run"] == first


def test_a_step_that_is_retried_after_an_outage_takes_up_its_pipeline_run(azure, stub, made, monkeypatch):
    monkeypatch.setattr(Patience, "persist", lambda self, attempt: attempt())
    stub.fail("GET", RESET)
    assert made().success
    assert stub.count("createRun") == 1 and len(azure.runs) == 1


def test_a_dagster_run_that_is_terminated_cancels_the_pipeline_run(azure, stub, made):
    azure.course = ["InProgress"]
    azure.looked = lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    assert not made().success
    assert stub.count("cancel") == 1
    assert next(iter(azure.runs.values()))["_course"] == ["Cancelled"]


class TestPipelineRan:
    @pytest.fixture
    def look(self, section, instance):
        """A tick; each time as after a restart, but for the cursor."""

        def look():
            context = dg.build_sensor_context(instance=instance, cursor=look.cursor)
            found = pipeline_runs.pipeline_ran(section)(context)
            events = found.asset_events if isinstance(found, dg.SensorResult) else []
            look.said = "" if isinstance(found, dg.SensorResult) else found.skip_message
            look.cursor = found.cursor if isinstance(found, dg.SensorResult) else context.cursor
            return [(type(event).__name__, plain_of(event)["pipeline_run"]) for event in events]

        look.cursor = None
        return look

    def test_runs_of_others_are_told_once_in_their_order(self, azure, look):
        second, third = azure.add("Failed", 5), azure.add("Cancelled", 3)
        first = azure.add("Succeeded", 9, folder="y")
        told = [
            ("AssetMaterialization", first),
            ("AssetObservation", second),
            ("AssetObservation", third),
        ]
        assert look() == told
        assert [look(), look()] == [[], []]

    def test_one_that_goes_on_is_told_when_it_ends(self, azure, look):
        run = azure.add("InProgress", 5)
        assert look() == []
        azure.runs[run] |= {
            "status": "Succeeded",
            "lastUpdated": azure.runs[azure.add("Failed")]["lastUpdated"],
        }
        assert {found for _, found in look()} == set(azure.runs)
        assert look() == []

    def test_one_that_the_list_shows_late_is_not_missed(self, azure, look):
        late, shown = azure.add("Succeeded", 8), azure.add("Succeeded", 1)
        azure.hidden = {late}
        assert [run for _, run in look()] == [shown]
        azure.hidden = set()
        assert [run for _, run in look()] == [late] and look() == []

    def test_a_backlog_comes_in_batches_and_whole(self, azure, look, monkeypatch):
        monkeypatch.setattr(pipeline_runs, "BATCH", 3)
        runs = [azure.add("Succeeded", 60 - n) for n in range(8)]
        told = [look() for _ in range(4)]
        assert [len(each) for each in told] == [3, 3, 2, 0]
        assert [run for each in told for _, run in each] == runs

    def test_only_the_last_day_is_told_at_first(self, azure, look):
        azure.add("Succeeded", 60 * 30)
        recent = azure.add("Succeeded", 60 * 20)
        assert [run for _, run in look()] == [recent]

    def test_our_own_runs_are_told_by_the_asset_alone(self, azure, look, made):
        assert made().success
        azure.add("Succeeded", 1, **{MARK: "of another Dagster"})
        assert len(look()) == 1

    def test_our_own_run_is_told_if_we_lost_sight_of_it(self, azure, look, made, stub, monkeypatch):
        monkeypatch.setattr(Patience, "persist", lambda self, attempt: attempt())
        azure.course = ["InProgress"]
        stub.fail("GET", RESET, RESET, RESET)
        assert not made().success
        (run,) = azure.runs
        assert look() == []  # it goes on there
        azure.runs[run]["status"] = "Succeeded"
        assert look() == [("AssetMaterialization", run)]

    def test_an_outage_is_said_and_loses_nothing(self, azure, look, stub):
        run = azure.add("Succeeded", 1)
        stub.fail("queryPipelineRuns", Reply(503))
        assert look() == [] and "asked again in 60 s" in look.said
        assert [found for _, found in look()] == [run]

    def test_a_refusal_fails_the_tick_and_the_next_one_has_a_new_credential(
        self, azure, section, instance, stub
    ):
        sensor = pipeline_runs.pipeline_ran(section)
        stub.tokens = set()
        with pytest.raises(pipeline_runs.Refused, match="refuses the credential"):
            sensor(dg.build_sensor_context(instance=instance))
        stub.tokens = {"token-1"}
        assert isinstance(sensor(dg.build_sensor_context(instance=instance)), dg.SkipReason)


RUN = "11111111-0000-4000-8000-000000000000"


def plain_of(event):
    return {name: value.value for name, value in event.metadata.items()}
