"""Features: what a model is given, declared once and compiled to SQL window functions.

The same SQL makes the training set on Azure and the rows a site scores, so the two cannot drift apart.
Nothing here learns from data (that is `training`'s work), and nothing here reads files. Sites use this
module: no scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_ai_assets.scoring.contract import Input
from edge_ai_assets.usecase import Feature, UseCase

if TYPE_CHECKING:
    import pandas as pd

SLACK = 1e-6
"""Share of a range by which a mean of values inside it may lie outside, from rounding."""
AGGREGATES = {"mean": "avg", "std": "stddev_samp", "min": "min", "max": "max"}


class FeaturesError(ValueError):
    """A use case whose inputs cannot be told apart."""


@dataclass(frozen=True)
class _Derived:
    name: str
    of: Feature
    statistic: str
    rows: int
    """Rows of the window; of the baseline for the statistic `from baseline`."""


def inputs(usecase: UseCase) -> tuple[Input, ...]:
    """The model's inputs in order: numbers, categories, then what is derived from the numbers.

    Derived names are `NAME [mean 60]`, `NAME [std 60]`, ... for each window, and `NAME [from baseline]`.
    Trained ranges are unknown here and None.

    Raises:
        FeaturesError: two have one name, as when a feature is called like a derived one.
    """
    numbers = [
        Input(f.name, "number", f.unit, f.name, low, high, kept=f.keep)
        for f in usecase.numbers
        for low, high in [f.range or (None, None)]
    ]
    categories = [
        Input(f.name, "category", f.unit, f.name, categories=f.categories or (), kept=f.keep)
        for f in usecase.features
        if f.kind == "category"
    ]
    derived = [
        Input(item.name, "number", item.of.unit, item.of.name, *_plausible(item), kept=item.of.keep)
        for item in _derived(usecase)
    ]
    every = (*numbers, *categories, *derived)
    taken: set[str] = set()
    for item in every:
        if item.name.casefold() in taken:
            # SQL does not tell upper from lower case, in DuckDB and Spark alike.
            raise FeaturesError(
                f"input {item.name!r} comes twice, but for upper and lower case: rename a feature"
            )
        taken.add(item.name.casefold())
    return every


def sql(usecase: UseCase, table: str, quote: str = '"') -> str:
    """One SELECT of every column of a table of readings and, beside them, the derived inputs.

    Args:
        table: name of the table as it stands in the query, quoted by the caller if need be.
        quote: what encloses an identifier: `"` for DuckDB, a backtick for Spark.
    """
    columns = ["*"]
    for item in _derived(usecase):
        columns.append(f"{_expression(item, quote)} AS {quoted(item.name, quote)}")
    return f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608


def quoted(name: str, quote: str = '"') -> str:
    """An identifier as it stands in SQL."""
    return f"{quote}{name.replace(quote, quote * 2)}{quote}"


def compute(readings: pd.DataFrame, usecase: UseCase) -> pd.DataFrame:
    """Readings with all inputs of the model.

    Args:
        readings: canonical readings; `_site`, `_run` and `_row` together name a row.

    Returns:
        The same rows in the same order, index 0..n-1: the columns whose names begin with an underscore, then
        all inputs; numbers float64 (NaN = missing, as is what is infinite), categories as they came.
    """
    import numpy as np
    import pandas as pd

    derived = [item.name for item in _derived(usecase)]
    own: list[str] = [name for name in readings.columns if str(name).startswith("_")]
    base: pd.DataFrame = readings[[*own, *(item.name for item in inputs(usecase) if item.base == item.name)]]
    numbers = [feature.name for feature in usecase.numbers]
    base = base.reset_index(drop=True)
    base = base.astype({name: "float64" for name in numbers if base[name].dtype != "float64"})
    for name in numbers:
        if np.isinf(base[name].to_numpy()).any():
            base[name] = base[name].where(base[name].abs() < float("inf"))
    if not derived:
        return base
    import duckdb

    # Only what the windows need goes through SQL; labels, times and categories stay as they are.
    needed = base[["_row", *numbers]].copy()
    needed["_run"] = base.groupby(["_site", "_run"], sort=False, dropna=False).ngroup()
    needed["_site"], needed["_position"] = 0, range(len(base))
    names = ", ".join(quoted(name) for name in derived)
    with duckdb.connect() as connection:
        connection.register("readings", needed)
        made = connection.sql(
            f"SELECT {names} FROM ({sql(usecase, 'readings')}) ORDER BY _position"  # noqa: S608
        ).df()
    whole: pd.DataFrame = pd.concat([base, made.astype("float64")], axis=1)
    return whole


def scorable(frame: pd.DataFrame, usecase: UseCase) -> pd.Series:
    """Which rows are trained on and scored: those after a run's baseline. Bool, index of `frame`."""
    return frame["_row"] >= usecase.windows.baseline_rows


def lookback(readings: pd.DataFrame, usecase: UseCase) -> pd.DataFrame:
    """The rows of each run that must be kept so that features of its later rows come out as over the whole
    run.

    These are a run's baseline and its last rows, as many as the longest window, at least one. Between the two
    may be a gap; no window of a later row reaches into it, and the baseline's mean asks for `_row`, not for
    neighbours.

    Args:
        readings: canonical readings; the rows of a run one after the other as `_row` counts them, others may
            lie between.
    """
    last = max((1, *usecase.windows.rows))
    runs = readings.groupby(["_site", "_run"], sort=False, dropna=False)
    ends = runs.cumcount(ascending=False) < last
    return readings[(readings["_row"] < usecase.windows.baseline_rows) | ends]


def _derived(usecase: UseCase) -> Iterator[_Derived]:
    windows = usecase.windows
    for feature in usecase.numbers:
        for rows in dict.fromkeys(windows.rows):
            for statistic in dict.fromkeys(windows.statistics):
                yield _Derived(f"{feature.name} [{statistic} {rows}]", feature, statistic, rows)
        if windows.baseline_rows:
            yield _Derived(f"{feature.name} [from baseline]", feature, "from baseline", windows.baseline_rows)


def _expression(item: _Derived, quote: str) -> str:
    value, row = quoted(item.of.name, quote), quoted("_row", quote)
    run = f"PARTITION BY {quoted('_site', quote)}, {quoted('_run', quote)} ORDER BY {row}"
    if item.statistic == "from baseline":
        # Up to the current row only: what comes later in the run must not change what was scored before.
        baseline = f"avg(CASE WHEN {row} < {item.rows} THEN {value} END)"
        return f"{value} - {baseline} OVER ({run} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    window = f"{run} ROWS BETWEEN {item.rows - 1} PRECEDING AND CURRENT ROW"
    return f"{AGGREGATES[item.statistic]}({value}) OVER ({window})"


def _plausible(item: _Derived) -> tuple[float | None, float | None]:
    if item.of.range is None:
        return (None, None)
    low, high = item.of.range
    slack = SLACK * (high - low)
    match item.statistic:
        case "std":
            return (0.0, high - low)
        case "from baseline":
            return (low - high - slack, high - low + slack)
        case _:
            return (low - slack, high + slack)
