from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_ai_assets.ml.drift import histogram, judge, population_stability_index, references
from edge_ai_assets.scoring.contract import Reference
from edge_ai_assets_tests.ml.ml_cases import usecase

counts = hnp.arrays(np.int64, 6, elements=st.integers(0, 10_000)).filter(lambda a: a.any())


def case(**drift):
    return usecase(features=[{"name": "x"}], drift={"rows": 50, **drift})


def table(runs, size=60, sites=None):
    """One run for each array or mean."""
    rng = np.random.default_rng(0)
    parts = [np.asarray(run) if np.ndim(run) else rng.normal(run, 1, size) for run in runs]
    return pd.concat(
        [
            pd.DataFrame({"_site": (sites or ["a"] * len(runs))[n], "_run": f"r{n}", "x": part})
            for n, part in enumerate(parts)
        ],
        ignore_index=True,
    )


@given(counts, counts)
def test_psi_is_symmetric_and_never_negative(a, b):
    assert population_stability_index(a, b) >= 0
    assert np.isclose(population_stability_index(a, b), population_stability_index(b, a))
    assert population_stability_index(a, a) == 0


@pytest.mark.parametrize(
    ("reference", "current", "said"),
    [
        (np.array([1, 2]), np.array([1, 2, 3]), "bins differ"),
        (np.array([0, 0]), np.array([1, 2]), "at least one"),
        (np.array([1, 2]), np.array([0, 0]), "at least one"),
        (np.array([1, -2]), np.array([1, 2]), ">= 0"),
    ],
)
def test_psi_refuses_what_is_no_pair_of_samples(reference, current, said):
    with pytest.raises(ValueError, match=said):
        population_stability_index(reference, current)


def test_bins_are_quantiles_of_the_training_rows():
    (reference,) = references(table([0.0] * 10), case(bins=10))
    assert len(reference.edges) == 9
    assert sum(reference.counts) == 600
    assert set(reference.counts) == {60}


def test_a_constant_that_changes_drifts_and_its_last_digits_do_not():
    (reference,) = references(table([np.full(60, 7.3)] * 5), case())
    same = histogram(np.full(500, np.float64(np.float32(7.3))), reference)
    other = histogram(np.full(500, 7.4), reference)
    assert not judge({"x": same}, [reference], share=0.5).drifted
    assert judge({"x": other}, [reference], share=0.5).drifted


def test_few_distinct_values_get_a_bin_each():
    (reference,) = references(table([np.tile([0.0, 1.0, 5.0], 20)] * 4), case())
    assert [count for count in reference.counts if count] == [80, 80, 80]
    assert histogram(np.array([-1.0, 0.0, 1.0, 5.0, 9.0]), reference).tolist() == [1, 1, 1, 1, 1]


def test_missing_values_are_not_counted():
    frame = table([0.0] * 4)
    frame.loc[:99, "x"] = np.nan
    (reference,) = references(frame, case())
    assert sum(reference.counts) == 140
    assert histogram(np.array([np.nan, 0.0]), reference).sum() == 1


def test_a_feature_that_is_missing_everywhere_has_no_reference():
    assert references(table([np.full(60, np.nan)] * 4), case()) == ()


def test_no_rows_have_no_reference():
    assert references(table([0.0]).iloc[:0], case()) == ()


@pytest.mark.parametrize("runs", [1, 2])
def test_few_runs_have_the_floor(runs):
    (reference,) = references(table([float(3 * n) for n in range(runs)]), case(floor=0.2))
    assert reference.threshold == 0.2


def test_runs_that_differ_raise_the_threshold():
    (alike,) = references(table([0.0] * 8, size=2000), case())
    (unlike,) = references(table([0.0, 3.0] * 4, size=2000), case())
    assert alike.threshold == 0.1
    assert unlike.threshold > 0.5


def test_factor_multiplies_and_floor_bounds():
    frame = table([0.0, 1.0, 2.0, 0.5])
    (once,), (twice,) = references(frame, case(factor=1)), references(frame, case(factor=2))
    assert twice.threshold == pytest.approx(2 * once.threshold)
    (floored,) = references(frame, case(floor=99))
    assert floored.threshold == 99


