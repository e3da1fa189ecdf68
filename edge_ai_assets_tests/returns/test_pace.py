"""A bound on bandwidth, on a clock of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.returns.road.pace import SLICE, Pace


class Time:
    """A clock that goes on when somebody sleeps, or a little later."""

    def __init__(self, late=0.0):
        self.now, self.slept, self.late = 100.0, 0.0, late

    def clock(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds + self.late
        self.slept += seconds


def pace(rate, time, burst=1000):
    return Pace(rate, burst=burst, clock=time.clock, sleep=time.sleep)


def test_without_a_bound_nobody_waits():
    time = Time()
    bucket = pace(None, time)
    for _ in range(100):
        bucket.take(1 << 30)
    assert time.slept == 0


def test_what_fits_the_bucket_passes_at_once_and_the_rest_at_the_rate():
    time = Time()
    bucket = pace(500, time)
    bucket.take(1000)
    assert time.slept == 0
    for _ in range(10):
        bucket.take(1000)
    assert time.slept == pytest.approx(20)


def test_a_pause_fills_the_bucket_but_no_further():
    time = Time()
    bucket = pace(500, time)
    bucket.take(1000)
    time.now += 3600
    bucket.take(1000)
    assert time.slept == 0
    bucket.take(1000)
    assert time.slept == pytest.approx(2)


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_lets_nothing_through_is_refused(rate):
    with pytest.raises(ValueError, match="must be positive"):
        Pace(rate)


def test_what_can_never_pass_is_refused_instead_of_waited_for():
    with pytest.raises(ValueError, match="cannot pass at once, the burst is 1000"):
        pace(1, Time()).take(1001)


@pytest.mark.parametrize(("kilobytes", "rate"), [(None, None), (1, 1000), (0.5, 500)])
def test_the_rate_of_a_use_case_is_in_kilobytes(kilobytes, rate):
    assert Pace.of(kilobytes).rate == rate
    Pace.of(kilobytes).take(SLICE)


@given(
    st.floats(1, 1e6),
    st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 10)), max_size=60),
    st.floats(0, 0.5),
)
def test_in_no_span_of_time_more_passes_than_the_rate_allows(rate, steps, late):
    time = Time(late)
    bucket = pace(rate, time)
    passed = []
    for size, pause in steps:
        time.now += pause
        bucket.take(size)
        passed.append((time.now, size))
    for begin in range(len(passed)):
        total = 0
        for moment, size in passed[begin:]:
            total += size
            assert total <= 1000 + rate * (moment - passed[begin][0]) + 1e-3 * total + 1e-3
