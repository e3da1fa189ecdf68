import hashlib
import json
import os
import subprocess
import sys

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from edge_ai_assets import usecase as usecases
from edge_ai_assets.ml import evaluation, train
from edge_ai_assets.ml.split import split
from edge_ai_assets.scoring import contract
from edge_ai_assets_tests.ml.ml_cases import prepared, usecase

FILES = {
    "model.onnx",
    "contract.json",
    "environment.cdx.json",
    "metrics.json",
    "usecase.yaml",
    "model_card.md",
}


def training_set(case, **how):
    frame = prepared(case, **how).assign(_origin="lake")
    return frame.assign(_split=split(frame))


@pytest.fixture
def given(tmp_path):
    usecases.dump(usecase(), tmp_path / "case.yaml")
    training_set(usecase()).to_parquet(tmp_path / "set.parquet", index=False)
    return tmp_path


def arguments(folder, out="out"):
    return [
        *("--usecase", str(folder / "case.yaml")),
        *("--training-set", str(folder / "set.parquet"), "--out", str(folder / out)),
    ]


def test_it_writes_a_release_and_prints_json(given, capsys):
    assert train.main(arguments(given)) == 0
    assert {path.name for path in (given / "out").iterdir()} == FILES
    said = json.loads(capsys.readouterr().out)
    assert said["parity"]["passed"] is True
    assert said["metrics"] == json.loads((given / "out" / "metrics.json").read_text())
    assert {"cv_f1", "cv_false_alarm_rate", "threshold", "rows", "runs"} <= set(said["metrics"])
    assert all(isinstance(value, int | float) for value in said["metrics"].values())


def test_what_it_wrote_can_be_read_and_scored(given):
    assert train.main(arguments(given)) == 0
    out = given / "out"
    assert usecases.load(out / "usecase.yaml") == usecase()
    assert contract.read(out / "contract.json").threshold == evaluation.recorded(out)["threshold"]
    assert evaluation.evaluate(out, pd.read_parquet(given / "set.parquet")).f1 > 0.9


def test_the_same_input_gives_the_same_bytes_and_replaces(given):
    assert train.main(arguments(given)) == 0
    first = {path.name: path.read_bytes() for path in (given / "out").iterdir()}
    assert train.main(arguments(given)) == 0
    assert {path.name: path.read_bytes() for path in (given / "out").iterdir()} == first
    assert not list(given.glob(".*"))


def test_the_model_card_says_what_it_is(given):
    assert train.main(arguments(given)) == 0
    card = (given / "out" / "model_card.md").read_text()
    for said in ("# Model card: tiny", "sites a, b, 2026-01-01", "were held back", "first 4 rows of a run"):
        assert said in card
    assert "simulated" not in card


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: f.assign(_label=pd.array([False] * len(f), dtype="boolean")), "rows are negative"),
        (
            lambda f: f.assign(_label=pd.array([None] * len(f), dtype="boolean")),
            "no training row has a label",
        ),
        (lambda f: f.drop(columns="Air: temp [K]"), "'Air: temp [K]' is missing"),
        (lambda f: f.assign(**{"Air: temp [K]": np.inf}), "'Air: temp [K]' is inf"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line_and_exit_code_1(given, capsys, spoil, said):
    spoil(pd.read_parquet(given / "set.parquet")).to_parquet(given / "set.parquet", index=False)
    assert train.main(arguments(given)) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last
    assert not (given / "out").exists()


@pytest.mark.parametrize("missing", ["case.yaml", "set.parquet"])
def test_a_file_that_is_not_there_is_named(given, capsys, missing):
    (given / missing).unlink()
    assert train.main(arguments(given)) == 1
    assert missing in capsys.readouterr().err


def test_a_file_that_is_no_parquet_is_named(given, capsys):
    (given / "set.parquet").write_text("no parquet")
    assert train.main(arguments(given)) == 1
    assert "error: " in capsys.readouterr().err


def test_an_export_that_differs_is_exit_code_1(given, capsys, monkeypatch):
    monkeypatch.setattr(train.onnx_export, "parity", lambda *_: train.onnx_export.Parity(0.2, 3, 10))
    assert train.main(arguments(given)) == 1
    assert "3 of 10 labels differ" in capsys.readouterr().err


def test_under_dagster_pipes_it_reports_figures_and_the_check(given):
    key = dg.AssetKey(["model", "candidate"])

    @dg.asset(key=key, check_specs=[dg.AssetCheckSpec("parity", asset=key, blocking=True)])
    def candidate(context, pipes: dg.ResourceParam[dg.PipesSubprocessClient]):
        command = [sys.executable, "-m", "edge_ai_assets.ml.train", *arguments(given)]
        yield from pipes.run(context=context, command=command, env={"OMP_NUM_THREADS": "1"}).get_results()

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    client = dg.PipesSubprocessClient(env=environment)
    done = dg.materialize([candidate], resources={"pipes": client}, instance=dg.DagsterInstance.ephemeral())
    (made,) = done.asset_materializations_for_node("model__candidate")
    assert made.metadata["cv_f1"].value > 0.9
    assert made.metadata["train_seconds"].value > 0
    written = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (given / "out").iterdir()}
    assert made.metadata["files"].value == written
    (check,) = done.get_asset_check_evaluations()
    assert check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR


def test_as_a_command_its_last_line_is_the_error(given):
    (given / "case.yaml").write_text("name: [")
    done = subprocess.run(
        [sys.executable, "-m", "edge_ai_assets.ml.train", *arguments(given)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "case.yaml:" in done.stderr and "no YAML" in done.stderr
