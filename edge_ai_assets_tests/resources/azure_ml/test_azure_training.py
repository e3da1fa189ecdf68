from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import dagster as dg
import pytest
from dagster_pipes import decode_param

from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.resources.azure_ml import command_job
from edge_ai_assets.resources.azure_ml import workspace as workspaces
from edge_ai_assets.resources.azure_ml.command_job import Target
from edge_ai_assets.resources.azure_ml.pipes_blobs import way
from edge_ai_assets.resources.azure_ml.training import TrainingOnAzure
from edge_ai_assets.resources.azure_ml.workspace import Workspace
from edge_ai_assets.resources.calling.patience import Patience
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.training import figures, verify
from edge_ai_assets_tests.contract import azure_ml
from edge_ai_assets_tests.contract.control_plane_stub import RESET, SILENCE, Reply, Time

pytestmark = pytest.mark.filterwarnings("ignore")
KEY = dg.AssetKey(["model", "candidate"])
RUN = "0a1b2c3d-4e5f-4000-8000-000000000001"
LINEAGE = Lineage(training_run=RUN, training_set="5e7", usecase="d16e57")
MODEL = b"the model"
ACCOUNT = Account("https://acct.example", azure_ml.Bearer())
JOBS = f"{azure_ml.WORKSPACE}/jobs/"


class Blobs(dict[str, bytes]):
    """A container in memory."""

    container = "lake"
    put, has = dict.__setitem__, dict.__contains__

    def fetch(self, folder: str, into: Path) -> None:
        into.mkdir(parents=True)
        for name, data in self.items():
            if name.startswith(f"{folder}/"):
                (into / name.removeprefix(f"{folder}/")).write_bytes(data)


class World:
    """A workspace whose jobs do what `play` says, and a home beside it."""

    def __init__(self, folder: Path, stub: azure_ml.AzureMLStub) -> None:
        self.stub, self.control, self.time, self.blobs = stub, stub.stub, Time(), Blobs()
        self.bearer, self.home, self.out = azure_ml.Bearer(), Home(folder / "home"), folder / "made"
        self.usecase, self.set = folder / "case.yaml", self.home.training_sets / "5e7.parquet"
        self.usecase.write_text("name: tiny")
        self.blobs["training_set/5e7.parquet"] = b"rows"
        self.read_seconds = 20.0
        stub.course = ["Starting", "Running", "Running", "Completed"]
        self.play(made={"model.onnx": MODEL})

    def training(self, **changed) -> TrainingOnAzure:
        place = (azure_ml.SUBSCRIPTION, azure_ml.GROUP, azure_ml.NAME)
        patience = Patience(600, 2, 60, self.time.sleep, self.time.clock)
        where = (self.control.endpoint, self.control.ca)
        workspace = Workspace(*place, self.bearer, *where, patience, read_seconds=self.read_seconds)
        made = TrainingOnAzure(
            lambda: (workspace, ACCOUNT), Target("cpu", "lake", **{"hours": 1.0, **changed}), self.home
        )
        made.__dict__["_blobs"] = self.blobs
        return made

    def play(self, made: dict[str, bytes], said: str = "fitting", last: dict | None = None) -> None:
        """What every job says and makes; `last` is its last message."""
        self.said = [
            {"method": "opened", "params": {}},
            {"method": "log", "params": {"message": said, "level": "INFO"}},
            *(
                [
                    {
                        "method": "report_asset_materialization",
                        "params": {
                            "asset_key": "model/candidate",
                            "data_version": None,
                            "metadata": {
                                "rows": {"raw_value": 7, "type": "int"},
                                "files": {
                                    "raw_value": {n: hashlib.sha256(d).hexdigest() for n, d in made.items()},
                                    "type": "json",
                                },
                            },
                        },
                    }
                ]
                if made
                else []
            ),
            {"method": "closed", "params": last or {}},
        ]
        self.made = made

    def act(self) -> None:
        """What the jobs have done by now."""
        for name in self.stub.submitted:
            for number, message in enumerate(self.said, 1):
                line = {"__dagster_pipes_version": "0.1", **message}
                self.blobs[f"jobs/{name}/messages/{number}.json"] = json.dumps(line).encode()
            for file, data in self.made.items():
                self.blobs[f"jobs/{name}/candidate/{file}"] = data

    def run(self, run_id: str = RUN, **changed) -> dg.ExecuteInProcessResult:
        training = self.training(**changed)

        @dg.asset(key=KEY)
        def candidate(context):
            results = training.train(context, self.usecase, self.set, self.out)
            verify(self.out, results)
            yield from results

        definitions = dg.Definitions([candidate])
        job = definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(run_id=run_id, instance=dg.DagsterInstance.ephemeral())


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(command_job, "code", lambda: b"the package")
    with azure_ml.workspace(tmp_path / "stub") as stub:
        made = World(tmp_path, stub)
        made.time.then = made.act
        yield made


