from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.ml import features
from edge_ai_assets.usecase import BUNDLED, load
from edge_ai_assets_tests.ml.ml_cases import readings, usecase

AIR = "Air: temp [K]"


def test_inputs_are_numbers_then_categories_then_derived():
    case = usecase(windows={"rows": [3], "statistics": ["mean", "std"], "baseline_rows": 4})
    assert [item.name for item in features.inputs(case)] == [
        AIR,
        'a "b" `c`',
        "Typ",
        f"{AIR} [mean 3]",
        f"{AIR} [std 3]",
        f"{AIR} [from baseline]",
        'a "b" `c` [mean 3]',
        'a "b" `c` [std 3]',
        'a "b" `c` [from baseline]',
    ]


@pytest.mark.parametrize(
    ("suffix", "low", "high"),
    [
        ("mean 3", -50, 50),
        ("min 3", -50, 50),
        ("max 3", -50, 50),
        ("std 3", 0, 100),
        ("from baseline", -100, 100),
    ],
)
def test_derived_inputs_have_their_base_unit_and_a_plausible_range(suffix, low, high):
    (item,) = [i for i in features.inputs(usecase()) if i.name == f"{AIR} [{suffix}]"]
    assert (item.base, item.unit) == (AIR, "K")
    assert (item.low, item.high) == pytest.approx((low, high), abs=1e-3)


def test_without_a_range_derived_inputs_have_none():
    case = usecase(features=[{"name": "x"}])
    assert {(item.low, item.high) for item in features.inputs(case)} == {(None, None)}


def test_categories_come_from_the_use_case():
    (item,) = [i for i in features.inputs(usecase()) if i.kind == "category"]
    assert item.categories == ("L", "M")


@pytest.mark.parametrize("names", [["x", "x [mean 3]"], ["Temp", "temp"]])
def test_two_inputs_of_one_name_are_refused(names):
    case = usecase(features=[{"name": name} for name in names], windows={"rows": [3]})
    with pytest.raises(ValueError, match="comes twice"):
        features.inputs(case)


@pytest.mark.parametrize("name", ["skab", "pump-station"])
def test_bundled_use_cases_compile(name):
    case = load(BUNDLED / f"{name}.yaml")
    assert len({item.name for item in features.inputs(case)}) == len(features.inputs(case))
    assert features.sql(case, "t").startswith("SELECT *, ")


def test_identifiers_are_quoted_as_asked():
    text = features.sql(usecase(), "telemetry", quote="`")
    assert 'a "b" ``c``' in text
    assert "PARTITION BY `_site`, `_run` ORDER BY `_row`" in text


def test_compute_agrees_with_pandas():
    frame = readings(runs=3, rows=20)
    made = features.compute(frame, usecase())
    value = frame[AIR].groupby(frame["_run"])
    for name in ("mean", "std", "min", "max"):
        expected = getattr(value.rolling(3, min_periods=1), name)().droplevel(0).sort_index()
        np.testing.assert_allclose(made[f"{AIR} [{name} 3]"], expected, atol=1e-12)
    base = frame[AIR].where(frame["_row"] < 4).groupby(frame["_run"]).transform("mean")
    later = frame["_row"] >= 4
    np.testing.assert_allclose(made[f"{AIR} [from baseline]"][later], (frame[AIR] - base)[later], atol=1e-12)


def test_compute_keeps_rows_order_and_own_columns():
    frame = readings(runs=4, rows=20).sample(frac=1, random_state=1)
    made = features.compute(frame.assign(_extra=range(len(frame)), other="dropped"), usecase())
    assert made["_extra"].tolist() == list(range(len(frame)))
    assert made["_run"].tolist() == frame["_run"].tolist()
    assert made["_label"].dtype == "boolean"
    assert made["_time"].dtype == frame["_time"].dtype
    assert "other" not in made
    assert list(made.columns[6:]) == [item.name for item in features.inputs(usecase())]


def test_compute_does_not_depend_on_the_order_of_rows():
    frame = readings(runs=4, rows=30)
    shuffled = frame.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        features.compute(shuffled, usecase()).set_index(shuffled.index).sort_index(),
        features.compute(frame, usecase()),
    )


