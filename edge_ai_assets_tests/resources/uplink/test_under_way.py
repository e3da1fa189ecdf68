"""Room for what waits for its answer: never more than that, whatever comes through and how fast."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.resources.uplink.under_way import SLOW_SECONDS, UnderWay

ended = st.lists(st.sampled_from([None, 0.1, SLOW_SECONDS + 1]), max_size=60)


@given(ended)
def test_the_room_stays_within_its_bounds(ended):
    room = UnderWay(first=20, most=40, step=10)
    for seconds in ended:
        together = 0
        while room.bytes + 10 <= room._room:
            room.begin(10)
            together += 10
        assert 10 <= together <= 40
        for _ in range(together // 10):
            room.end(10, seconds)
        assert room.bytes == 0


def test_what_is_larger_than_the_room_goes_alone():
    room = UnderWay(first=10, most=10, step=10)
    room.begin(64)
    entered = threading.Event()
    with ThreadPoolExecutor(1) as workers:
        second = workers.submit(lambda: (room.begin(1), entered.set()))
        assert not entered.is_set()
        room.end(64, None)
        second.result(10)
    assert room.bytes == 1


def test_fast_blocks_make_room_and_slow_ones_take_it():
    room = UnderWay(first=20, most=40, step=10)
    for seconds, size in ((0.1, 30), (0.1, 40), (0.1, 40), (SLOW_SECONDS + 1, 30), (None, 30)):
        room.begin(10)
        room.end(10, seconds)
        assert room._room == size


def test_a_bound_of_its_own_holds_below_the_room():
    room = UnderWay(first=40, most=40, step=10)
    room.begin(10, most=20)
    room.begin(10, most=20)
    with ThreadPoolExecutor(1) as workers:
        third = workers.submit(room.begin, 10, 20)
        room.begin(10)
        room.end(10, None)
        assert not third.done()
        room.end(10, None)
        third.result(10)
    assert room.bytes == 20
