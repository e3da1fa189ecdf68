"""Column schemas for the UI: every column of readings is there, and ours and the use case's say what they
are."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from edge_ai_assets.azure import columns
from edge_ai_assets.ml import features
from edge_ai_assets.returns.inbox import tables
from edge_ai_assets.settings import Settings


@pytest.fixture
def usecase(tmp_path):
    return Settings(home=tmp_path).load_usecase()


def described(schema):
    return {column.name: column.description for column in schema.columns}


def test_every_input_of_the_model_says_what_it_is(usecase):
    names = [item.name for item in features.inputs(usecase)]
    found = described(columns.of_readings([(name, "float64") for name in names], usecase))
    assert list(found) == names and all(found.values())


def test_a_feature_says_its_unit_and_range_and_a_derived_one_its_origin(usecase):
    first, size = usecase.numbers[0], usecase.windows.rows[0]
    derived = f"{first.name} [mean {size}]"
    found = described(columns.of_readings([(first.name, "double"), (derived, "double")], usecase))
    low, high = first.range
    assert found[first.name] == f"{first.unit}, {low:g} to {high:g}"
    assert first.name in found[derived]


def test_a_column_that_nobody_declared_is_shown_without_words(usecase):
    assert described(columns.of_readings([("odd", "string")], usecase)) == {"odd": None}


def test_a_lake_has_the_columns_of_its_files(usecase, tmp_path):
    assert columns.of_lake(tmp_path, usecase).columns == []
    parquet.write_table(pa.table({"_site": ["a"], "odd": [1]}), tmp_path / "one.parquet")
    found = columns.of_lake(tmp_path, usecase)
    assert [(column.name, column.type) for column in found.columns] == [("_site", "string"), ("odd", "int64")]


@pytest.mark.parametrize("name", ["insights", "feedback"])
def test_a_global_table_explains_every_column(tmp_path, name):
    assert columns.of_delta(tmp_path, name).columns == []
    schema = tables.schemas()[name]
    tables.merge(tmp_path, name, schema.empty_table())
    found = described(columns.of_delta(tmp_path, name))
    assert list(found) == schema.names and all(found.values())
