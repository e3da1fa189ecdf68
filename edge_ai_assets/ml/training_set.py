"""Training sets: features of readings, and feedback, split, as one Parquet file named by its content.

How readings become features is `feature_plan`'s, who computes them the engine's. However many rows there are,
a bounded number of them is in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_ai_assets.ml import duckdb_features, feature_plan, features, split
from edge_ai_assets.ml.duckdb_features import text
from edge_ai_assets.ml.feature_plan import Manifest
from edge_ai_assets.ml.features import quoted
from edge_ai_assets.ml.scratch import scratch
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    import pandas as pd

NEWEST = "newest.json"
RUNS = """
SELECT _site, _run, count(*) AS rows, bool_or(_label) AS positive, bool_or(NOT _label) AS negative,
  bool_or(_origin = 'feedback') AS feedback, min(_time) AS start,
  count(*) FILTER (_label) AS positives, count(DISTINCT _origin) AS origins
FROM learnt GROUP BY _site, _run ORDER BY min(_place), _site, _run
"""


class NoTrainingSet(RuntimeError):
    """There is nothing to make a training set of, or none was made yet."""


class Engine(Protocol):
    """Who makes features of the readings: `duckdb_features.make`, or Spark on a cluster."""

    def __call__(self, raw: Path, usecase: UseCase, into: Path) -> Manifest:
        """Write features of all readings in the folder `raw` as Parquet files into the new folder `into`."""


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
    engine: str


def make(raw: Path, tables: Path, usecase: UseCase, out: Path, engine: Engine = duckdb_features.make) -> Made:
    """Make the training set of everything that is known now.

    Args:
        raw: folder of Parquet files with canonical readings.
        tables: folder of the global Delta tables; feedback is read from there if any came home.
        out: folder; the file is named by `content_version`. One that is there already is left as it is.

    Raises:
        NoTrainingSet: no labelled reading is left.
        SplitError: there are fewer than two runs.
    """
    import pyarrow.parquet as parquet

    if not any(raw.glob("*.parquet")):
        raise NoTrainingSet(f"{raw} holds no readings: land files first")
    returned = from_feedback(_feedback(tables), usecase)
    returned = returned[returned["_label"].notna()]
    out.mkdir(parents=True, exist_ok=True)
    with scratch(out) as folder:
        into, fresh, note = (folder / name for name in ("features", "fresh.parquet", NEWEST))
        manifest = engine(raw, usecase, into)
        runs = _write(into, returned, usecase, fresh)
        if runs.empty:
            raise NoTrainingSet(
                f"no labelled reading in {raw}: is {usecase.label.column!r} the label column?"
            )
        version = content_version(_definition(usecase), (*_contents(fresh, usecase), returned))
        path = out / f"{version}.parquet"
        if not path.exists():
            os.replace(fresh, path)
        note.write_text(json.dumps({"version": version}))
        os.replace(note, out / NEWEST)
    rows = int(runs["rows"].sum())
    return Made(
        path=path,
        rows=rows,
        runs=int(runs["origins"].sum()),
        held_back=int(runs["rows"][runs["_split"] == "holdout"].sum()),
        feedback=len(returned),
        repeated=manifest.rows_read - manifest.rows,
        positive_share=float(runs["positives"].sum() / rows),
        columns=[(field.name, str(field.type)) for field in parquet.read_schema(path)],
        engine=manifest.engine,
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


def content_version(definition: str, contents: Iterable[pd.DataFrame]) -> str:
    """SHA-256 over a definition and the values of rows, in order, however they are cut; 16 hex digits.

    What is derived from readings counts by its definition: two engines, and one engine on two machines, add a
    window up in another order and differ in its last digits. What it is derived from is the same bit by bit.
    """
    import pandas as pd

    digest = hashlib.sha256(definition.encode())
    for frame in contents:
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

    kinds = {item.name: "float64" if item.kind == "number" else "object" for item in features.inputs(usecase)}
    table = table.sort_values(["site", "id"]).drop_duplicates(["site", "sequence"], keep="last")
    fields = [json.loads(text) for text in table["fields"]]
    frame = pd.DataFrame(
        {name: pd.Series([row.get(name) for row in fields], dtype=kind) for name, kind in kinds.items()}
    )
    frame["_site"] = table["site"].to_numpy()
    frame["_run"] = [f"{row.get('_run', '')}" for row in fields]
    frame["_row"] = table["sequence"].to_numpy()
    frame["_time"] = pd.to_datetime([row.get("_time") for row in fields]).astype("datetime64[us]")
    frame["_label"] = pd.array(table["correct"].tolist(), dtype="boolean")
    frame["_origin"] = "feedback"
    known = frame[[feature.name for feature in usecase.features]].notna().any(axis=1)
    return frame[known].reset_index(drop=True)


def _write(into: Path, returned: pd.DataFrame, usecase: UseCase, fresh: Path) -> pd.DataFrame:
    """Write rows to learn from, of both origins, split and in a fixed order.

    Returns:
        One row a run, as `RUNS` has it, with `_split`; nothing is written if there is none.
    """
    kinds = {item.name: "DOUBLE" if item.kind == "number" else "STRING" for item in features.inputs(usecase)}
    names = {name: quoted(name) for name in (*feature_plan.OWN, *kinds)}
    typed = ", ".join(
        f"CAST({names[name]} AS {kind}) AS {names[name]}"
        for name, kind in {**feature_plan.OWN, **kinds}.items()
    )
    lake = f"read_parquet({text(into / '*.parquet')})"
    with duckdb_features.bounded(fresh.parent) as connection:
        connection.register("returned", returned.assign(_place=range(1, len(returned) + 1)))
        connection.execute(
            f"CREATE VIEW learnt AS SELECT {typed}, 'lake' AS _origin, 0 AS _place FROM {lake} "  # noqa: S608
            f"WHERE _label IS NOT NULL AND _row >= {usecase.windows.baseline_rows} "
            f"UNION ALL SELECT {typed}, 'feedback', _place FROM returned"
        )
        runs: pd.DataFrame = connection.sql(RUNS).df()
        if runs.empty:
            return runs
        held = split.held_back(runs)
        runs["_split"] = ["holdout" if number in held else "train" for number in runs.index]
        connection.register("runs", runs)
        columns = ", ".join(f"learnt.{name}" for name in names.values())
        connection.execute(
            f"COPY (SELECT {columns}, _origin, _split FROM learnt JOIN runs "  # noqa: S608
            "ON learnt._site IS NOT DISTINCT FROM runs._site AND learnt._run IS NOT DISTINCT FROM runs._run "
            f"ORDER BY _place, learnt._site, learnt._run, learnt._row) TO {text(fresh)} "
            "(FORMAT parquet, COMPRESSION zstd)"
        )
    return runs


def _definition(usecase: UseCase) -> str:
    return json.dumps(
        [features.sql(usecase, feature_plan.TABLE), [item.name for item in features.inputs(usecase)]]
    )


def _contents(path: Path, usecase: UseCase) -> Iterator[pd.DataFrame]:
    """All columns but the derived ones, some rows at a time."""
    import pyarrow.parquet as parquet

    columns = [*feature_plan.OWN, *(feature.name for feature in usecase.features), "_origin", "_split"]
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=columns):
            frame: pd.DataFrame = batch.to_pandas()[columns]
            numbers = [feature.name for feature in usecase.numbers]
            frame[numbers] += 0.0  # -0 and 0 are one number, and Parquet may keep either
            yield frame


def _feedback(tables: Path) -> pd.DataFrame:
    import pandas as pd

    from edge_ai_assets.returns.inbox import tables as deltas

    columns = ["site", "sequence", "id", "given_at", "correct", "fields"]
    return pd.DataFrame(deltas.rows(tables, "feedback", columns), columns=columns)
