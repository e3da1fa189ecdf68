"""The training script: `python -m edge_ai_assets.ml.train --usecase F.yaml --training-set F.parquet --out
DIR`.

Started by Dagster Pipes, here or through `over_blobs` on Azure ML, it reports its progress, its figures, the
digests of its files and the parity check to the asset it makes; started by hand it prints them as JSON. What
training is stands in `training`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ai_assets import usecase as usecases
from edge_ai_assets.ml import environment, onnx_export, training
from edge_ai_assets.ml.features import FeaturesError
from edge_ai_assets.ml.model_card import model_card
from edge_ai_assets.ml.pipeline import EstimatorError
from edge_ai_assets.scoring import contract as contracts
from edge_ai_assets.scoring.contract import ContractError
from edge_ai_assets.usecase import UseCaseError

if TYPE_CHECKING:
    import pandas as pd


class ParityError(RuntimeError):
    """The ONNX file does not score as the trained model does."""


def run(usecase_path: Path, training_set: Path, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Train, export, check and write `out`: model.onnx, contract.json, metrics.json, usecase.yaml,
    model_card.md.

    The folder appears whole or not at all, and one that is there is replaced. The same use case and training
    set give the same bytes.

    Returns:
        `metrics` (what metrics.json holds), `parity` (passed and a description), `files` (their SHA-256, by
        name), `seconds` and `notes`.

    Raises:
        UseCaseError, FeaturesError, TrainingError, EstimatorError, ContractError: training cannot work.
    """
    begun = time.monotonic()
    usecase = usecases.load(usecase_path)
    frame = _read(training_set)
    say(f"{len(frame)} rows of {training_set.name}: training {usecase.estimator.name}")
    candidate = training.train(frame, usecase)
    for note in candidate.notes:
        say(note)
    model = onnx_export.export(candidate)
    agreed = onnx_export.parity(model, candidate, frame)
    say(f"exported {len(model):,} bytes; largest score difference {agreed.max_abs_difference:.2g}")
    metrics = _metrics(candidate, agreed)
    files = {
        "model.onnx": model,
        "metrics.json": (json.dumps(metrics, indent=1) + "\n").encode(),
        "usecase.yaml": usecase_path.read_bytes(),
        "model_card.md": model_card(candidate, usecase, frame).encode(),
        environment.NAME: environment.describe(),
    }
    _write(out, files, candidate.contract)
    passed = agreed.holds(usecase.gates.parity)
    described = (
        f"largest score difference {agreed.max_abs_difference:.2g} (at most {usecase.gates.parity:g}), "
        f"{agreed.labels_differing} of {agreed.rows} labels differ"
    )
    return {
        "metrics": metrics,
        "parity": {"passed": passed, "description": described},
        "files": {path.name: _digest(path) for path in sorted(out.iterdir())},
        "seconds": round(time.monotonic() - begun, 2),
        "notes": list(candidate.notes),
    }


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0; 1 with a line on standard error when training cannot work or the export differs."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_ai_assets.ml.train", description="Train a candidate."
    )
    parser.add_argument("--usecase", type=Path, required=True, help="use case, YAML")
    parser.add_argument("--training-set", type=Path, required=True, help="training set, Parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the candidate to")
    given = parser.parse_args(arguments)
    import dagster_pipes as pipes

    try:
        if not pipes.PipesEnvVarParamsLoader().is_dagster_pipes_process():  # type: ignore[no-untyped-call]
            done = run(
                given.usecase, given.training_set, given.out, lambda line: print(line, file=sys.stderr)
            )
            print(json.dumps(done, indent=1))
        else:
            with pipes.open_dagster_pipes() as context:
                done = run(given.usecase, given.training_set, given.out, context.log.info)
                _report(context, done)
                return 0  # a failed check stops the graph by being a blocking one
        if not done["parity"]["passed"]:
            raise ParityError(f"the export does not score as the model does: {done['parity']['description']}")
    except (
        *(UseCaseError, FeaturesError, training.TrainingError, EstimatorError, ContractError),
        *(ParityError, OSError),
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _report(context: Any, done: dict[str, Any]) -> None:
    metadata = {
        **done["metrics"],
        "train_seconds": done["seconds"],
        "notes": " ".join(done["notes"]) or "none",
        "files": {"raw_value": done["files"], "type": "json"},
    }
    context.report_asset_materialization(metadata=metadata, asset_key=context.asset_key)
    context.report_asset_check(
        check_name="parity",
        passed=done["parity"]["passed"],
        severity="ERROR",
        metadata={
            "description": done["parity"]["description"],
            "max_abs_difference": done["metrics"]["parity_difference"],
            "rows": int(done["metrics"]["parity_rows"]),
        },
        asset_key=context.asset_key,
    )


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except pa.ArrowInvalid as error:
        raise training.TrainingError(f"{path} is no Parquet file: {error}") from error


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _metrics(candidate: training.Candidate, agreed: onnx_export.Parity) -> dict[str, float]:
    cv = candidate.cv
    found = (
        {}
        if cv is None
        else {
            "cv_f1": cv.f1,
            "cv_false_alarm_rate": cv.false_alarm_rate,
            "cv_miss_rate": cv.miss_rate,
            "cv_roc_auc": cv.roc_auc,
        }
    )
    return {
        **found,
        "threshold": candidate.contract.threshold,
        "rows": candidate.rows,
        "runs": candidate.runs,
        "inputs": len(candidate.contract.inputs),
        "parity_difference": agreed.max_abs_difference,
        "parity_labels_differing": agreed.labels_differing,
        "parity_rows": agreed.rows,
    }


def _write(out: Path, files: dict[str, bytes], contract: contracts.Contract) -> None:
    fresh = out.with_name(f".{out.name}.fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, content in files.items():
        (fresh / name).write_bytes(content)
    contracts.write(contract, fresh / "contract.json")
    if out.exists():
        shutil.rmtree(out)
    fresh.replace(out)


if __name__ == "__main__":
    sys.exit(main())