def test_short_runs_are_compared_in_blocks_of_what_is_judged():
    """Ten rows differ from the rest by far more than the hundreds that a site is judged by."""
    frame = table([0.0] * 200, size=10)
    (single,), (blocks,) = references(frame, case(rows=50)), references(frame, case(rows=400))
    assert blocks.threshold < single.threshold / 3


def test_blocks_do_not_mix_sites_and_follow_time():
    frame = table([0.0, 5.0] * 20, size=25, sites=["a", "b"] * 20)
    (by_site,) = references(frame, case(rows=100))
    (mixed,) = references(frame.assign(_site="a"), case(rows=100))
    assert by_site.threshold > 1.0 > mixed.threshold
    ordered = frame.assign(
        _site="a",
        _time=pd.Timestamp("2026-01-01") + pd.to_timedelta((frame["x"] > 2.5).astype(int), unit="D"),
    )
    (in_time,) = references(ordered, case(rows=100))
    assert in_time.threshold > 1.0


def test_judge_counts_features_over_their_own_threshold():
    bins = np.array([100, 100])
    given_references = [Reference(name, (0.0,), (100, 100), 0.5) for name in "abc"]
    far, near = np.array([200, 0]), np.array([110, 90])
    verdict = judge({"a": far, "b": near, "c": bins}, given_references, share=0.3)
    assert (verdict.drifted, verdict.exceeded) == (True, ("a",))
    assert verdict.share == pytest.approx(1 / 3)
    assert verdict.psi["a"] > verdict.psi["b"] > verdict.psi["c"] == 0
    assert not judge({"a": far, "b": near, "c": bins}, given_references, share=0.5).drifted


@pytest.mark.parametrize("given_counts", [{}, {"x": np.zeros(2, np.int64)}])
def test_nothing_judged_is_no_drift(given_counts):
    verdict = judge(given_counts, [Reference("x", (0.0,), (5, 5), 0.1)], share=0.0)
    assert (verdict.drifted, verdict.share, verdict.psi) == (False, 0.0, {})


def test_other_bins_than_the_references_are_refused():
    with pytest.raises(ValueError, match="bins differ"):
        judge({"x": np.array([1, 2, 3])}, [Reference("x", (0.0,), (5, 5), 0.1)], share=0.5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.lists(st.floats(-1e9, 1e9), max_size=50))
def test_every_value_falls_into_one_bin(train, new):
    (reference,) = references(table([np.array(train)] * 3), case())
    assert list(reference.edges) == sorted(set(reference.edges))
    assert len(reference.counts) == len(reference.edges) + 1
    assert sum(reference.counts) == 3 * len(train)
    assert histogram(np.array(new), reference).sum() == len(new)
    assert (3 * histogram(np.array(train), reference)).tolist() == list(reference.counts)


def test_normal_shifts_of_the_simulated_pumps_are_no_drift_and_the_conversion_is():
    from edge_ai_assets.readings.simulator import simulate
    from edge_ai_assets.usecase import BUNDLED, load

    pumps = load(BUNDLED / "pump-station.yaml")
    names = [site.name for site in pumps.sites]
    history = pd.concat([simulate(name, seed=3, shifts=40) for name in names], ignore_index=True)
    made = references(
        history.assign(_site=history["station"], _run=history["shift"], _time=history["time"]), pumps
    )

    def alarms(drifted):
        found = []
        for name in names:
            for first in range(40, 76, 6):
                batch = simulate(name, seed=3, shifts=6, first_shift=first, drifted=drifted)
                seen = {reference.name: histogram(batch[reference.name], reference) for reference in made}
                found.append(judge(seen, made, share=pumps.drift.share).drifted)
        return found

    assert not any(alarms(drifted=False))
    assert all(alarms(drifted=True))


def test_thousands_of_runs_cost_little():
    frame = table([np.random.default_rng(0).normal(size=200_000)]).assign(_run=np.arange(200_000) // 50)
    begun = time.process_time()
    (reference,) = references(frame, case())
    histogram(frame["x"].to_numpy(), reference)
    assert time.process_time() - begun < 3
