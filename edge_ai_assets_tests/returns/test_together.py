"""Several packages at once: each is told once, a failure comes last, nothing is begun after it."""

from __future__ import annotations

import threading

import pytest

from edge_ai_assets.returns.outbox.outbox import PackageRow
from edge_ai_assets.returns.road import together
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.roads import UplinkError

PACKAGES = [PackageRow(number, f"{number}.zip", "", "", 0, 0, number, 0) for number in range(40)]


@pytest.mark.parametrize("many", [1, 3, 50])
def test_each_is_told_once(many):
    told = list(together.sent(PACKAGES, many, lambda package, _: package.bytes))
    assert sorted(package.number for package, _ in told) == list(range(40))
    assert all(size == package.bytes for package, size in told)


def test_as_many_as_may_are_on_their_way_at_once():
    meeting = threading.Barrier(4)
    told = list(together.sent(PACKAGES, 4, lambda package, _: meeting.wait(20)))
    assert len(told) == 40


@pytest.mark.parametrize("many", [1, 4])
def test_after_a_failure_what_was_begun_ends_and_nothing_is_begun(many):
    begun: list[int] = []

    def send(package, _):
        begun.append(package.number)
        if package.number == 5:
            raise LinkDown("cut")
        if package.number > 5:
            over.wait(20)  # they are on their way while the other fails
        return 0

    told = []
    over = threading.Event()
    threading.Timer(2, over.set).start()
    with pytest.raises(LinkDown, match="cut"):
        told.extend(package.number for package, _ in together.sent(PACKAGES, many, send))
        pytest.fail("nothing was raised")
    assert 5 in begun and len(begun) < 15
    assert 5 not in told


def test_what_trying_again_does_not_mend_is_raised_rather_than_a_cut():
    begun, cut = threading.Event(), threading.Event()

    def send(package, _):
        if package.number:
            begun.set()
            assert cut.wait(60)
            raise UplinkError("another package has this name")
        assert begun.wait(60)
        cut.set()
        raise LinkDown("cut")

    for _ in range(20):
        with pytest.raises(UplinkError):
            list(together.sent(PACKAGES[:2], 2, send))
        begun.clear()
        cut.clear()


def test_whoever_waits_no_more_ends_the_sending():
    left: list[int] = []
    begun, over = threading.Event(), threading.Event()

    def send(package, in_turn):
        leaving = in_turn(lambda first, last: left.append(package.number))
        leaving(0, 1)
        if not package.number:
            assert begun.wait(60)
        else:
            begun.set()
            over.wait(60)
            with pytest.raises(LinkDown, match="has ended"):
                leaving(1, 2)
        return 0

    sending = together.sent(PACKAGES[:2], 2, send)
    assert next(sending)[0].number == 0
    threading.Timer(0.1, over.set).start()
    sending.close()
    assert sorted(left) == [0, 1]


def test_one_line_is_written_at_a_time():
    busy = threading.Lock()

    def leaving(first: int, last: int) -> None:
        assert busy.acquire(blocking=False)
        busy.release()

    def send(package, in_turn):
        for first in range(50):
            in_turn(leaving)(first, first + 1)
        return 0

    assert len(list(together.sent(PACKAGES, 8, send))) == 40
