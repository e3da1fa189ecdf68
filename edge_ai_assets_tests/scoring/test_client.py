"""The client: what it sends, what it tries again, and what it tells."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest

from edge_ai_assets.scoring import client as module
from edge_ai_assets.scoring.client import Client, ServiceError

GOOD = {
    "release": "sha256:aa",
    "scored_at": "2026-01-31T13:45:00Z",
    "threshold": 0.5,
    "first": "bergen/9",
    "scores": [0.1, 0.9],
    "predicted": [False, True],
    "outside": [False, False],
}


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    return slept


@pytest.fixture
def talk(slept: list[float]) -> Iterator[Callable[..., tuple[Client, list[httpx.Request]]]]:
    """A client whose service answers with these answers, in order; an exception is raised."""
    clients: list[Client] = []

    def make(*answers: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
        waiting, seen = list(answers), []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            result = waiting.pop(0)
            if isinstance(result, Exception):
                raise result
            return result

        client = Client("http://127.0.0.1:1")
        client._http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://127.0.0.1:1")
        clients.append(client)
        return client, seen

    yield make
    for client in clients:
        client.close()


def test_columns_of_any_kind_become_json(talk):
    client, seen = talk(httpx.Response(200, json=GOOD))
    columns = {"x": np.array([1.5, np.nan], np.float32), "y": [None, 2], "z": np.array([1, 2])}
    time = np.array(["2026-01-31T13:45:00.5", "NaT"], "datetime64[us]")
    context = {"_time": time, "_run": ["a", None], "_row": np.arange(2)}
    answer = client.score(columns, context, key="key 1")
    assert answer.ids == ["bergen/9", "bergen/10"]
    assert json.loads(seen[0].content) == {
        "columns": {"x": [1.5, None], "y": [None, 2], "z": [1, 2]},
        "context": {"_time": ["2026-01-31T13:45:00.500000", None], "_run": ["a", None], "_row": [0, 1]},
    }
    assert seen[0].headers["idempotency-key"] == "key 1"


def test_times_with_a_zone_keep_it(talk):
    client, seen = talk(httpx.Response(200, json=GOOD))
    client.score({"x": [1]}, {"_time": [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)]}, key=None)
    assert json.loads(seen[0].content)["context"]["_time"] == ["2026-01-01T00:00:00+00:00"]
    assert "idempotency-key" not in seen[0].headers


@pytest.mark.parametrize("values", [[1.0, float("inf")], np.array([0, -np.inf])])
def test_an_infinite_value_is_not_sent_as_missing(talk, values):
    client, seen = talk()
    with pytest.raises(ValueError, match="row 1: 'x' is infinite"):
        client.score({"x": values}, key=None)
    assert seen == []


@pytest.mark.parametrize(
    ("status", "after", "wait"), [(503, "3", 3.0), (429, "0.5", 0.5), (503, "soon", 0.2), (503, "999", 10.0)]
)
def test_a_busy_service_is_asked_again_when_it_says(talk, slept, status, after, wait):
    client, seen = talk(
        httpx.Response(status, headers={"retry-after": after}), httpx.Response(200, json=GOOD)
    )
    assert client.score({"x": [1, 2]}, key=None).scores == [0.1, 0.9]
    assert len(seen) == 2 and slept == [wait]


def test_a_service_that_stays_busy_is_given_up(talk):
    busy = [httpx.Response(503, json={"error": "many rows"}) for _ in range(module.ATTEMPTS)]
    client, _ = talk(*busy)
    with pytest.raises(ServiceError, match=r"POST http://127\.0\.0\.1:1/v1/score: 503: many rows") as caught:
        client.score({"x": [1]}, key="k")
    assert caught.value.status == 503


def test_a_lost_connection_is_tried_again_only_with_a_key(talk):
    client, seen = talk(httpx.ReadError("reset"), httpx.Response(200, json=GOOD))
    client.score({"x": [1]}, key="k")
    assert [request.headers["idempotency-key"] for request in seen] == ["k", "k"]
    client, seen = talk(httpx.ReadError("reset"))
    with pytest.raises(ServiceError, match="no answer: reset"):
        client.score({"x": [1]}, key=None)
    client, seen = talk(httpx.ReadTimeout("slow"))
    with pytest.raises(ServiceError, match="no answer: slow"):
        client.feedback([{"id": "bergen/1", "correct": True}])


def test_a_connection_that_was_never_made_is_always_tried_again(talk):
    client, seen = talk(httpx.ConnectError("refused"), httpx.Response(200, json={"accepted": 1}))
    assert client.feedback([{"id": "bergen/1", "correct": True}]) == 1
    assert len(seen) == 2


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500, 507])
def test_a_refusal_is_not_tried_again_and_told_as_it_was_said(talk, status):
    client, seen = talk(httpx.Response(status, json={"error": "row 3: no"}))
    with pytest.raises(ServiceError, match=f"{status}: row 3: no") as caught:
        client.score({"x": [1]}, key="k")
    assert caught.value.status == status and len(seen) == 1


def test_nobody_there_is_a_sentence(slept):
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceError, match=r"no answer: .*refused"):
        client.status()
    assert len(slept) == module.ATTEMPTS - 1