def failure(world: World, **changed) -> dg.Failure:
    with pytest.raises(dg.Failure) as caught:
        world.run(**changed)
    return caught.value


def test_a_job_is_followed_to_its_end_and_what_it_made_is_here(world):
    done = world.run()
    (event,) = done.asset_materializations_for_node("model__candidate")
    assert event.metadata["rows"].value == 7
    assert event.metadata["job"].url.startswith("https://ml.example/runs/candidate-0a1b2c3d-4e5f-")
    assert (world.out / "model.onnx").read_bytes() == MODEL
    (name,) = world.stub.submitted
    job = world.stub.jobs[name]
    assert job["tags"] == {"dagster_run": RUN, "training_set": "5e7"}
    assert job["limits"]["timeout"] == "PT1H"
    assert job["identity"] == {"identityType": "Managed"}
    assert job["experimentName"] == "edge-ai"
    (environment,) = world.stub.environments.values()
    assert environment["image"].startswith("mcr.microsoft.com/azureml/")
    assert "dagster-pipes==" in environment["condaFile"]
    assert not world.stub.cancelled


def test_a_jobs_identity_is_that_of_the_settings(world):
    world.run(identity="00000000-0000-0000-0000-00000000000a")
    (job,) = world.stub.jobs.values()
    assert job["identity"]["clientId"] == "00000000-0000-0000-0000-00000000000a"


BUSY = Reply(429, {"error": {"code": "TooManyRequests", "message": "Later."}}, {"Retry-After": "7"})


@pytest.mark.parametrize(
    ("on", "whats"),
    [
        (f"GET {JOBS}", [Reply(500, {"error": {"code": "InternalServerError", "message": "Oh."}})] * 3),
        (f"GET {JOBS}", [Reply(503)]),
        (f"GET {JOBS}", [RESET, RESET]),
        (f"GET {JOBS}", [RESET, Reply(502, b"<html>a gateway"), BUSY]),
        (f"PUT {JOBS}", [Reply(502, b"<html>a gateway"), BUSY, RESET]),
        (f"PUT {azure_ml.WORKSPACE}/environments/", [RESET, Reply(503), BUSY]),
    ],
)
def test_what_passes_is_waited_for_and_one_job_runs(world, on, whats):
    world.control.fail(on, *whats)
    assert world.run().success
    assert len(world.stub.submitted) == 1
    assert not world.control.faults


def test_a_service_that_takes_a_question_and_never_answers_is_asked_again(world):
    world.control.fail(f"GET {JOBS}", SILENCE)
    world.control.fail(f"PUT {JOBS}", SILENCE)
    world.read_seconds = 1.0
    assert world.run().success
    assert len(world.stub.submitted) == 1


def test_a_service_that_asks_for_time_gets_it(world):
    world.control.fail("/jobs/", BUSY)
    world.run()
    assert world.time.slept[0] == 7


@pytest.mark.parametrize("what", [RESET, Reply(500), Reply(504)])
def test_a_job_whose_submission_got_no_answer_is_found_and_not_submitted_again(world, what):
    world.control.fail(f"PUT {JOBS}", what, after=True)
    assert world.run().success
    assert len(world.stub.submitted) == 1


def test_a_token_that_expires_meanwhile_is_renewed(world):
    def expire() -> None:
        world.act()
        if len(world.time.slept) == 1:
            world.control.tokens, world.bearer.token = {"token-2"}, "token-2"

    world.time.then = expire
    assert world.run().success
    assert world.control.count("/jobs/") > 3


def test_a_credential_that_is_refused_is_said_at_once(world):
    world.bearer.token = "nobody's"
    said = str(failure(world))
    assert "refuses the credential (401)" in said
    assert "AzureML Data Scientist" in said
    assert world.time.now < 10


def test_an_outage_longer_than_patience_leaves_the_job_and_the_next_run_takes_it_over(world):
    world.stub.course = ["Running"]
    world.time.then = lambda: (world.act(), world.control.fail("/jobs/candidate", *[RESET] * 9))
    assert "re-executed takes it over" in str(failure(world))
    assert not world.stub.cancelled
    world.control.faults.clear()
    world.time.then, world.stub.course = world.act, ["Running", "Completed"]
    done = world.run()
    (event,) = done.asset_materializations_for_node("model__candidate")
    assert event.metadata["rows"].value == 7
    assert len(world.stub.submitted) == 1


