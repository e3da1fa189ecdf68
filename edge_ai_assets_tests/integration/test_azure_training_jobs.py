"""Training on Azure Machine Learning from end to end: the assets, the real clients, real blobs, and the job's
own process, which has nothing but what was put into the container."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import trustme

from edge_ai_assets.azure.assets import model
from edge_ai_assets.home import Home
from edge_ai_assets.ml import lineage
from edge_ai_assets.ml.split import split
from edge_ai_assets.profiles import AzureProfile
from edge_ai_assets.resources import configured
from edge_ai_assets.resources.azure_ml.command_job import Target
from edge_ai_assets.resources.azure_ml.training import TrainingOnAzure
from edge_ai_assets.resources.azure_ml.workspace import Workspace
from edge_ai_assets.resources.calling.patience import Patience, Refused
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.storage.patient_blobs import PatientBlobs
from edge_ai_assets_tests.contract import azure_ml
from edge_ai_assets_tests.integration.azurite import KEYS, Azurite, azurite, program  # noqa: F401
from edge_ai_assets_tests.ml.ml_cases import prepared, usecase
from edge_ai_assets_tests.ports import free_port

pytestmark = pytest.mark.integration
TERMINATED = Path(__file__).with_name("terminated_training.py")


@pytest.fixture
def home(tmp_path) -> Home:
    made = Home(tmp_path / "home")
    made.training_sets.mkdir(parents=True)
    rows = prepared(usecase()).assign(_origin="lake")
    rows.assign(_split=split(rows)).to_parquet(made.training_sets / "5e7.parquet", index=False)
    (made.training_sets / "newest.json").write_text('{"version": "5e7"}')
    return made


def training(stub: azure_ml.AzureMLStub, home: Home, account: Account) -> TrainingOnAzure:
    place = (azure_ml.SUBSCRIPTION, azure_ml.GROUP, azure_ml.NAME)
    patience = Patience(60, 0.2, 1)
    workspace = Workspace(*place, azure_ml.Bearer(), stub.endpoint, stub.ca, patience)
    return TrainingOnAzure(lambda: (workspace, account), Target("cpu", "lake"), home)


def test_a_candidate_is_trained_there_and_becomes_champion_here_and_there(
    tmp_path,
    home,
    azurite: Azurite,  # noqa: F811
    monkeypatch,
):
    """As two sections of azure.toml make it: the account's key, and the identity that this machine has."""
    account, container = azurite.account("cloud"), azurite.container("lake")
    monkeypatch.setenv("TEST_KEY", KEYS["cloud"])
    storage = {"endpoint": account.endpoint, "credential": {"key": {"env": "TEST_KEY"}}, "lake": container}
    with azure_ml.workspace(tmp_path / "stub", account, container) as stub, stub.login() as known:
        for name, value in known.items():
            monkeypatch.setenv(name, value)
        profile = AzureProfile.model_validate({"storage": storage, "training": stub.section()})
        mirror, trains = HomeMirror(home, profile), configured.training(profile, home)
        mirror.push(home.training_sets)
        done = dg.materialize(
            [model.candidate, model.champion],
            resources={"home": home, "usecase": usecase(), "mirror": mirror, "training": trains},
        )
        (registered,) = stub.models.items()
        (job,) = stub.jobs.values()
    assert done.success, stub.log
    run = done.run_id
    (made,) = done.asset_materializations_for_node("model__candidate")
    assert made.metadata["cv_f1"].value > 0.9
    assert made.metadata["registered"].value == f"ws: tiny:{run[:13]}"
    assert made.metadata["job"].url == f"https://ml.example/runs/{job['displayName']}"
    assert {check.check_name: check.passed for check in done.get_asset_check_evaluations()} == {
        "parity": True,
        "gate": True,
    }
    assert lineage.read(home.champion).training_run == run
    there = set(account.container(container).list_blob_names(name_starts_with="models/"))
    assert {f"models/candidates/{run}/{name}" for name in ("model.onnx", "lineage.json")} <= there
    assert registered[0] == ("tiny", run[:13])
    assert registered[1]["tags"]["champion"] == "true"
    assert float(registered[1]["tags"]["cv_f1"]) == made.metadata["cv_f1"].value


