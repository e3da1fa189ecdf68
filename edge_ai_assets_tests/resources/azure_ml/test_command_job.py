from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets import usecase as usecases
from edge_ai_assets.ml import over_blobs
from edge_ai_assets.ml.split import split
from edge_ai_assets.resources.azure_ml import command_job
from edge_ai_assets.resources.azure_ml.command_job import ROOTS, Work, pinned
from edge_ai_assets_tests.ml.ml_cases import prepared, usecase

WORK = Work("jobs/given/c0de.zip", "jobs/given/ca5e.yaml", "training_set/5e7.parquet")
RUN = "0a1b2c3d-4e5f-4000-8000-000000000001"
ALONE = """
import json, sys
from importlib.metadata import packages_distributions

pinned, owners = set(json.loads(sys.argv[1])), packages_distributions()


class OnlyPinned:
    def find_spec(self, name, *_):
        found = owners.get(name.partition(".")[0], ())
        of = {dist.lower().replace("_", "-").replace(".", "-") for dist in found}
        if of and not of & pinned:
            raise ModuleNotFoundError(f"{name} is of {of}, which is not pinned", name=name)


sys.meta_path.insert(0, OnlyPinned())
import azure.identity, azure.storage.blob
from edge_ai_assets.ml import over_blobs, train
sys.exit(train.main(sys.argv[2:]))
"""


def test_the_code_is_one_file_that_python_runs_from(tmp_path):
    archive = tmp_path / "code.zip"
    archive.write_bytes(command_job.code())
    done = subprocess.run(
        [sys.executable, "-m", "edge_ai_assets.ml.train", "--help"],
        env={**os.environ, "PYTHONPATH": str(archive)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--training-set" in done.stdout


def test_the_same_code_has_the_same_bytes_and_nothing_but_code():
    data = command_job.code()
    assert data == command_job.code()
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert all(name.startswith("edge_ai_assets/") and name.endswith(".py") for name in names)
    assert len(data) < 2_000_000


def test_the_script_needs_nothing_but_what_is_pinned(tmp_path):
    usecases.dump(usecase(), tmp_path / "case.yaml")
    rows = prepared(usecase()).assign(_origin="lake")
    rows.assign(_split=split(rows)).to_parquet(tmp_path / "set.parquet", index=False)
    given = ["--usecase", "case.yaml", "--training-set", "set.parquet", "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(sorted(pinned(ROOTS))), *given],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.onnx").exists()


def test_dagster_itself_is_not_among_them():
    assert "dagster" not in pinned(ROOTS)
    assert "dagster-pipes" in pinned(ROOTS)


def test_the_environment_names_exact_versions():
    python, pip, packages = command_job.environment()["dependencies"]
    assert python == f"python={sys.version.split()[0]}"
    assert pip == "pip"
    assert all(line.count("==") == 1 for line in packages["pip"])


names = st.text("abcdef0123456789/.", min_size=1, max_size=20)
works = st.builds(Work, names, names, names)


@given(st.uuids().map(str), works, works)
def test_a_name_is_that_of_the_run_and_the_work(run, one, other):
    assert command_job.job_name(run, one) == command_job.job_name(run, one)
    assert (command_job.job_name(run, one) == command_job.job_name(run, other)) == (one == other)
    assert command_job.job_name(run, one).startswith(f"candidate-{run[:8]}")
    assert len(command_job.job_name(run, one)) < 60


class Container(dict[str, bytes]):
    """A container in memory, as the script's side sees it."""

    def get_container_client(self, name):
        assert name == "lake"
        return self

    def list_blob_names(self, name_starts_with):
        return [name for name in self if name.startswith(name_starts_with)]

    def get_blob_client(self, container, name):
        return Blob(self, name)


class Blob:
    def __init__(self, container, name):
        self.container, self.name = container, name

    def __enter__(self):
        return self

    def __exit__(self, *_): ...

    def upload_blob(self, data):
        assert self.name not in self.container, f"{self.name} is there"
        self.container[self.name] = data


@pytest.mark.parametrize("former", [0, 1, 12])
def test_a_job_that_starts_anew_goes_on_counting_its_messages(former):
    lake = Container({f"jobs/j/messages/{n}.json": b"" for n in range(1, former + 1)})
    writer = over_blobs._Continuing(lake)
    channel = writer.make_channel({"bucket": "lake", "key_prefix": "jobs/j/messages"})
    for index in (1, 2):
        channel.upload_messages_chunk(io.StringIO("{}"), index)
    assert sorted(lake, key=len) == [f"jobs/j/messages/{n}.json" for n in range(1, former + 3)]
