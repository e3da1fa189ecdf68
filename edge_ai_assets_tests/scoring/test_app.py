"""The application called as a server would call it, without one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.outbox import Outbox
from edge_ai_assets.scoring import app as module
from edge_ai_assets.scoring.app import App
from edge_ai_assets.scoring.model import Model
from edge_ai_assets.scoring.writer import Busy, DiskFull, Stopped, Writer

RECORD = {"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": "screw"}
COLUMNS = {"Pressure [bar]": [2.0, 21.0], "Temperature": [10, None], "Pump type": ["screw", None]}


class Answer:
    def __init__(self, messages: list[dict[str, Any]]) -> None:
        start, body = messages
        self.status: int = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body: bytes = body["body"]
        assert int(self.headers["content-length"]) == len(self.body)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """An application with its writer, on an event loop of its own."""

    def __init__(self, model: Model, path: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.path = path
        self.writer = Writer(lambda: Outbox(path))
        self.app = App(model, self.writer, site="bergen", release="sha256:aa", version=3)
        self.loop.run_until_complete(self.writer.start())

    def close(self) -> None:
        self.loop.run_until_complete(self.writer.stop())
        self.loop.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = b"",
        headers: dict[str, str] | None = None,
        parts: Sequence[bytes] = (),
    ) -> Answer:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        waiting = list(parts) or [content]
        raw = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        scope = {"type": "http", "method": method, "path": path, "headers": raw}
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            part = waiting.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(waiting)}

        async def send(message: Any) -> None:
            sent.append(message)

        self.loop.run_until_complete(asyncio.wait_for(self.app(scope, receive, send), 20))
        return Answer(sent)

    def score(self, body: Any, key: str | None = None) -> Answer:
        return self.call("POST", "/v1/score", body, {} if key is None else {"idempotency-key": key})

    def rows(self) -> list[Any]:
        with Outbox(self.path) as outbox:
            return outbox.rows(1, 10**9)


@pytest.fixture
def site(model: Model, tmp_path: Path) -> Iterator[Site]:
    site = Site(model, tmp_path / "outbox.db")
    yield site
    site.close()


def test_records_are_scored_written_and_answered(site: Site):
    context = {"_time": "2026-01-31T13:45:00+01:00", "_run": "run 1", "_row": 7}
    answer = site.score(
        {"records": [RECORD | context, RECORD | {"Temperature": None} | dict.fromkeys(context)]}
    )
    assert answer.status == 200
    body = answer.json
    assert body["release"] == "sha256:aa" and body["threshold"] == 0.5
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", body["scored_at"])
    assert [result["id"] for result in body["results"]] == ["bergen/1", "bergen/2"]
    rows = site.rows()
    assert [(row.score, bool(row.predicted), bool(row.outside)) for row in rows] == [
        (result["score"], result["predicted"], result["outside"]) for result in body["results"]
    ]
    assert json.loads(rows[0].record) == {
        "inputs": RECORD,
        "context": {"_time": "2026-01-31T12:45:00", "_run": "run 1", "_row": 7},
    }
    assert json.loads(rows[1].record) == {
        "inputs": RECORD | {"Temperature": None},
        "context": {"_time": None, "_run": None, "_row": None},
    }


def test_columns_and_records_get_the_same_scores(site: Site):
    columnar = site.score({"columns": COLUMNS, "context": {"_row": [0, 1]}}).json
    records = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
    single = site.score({"records": records}).json["results"]
    assert columnar["first"] == "bergen/1"
    assert columnar["scores"] == [result["score"] for result in single]
    assert columnar["predicted"] == [result["predicted"] for result in single]
    assert columnar["outside"] == [result["outside"] for result in single] == [False, True]
    assert [json.loads(row.record)["context"] for row in site.rows()] == [{"_row": 0}, {"_row": 1}, {}, {}]


def test_a_whole_number_beyond_64_bits_is_kept_as_it_came(site: Site):
    assert site.score({"records": [RECORD | {"Temperature mean 12": 10**30}]}).status == 200
    assert json.loads(site.rows()[0].record)["inputs"]["Temperature mean 12"] == 10**30


def test_a_large_body_is_scored_beside_the_event_loop_with_the_same_answer(site: Site):
    rows = module.LARGE_BODY // 20
    body = {
        "columns": {
            "Pressure [bar]": [2.0] * rows,
            "Temperature": [10.0] * rows,
            "Pump type": ["screw"] * rows,
        }
    }
    large = site.score(body).json
    small = site.score({"records": [RECORD]}).json["results"][0]
    assert large["scores"] == [small["score"]] * rows


@pytest.mark.parametrize("shape", ["records", "columns"])
def test_the_same_key_is_answered_from_the_outbox(site: Site, shape: str):
    body = {"records": [RECORD]} if shape == "records" else {"columns": COLUMNS}
    first = site.score(body, "key 1").json
    again = site.score(body, "key 1").json
    assert again == first | {"repeated": True}
    assert len(site.rows()) == (1 if shape == "records" else 2)
    assert "repeated" not in site.score(body, "key 2").json


def test_a_key_of_another_release_is_answered_as_it_was(site: Site, model: Model):
    first = site.score({"records": [RECORD]}, "key").json
    later = Site(model, site.path)
    later.app = App(model, later.writer, site="bergen", release="sha256:bb", version=4)
    assert later.score({"records": [RECORD]}, "key").json == first | {"repeated": True, "threshold": None}
    later.close()


def test_a_key_used_for_other_records_is_refused(site: Site):
    site.score({"records": [RECORD]}, "key")
    answer = site.score({"records": [RECORD | {"Temperature": 11}]}, "key")
    assert answer.status == 422 and "'key' was used before, for other records" in answer.json["error"]


@pytest.mark.parametrize("key", ["", "x" * 201, "tab\t", "å"])
def test_a_key_that_cannot_be_kept_is_refused(site: Site, key: str):
    answer = site.score({"records": [RECORD]}, key)
    assert answer.status == 422 and "1 to 200 printable ASCII" in answer.json["error"]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b"", "no JSON"),
        (400, b"{", "no JSON"),
        (400, b'{"records": [{"Temperature": NaN}]}', "no JSON"),
        (400, b'{"columns": {"\xff": []}}', "no JSON in UTF-8"),
        (422, b"[" * 100_000, "does not fit"),
        (400, b'{"columns": {"a": ' + b"[" * 100_000, "nested too deeply"),
        (422, [], "does not fit: Expected `object`"),
        (422, {}, "exactly one of records and columns"),
        (422, {"records": [RECORD], "columns": COLUMNS}, "exactly one of records and columns"),
        (422, {"record": [RECORD]}, "unknown field `record`"),
        (422, {"records": [RECORD], "context": {"_row": [1]}}, "context goes with columns"),
        (422, {"records": []}, "records holds no row"),
        (422, {"records": [{}]}, "field 'Pressure [bar]' is missing"),
        (422, {"records": [1]}, r"$.records[0]"),
        (422, {"columns": {}}, "columns holds no row"),
        (422, {"columns": {"Temperature": []}}, "columns holds no row"),
        (422, {"columns": COLUMNS | {"Temperature": [1]}}, "columns must have one length, these have [1, 2]"),
        (422, {"columns": COLUMNS, "context": {"_row": [1]}}, "context '_row' has 1 values for 2 rows"),
        (422, {"columns": COLUMNS, "context": {"_rows": [1]}}, "unknown field `_rows`"),
        (422, {"records": [RECORD | {"_site": "x"}]}, "field '_site' is not an input"),
        (
            422,
            {"records": [RECORD, {"Temperature": 1, "Pump type": None}]},
            "row 1: field 'Pressure [bar]' is missing",
        ),
        (
            422,
            {"records": [RECORD, RECORD | {"Temperature": "hot"}]},
            "row 1: 'Temperature' must be a number, it is text",
        ),
        (
            422,
            {"records": [RECORD | {"Temperature": 151}]},
            "row 0: 'Temperature' is 151, it must be between -40 and 150 °C",
        ),
        (422, {"records": [RECORD | {"Temperature mean 12": 1e39}]}, "must be finite"),
        (422, {"records": [RECORD | {"Temperature mean 12": 10**400}]}, "whole number too large"),
        (422, {"records": [RECORD | {"_time": "yesterday"}]}, "row 0: '_time' must be an ISO 8601 time"),
        (422, {"records": [RECORD | {"_time": "0001-01-01T00:00:00+10:00"}]}, "row 0: '_time' must be"),
        (422, {"records": [RECORD | {"_time": 17}]}, "row 0: '_time' must be an ISO 8601 time"),
        (422, {"records": [RECORD | {"_run": 17}]}, "row 0: '_run' must be text"),
        (422, {"records": [RECORD | {"_run": "x" * 201}]}, "row 0: '_run' must be text of at most 200"),
        (422, {"records": [RECORD | {"_row": -1}]}, "row 0: '_row' must be a whole number"),
        (422, {"records": [RECORD | {"_row": True}]}, "row 0: '_row' must be a whole number"),
        (422, {"records": [RECORD | {"_row": 10**300}]}, "row 0: '_row' must be a whole number"),
        (413, {"columns": {"Temperature": [0] * 100_001}}, "100001 rows are too many for one request"),
        (413, {"records": [{}] * 100_001}, "100001 rows are too many for one request"),
    ],
)
def test_what_is_refused_says_why_and_writes_nothing(site: Site, status: int, body: Any, message: str):
    answer = site.score(body)
    assert (answer.status, message in answer.json["error"]) == (status, True), answer.body
    assert site.rows() == []


@pytest.mark.parametrize("said", [True, False])
def test_a_body_above_the_limit_is_refused_without_reading_it_all(site: Site, monkeypatch, said: bool):
    monkeypatch.setattr(module, "MAX_BODY", 1000)
    parts = [b" " * 400] * 3 + [b"never read"]
    answer = site.call("POST", "/v1/score", headers={"content-length": "1200"} if said else {}, parts=parts)
    assert answer.status == 413 and answer.headers["connection"] == "close"
    assert "at most 1000 bytes" in answer.json["error"]


def test_a_body_in_chunks_is_put_together(site: Site):
    content = json.dumps({"records": [RECORD]}).encode()
    assert site.call("POST", "/v1/score", parts=[content[:5], b"", content[5:]]).status == 200


def test_a_client_that_goes_away_is_not_answered(site: Site):
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": []}
    site.loop.run_until_complete(site.app(scope, receive, send))
    assert site.rows() == []


def test_feedback_is_written(site: Site):
    site.score({"columns": COLUMNS})
    items = [
        {"id": "bergen/2", "correct": False, "note": "noise", "role": "operator"},
        {"id": "bergen/1", "correct": True},
    ]
    assert site.call("POST", "/v1/feedback", {"items": items}).json == {"accepted": 2}
    with Outbox(site.path) as outbox:
        kept = [(item.sequence, item.correct, item.note, item.role) for item in outbox.waiting_feedback(10)]
    assert kept == [(2, 0, "noise", "operator"), (1, 1, None, "")]


@pytest.mark.parametrize(
    ("status", "items", "message"),
    [
        (404, [{"id": "bergen/1", "correct": True}, {"id": "bergen/3", "correct": True}], "no score 3"),
        (404, [{"id": "oslo/1", "correct": True}], "no score 'oslo/1' on this site; an id is bergen/NUMBER"),
        (404, [{"id": "bergen/-1", "correct": True}], "no score 'bergen/-1'"),
        (404, [{"id": "bergen/²", "correct": True}], "no score 'bergen/²'"),
        (404, [{"id": "bergen/" + "9" * 30, "correct": True}], "no score"),
        (422, [], "items is empty"),
        (422, [{"id": "bergen/1"}], "missing required field `correct`"),
        (422, [{"id": "bergen/1", "correct": 1}], "Expected `bool`"),
        (422, [{"id": "bergen/1", "correct": True, "note": "x" * 501}], "length <= 500"),
        (422, [{"id": "bergen/1", "correct": True, "role": "x" * 41}], "length <= 40"),
        (422, [{"id": "bergen/1", "correct": True, "who": "me"}], "unknown field `who`"),
        (413, [{"id": "bergen/1", "correct": True}] * 10_001, "10001 items are too many"),
    ],
)
def test_feedback_that_is_refused_writes_nothing(site: Site, status: int, items: Any, message: str):
    site.score({"columns": COLUMNS})
    answer = site.call("POST", "/v1/feedback", {"items": items})
    assert (answer.status, message in answer.json["error"]) == (status, True), answer.body
    with Outbox(site.path) as outbox:
        assert outbox.waiting_feedback(10) == []


def test_contract_and_status_say_what_serves(site: Site):
    site.score({"columns": COLUMNS})
    described = site.call("GET", "/v1/contract").json
    assert described["threshold"] == 0.5 and described["release"] == "sha256:aa"
    assert described["inputs"][0]["unit"] == "bar" and described["inputs"][0]["high"] == 25.0
    status = site.call("GET", "/v1/status").json
    assert (status["site"], status["release"], status["version"]) == ("bergen", "sha256:aa", 3)
    assert status["outbox"]["scored"] == status["outbox"]["pending"] == 2


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/health/live", 200, None),
        ("HEAD", "/health/ready", 200, None),
        ("GET", "/v1/score", 405, "POST"),
        ("DELETE", "/v1/status", 405, "GET, HEAD"),
        ("GET", "/", 404, None),
        ("GET", "/v1/score/", 404, None),
        ("POST", "/v1/\x00<script>", 404, None),
    ],
)
def test_paths_and_methods(site: Site, method: str, path: str, status: int, allow: str | None):
    answer = site.call(method, path)
    assert (answer.status, answer.headers.get("allow")) == (status, allow)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [(Busy("many rows"), 503, "1"), (Stopped("no thread"), 503, "1"), (DiskFull("no space"), 507, None)],
)
def test_what_the_writer_cannot_do_is_told(
    site: Site, monkeypatch, error: Exception, status: int, retry: str | None
):
    async def write(batch: Any) -> None:
        raise error

    monkeypatch.setattr(site.writer, "write", write)
    answer = site.score({"records": [RECORD]})
    assert (answer.status, answer.headers.get("retry-after")) == (status, retry)
    assert answer.json == {"error": str(error)}


def test_a_writer_that_failed_makes_the_service_not_ready(site: Site):
    site.writer.failure = "the thread died"
    assert site.call("GET", "/health/ready").status == 503
    assert site.call("GET", "/health/live").status == 200
    site.writer.failure = None


def test_an_unexpected_error_tells_the_client_nothing_but_its_number(site: Site, monkeypatch, caplog):
    def fail(outbox: Any) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(Outbox, "counts", fail)
    answer = site.call("GET", "/v1/status")
    assert answer.status == 500 and answer.json["error"] == "internal error"
    assert b"secret" not in answer.body and b"Traceback" not in answer.body
    (record,) = caplog.records
    assert record.fields["request"] == answer.json["request"] and "secret detail" in caplog.text


def test_a_full_disk_is_507_and_the_service_goes_on(site: Site):
    def shrink(outbox: Outbox) -> None:
        pages = outbox._db.execute("PRAGMA page_count").fetchone()[0]
        outbox._db.execute(f"PRAGMA max_page_count = {pages + 2}")

    site.loop.run_until_complete(site.writer.run(shrink))
    body = {"columns": {name: values * 500 for name, values in COLUMNS.items()}}
    assert site.score(body).status == 507
    assert site.rows() == []
    assert site.score({"records": [RECORD]}).json["results"][0]["id"] == "bergen/1"


def test_while_draining_each_answer_closes_its_connection(site: Site):
    assert "connection" not in site.call("GET", "/health/live").headers
    site.app.draining = True
    assert site.call("GET", "/health/live").headers["connection"] == "close"


def test_the_lifespan_opens_and_closes_the_outbox(model: Model, tmp_path: Path):
    async def run(path: Path) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> dict[str, Any]:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        app = App(model, Writer(lambda: Outbox(path)), site="bergen", release="r", version=1)
        await app({"type": "lifespan"}, receive, send)
        return sent

    good = asyncio.run(run(tmp_path / "outbox.db"))
    assert [message["type"] for message in good] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    (bad,) = asyncio.run(run(tmp_path / "nowhere" / "outbox.db"))
    assert bad["type"] == "lifespan.startup.failed" and "unable to open" in bad["message"]


@pytest.fixture(scope="module")
def fuzzed(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(model, tmp_path_factory.mktemp("fuzzed") / "outbox.db")
    yield site
    site.close()


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
names = st.sampled_from([*COLUMNS, "Temperature mean 12", "_time", "_run", "_row"]) | st.text(max_size=5)
times = st.datetimes(timezones=st.none() | st.timezones()).map(str)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "records": st.lists(st.dictionaries(names, scalars | times | anything, max_size=6), max_size=3)
        | anything,
        "columns": st.dictionaries(names, st.lists(scalars, max_size=3) | anything, max_size=5) | anything,
        "context": st.dictionaries(names, st.lists(scalars | times, max_size=3), max_size=3) | anything,
        "items": st.lists(
            st.dictionaries(st.sampled_from(["id", "correct", "note", "role"]), scalars), max_size=2
        )
        | anything,
    },
)


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(["/v1/score", "/v1/feedback"]), bodies)
def test_no_json_gives_a_server_error(fuzzed: Site, path: str, body: Any):
    answer = fuzzed.call("POST", path, body)
    assert answer.status in (200, 400, 404, 413, 422), answer.body
    assert "error" in answer.json or answer.status == 200


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["/v1/score", "/v1/feedback"]), st.binary(max_size=60))
@example("/v1/score", b'{"columns": {"Temperature": [1' + b"0" * 5000 + b"]}}")
@example("/v1/score", b'{"columns": {"Temperature": [1e999]}}')
@example("/v1/score", b'{"columns": {"\\ud800": [1]}}')
def test_no_bytes_give_a_server_error(fuzzed: Site, path: str, body: bytes):
    assert fuzzed.call("POST", path, body).status in (400, 422)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "Pressure [bar]": st.none() | st.floats(0, 25),
                "Temperature": st.none() | st.integers(-40, 150),
                "Pump type": st.none() | st.text(max_size=8),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_is_answered_is_in_the_outbox_as_answered(fuzzed: Site, records: Any):
    answer = fuzzed.score({"records": records})
    assert answer.status == 200, answer.body
    results = answer.json["results"]
    first = int(results[0]["id"].partition("/")[2])
    with Outbox(fuzzed.path) as outbox:
        rows = outbox.rows(first, first + len(results) - 1)
    assert [(f"bergen/{row.sequence}", row.score, row.predicted, row.outside) for row in rows] == [
        (result["id"], result["score"], result["predicted"], result["outside"]) for result in results
    ]
    assert [json.loads(row.record)["inputs"] for row in rows] == records
