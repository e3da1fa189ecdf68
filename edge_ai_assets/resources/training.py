"""Where candidates are trained: here, by a subprocess. `azure_ml.training` has the other place.

Both run the same script, `ml.train`, over Dagster Pipes, and give back what it reported. What is made of
that is the asset's business.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dagster as dg

from edge_ai_assets.ml.lineage import Lineage

SCRIPT = "edge_ai_assets.ml.train"


class Training(Protocol):
    """Where candidates are trained, and where they are known by name."""

    def train(
        self, context: dg.AssetExecutionContext, usecase: Path, training_set: Path, out: Path
    ) -> Sequence[dg.PipesExecutionResult]:
        """Run the training script; what it reported. The folder `out` is there, as it was written.

        Raises:
            dg.Failure: it did not work, with a word for why.
        """

    def register(
        self, name: str, model: Path, lineage: Lineage, figures: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Make a candidate known as a version of a model; where it is known, as Dagster metadata.

        Args:
            name: the model's.
            model: the candidate's folder.
            figures: what training measured.
        """

    def promote(self, name: str, lineage: Lineage) -> None:
        """Make known that a candidate becomes the champion; harmless when repeated."""


@dataclass(frozen=True)
class TrainingHere:
    """Training by a subprocess; the folders of the home are all there is to know."""

    def train(
        self, context: dg.AssetExecutionContext, usecase: Path, training_set: Path, out: Path
    ) -> Sequence[dg.PipesExecutionResult]:
        command = [sys.executable, "-m", SCRIPT]
        command += ["--usecase", str(usecase), "--training-set", str(training_set), "--out", str(out)]
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        return dg.PipesSubprocessClient().run(context=context, command=command, env=threads).get_results()

    def register(
        self, name: str, model: Path, lineage: Lineage, figures: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {}

    def promote(self, name: str, lineage: Lineage) -> None:
        pass


def figures(results: Sequence[dg.PipesExecutionResult]) -> dict[str, float]:
    """What the script measured, by name."""
    found = {name: value.value for name, value in _reported(results).items()}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def verify(folder: Path, results: Sequence[dg.PipesExecutionResult]) -> None:
    """Compare a candidate's files with the digests that the script reported when it had written them.

    Raises:
        dg.Failure: a file is missing, is another one, or is there unannounced.
    """
    reported = _reported(results)
    files: Any = reported["files"].value if "files" in reported else {}
    told = files if isinstance(files, dict) else {}
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    differing = sorted(name for name in told.keys() | found.keys() if told.get(name) != found.get(name))
    if differing or not told:
        raise dg.Failure(
            f"{folder} is not what the training script wrote: {', '.join(differing) or 'it reported none'}; "
            "start a new run, one that is re-executed would find the same files",
            allow_retries=False,
        )


def _reported(results: Sequence[dg.PipesExecutionResult]) -> Mapping[str, dg.MetadataValue[Any]]:
    """The metadata of the candidate."""
    (made,) = (result for result in results if isinstance(result, dg.MaterializeResult))
    return made.metadata or {}  # type: ignore[return-value]