def test_a_job_that_ended_while_nobody_looked_is_taken_over(world):
    world.run()
    world.stub.course = ["Completed"]
    assert world.run().success
    assert len(world.stub.submitted) == 1


def test_other_work_or_another_run_is_another_job(world):
    world.run()
    world.stub.course = ["Running", "Completed"]
    world.usecase.write_text("name: other")
    world.run()
    world.stub.course = ["Running", "Completed"]
    world.run(run_id=RUN.replace("0a1b2c3d", "ffffffff"))
    assert len(set(world.stub.submitted)) == 3


@pytest.mark.parametrize("state", ["Failed", "Canceled"])
def test_a_job_that_did_not_work_is_started_again_under_the_next_name(world, state):
    world.stub.course = [state]
    failure(world)
    world.stub.course = [state, "Running", "Completed"]
    assert world.run().success
    first, second = world.stub.submitted
    assert second == f"{first}-2"


def test_why_a_job_failed_is_said_with_its_last_lines_and_where_to_look(world):
    world.stub.course = ["Running", "Failed"]
    world.play(
        made={},
        said="reading rows",
        last={
            "exception": {
                "name": "TrainingError",
                "message": "no label",
                "stack": [],
                "cause": None,
                "context": None,
            }
        },
    )
    failed = failure(world)
    assert "is Failed: Execution failed. User process exited with 1." in failed.description
    assert "reading rows\nTrainingError: no label" in failed.description
    assert failed.metadata["job"].url.startswith("https://ml.example/")
    assert not world.out.exists()


def test_a_history_that_never_shows_the_end_keeps_nobody_waiting(world, monkeypatch):
    monkeypatch.setattr(workspaces, "WHY_SECONDS", 0.2)
    monkeypatch.setattr(world.stub, "lagging", "Finalizing")
    world.stub.course = ["Failed"]
    assert "is Failed: its reason was not there within 0.2 seconds" in failure(world).description


def test_a_job_that_somebody_cancels_fails_the_run(world):
    world.stub.course = ["Running", "CancelRequested", "Canceled"]
    assert "somebody cancelled it" in failure(world).description


@pytest.mark.parametrize("interrupt", [dg.DagsterExecutionInterruptedError, KeyboardInterrupt])
def test_a_run_that_is_terminated_cancels_the_job_and_fails(world, interrupt):
    def terminate() -> None:
        raise interrupt()

    world.stub.course, world.time.then = ["Running"], terminate
    with pytest.raises(interrupt):
        world.run()
    assert world.stub.cancelled == world.stub.submitted
    assert len(world.stub.cancelled) == 1


@pytest.mark.parametrize(
    "what", [Reply(409, {"error": {"code": "Conflict", "message": "The job has ended."}}), Reply(403)]
)
def test_a_run_that_is_terminated_stays_so_when_its_job_cannot_be_cancelled(world, what):
    """Else it were a failure, and what retries failed runs would start it again."""

    def terminate() -> None:
        world.control.fail("/cancel", what)
        raise dg.DagsterExecutionInterruptedError()

    world.stub.course, world.time.then = ["Running"], terminate
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        world.run()
    assert world.control.count("/cancel") == 1


def test_a_job_that_takes_too_long_is_cancelled(world):
    world.stub.course = ["Queued"]
    assert "was still Queued after 0.05 hours" in failure(world, hours=0.05).description
    assert world.stub.cancelled == world.stub.submitted
    assert 180 <= world.time.now < 200


def test_a_job_without_a_last_word_is_not_trusted(world):
    world.said.pop()
    assert "ended without a last message" in failure(world).description


def test_files_are_those_that_the_script_reported(world):
    world.made = {"model.onnx": MODEL + b"!", "more.txt": b""}
    assert "is not what the training script wrote: model.onnx, more.txt" in failure(world).description


def test_a_folder_among_the_files_is_said_too(world):
    """Outputs of a job are a folder that whoever may write to the container may add to."""
    world.blobs.fetch = lambda folder, into: (
        (into / "more").mkdir(parents=True)
        or (
            (into / "model.onnx").write_bytes(MODEL),
            (into / "more" / "x.txt").write_bytes(b""),
        )
    )
    assert "is not what the training script wrote: more/x.txt" in failure(world).description


