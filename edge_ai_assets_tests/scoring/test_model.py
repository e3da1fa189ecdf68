"""A release is used only if its model does what the contract says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.scoring.model import Model, ModelError, _least_float32
from edge_ai_assets_tests.tiny_model import WEIGHTS, tiny_model, tiny_release


def test_scores_are_the_sigmoid_of_the_weighted_sum(model: Model):
    matrix = np.array([[2, 10, 1, np.nan], [np.nan, np.nan, -1, 5]], np.float32)
    sums = np.nan_to_num(matrix) @ np.array(WEIGHTS) - 2.0
    scores = model.score(matrix)
    assert scores.dtype == np.float32 and scores.shape == (2,)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-sums)), rtol=1e-5)


def test_a_score_at_the_threshold_is_positive_and_compared_as_the_answer_shows_it(tmp_path: Path):
    model = Model(tiny_release(tmp_path, threshold=0.7))
    scores = np.array([0.5, 0.7, 0.71], np.float32)  # float32(0.7) is 0.69999999, below 0.7
    assert (
        model.predicted(scores).tolist() == [float(score) >= 0.7 for score in scores] == [False, False, True]
    )
    assert Model(tiny_release(tmp_path, threshold=0.5)).predicted(scores).tolist() == [True, True, True]


@given(st.floats(0, 1))
def test_scores_of_float32_are_compared_with_any_threshold_as_float64_would(threshold):
    least = _least_float32(threshold)
    assert float(least) >= threshold > float(np.nextafter(least, np.float32(-1)))


def break_nothing_there(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def break_bytes(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no model")


def break_width(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(tiny_model([1.0, 2.0]))


def break_output(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(tiny_model(WEIGHTS, output="label"))


def break_scores(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(tiny_model(WEIGHTS, bias=float("nan")))


def break_contract(folder: Path) -> None:
    (folder / "contract.json").write_text("{}")


def break_contract_away(folder: Path) -> None:
    (folder / "contract.json").unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (break_nothing_there, "model.onnx cannot be loaded"),
        (break_bytes, "model.onnx cannot be loaded"),
        (break_width, "self-test failed"),
        (
            break_output,
            r"must take 'features' and give 'scores', it takes \['features'\] and gives \['label'\]",
        ),
        (break_scores, "self-test failed: row 0: the model's score is nan"),
        (break_contract, "contract cannot be read"),
        (break_contract_away, "contract cannot be read"),
    ],
)
def test_a_broken_release_is_refused_with_a_reason(tmp_path: Path, harm, message):
    release = tiny_release(tmp_path / "release")
    harm(release)
    with pytest.raises(ModelError, match=message) as caught:
        Model(release)
    assert str(release) in str(caught.value)


def test_a_row_without_a_score_is_named(tmp_path: Path):
    model = Model(tiny_release(tmp_path, weights=[0, 0, 0, 0]))
    with pytest.raises(ModelError, match="row 1: the model's score is nan"):
        model.score(np.array([[1, 1, 0, 0], [np.inf, 1, 0, 0]], np.float32))


def test_the_service_imports_nothing_heavy():
    """Only what its small dependency set has; telemetry is off before onnxruntime is imported."""
    script = """
import sys, os
import edge_ai_assets.scoring.serve
import edge_ai_assets.scoring.supervisor
heavy = {"pandas", "sklearn", "dagster", "azure", "duckdb", "pydantic", "onnx", "httpx", "pyarrow", "yaml"}
heavy |= {"uvicorn", "onnxruntime", "prometheus_client", "cryptography"}  # or only when they are used
found = heavy & {name.split(".")[0] for name in sys.modules}
assert not found, found
"""
    subprocess.run(
        [sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_the_supervisor_needs_the_standard_library_only():
    script = """
import sys
import edge_ai_assets.scoring.supervisor
own = {"edge_ai_assets"}
found = {name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - own - {"__main__"}
assert not found, found
"""
    subprocess.run(
        [sys.executable, "-S", "-c", script],
        check=True,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
