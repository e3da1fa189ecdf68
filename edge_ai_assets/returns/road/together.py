"""Several packages on their way at once. What sending one means is the uplink's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from edge_ai_assets.returns.outbox.outbox import PackageRow
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.roads import Leaving


def sent(
    packages: Sequence[PackageRow], many: int, send: Callable[[PackageRow, Callable[[Leaving], Leaving]], int]
) -> Iterator[tuple[PackageRow, int]]:
    """Each package as soon as it is sent, with what `send` returned for it.

    When one fails, those that were begun go on, none is begun any more, and the error is raised at the end.
    Of several errors that is the first, one that trying again does not mend before any LinkDown.

    Args:
        packages: begun in this order.
        many: at once; each in a thread of its own unless it is 1.
        send: gets a package, and what makes a `Leaving` one that is called by a thread at a time, and ends
            the sending when nobody waits for it any more.
    """
    turn, ended = threading.Lock(), threading.Event()

    def in_turn(leaving: Leaving) -> Leaving:
        def left(first: int, last: int) -> None:
            with turn:
                if ended.is_set():
                    raise LinkDown("the sending has ended")
                leaving(first, last)

        return left

    if many == 1:
        for package in packages:
            yield package, send(package, in_turn)
        return
    failed: BaseException | None = None
    with ThreadPoolExecutor(many) as workers:
        sending = {workers.submit(send, package, in_turn): package for package in packages}
        try:
            for done in as_completed(sending):
                if done.cancelled():
                    continue
                if error := done.exception():
                    if failed is None or (isinstance(failed, LinkDown) and not isinstance(error, LinkDown)):
                        failed = error
                    for other in sending:
                        other.cancel()
                else:
                    yield sending[done], done.result()
        finally:
            ended.set()
            workers.shutdown(cancel_futures=True)
    if failed:
        raise failed
