"""Plans: each reading once and numbered as pandas would, and a script that an old cluster can run."""

import ast
import hashlib
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.ml import duckdb_features, feature_plan, spark_features
from edge_ai_assets_tests.ml.ml_cases import usecase

CASE = usecase(windows={"rows": [2], "statistics": ["mean"], "baseline_rows": 0})
NUMBERS = [feature.name for feature in CASE.numbers]
rows = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.sampled_from("rs"), st.none() | st.integers(0, 6)),
    min_size=1,
    max_size=40,
)


@given(rows)
@settings(deadline=None, max_examples=25)
def test_readings_are_taken_once_and_numbered_as_by_pandas(tmp_path_factory, drawn):
    raw, into = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("out") / "made"
    frame = pd.DataFrame(drawn, columns=["file", "_site", "_run", "second"]).reset_index(names=NUMBERS[0])
    frame["_time"] = pd.to_datetime(frame.pop("second"), unit="s").astype("datetime64[us]")
    frame["_label"] = pd.array([True] * len(frame), "boolean")
    frame[[NUMBERS[1], "Typ"]] = [1.0, "L"]
    frame["_row"] = frame.groupby(["file", "_site", "_run"]).cumcount()
    for file, part in frame.groupby("file"):
        part.drop(columns="file").to_parquet(raw / f"{file}.parquet", index=False)

    # As it is said in words: by file and place, then by time; the first of those that have one time.
    key = ["_site", "_run"]
    expected = frame.sort_values("file", kind="stable").sort_values([*key, "_time"], kind="stable")
    again = expected["_time"].notna() & expected.duplicated([*key, "_time"])
    expected = expected[~again]
    expected["_row"] = expected.groupby(key).cumcount()

    manifest = duckdb_features.make(raw, CASE, into)
    made = pd.read_parquet(into / "features.parquet").sort_values([*key, "_row"])
    columns = [*key, "_row", NUMBERS[0]]
    assert (
        made[columns].astype({NUMBERS[0]: int}).to_numpy().tolist() == expected[columns].to_numpy().tolist()
    )
    assert (manifest.rows_read, manifest.rows) == (len(frame), len(expected))


def test_the_same_question_has_the_same_name_and_another_another():
    plan = feature_plan.plan(CASE, ["b.parquet", "a.parquet"])
    assert plan.files == ("a.parquet", "b.parquet")
    assert plan.name == feature_plan.plan(CASE, ["a.parquet", "b.parquet"]).name
    others = [
        feature_plan.plan(CASE, ["a.parquet"]),
        feature_plan.plan(CASE, ["a.parquet", "b.parquet"], quote="`"),
        feature_plan.plan(usecase(windows={"rows": [3]}), ["a.parquet", "b.parquet"]),
    ]
    assert len({plan.name, *(other.name for other in others)}) == 4
    assert plan.name == hashlib.sha256(plan.text.encode()).hexdigest()[:16]


def test_only_the_quotes_differ_between_engines():
    case = usecase(features=[{"name": "x"}, {"name": "Typ", "kind": "category", "categories": ["L"]}])
    ours, sparks = (feature_plan.plan(case, [], quote).query for quote in ('"', "`"))
    assert ours.replace('"', "`") == sparks != ours


def test_the_script_needs_nothing_but_spark_and_an_old_python():
    tree = ast.parse(Path(spark_features.__file__).read_text("utf-8"), feature_version=(3, 8))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {str(node.module) for node in found if isinstance(node, ast.ImportFrom)}
    names |= {each.name for node in found if isinstance(node, ast.Import) for each in node.names}
    assert "__future__" in names  # kinds are written as in newer Pythons
    assert {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) == {"pyspark"}


def test_a_malformed_manifest_is_named(tmp_path):
    import msgspec

    (tmp_path / "manifest.json").write_text('{"plan": "p", "usecase": "u", "engine": "e", "rows_read": "x"}')
    with pytest.raises(msgspec.ValidationError, match="rows_read"):
        feature_plan.manifest(tmp_path)