def test_of_a_job_that_azure_started_anew_the_last_report_counts(world):
    """Its machine was taken away when the script was done, and before the job was."""
    first, (world.said, world.made) = world.said, ([], {"model.onnx": MODEL + b" of another machine"})
    world.play(made=world.made)
    world.said = first + world.said
    done = world.run()
    assert len(done.asset_materializations_for_node("model__candidate")) == 1
    assert (world.out / "model.onnx").read_bytes() == world.made["model.onnx"]


def test_a_message_that_cannot_be_read_is_said_and_ends_the_run(world):
    world.act = lambda: world.blobs.update(
        {f"jobs/{name}/messages/1.json": b"no message" for name in world.stub.submitted}
    )
    world.time.then = world.act
    assert "messages/1.json is no message of Dagster Pipes" in failure(world).description


def test_a_training_set_that_is_not_there_yet_starts_nothing(world):
    world.blobs.clear()
    assert "training_set/5e7.parquet is not in the container lake yet" in failure(world).description
    assert not world.stub.submitted


def test_a_candidate_is_a_version_of_a_model_and_the_champion_is_told(world):
    training, folder = world.training(), world.home.candidates / RUN
    folder.mkdir(parents=True)
    world.control.fail("/models/tiny", RESET)
    for _ in range(2):
        said = training.register("tiny", folder, LINEAGE, {"cv_f1": 0.9})
    assert said == {"registered": "ws: tiny:0a1b2c3d-4e5f"}
    world.control.fail("/models/tiny", Reply(500))
    training.promote("tiny", LINEAGE)
    training.promote("tiny", LINEAGE)
    ((name, model),) = world.stub.models.items()
    assert name == ("tiny", "0a1b2c3d-4e5f")
    assert model["tags"] == {
        "dagster_run": RUN,
        "training_set": "5e7",
        "usecase": "d16e57",
        "cv_f1": "0.9",
        "champion": "true",
    }
    assert model["modelUri"].endswith(f"/datastores/lake/paths/models/candidates/{RUN}/")


def test_a_champion_that_was_never_registered_is_said(world):
    with pytest.raises(dg.Failure, match="has no model tiny:0a1b2c3d-4e5f"):
        world.training().promote("tiny", LINEAGE)


def test_figures_are_the_numbers_among_what_was_reported():
    made = dg.MaterializeResult(
        metadata={
            "rows": dg.MetadataValue.int(7),
            "f1": dg.MetadataValue.float(0.5),
            "notes": dg.MetadataValue.text("x"),
        }
    )
    assert figures([made]) == {"rows": 7.0, "f1": 0.5}


def test_with_the_accounts_key_a_job_gets_a_signature_that_ends_when_it_must():
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

    def given(credential) -> dict[str, str]:
        return way(Account("https://acct.example", credential), "lake", None, 2.0)

    said = parse_qs(given(AzureNamedKeyCredential("acct", "c2VjcmV0"))["signature"])
    assert (said["sr"], said["sp"]) == (["c"], ["rcwl"])
    left = datetime.fromisoformat(said["se"][0]) - datetime.now(UTC)
    assert timedelta(hours=1.9) < left <= timedelta(hours=2)
    assert given(AzureSasCredential("sv=1&sig=x"))["signature"] == "sv=1&sig=x"
    assert given(azure_ml.Bearer())["signature"] == ""


def way_of(world: World, job: dict) -> dict[str, str]:
    return json.loads(world.blobs[job["inputs"]["way"]["uri"].removeprefix(azure_ml.STORE)])


def test_a_signature_is_in_the_container_and_nowhere_that_a_reader_of_the_workspace_sees(world, monkeypatch):
    from azure.core.credentials import AzureNamedKeyCredential

    keyed = Account("https://acct.example", AzureNamedKeyCredential("acct", "c2VjcmV0"))
    monkeypatch.setattr(f"{__name__}.ACCOUNT", keyed)
    done = world.run()
    (job,) = world.stub.jobs.values()
    signature = parse_qs(way_of(world, job)["signature"])["sig"][0]
    environment = {name: decode_param(value) for name, value in job["environmentVariables"].items()}
    shown = [json.dumps([job, environment]), *(str(event) for event in done.all_events)]
    assert environment["DAGSTER_PIPES_CONTEXT"].keys() == {"bucket", "key"}
    assert not [text for text in shown if "sig=" in text or signature in text]


def test_a_job_is_told_the_identity_that_it_runs_as(world):
    world.run(identity="00000000-0000-0000-0000-00000000000a")
    (job,) = world.stub.jobs.values()
    told = way_of(world, job)
    assert told["identity"] == "00000000-0000-0000-0000-00000000000a"
    assert told["endpoint"] == "https://acct.example"
