"""Intervals of shares: against published figures, and what must hold of any."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_ai_assets.stack_hub.rollout.intervals import rise, share

counted = st.integers(0, 5_000).flatmap(lambda whole: st.tuples(st.integers(0, whole), st.just(whole)))
some = counted.filter(lambda pair: pair[1] > 0)


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    # Newcombe, Two-sided confidence intervals for the single proportion, Stat. Med. 17 (1998) 857, table I.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_shares_as_published(part, whole, low, high):
    assert share(part, whole, 1.959964) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    # Newcombe, Stat. Med. 17 (1998) 873, table II, method 10: first minus second.
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((0, 10), (0, 20), -0.1611, 0.2775),
    ],
)
def test_differences_as_published(first, second, low, high):
    assert rise(second, first, 1.959964) == pytest.approx((low, high), abs=5e-5)


@given(counted)
def test_a_share_lies_in_its_interval(pair):
    low, high = share(*pair)
    assert 0 <= low <= high <= 1
    assert pair[1] == 0 or (low <= pair[0] / pair[1] + 1e-12 and pair[0] / pair[1] <= high + 1e-12)


@given(some, some)
def test_a_rise_lies_in_its_interval_and_falls_the_other_way_round(before, after):
    low, high = rise(before, after)
    seen = after[0] / after[1] - before[0] / before[1]
    assert -1 <= low <= seen + 1e-9 and seen - 1e-9 <= high <= 1
    assert rise(after, before) == pytest.approx((-high, -low))


@given(some, some, st.integers(2, 20))
def test_more_of_the_same_says_it_more_exactly(before, after, times):
    assume(before[1] > 1 and after[1] > 1)
    few = rise(before, after)
    many = rise((before[0] * times, before[1] * times), (after[0] * times, after[1] * times))
    assert many.high - many.low <= few.high - few.low + 1e-9


@pytest.mark.parametrize("pair", [(2, 1), (-1, 5)])
def test_what_is_no_share_is_refused(pair):
    with pytest.raises(ValueError, match="the part must be from 0 to the whole"):
        share(*pair)


def test_nothing_cannot_rise():
    with pytest.raises(ValueError, match="nothing was counted: 0 before, 3 after"):
        rise((0, 0), (1, 3))