def test_runs_of_one_name_on_two_sites_are_two_runs():
    frame = readings(runs=2, rows=10).assign(_run="same")
    alone = features.compute(frame[frame["_site"] == "b"], usecase())
    both = features.compute(frame, usecase())
    pd.testing.assert_frame_equal(both[both["_site"] == "b"].reset_index(drop=True), alone)


def test_missing_values_are_left_out_of_windows():
    frame = readings(runs=1, rows=6)
    frame[AIR] = [1.0, np.nan, 3.0, np.nan, np.nan, np.nan]
    made = features.compute(frame, usecase())
    np.testing.assert_allclose(made[f"{AIR} [mean 3]"], [1, 1, 2, 3, 3, np.nan])
    assert np.isnan(made[f"{AIR} [std 3]"][0])
    np.testing.assert_allclose(made[f"{AIR} [from baseline]"], [0, np.nan, 1, np.nan, np.nan, np.nan])


def test_whole_numbers_and_missing_categories_are_taken():
    frame = readings(runs=1, rows=6)
    frame['a "b" `c`'] = range(6)
    frame["Typ"] = [None, "L", "X", "M", None, "L"]
    made = features.compute(frame, usecase())
    assert made['a "b" `c`'].dtype == np.float64
    assert made["Typ"].isna().sum() == 2


def test_no_windows_give_the_features_alone():
    case = usecase(windows={})
    made = features.compute(readings(runs=1, rows=5), case)
    assert [c for c in made if not c.startswith("_")] == [item.name for item in features.inputs(case)]
    assert features.scorable(made, case).all()


def test_no_rows_give_no_rows():
    made = features.compute(readings(runs=1, rows=5).iloc[:0], usecase())
    assert len(made) == 0
    assert [c for c in made if not c.startswith("_")] == [item.name for item in features.inputs(usecase())]


def test_baseline_rows_are_not_scorable():
    frame = readings(runs=2, rows=10)
    assert frame["_row"][features.scorable(frame, usecase())].min() == 4


def test_lookback_is_head_and_tail_and_never_empty():
    kept = features.lookback(readings(runs=1, rows=100), usecase())
    assert kept["_row"].tolist() == [0, 1, 2, 3, 95, 96, 97, 98, 99]
    assert features.lookback(readings(runs=1, rows=100), usecase(windows={}))["_row"].tolist() == [99]


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_chunks_with_lookback_give_what_the_whole_gives(data):
    rows = data.draw(st.integers(1, 60), "rows")
    case = usecase(
        windows={
            "rows": data.draw(st.lists(st.integers(2, 20), max_size=2), "windows"),
            "statistics": ["mean", "std", "min", "max"],
            "baseline_rows": data.draw(st.integers(0, 12), "baseline"),
        }
    )
    frame = readings(runs=2, rows=rows, seed=data.draw(st.integers(0, 99), "seed")).sort_values(
        "_row", kind="stable"
    )
    frame.loc[frame.sample(frac=0.2, random_state=1).index, AIR] = np.nan
    frame = frame.reset_index(drop=True)
    whole = features.compute(frame, case)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(frame)), max_size=6), "cuts"))
    kept, parts = frame.iloc[:0], []
    for start, end in zip([0, *cuts], [*cuts, len(frame)], strict=True):
        seen = pd.concat([kept, frame.iloc[start:end]], ignore_index=True)
        parts.append(features.compute(seen, case).iloc[len(kept) :])
        kept = features.lookback(seen, case)
    chunked = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(chunked, whole, check_exact=False, rtol=1e-9, atol=1e-9)


def test_what_is_derived_from_a_feature_that_sites_do_not_keep_is_not_kept_either():
    two = [{"name": "Secret", "keep": False}, {"name": "Flow"}]
    case = usecase(features=two, windows={"rows": [3], "statistics": ["mean"], "baseline_rows": 2})
    kept = {item.name for item in features.inputs(case) if item.kept}
    assert kept == {"Flow", "Flow [mean 3]", "Flow [from baseline]"}
