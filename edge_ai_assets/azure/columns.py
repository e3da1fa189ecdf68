"""Column schemas as the UI shows them: name, kind and, in words, what stands there. What the tables hold is
decided where they are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from edge_ai_assets.ml import features
from edge_ai_assets.scoring.contract import Input
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    import pyarrow as pa

READINGS = {
    "_site": "the site that was measured",
    "_asset": "the plant asset it is of",
    "_run": "readings that belong together; windows and splits never cut through one",
    "_row": "position in the run, from 0",
    "_time": "when it was measured, UTC",
    "_label": "whether it was a fault; empty when nobody knows",
    "_origin": "lake, or feedback from a site",
    "_split": "train, or holdout to judge champion and challenger",
}
GLOBAL = {
    "site": "the site that made the score",
    "package": "number of the return package that brought it",
    "day": "UTC day of the score",
    "asset": "the plant asset, as the egress policy lets it out; empty of scores that are not told by it",
    "sequence": "the site's number of the score; with the site, the key",
    "scored_at": "when the score was made, UTC",
    "release": "image digest of the release that made it",
    "kind": "anomaly or normal",
    "score": "what the model said; from its threshold on it is a fault",
    "predicted": "whether it was called a fault",
    "fields": "inputs and context that the egress policy let out, JSON",
    "id": "the site's number of the feedback; with the site, the key",
    "given_at": "when it was given, UTC",
    "correct": "what is true of the score's row, by that person",
    "note": "free text, if the policy lists it",
    "role": "role of the person",
    "insights": "insights of the day that came home",
    "anomalies": "of these, anomalies",
    "mean_score": "mean score of these insights",
    "scored": "scores made at the site, by its aggregates; empty when it lets none out",
    "anomalies_share": "share of anomalies in these, from 0 to 1; empty when it keeps them",
}


def of_readings(columns: Iterable[tuple[str, str]], usecase: UseCase) -> dg.TableSchema:
    """A table of readings or features, from its columns' names and kinds."""
    inputs = {item.name: _input(item) for item in features.inputs(usecase)}
    return _schema(columns, {**inputs, **READINGS})


def of_lake(folder: Path, usecase: UseCase) -> dg.TableSchema:
    """The readings in a folder of Parquet files; without columns while there is no file."""
    import pyarrow.parquet as parquet

    file = next(folder.glob("*.parquet"), None)
    return of_readings(_arrow(parquet.read_schema(file)) if file else [], usecase)


def of_delta(tables: Path, name: str) -> dg.TableSchema:
    """A global Delta table; without columns while there is no table."""
    from edge_ai_assets.returns.inbox import tables as deltas

    table = deltas.existing(tables, name)
    return _schema(_arrow(table.to_pyarrow_dataset().schema) if table else [], GLOBAL)


def _schema(columns: Iterable[tuple[str, str]], described: Mapping[str, str]) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(name, kind, described.get(name)) for name, kind in columns])


def _arrow(schema: pa.Schema) -> list[tuple[str, str]]:
    return [(field.name, str(field.type)) for field in schema]


def _input(item: Input) -> str:
    """As `bar, 0 to 25`, or `one of A, B`; what is derived says of what."""
    if item.kind == "category":
        return f"one of {', '.join(item.categories)}"
    plausible = "" if item.low is None or item.high is None else f"{item.low:g} to {item.high:g}"
    if item.name != item.base:
        return f"of {item.base}, over earlier rows of the run"
    return ", ".join(part for part in (item.unit, plausible) if part)
