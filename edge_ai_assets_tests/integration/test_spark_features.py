"""DuckDB and Spark give the same features of the same readings, and so the same version of a training set."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from edge_ai_assets.ml import duckdb_features, feature_plan, features, spark_features, training_set
from edge_ai_assets.ml.feature_plan import Manifest
from edge_ai_assets.resources.calling.patience import Patience
from edge_ai_assets.resources.spark.engine import SparkEngine
from edge_ai_assets.resources.spark.livy import Livy
from edge_ai_assets_tests.contract.livy import PASSWORD, USER, cluster
from edge_ai_assets_tests.integration.azurite import azurite
from edge_ai_assets_tests.integration.spark import OPTIONS, needed, spark
from edge_ai_assets_tests.ml.ml_cases import readings, usecase

__all__ = ["azurite", "spark"]
pytestmark = pytest.mark.integration

CASE = usecase(windows={"rows": [2, 7, 200], "statistics": ["mean", "std", "min", "max"], "baseline_rows": 3})
KEY = ["_site", "_run", "_row"]
TOLERANCE = 1e-12
"""Of the greatest value in a run: engines add up in another order."""
NUMBERS = [feature.name for feature in CASE.numbers]
FILES = ("a", "b", "c")
SCHEMA = pa.schema(
    {
        "_site": pa.string(),
        "_run": pa.string(),
        "_row": pa.int64(),
        "_time": pa.timestamp("us"),
        **dict.fromkeys(NUMBERS, pa.float64()),
        "Typ": pa.string(),
        "_label": pa.bool_(),
    }
)

missing = st.none() | st.just(math.nan)
# Greatest values apart: in one run, large ones would hide what becomes of small ones.
numbers = st.sampled_from(
    [
        missing | st.floats(-50, 50),
        missing | st.floats(1e6, 1e6 + 1),
        missing | st.sampled_from([0.0, -0.0, 1e-308]),
        missing | st.sampled_from([math.inf, -math.inf, 3e38, -3e38, 1.0]),
    ]
)
moments = [datetime(2026, 3, 29, 1, 59, 55, 1) + timedelta(seconds=seconds) for seconds in range(10)]
times = st.none() | st.sampled_from(moments) | st.datetimes(datetime(1650, 1, 1), datetime(2100, 1, 1))
runs = st.sampled_from(["", "r", "R", "ø 'x' `y`"])
texts = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)
labels = st.none() | st.booleans()
tables = numbers.flatmap(
    lambda number: st.lists(
        st.tuples(st.sampled_from(FILES), runs, times, number, number, texts, labels), min_size=1, max_size=40
    )
)


def long_run(length: int) -> list[dict[str, object]]:
    """A run longer than every window, in the order of no clock."""
    frame = readings(runs=1, rows=length)[["_site", "_run", "_time", "_label", "Typ", *NUMBERS]]
    frame = frame.sample(frac=1, random_state=1).assign(_file=["b", "a", "c", "a"] * (length // 4))
    rows: list[dict[str, object]] = frame.astype(object).to_dict("records")
    return rows


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with some hundred drawn tables, each the readings of a site of its own: one job for all."""
    found: list[dict[str, object]] = []

    @seed(1)
    @settings(
        max_examples=150,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(tables)
    def draw(table: list[tuple[object, ...]]) -> None:
        names = ["_file", "_run", "_time", *NUMBERS, "Typ", "_label"]
        site = f"site {len({each['_site'] for each in found})}"
        found.extend({**dict(zip(names, row, strict=True)), "_site": site} for row in table)

    draw()
    found.extend(long_run(1000))
    raw = tmp_path_factory.mktemp("drawn")
    count: dict[tuple[object, ...], int] = {}
    for row in found:
        where = (row["_file"], row["_site"], row["_run"])
        row["_row"] = count[where] = count.get(where, -1) + 1
    for file in FILES:
        table = pa.Table.from_pylist([row for row in found if row["_file"] == file], SCHEMA)
        # One file is from before a feature was declared.
        table = table.drop_columns(["Air: temp [K]"]) if file == "b" else table
        parquet.write_table(table, raw / f"{file}.parquet", row_group_size=100)
    return raw


def on_spark(spark, raw, case, into):
    plan = feature_plan.plan(case, [file.name for file in raw.glob("*.parquet")], quote="`")
    made = spark_features.run(spark, plan.text, str(raw), str(into))
    assert msgspec.convert(made, Manifest) == feature_plan.manifest(into)
    assert made["plan"] == plan.name
    return feature_plan.manifest(into)


def both(spark, raw, case, tmp_path):
    """What each engine made, rows in one order, and its manifest."""
    manifests = [
        duckdb_features.make(raw, case, tmp_path / "duckdb"),
        on_spark(spark, raw, case, tmp_path / "spark"),
    ]
    tables = [
        pa.concat_tables(parquet.read_table(file) for file in sorted((tmp_path / name).glob("*.parquet")))
        for name in ("duckdb", "spark")
    ]
    return [table.sort_by([(name, "ascending") for name in KEY]) for table in tables], manifests


def test_both_engines_give_the_same_features(spark, drawn, tmp_path):
    (one, other), manifests = both(spark, drawn, CASE, tmp_path)
    assert one.schema.names == other.schema.names
    assert one.schema.types == other.schema.types
    read = sum(parquet.read_metadata(file).num_rows for file in drawn.glob("*.parquet"))
    assert {(made.rows_read, made.rows) for made in manifests} == {(read, len(one))} and len(one) < read
    derived = {item.name: item.base for item in features.inputs(CASE) if item.name != item.base}
    for name in one.schema.names:
        if name not in derived:
            assert one[name].equals(other[name]), name
    scale = one.to_pandas().groupby(KEY[:2])[NUMBERS]
    scale = scale.transform(lambda values: values.abs().max())
    for name, base in derived.items():
        left, right = (table[name].to_numpy(zero_copy_only=False) for table in (one, other))
        np.testing.assert_array_equal(np.isnan(left), np.isnan(right), name)
        apart = np.nanmax(np.abs(left - right) / scale[base].clip(1e-300).to_numpy())
        assert apart <= TOLERANCE, (name, apart)


def test_times_are_what_they_were_to_the_microsecond(spark, drawn, tmp_path):
    (one, other), _ = both(spark, drawn, CASE, tmp_path)
    before = pd.concat(pd.read_parquet(file) for file in drawn.glob("*.parquet"))
    for table in (one, other):
        assert set(table["_time"].to_pandas().dropna()) == set(before["_time"].dropna())


def test_a_training_set_has_the_same_version_from_either(spark, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    whole = readings()
    whole.to_parquet(raw / "b.parquet", index=False)
    whole[whole["_row"] < 7].to_parquet(raw / "a.parquet", index=False)
    made = [
        training_set.make(raw, tmp_path / "tables", usecase(), tmp_path / name, engine)
        for name, engine in {
            "duckdb": duckdb_features.make,
            "spark": lambda raw, case, into: on_spark(spark, raw, case, into),
        }.items()
    ]
    assert made[0].version == made[1].version and made[0].repeated == made[1].repeated == 8 * 7
    frames = [pd.read_parquet(each.path) for each in made]
    pd.testing.assert_frame_equal(*frames, rtol=0, atol=1e-12)
    assert [each.engine.split()[0] for each in made] == ["duckdb", "spark"]


def test_livy_runs_the_script_on_readings_in_the_lake(azurite, tmp_path):
    """The script alone, by an interpreter that knows nothing of this package, on what lies in a container."""
    needed()
    raw = tmp_path / "raw"
    raw.mkdir()
    readings().to_parquet(raw / "a.parquet", index=False)
    account, lake = azurite.account("cloud"), azurite.container("sparklake")
    container = account.container(lake)
    container.upload_blob("raw_telemetry/a.parquet", (raw / "a.parquet").read_bytes())
    here = tmp_path / "cluster"

    def run(asked: dict[str, Any]) -> str:
        for blob in container.list_blob_names():
            (here / blob).parent.mkdir(parents=True, exist_ok=True)
            (here / blob).write_bytes(container.download_blob(blob).readall())
        root = next(each for each in asked["args"] if each.startswith("abfss://")).partition("/jobs/")[0]
        script, *arguments = (each.replace(root, str(here)) for each in (asked["file"], *asked["args"]))
        submit = [sys.executable, "-I", script, *arguments]
        options = " ".join(f"--conf {name}={value}" for name, value in OPTIONS.items())
        environment = {**os.environ, "PYSPARK_SUBMIT_ARGS": f"--master local[2] {options} pyspark-shell"}
        done = subprocess.run(submit, env=environment, cwd=here, capture_output=True, timeout=300, text=True)
        for file in here.glob("jobs/*/made/*"):
            if not file.name.startswith("."):
                container.upload_blob(file.relative_to(here).as_posix(), file.read_bytes())
        return "dead" if done.returncode else "success"

    with cluster(tmp_path, run) as stub:
        patience = Patience(seconds=60, first=0.1, most=0.5)
        livy = Livy(stub.endpoint, USER, PASSWORD, stub.stub.ca, patience=patience)
        engine = SparkEngine(livy, account, lake)
        there = training_set.make(raw, tmp_path / "tables", usecase(), tmp_path / "there", engine)
    here_made = training_set.make(raw, tmp_path / "tables", usecase(), tmp_path / "here")
    assert there.version == here_made.version and there.engine.startswith("spark ")
