"""Training sets: every labelled reading once, runs numbered on over files, the last word of feedback, and a
version that is that of the content."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.ml import duckdb_features, features, training_set
from edge_ai_assets.ml.lineage import Lineage, read
from edge_ai_assets.ml.split import SplitError
from edge_ai_assets.ml.training_set import NoTrainingSet, content_version, from_feedback, make, newest
from edge_ai_assets_tests.ml.ml_cases import readings, usecase

CASE = usecase()


@pytest.fixture
def lake(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path


def put(lake, frame, name="a"):
    frame.to_parquet(lake / "raw" / f"{name}.parquet", index=False)


def made(lake, case=CASE):
    found = make(lake / "raw", lake / "tables", case, lake / "sets")
    return found, pd.read_parquet(found.path)


def renumbered(frame):
    return frame.assign(_row=frame.groupby(["_site", "_run"]).cumcount())


def test_every_labelled_row_after_the_baseline_is_in_it(lake):
    put(lake, readings())
    found, frame = made(lake)
    assert found.rows == len(frame) == 8 * 60 - 8 * CASE.windows.baseline_rows
    assert found.runs == 8 and found.feedback == found.repeated == 0
    assert found.held_back == frame["_split"].eq("holdout").sum() == len(found.held_back_frame()) > 0
    assert found.positive_share == pytest.approx(frame["_label"].mean())
    assert {item.name for item in features.inputs(CASE)} <= set(frame.columns)
    assert [name for name, _ in found.columns] == list(frame.columns)


@pytest.mark.parametrize("timed", [True, False])
def test_runs_that_go_on_over_files_are_numbered_on(lake, timed):
    """Without times the rows of one file follow those of the other; they are not shuffled together."""
    whole = readings()
    if not timed:
        whole["_time"] = pd.Series(pd.NaT, whole.index, dtype="datetime64[us]")
    put(lake, whole, "whole")
    _, expected = made(lake)
    (lake / "raw" / "whole.parquet").unlink()
    first = whole["_row"] < 25
    put(lake, whole[first], "a")
    put(lake, renumbered(whole[~first]), "b")
    _, frame = made(lake)
    key = ["_site", "_run", "_row"]
    pd.testing.assert_frame_equal(
        *(each.sort_values(key, ignore_index=True) for each in (frame, expected)), check_like=True
    )


def test_readings_that_stand_in_two_files_are_taken_once(lake):
    whole = readings()
    put(lake, whole, "a")
    _, expected = made(lake)
    put(lake, renumbered(whole[whole["_row"] >= 40]), "b")
    found, frame = made(lake)
    assert found.repeated == 8 * 20
    pd.testing.assert_frame_equal(frame, expected)


def test_rows_whose_label_is_not_known_are_left_out(lake):
    frame = readings()
    frame.loc[frame["_row"] == 30, "_label"] = pd.NA
    put(lake, frame)
    assert made(lake)[0].rows == 8 * (60 - 4 - 1)


def test_the_same_readings_are_the_same_version_in_whatever_files(lake):
    put(lake, readings(), "whole")
    version = made(lake)[0].version
    assert newest(lake / "sets").version == version == made(lake)[0].version
    (lake / "raw" / "whole.parquet").unlink()
    for run, rows in readings().groupby("_run"):
        put(lake, rows, run)
    assert made(lake)[0].version == version
    assert [path.stem for path in (lake / "sets").glob("*.parquet")] == [version]


def test_a_version_that_is_there_stays_as_it_is(lake):
    put(lake, readings())
    first = made(lake)[0]
    before = first.path.stat()
    assert made(lake)[0].path.stat().st_ino == before.st_ino
    assert sorted(path.name for path in (lake / "sets").iterdir()) == [first.path.name, "newest.json"]


def test_little_memory_makes_the_same_set_by_the_disk(lake, monkeypatch):
    put(lake, readings(rows=8000))
    version = made(lake)[0].version
    monkeypatch.setattr(duckdb_features, "MEMORY", "60MB")
    assert made(lake)[0].version == version


def test_times_that_an_older_spark_gave_a_zone_are_the_same_moments(lake):
    """Spark 3.3 knows no time without a zone: it writes UTC."""

    def zoned(raw, usecase, into):
        manifest = duckdb_features.make(raw, usecase, into)
        frame = pd.read_parquet(into / "features.parquet")
        frame["_time"] = frame["_time"].dt.tz_localize("UTC")
        frame.to_parquet(into / "features.parquet", index=False)
        return manifest

    put(lake, readings())
    found = make(lake / "raw", lake / "tables", CASE, lake / "zoned", zoned)
    assert found.version == made(lake)[0].version
    assert pd.read_parquet(found.path)["_time"].dtype == "datetime64[us]"


def test_what_cuts_an_engine_off_leaves_nothing(lake):
    def cut(raw, usecase, into):
        into.mkdir()
        (into / "part.parquet").write_bytes(b"PAR1")
        raise KeyboardInterrupt

    put(lake, readings())
    with pytest.raises(KeyboardInterrupt):
        make(lake / "raw", lake / "tables", CASE, lake / "sets", cut)
    assert not list((lake / "sets").iterdir())


def test_another_set_is_the_newest_and_the_former_stays(lake):
    put(lake, readings())
    former = made(lake)[0]
    put(lake, readings(runs=9))
    latter = made(lake)[0]
    assert newest(lake / "sets").version == latter.version != former.version and former.path.exists()
    assert not [path for path in (lake / "sets").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda frame: None, "holds no readings: land files first"),
        (lambda frame: frame.assign(_label=pd.array([None] * len(frame), "boolean")), "is 'fault' the label"),
        (lambda frame: frame[frame["_row"] < 4], "no labelled reading"),
    ],
)
def test_nothing_to_learn_from_is_a_sentence(lake, spoil, said):
    if (frame := spoil(readings())) is not None:
        put(lake, frame)
    with pytest.raises(NoTrainingSet, match=said):
        made(lake)
    with pytest.raises(NoTrainingSet, match="materialize lake/training_set first"):
        newest(lake / "sets")


def test_a_single_run_cannot_be_split(lake):
    put(lake, readings(runs=1))
    with pytest.raises(SplitError, match="declare shorter runs"):
        made(lake)


@pytest.mark.parametrize("spoiled", ["one class", "all missing"])
def test_one_class_and_an_all_missing_feature_are_no_obstacle_here(lake, spoiled):
    frame = readings()
    if spoiled == "one class":
        frame["_label"] = pd.array([False] * len(frame), "boolean")
    else:
        frame["Air: temp [K]"] = np.nan
    put(lake, frame)
    found, kept = made(lake)
    assert found.rows == 8 * 56
    assert found.positive_share == 0 if spoiled == "one class" else kept["Air: temp [K]"].isna().all()


def word(sequence=1, given_at=1, correct=True, site="a", identity=1, **fields):
    fields = {"_run": "r", "_time": "2026-01-01T00:00:00", "Typ": "L", "Air: temp [K]": 1.5} | fields
    return {
        "site": site,
        "sequence": sequence,
        "id": identity,
        "given_at": pd.Timestamp(given_at, unit="s", tz="UTC"),
        "correct": correct,
        "fields": json.dumps(fields),
    }


def test_of_feedback_the_last_word_counts():
    said = [word(given_at=3, correct=False, identity=2), word(given_at=1), word(given_at=3, identity=1)]
    frame = from_feedback(pd.DataFrame([*said, word(2), word(1, site="b")]), CASE)
    label = frame.set_index(["_site", "_row"])["_label"]
    assert label.to_dict() == {("a", 1): False, ("a", 2): True, ("b", 1): True}


def test_the_last_word_is_by_the_sites_count_even_if_its_clock_steps_back():
    said = [word(given_at=2, correct=False, identity=2), word(given_at=9, identity=1)]
    assert from_feedback(pd.DataFrame(said), CASE)["_label"].tolist() == [False]


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({}, 0),
        ({"_run": "r", "_score": 0.5, "_predicted": True}, 0),
        ({"Air: temp [K]": None, "Typ": None}, 0),
        ({"Typ": "L"}, 1),
        ({"Air: temp [K]": 0.0}, 1),
    ],
)
def test_feedback_without_any_feature_is_left_out(fields, rows):
    empty = {**word(2, identity=2), "fields": json.dumps(fields)}
    frame = from_feedback(pd.DataFrame([word(), empty]), CASE)
    assert frame["_row"].tolist() == [1, 2][: 1 + rows] and frame.index.tolist() == [0, 1][: 1 + rows]


def test_feedback_has_the_inputs_that_were_let_out_and_misses_the_others():
    (row,) = from_feedback(pd.DataFrame([word(correct=None)]), CASE).to_dict("records")
    assert row["Air: temp [K]"] == 1.5 and row["Typ"] == "L" and row["_origin"] == "feedback"
    assert row["_time"] == pd.Timestamp("2026-01-01") and row["_run"] == "r" and pd.isna(row["_label"])
    assert np.isnan(row['a "b" `c`'])


def test_feedback_from_home_is_trained_on(lake, monkeypatch):
    words = pd.DataFrame([word(number, identity=number, correct=number % 2 == 0) for number in range(30)])
    monkeypatch.setattr(training_set, "_feedback", lambda tables: words)
    put(lake, readings())
    found, frame = made(lake)
    assert found.feedback == frame["_origin"].eq("feedback").sum() == 30
    assert found.rows == 8 * 56 + 30 and found.runs == 9


FRAME = st.builds(
    lambda rows: pd.DataFrame(
        {
            "number": [row[0] for row in rows],
            "text": pd.Series([row[1] for row in rows], dtype=object),
            "_label": pd.array([row[2] for row in rows], "boolean"),
        }
    ).astype({"number": "float64"}),
    st.lists(
        st.tuples(
            st.floats(allow_nan=False).map(lambda value: value + 0.0),  # 0 and -0 are one number
            st.text(st.characters(codec="utf-8"), max_size=3) | st.none(),
            st.none() | st.booleans(),
        ),
        min_size=1,
        max_size=5,
    ),
)


def version(frame):
    return content_version(str([*frame.dtypes.items()]), [frame])


@given(FRAME, FRAME)
@settings(deadline=None, max_examples=150)
def test_a_version_is_equal_only_for_equal_content(one, other):
    assert (version(one) == version(other)) == one.equals(other)
    assert version(one) == version(one.copy())


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.iloc[::-1],
        lambda frame: frame[["b", "a", "c"]],
        lambda frame: frame.rename(columns={"a": "A"}),
        lambda frame: frame.assign(a=[1.0, 2.0, np.nan]),
        lambda frame: frame.assign(a=frame["a"].astype("float64")),
        lambda frame: frame.assign(b=["x", "", None]),
        lambda frame: frame.assign(c=pd.array([True, False, False], "boolean")),
        lambda frame: frame.iloc[:2],
        lambda frame: frame.assign(d=1),
    ],
)
def test_any_change_is_another_version_and_the_index_is_none(change):
    frame = pd.DataFrame(
        {"a": [1, 2, 3], "b": ["x", None, ""], "c": pd.array([True, False, None], "boolean")}
    )
    assert version(change(frame)) != version(frame)
    assert version(frame.set_index(pd.Index([5, 6, 7]))) == version(frame)


@pytest.mark.parametrize("cuts", [[], [1], [1, 1, 4], [5]])
def test_a_version_does_not_depend_on_where_the_rows_are_cut(cuts):
    frame = readings(runs=1, rows=5)
    parts = [frame.iloc[start:end] for start, end in zip([0, *cuts], [*cuts, 5], strict=True)]
    assert content_version("definition", parts) == content_version("definition", [frame])
    assert content_version("another", parts) != content_version("definition", parts)


def test_lineage_comes_back_and_a_malformed_one_is_named(tmp_path):
    import msgspec

    said = Lineage(training_run="run", training_set="set", usecase="digest")
    said.write(tmp_path)
    assert read(tmp_path) == said
    (tmp_path / "lineage.json").write_text('{"training_run": "run", "training_set": 1, "usecase": "x"}')
    with pytest.raises(msgspec.ValidationError, match="training_set"):
        read(tmp_path)
    (tmp_path / "lineage.json").write_text('{"training_run": "", "training_set": "", "usecase": "", "b": 1}')
    with pytest.raises(msgspec.ValidationError, match="`b`"):
        read(tmp_path)


def test_a_feature_declared_after_the_readings_were_taken_in_is_missing_in_them(lake):
    put(lake, readings())
    later = CASE.model_copy(
        update={"features": (*CASE.features, CASE.numbers[0].model_copy(update={"name": "Later"}))}
    )
    _, frame = made(lake, later)
    assert frame["Later"].isna().all()


KILLED = """
import os, sys
from pathlib import Path
from edge_ai_assets.ml.scratch import scratch
with scratch(Path(sys.argv[1])) as folder:
    (folder / "features").mkdir()
    (folder / "features" / "half.parquet").write_bytes(b"PAR1")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_make_left_goes_with_the_next_one(lake):
    put(lake, readings())
    (lake / "sets").mkdir()
    subprocess.run([sys.executable, "-c", KILLED, str(lake / "sets")], check=False)
    assert len(list((lake / "sets").glob(".making-*/features/half.parquet"))) == 1
    found = made(lake)[0]
    assert sorted(path.name for path in (lake / "sets").iterdir()) == [found.path.name, "newest.json"]