def test_a_folder_is_fetched_and_a_name_that_leads_elsewhere_is_refused(tmp_path, azurite: Azurite):  # noqa: F811
    account, container = azurite.account("cloud"), azurite.container("fetched")
    blobs = PatientBlobs(account, container, Patience(1, 0.1, 0.1))
    blobs.put("jobs/j/candidate/model.onnx", b"a model")
    blobs.put("jobs/j/candidate-2/other", b"")
    blobs.fetch("jobs/j/candidate", tmp_path / "one")
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == {
        "model.onnx": b"a model"
    }
    assert blobs.get("jobs/j/candidate/model.onnx") == b"a model"
    assert blobs.get("jobs/j/nothing") is None
    assert blobs.has("jobs/j/candidate/model.onnx") and not blobs.has("jobs/j/nothing")
    blobs.put("jobs/j/candidate/.ssh", b"")
    with pytest.raises(Refused, match="names that begin with a dot"):
        blobs.fetch("jobs/j/candidate", tmp_path / "two")
    with pytest.raises(Refused, match="no such place"):
        PatientBlobs(account, "absent", Patience(1, 0.1, 0.1)).put("x", b"")


@pytest.fixture
def guarded(tmp_path):
    """An account behind TLS that takes tokens of Microsoft Entra: endpoint and certificates."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours = ca.issue_cert("127.0.0.1")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    port = free_port()
    process = subprocess.Popen(
        [
            *("node", program().with_name("blob").joinpath("main.js")),
            *("--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"),
            *("--skipApiVersionCheck", "--disableTelemetry", "--silent", "--oauth", "basic"),
            *("--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem")),
        ],
        env={**os.environ, "AZURITE_ACCOUNTS": f"cloud:{KEYS['cloud']}"},
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"https://127.0.0.1:{port}/cloud", tmp_path / "ca.pem"
    process.kill()
    process.wait(60)


def entra_token() -> str:
    """A token as Azurite takes them: issuer, audience and times are looked at, no signature."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        **{"iat": now - 60, "nbf": now - 60, "exp": now + 3600},
    }
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join(
        [*(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts), "c2ln"]
    )


def test_a_job_that_has_an_identity_needs_no_secret_and_says_why_it_failed(tmp_path, home, guarded):
    endpoint, ca = guarded
    token = entra_token()
    account = Account(endpoint, azure_ml.Bearer(token), ca=ca)
    container = account.container("lake")
    container.create_container()
    rows = pd.read_parquet(home.training_sets / "5e7.parquet")
    rows = rows.assign(_label=pd.array([None] * len(rows), dtype="boolean"))
    rows.to_parquet(home.training_sets / "5e7.parquet", index=False)
    container.upload_blob("training_set/5e7.parquet", (home.training_sets / "5e7.parquet").read_bytes())
    with azure_ml.identity(token) as compute:
        trusting = {**compute, "REQUESTS_CA_BUNDLE": str(ca)}
        with azure_ml.workspace(tmp_path / "stub", account, "lake", trusting) as stub:
            resources = {"home": home, "usecase": usecase(), "mirror": HomeMirror(home)}
            resources |= {"training": training(stub, home, account)}
            with pytest.raises(dg.Failure) as failed:
                dg.materialize([model.candidate], resources=resources)
            (job,) = stub.jobs.values()
    said = failed.value.description
    assert "User process exited with 1" in said, stub.log
    assert "TrainingError: no training row has a label" in said, stub.log
    assert "sig" not in json.dumps(job)
    assert not home.candidate.exists()


def test_a_run_that_is_terminated_cancels_its_job(tmp_path):
    with azure_ml.workspace(tmp_path / "stub") as stub:
        stub.course = ["Running"]
        command = [sys.executable, str(TERMINATED), stub.endpoint, str(stub.ca), str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        # Where the client of a test before this one has left the name of its cloud, which nobody else knows.
        environment.pop("AZUREML_CURRENT_CLOUD", None)
        run = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 120
        while stub.stub.count("GET") < 5 and time.monotonic() < deadline and run.poll() is None:
            time.sleep(0.05)
        run.terminate()
        assert run.wait(120) != 0
    assert len(stub.submitted) == 1
    assert stub.cancelled == stub.submitted
