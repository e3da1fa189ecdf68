"""A serverless Spark job by the real client: its script uploaded, the job followed, its features taken on."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from edge_ai_assets.ml import duckdb_features, spark_features, training_set
from edge_ai_assets.resources.azure_ml.workspace import Workspace
from edge_ai_assets.resources.calling.patience import Patience
from edge_ai_assets.resources.spark.azure_ml import ServerlessSpark
from edge_ai_assets.resources.spark.engine import SparkEngine
from edge_ai_assets_tests.contract.azure_ml import GROUP, NAME, SUBSCRIPTION, Bearer, workspace
from edge_ai_assets_tests.contract.azure_ml_spark import SparkJobs
from edge_ai_assets_tests.contract.control_plane_stub import Reply
from edge_ai_assets_tests.integration.azurite import azurite
from edge_ai_assets_tests.ml.ml_cases import readings, usecase

__all__ = ["azurite"]
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


def test_features_of_a_serverless_job_make_the_same_training_set(azurite, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    readings().to_parquet(raw / "a.parquet", index=False)
    account = azurite.account("cloud")
    lake, code = azurite.container("mlsparklake"), azurite.container("mlsparkcode")
    container = account.container(lake)
    container.upload_blob("raw_telemetry/a.parquet", (raw / "a.parquet").read_bytes())

    def run(job):
        """What the script would do, done by the other engine."""
        folder = re.search(r"--out abfss://\S+?/(jobs/\S+)/made", job["args"])[1]
        assert {blob.rpartition("/")[2] for blob in container.list_blob_names(name_starts_with=folder)} == {
            "plan.json",
            "spark_features.py",
        }
        made = duckdb_features.make(raw, usecase(), tmp_path / "made")
        made = msgspec.structs.replace(made, plan=folder.rpartition("-")[2], engine="spark 3.5")
        container.upload_blob(f"{folder}/made/p.parquet", (tmp_path / "made/features.parquet").read_bytes())
        container.upload_blob(f"{folder}/made/manifest.json", msgspec.json.encode(made))
        return "Completed"

    with workspace(tmp_path) as stub:
        jobs = SparkJobs(stub, account, code, run)
        stub.stub.fail("PUT", Reply(503, {"error": {"code": "busy"}}))
        patience = Patience(seconds=60, first=0.05, most=0.1)
        place = Workspace(
            SUBSCRIPTION, GROUP, NAME, Bearer(), stub.stub.endpoint, stub.stub.ca, patience=patience
        )
        engine = SparkEngine(ServerlessSpark(place), account, lake)
        there = training_set.make(raw, tmp_path / "tables", usecase(), tmp_path / "there", engine)
    here = training_set.make(raw, tmp_path / "tables", usecase(), tmp_path / "here")
    assert there.version == here.version and there.engine == "spark 3.5" and len(jobs.jobs) == 1
    uploaded = {
        blob.rpartition("/")[2]: account.container(code).download_blob(blob).readall()
        for blob in account.container(code).list_blob_names()
    }
    assert list(uploaded) == ["spark_features.py"]
    assert uploaded["spark_features.py"] == Path(spark_features.__file__).read_bytes()
