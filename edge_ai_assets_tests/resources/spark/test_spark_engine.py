"""Features from a cluster: put, followed, brought and checked; the same question is asked once."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field

import dagster as dg
import msgspec
import pandas as pd
import pytest

from edge_ai_assets.ml import duckdb_features, spark_features, training_set
from edge_ai_assets.resources.azure_ml.workspace import Workspace
from edge_ai_assets.resources.calling.patience import Patience, Refused, Unavailable
from edge_ai_assets.resources.spark.azure_ml import ServerlessSpark
from edge_ai_assets.resources.spark.engine import Look, SparkEngine
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets_tests.contract.control_plane_stub import Time
from edge_ai_assets_tests.ml.ml_cases import readings, usecase

CASE = usecase()
ROOT = "abfss://lake@acct.dfs.core.windows.net"


class Blobs(dict):
    """Of a container, in memory."""

    def put(self, name, data):
        self[name] = data

    def names(self, folder):
        return {name.removeprefix(f"{folder}/") for name in self if name.startswith(f"{folder}/")}

    def fetch(self, folder, into):
        into.mkdir(parents=True)
        for name in self.names(folder):
            (into / name).write_bytes(self[f"{folder}/{name}"])


@dataclass
class Cluster:
    """Jobs that take a few looks; the last of `course` stays."""

    work: object
    time: Time = field(default_factory=Time)
    jobs: dict = field(default_factory=dict)
    course: list = field(default_factory=lambda: ["starting", "running", "running", "success"])
    cancelled: list = field(default_factory=list)

    @property
    def patience(self):
        return Patience(sleep=self.time.sleep, clock=self.time.clock)

    def look(self, name):
        if name not in self.jobs:
            return None
        course = self.jobs[name]
        state = course.pop(0) if len(course) > 1 else course[0]
        if state == "success":
            self.work()
        return Look(state, state in ("success", "dead"), state == "success")

    def start(self, name, script, arguments):
        self.jobs[name] = list(self.course)
        self.started = script, arguments

    def cancel(self, name):
        self.cancelled.append(name)

    def why(self, name):
        return "out of memory"


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    for run, frame in readings().groupby("_run"):
        frame.to_parquet(tmp_path / "raw" / f"{run}.parquet", index=False)
    return tmp_path / "raw"


@pytest.fixture
def blobs(raw):
    return Blobs({f"raw_telemetry/{file.name}": b"" for file in raw.iterdir()})


@pytest.fixture
def cluster(raw, blobs, tmp_path):
    def work():
        """What the script would do, done by the other engine."""
        (plan,) = (name for name in blobs if name.endswith("/plan.json"))
        folder = plan.removesuffix("/plan.json")
        made = tmp_path / "cluster"
        if not made.exists():
            manifest = duckdb_features.make(raw, CASE, made)
            name = folder.rpartition("-")[2]
            blobs[f"{folder}/made/part-0.parquet"] = (made / "features.parquet").read_bytes()
            blobs[f"{folder}/made/_SUCCESS"] = b""
            blobs[f"{folder}/made/manifest.json"] = msgspec.json.encode(
                msgspec.structs.replace(manifest, plan=name, engine="spark 3.5")
            )

    return Cluster(work)


@pytest.fixture
def engine(cluster, blobs):
    made = SparkEngine(cluster, Account("https://acct.blob.core.windows.net", object()))
    made.__dict__["_blobs"] = blobs
    return made


def test_the_training_set_is_the_one_that_duckdb_makes(engine, cluster, blobs, raw, tmp_path):
    there = training_set.make(raw, tmp_path / "tables", CASE, tmp_path / "there", engine)
    here = training_set.make(raw, tmp_path / "tables", CASE, tmp_path / "here")
    assert there.version == here.version and (there.engine, there.rows) == ("spark 3.5", here.rows)
    pd.testing.assert_frame_equal(pd.read_parquet(there.path), pd.read_parquet(here.path))
    (name,) = cluster.jobs
    script, arguments = cluster.started
    assert script == f"{ROOT}/jobs/{name}/spark_features.py"
    assert dict(zip(arguments[::2], arguments[1::2], strict=True)) == {
        "--plan": f"{ROOT}/jobs/{name}/plan.json",
        "--raw": f"{ROOT}/raw_telemetry",
        "--out": f"{ROOT}/jobs/{name}/made",
    }
    assert blobs[f"jobs/{name}/spark_features.py"].startswith(b'"""Features on Spark')
    assert f"features-{training_set_plan(blobs)}" == name


def training_set_plan(blobs):
    """The name that the script itself gives to the plan."""
    (text,) = (blobs[name] for name in blobs if name.endswith("/plan.json"))
    assert set(json.loads(text)) == {"usecase", "files", "columns", "query"}
    return hashlib.sha256(text).hexdigest()[:16]


def test_what_was_made_is_not_made_again(engine, cluster, raw, tmp_path):
    engine(raw, CASE, tmp_path / "one")
    cluster.jobs.clear()
    engine(raw, CASE, tmp_path / "two")
    assert not cluster.jobs


