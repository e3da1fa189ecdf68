"""Training sets: readings and feedback, as features, split, as one Parquet file named by its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ai_assets.ml import features, split
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    import pandas as pd

NEWEST = "newest.json"


class NoTrainingSet(RuntimeError):
    """There is nothing to make a training set of, or none was made yet."""


@dataclass(frozen=True)
class TrainingSet:
    """A training set on disk."""

    path: Path

    @property
    def version(self) -> str:
        return self.path.stem

    def held_back_frame(self) -> pd.DataFrame:
        """Rows of held-back runs."""
        import pandas as pd

        return pd.read_parquet(self.path, filters=[("_split", "==", "holdout")])


@dataclass(frozen=True)
class Made(TrainingSet):
    """A training set just made, with what there is to say of it."""

    rows: int
    runs: int
    held_back: int
    feedback: int
    repeated: int
    positive_share: float
    columns: list[tuple[str, str]]


def make(raw: Path, tables: Path, usecase: UseCase, out: Path) -> Made:
    """Make the training set of everything that is known now.

    Args:
        raw: folder of Parquet files with canonical readings.
        tables: folder of the global Delta tables; feedback is read from there if any came home.
        out: folder; the file's name is the SHA-256 of its content, so the same rows are the same version.

    Raises:
        NoTrainingSet: no labelled reading is left.
    """
    import pandas as pd

    readings, repeated = _readings(raw, usecase)
    made = features.compute(readings, usecase)
    made = made[features.scorable(made, usecase)].assign(_origin="lake")
    returned = from_feedback(_feedback(tables), usecase)
    frame = pd.concat([made, returned], ignore_index=True) if len(returned) else made.reset_index(drop=True)
    frame = frame[frame["_label"].notna()].reset_index(drop=True)
    if frame.empty:
        raise NoTrainingSet(f"no labelled reading in {raw}: is {usecase.label.column!r} the label column?")
    frame["_split"] = split.split(frame)
    version = content_version(frame)
    path = out / f"{version}.parquet"
    out.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda fresh: frame.to_parquet(fresh, index=False))
    _replace(out / NEWEST, lambda fresh: fresh.write_text(json.dumps({"version": version})))
    return Made(
        path=path,
        rows=len(frame),
        runs=int(frame.groupby(["_origin", "_site", "_run"]).ngroups),
        held_back=int((frame["_split"] == "holdout").sum()),
        feedback=len(returned),
        repeated=repeated,
        positive_share=float(frame["_label"].astype(bool).mean()),
        columns=[(str(name), str(kind)) for name, kind in frame.dtypes.items()],
    )


def newest(folder: Path) -> TrainingSet:
    """The training set made last.

    Raises:
        NoTrainingSet: none was made.
    """
    try:
        version = json.loads((folder / NEWEST).read_text())["version"]
    except FileNotFoundError as error:
        raise NoTrainingSet(f"{folder} holds no training set: materialize lake/training_set first") from error
    return TrainingSet(folder / f"{version}.parquet")


def content_version(frame: pd.DataFrame) -> str:
    """SHA-256 over column names, kinds and values, in order; 16 hex digits."""
    import pandas as pd

    digest = hashlib.sha256(json.dumps([(str(n), str(k)) for n, k in frame.dtypes.items()]).encode())
    digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()[:16]


def from_feedback(table: pd.DataFrame, usecase: UseCase) -> pd.DataFrame:
    """Feedback that came home as rows of a training set.

    Args:
        table: the global feedback table; `fields` is JSON text with the inputs that the egress policy let
        through,
            `correct` the label a person gave. The last word on a score counts: last by the site's own `id`,
            since its clock may step back. Without a single feature there is nothing to learn from: such
            feedback is left out.
    """
    import pandas as pd

    names = [item.name for item in features.inputs(usecase)]
    table = table.sort_values(["site", "id"]).drop_duplicates(["site", "sequence"], keep="last")
    fields = [json.loads(text) for text in table["fields"]]
    frame = pd.DataFrame({name: [row.get(name) for row in fields] for name in names})
    for item in features.inputs(usecase):
        if item.kind == "number":
            frame[item.name] = pd.to_numeric(frame[item.name])
    frame["_site"] = table["site"].to_numpy()
    frame["_run"] = [f"{row.get('_run', '')}" for row in fields]
    frame["_row"] = table["sequence"].to_numpy()
    frame["_time"] = pd.to_datetime([row.get("_time") for row in fields]).astype("datetime64[us]")
    frame["_label"] = pd.array(table["correct"].tolist(), dtype="boolean")
    frame["_origin"] = "feedback"
    known = frame[[feature.name for feature in usecase.features]].notna().any(axis=1)
    return frame[known].reset_index(drop=True)


def _readings(raw: Path, usecase: UseCase) -> tuple[pd.DataFrame, int]:
    """All readings, rows of a run numbered over all files; and how many stood in more than one file.

    A feature that was declared after all these were taken in is missing in them.
    """
    import numpy as np
    import pandas as pd

    files = sorted(raw.glob("*.parquet"))
    if not files:
        raise NoTrainingSet(f"{raw} holds no readings: land files first")
    frame = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    for feature in usecase.features:
        if feature.name not in frame:
            frame[feature.name] = np.nan if feature.kind == "number" else None
    # Not by `_row`: it starts anew in each file. Without times the order within and of the files is kept.
    frame = frame.sort_values(["_site", "_run", "_time"], kind="stable", ignore_index=True)
    timed = frame["_time"].notna()
    again = timed & frame.duplicated(["_site", "_run", "_time"])
    frame = frame[~again].reset_index(drop=True)
    frame["_row"] = frame.groupby(["_site", "_run"], sort=False).cumcount()
    return frame, int(again.sum())


def _feedback(tables: Path) -> pd.DataFrame:
    import pandas as pd

    from edge_ai_assets.returns.inbox import tables as deltas

    columns = ["site", "sequence", "id", "given_at", "correct", "fields"]
    return pd.DataFrame(deltas.rows(tables, "feedback", columns), columns=columns)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    write(fresh)
    os.replace(fresh, path)
