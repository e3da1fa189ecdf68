"""One set of tests for both queues: the embedded one, and a Storage queue as old as a hub's."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_ai_assets.resources.storage.account import HUB_API_VERSION
from edge_ai_assets.resources.storage.queue import StorageQueue
from edge_ai_assets.returns.hub.queue import MAX_BODY, EmbeddedQueue, Queue, QueueError
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets_tests.integration.azurite import azurite
from edge_ai_assets_tests.integration.faults import Proxy
from edge_ai_assets_tests.ports import free_port

__all__ = ["azurite"]


@dataclass
class Case:
    queue: Queue
    wait: Callable[[int], None]
    """So many seconds pass."""


@pytest.fixture(params=["embedded", pytest.param("storage", marks=pytest.mark.integration)])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    if request.param == "embedded":
        moment = [1_760_000_000_000_000]

        def wait(seconds: int) -> None:
            moment[0] += seconds * 1_000_000

        with EmbeddedQueue(tmp_path / "queues.db", "insights", now=lambda: moment[0]) as queue:
            EmbeddedQueue(tmp_path / "queues.db", "other").send(b"of another queue")
            yield Case(queue, wait)
        return
    server = request.getfixturevalue("azurite")
    with Proxy(server.queues) as proxy:
        account = server.account("hub", "queue", endpoint=f"http://127.0.0.1:{proxy.port}/hub")
        queue = StorageQueue(account, f"q{random.randrange(10**12)}")
        queue.create()
        queue.create()
        yield Case(queue, time.sleep)
    assert set(proxy.versions()) == {HUB_API_VERSION}


def test_a_message_comes_once_and_goes_when_deleted(case):
    queue = case.queue
    assert queue.receive(32, 1) == [] and queue.peek(32) == [] and queue.count() == 0
    queue.send(b'{"a": "\xc3\xb8"}\x00\xff')
    (seen,) = queue.peek(32)
    (message,) = queue.receive(32, 60)
    assert message.body == seen.body == b'{"a": "\xc3\xb8"}\x00\xff'
    assert (seen.tries, message.tries, seen.receipt) == (0, 1, "")
    assert message.sent_at == seen.sent_at > 1_700_000_000_000_000
    assert queue.receive(32, 60) == [] and queue.peek(32) == [] and queue.count() == 1
    assert queue.delete(message) and not queue.delete(message)
    assert queue.count() == 0


def test_what_is_not_deleted_comes_back_and_is_counted(case):
    case.queue.send(b"again")
    receipts = []
    for tries in (1, 2, 3):
        (message,) = case.queue.receive(1, 1)
        receipts.append(message)
        assert (message.body, message.tries) == (b"again", tries)
        case.wait(2)
    (last,) = case.queue.receive(1, 60)
    assert [case.queue.delete(each) for each in [*receipts, last]] == [False, False, False, True]


def test_messages_come_in_order_and_up_to_the_limit(case):
    for number in range(5):
        case.queue.send(b"%d" % number)
    first = case.queue.receive(3, 60)
    assert [each.body for each in first] == [b"0", b"1", b"2"]
    assert [each.body for each in case.queue.peek(32)] == [b"3", b"4"]
    assert [each.body for each in case.queue.receive(32, 60)] == [b"3", b"4"]
    assert case.queue.count() == 5


def test_the_largest_message_fits(case):
    case.queue.send(bytes(range(256)) * (MAX_BODY // 256))
    assert len(case.queue.receive(1, 60)[0].body) == MAX_BODY
    with pytest.raises(QueueError, match=f"{MAX_BODY + 1} bytes"):
        case.queue.send(b"x" * (MAX_BODY + 1))


@pytest.mark.integration
def test_a_strange_message_harms_no_other(azurite):
    account = azurite.account("hub", "queue")
    queue = StorageQueue(account, f"q{random.randrange(10**12)}")
    queue.create()
    account.queue(queue.name).send_message("no base64 <&> ø")
    queue.send(b"ours")
    assert [each.body for each in queue.receive(32, 1)] == ["no base64 <&> ø".encode(), b"ours"]


@pytest.mark.integration
def test_a_queue_that_is_not_there_or_out_of_reach(azurite):
    with pytest.raises(QueueError, match=r"QueueNotFound\): create it"):
        StorageQueue(azurite.account("hub", "queue"), "missing").send(b"x")
    port = free_port()
    account = azurite.account("hub", "queue", endpoint=f"http://127.0.0.1:{port}/hub")
    for call in (lambda q: q.send(b"x"), lambda q: q.receive(1, 1), lambda q: q.peek(1), lambda q: q.count()):
        began = time.monotonic()
        with pytest.raises(LinkDown, match="out of reach"):
            call(StorageQueue(account, "missing"))
        assert time.monotonic() - began < 20