def test_a_make_leaves_alone_what_another_one_is_at(lake):
    def meanwhile(raw, usecase, into):
        make(raw, lake / "tables", usecase, into.parents[1])
        return duckdb_features.make(raw, usecase, into)

    put(lake, readings())
    assert make(lake / "raw", lake / "tables", CASE, lake / "sets", meanwhile).rows == 8 * 56


@pytest.mark.parametrize("name", ["Typ", "Ölart"])
def test_upper_and_lower_case_of_a_column_is_the_same_in_whatever_files(lake, name):
    """SQL does not tell them apart, so it must not matter which other files are there."""
    case = usecase(
        features=[{"name": "Air: temp [K]"}, {"name": name, "kind": "category", "categories": ["L"]}]
    )
    first = readings()["_run"] == "run 0"
    put(lake, readings().rename(columns={"Typ": name.lower()}))
    _, alone = made(lake, case)
    put(lake, readings()[first].rename(columns={"Typ": name.lower()}))
    put(lake, readings()[~first].rename(columns={"Typ": name}), "b")
    _, beside = made(lake, case)
    assert alone[name].notna().all() and beside[name].notna().all()


numbers = st.none() | st.floats(-50, 50) | st.sampled_from([np.inf, -np.inf, np.nan, 0.0])


@given(st.data())
@settings(deadline=None, max_examples=12)
def test_a_site_makes_the_features_that_were_trained_on(tmp_path_factory, data):
    """A site has its rows in pieces, with what `lookback` kept of earlier ones; the lake has all in files."""
    case = usecase(
        windows={
            "rows": data.draw(st.lists(st.integers(2, 9), max_size=2), "windows"),
            "statistics": ["mean", "std", "min", "max"],
            "baseline_rows": data.draw(st.integers(0, 4), "baseline"),
        }
    )
    frame = readings(runs=3, rows=12).sort_values("_row", kind="stable", ignore_index=True)
    name = case.numbers[0].name
    frame[name] = data.draw(st.lists(numbers, min_size=36, max_size=36), "numbers")
    frame[name] = frame[name].astype("float64")
    frame.loc[data.draw(st.lists(st.integers(0, 35), max_size=9), "no category"), "Typ"] = None
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, 35), max_size=4), "cuts")), len(frame)]

    place = tmp_path_factory.mktemp("lake")
    (place / "raw").mkdir()
    kept, parts = frame.iloc[:0], []
    for start, end in itertools.pairwise(cuts):
        put(place, renumbered(frame.iloc[start:end]), f"{start:02}")
        seen = pd.concat([kept, frame.iloc[start:end]], ignore_index=True)
        computed = features.compute(seen, case).iloc[len(kept) :]
        parts.append(computed[features.scorable(computed, case)])
        kept = features.lookback(seen, case)

    key, names = ["_site", "_run", "_row"], [item.name for item in features.inputs(case)]
    trained, scored = (
        each.sort_values(key, ignore_index=True)[key + names].astype({"Typ": object})
        for each in (made(place, case)[1], pd.concat(parts))
    )
    for each in (trained, scored):
        each["Typ"] = each["Typ"].where(each["Typ"].notna(), None)
    pd.testing.assert_frame_equal(scored, trained, check_dtype=False, rtol=1e-9, atol=1e-9)