def test_a_job_on_its_way_is_taken_over_and_another_started_after_one_that_failed(
    engine, cluster, raw, tmp_path
):
    cluster.course = ["running", "dead"]
    with pytest.raises(dg.Failure, match=r"features-.* is dead: out of memory"):
        engine(raw, CASE, tmp_path / "one")
    (first,) = cluster.jobs
    cluster.jobs[f"{first}-2"] = ["running", "success"]
    engine(raw, CASE, tmp_path / "two")
    assert set(cluster.jobs) == {first, f"{first}-2"}


def test_other_readings_or_features_are_another_job(engine, cluster, blobs, raw, tmp_path):
    cluster.course = ["dead"]
    for case in (CASE, usecase(windows={"rows": [4]})):
        with pytest.raises(dg.Failure):
            engine(raw, case, tmp_path / "made")
    min(raw.iterdir()).unlink()
    with pytest.raises(dg.Failure):
        engine(raw, CASE, tmp_path / "made")
    assert len(cluster.jobs) == 3


def test_readings_that_are_not_in_the_lake_yet_are_named(engine, cluster, blobs, raw, tmp_path):
    del blobs["raw_telemetry/run 3.parquet"]
    with pytest.raises(
        dg.Failure, match=r"1 of 8 files .* such as raw_telemetry/run 3.parquet: run lake/raw"
    ):
        engine(raw, CASE, tmp_path / "made")
    assert not cluster.jobs


def test_a_job_that_takes_too_long_is_cancelled(engine, cluster, raw, tmp_path):
    cluster.course = ["running"]
    with pytest.raises(dg.Failure, match="still running after 12 hours and is cancelled"):
        engine(raw, CASE, tmp_path / "made")
    assert cluster.cancelled == list(cluster.jobs) and 12 * 3600 < cluster.time.now < 12.1 * 3600


@pytest.mark.parametrize("kind", [KeyboardInterrupt, dg.DagsterExecutionInterruptedError])
def test_an_interrupted_run_cancels_its_job(engine, cluster, raw, tmp_path, kind):
    def interrupted():
        raise kind

    cluster.time.then = interrupted
    with pytest.raises(kind):
        engine(raw, CASE, tmp_path / "made")
    assert cluster.cancelled == list(cluster.jobs) != []


@pytest.mark.parametrize("error", [Unavailable("out of reach"), Refused("no such place")])
def test_what_goes_wrong_is_a_failure_with_its_sentence(engine, cluster, raw, tmp_path, error):
    def fail(*_):
        raise error

    cluster.start = fail
    with pytest.raises(dg.Failure, match=f"features on Spark: {error}"):
        engine(raw, CASE, tmp_path / "made")


def test_a_torn_result_is_refused(engine, cluster, blobs, raw, tmp_path):
    engine(raw, CASE, tmp_path / "one")
    del blobs[next(name for name in blobs if name.endswith("part-0.parquet"))]
    with pytest.raises(
        dg.Failure, match=r"480 rows were made by plan \w+, and 0 came .* delete jobs/features-"
    ):
        engine(raw, CASE, tmp_path / "two")


def test_a_job_that_vanishes_is_told(engine, cluster, raw, tmp_path):
    cluster.time.then = cluster.jobs.clear
    with pytest.raises(dg.Failure, match="is gone from the cluster"):
        engine(raw, CASE, tmp_path / "made")


@pytest.mark.parametrize(
    ("endpoint", "root"),
    [
        ("https://acct.blob.core.windows.net", ROOT),
        ("https://acct.blob.core.windows.net/", ROOT),
        ("https://acct.z1.blob.storage.azure.net", "abfss://lake@acct.z1.dfs.storage.azure.net"),
        ("https://blob1.blob.core.chinacloudapi.cn", "abfss://lake@blob1.dfs.core.chinacloudapi.cn"),
    ],
)
def test_spark_reaches_the_container_by_the_endpoint_of_files(endpoint, root):
    assert SparkEngine(Cluster(None), Account(endpoint, object())).root == root


@pytest.mark.filterwarnings("ignore")
def test_a_serverless_job_is_what_the_service_documents(tmp_path):
    shutil.copy(spark_features.__file__, tmp_path)
    spark = ServerlessSpark(
        Workspace("sub", "rg", "ws", None), instance="standard_e4s_v3", machines=3, identity="client"
    )
    job = spark.job("features-1", ["--plan", f"{ROOT}/jobs/plan.json"], str(tmp_path))._to_job()
    job.code = "azureml:/subscriptions/sub/codes/c/versions/1"  # as the client leaves it after the upload
    told = job._to_rest_object()["properties"]
    assert told["jobType"] == "Spark"
    assert told["entry"] == {"sparkJobEntryType": "SparkJobPythonEntry", "file": "spark_features.py"}
    assert told["args"] == f"--plan {ROOT}/jobs/plan.json"
    assert told["resources"] == {"instanceType": "standard_e4s_v3", "runtimeVersion": "3.5"}
    assert told["identity"] == {"identityType": "Managed", "clientId": "client"}
    assert told["conf"] == {
        "spark.driver.cores": "4",
        "spark.driver.memory": "28g",
        "spark.executor.cores": "4",
        "spark.executor.memory": "28g",
        "spark.executor.instances": "3",
    }
