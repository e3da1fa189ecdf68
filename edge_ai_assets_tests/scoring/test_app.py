"""The application of a site: every path, who may ask for it, and what each thing that goes wrong becomes."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import sqlite3
import struct
import subprocess
import threading
import zlib
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.scoring import app as module
from edge_ai_assets.scoring import messages
from edge_ai_assets.scoring import scorer as scorers
from edge_ai_assets.scoring import tokens as token_files
from edge_ai_assets.scoring.contract import UNKNOWN_CATEGORY
from edge_ai_assets.scoring.model import Model
from edge_ai_assets.scoring.standing import Release
from edge_ai_assets.scoring.tokens import Tokens
from edge_ai_assets.scoring.writer import Busy, DiskFull, Failed
from edge_ai_assets_tests.scoring.serving import (
    COLUMNS,
    NAMES,
    RECORD,
    Reply,
    Running,
    Site,
    on_loop,
    request,
)
from edge_ai_assets_tests.tiny_model import INPUTS, WEIGHTS, tiny_release

DERIVED = {"Temperature mean 12": None}
"""What a record lacks that leaves its derived input out."""
ROLES = {
    "score": {"/v1/score", "/v2/models/tiny/infer"},
    "feedback": {"/v1/feedback"},
    "operate": {"/metrics"},
}
ANY_ROLE = {
    "/v1/contract",
    "/v1/status",
    "/v1/recent",
    "/v2",
    "/v2/models/tiny",
    "/v2/models/tiny/versions/3",
    "/openapi.json",
}
NO_ROLE = {
    *("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/tiny/ready"),
    *("/", "/docs"),
}


class Counting:
    """A model that counts how often it was asked, and may be made to wait."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.contract, self.installed, self.predicted = model.contract, model.installed, model.predicted
        self.rows: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def score(self, matrix: np.ndarray) -> np.ndarray:
        assert self.gate.wait(60)
        self.rows.append(len(matrix))
        return self._model.score(matrix)


def rows(site: Site) -> list[Any]:
    with Outbox(site.path) as outbox:
        return outbox.rows(1, 10**9)


def post(body: Any, path: str = "/v1/score", **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request("POST", path, content, {name.replace("_", "-"): value for name, value in headers.items()})


def large(number: int) -> dict[str, Any]:
    columns = {"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": "screw", "Temperature mean 12": 9.125}
    return {"columns": {name: [value] * number for name, value in columns.items()}}


# Scores.


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
    kept = rows(site)
    assert [(row.score, bool(row.predicted), bool(row.outside)) for row in kept] == [
        (result["score"], result["predicted"], result["outside"]) for result in body["results"]
    ]
    assert json.loads(kept[0].record) == {
        "inputs": RECORD | DERIVED,
        "context": {"_time": "2026-01-31T12:45:00", "_run": "run 1", "_row": 7},
    }
    assert json.loads(kept[1].record) == {
        "inputs": RECORD | DERIVED | {"Temperature": None},
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
    assert [json.loads(row.record)["context"] for row in rows(site)] == [{"_row": 0}, {"_row": 1}, {}, {}]


def test_every_kind_of_body_gets_the_same_scores(site: Site):
    import pyarrow as pa

    table = pa.table(COLUMNS)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    csv = b"Pressure [bar],Temperature,Pump type\n2.0,10,screw\n21.0,,\n"
    sent = {
        "application/json": json.dumps({"columns": COLUMNS}).encode(),
        "application/json; charset=utf-8": json.dumps({"columns": COLUMNS}).encode(),
        "text/csv": csv,
        "TEXT/CSV; charset=utf-8": csv,
        "application/vnd.apache.arrow.stream": sink.getvalue(),
    }
    answers = [
        site.call("POST", "/v1/score", pack(body), {"Content-Type": kind, "Content-Encoding": encoding})
        for kind, body in sent.items()
        for encoding, pack in (("identity", bytes), ("gzip", gzip.compress), ("deflate", zlib.compress))
    ]
    (scores,) = {tuple(answer.json["scores"]) for answer in answers}
    assert len(scores) == 2
    assert len({row.record for row in rows(site)}) == 2


def test_csv_is_answered_in_csv_to_who_asks_for_it(site: Site):
    body = b"Pressure [bar],Temperature,Pump type\n2.0,10,screw\n"
    answer = site.call("POST", "/v1/score", body, {"Content-Type": "text/csv", "Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["x-release"] == "sha256:aa" and answer.headers["x-threshold"] == "0.5"
    header, line, end = answer.body.decode().split("\r\n")
    assert header == "id,score,predicted,outside" and line.startswith("bergen/1,0.") and end == ""


def test_a_whole_number_beyond_64_bits_is_scored_as_the_number_it_is(site: Site):
    assert site.score({"records": [RECORD | {"Temperature mean 12": 10**30}]}).status == 200
    assert json.loads(rows(site)[0].record)["inputs"]["Temperature mean 12"] == 1e30


@pytest.mark.parametrize("text", ["screw", "piston", "", "π" * 50, "nul\x00", None])
def test_a_category_that_is_not_known_is_scored_as_missing_and_kept_as_given(site: Site, text: str | None):
    answer = site.score({"records": [RECORD | {"Pump type": text}]})
    assert answer.status == 200
    assert json.loads(rows(site)[0].record)["inputs"]["Pump type"] == text
    code = 1.0 if text == "screw" else UNKNOWN_CATEGORY
    raw = float(np.dot(WEIGHTS[:3], [2.0, 10.0, code])) - 2.0
    assert answer.json["results"][0]["score"] == pytest.approx(1 / (1 + np.exp(-raw)), rel=1e-5)


@pytest.mark.parametrize("number", [module.SMALL_BODY // 20, 10_000])
def test_a_large_body_gets_the_same_answer_as_small_ones(site: Site, number: int):
    found = site.score(large(number)).json
    small = site.score(large(1)).json
    assert found["scores"] == small["scores"] * number
    assert len(rows(site)) == number + 1


def test_large_and_small_bodies_together_are_all_answered(site: Site):
    sent = [post(large(5000) if turn % 5 == 0 else {"records": [RECORD]}) for turn in range(30)]
    answers = site.calls(*sent)
    assert [answer.status for answer in answers] == [200] * 30
    firsts = [
        int((answer.json.get("first") or answer.json["results"][0]["id"]).rpartition("/")[2])
        for answer in answers
    ]
    taken = sorted(
        number
        for turn, first in enumerate(firsts)
        for number in range(first, first + (5000 if turn % 5 == 0 else 1))
    )
    assert taken == list(range(1, 6 * 5000 + 25))  # each row has its own number, and none is missing


def test_requests_that_come_together_are_scored_together(model: Model, tmp_path: Path):
    counting = Counting(model)
    site = Site(counting, tmp_path / "outbox.db")  # type: ignore[arg-type]
    answers = site.calls(*(post({"records": [RECORD | {"Temperature": t}]}) for t in range(40)))
    assert counting.rows == [40]
    alone = [site.score({"records": [RECORD | {"Temperature": t}]}).json for t in range(40)]
    assert [a.json["results"][0]["score"] for a in answers] == [a["results"][0]["score"] for a in alone]
    assert [a.json["results"][0]["id"] for a in answers] == [f"bergen/{n}" for n in range(1, 41)]
    site.close()


def test_one_bad_request_does_not_fail_those_that_came_with_it(site: Site):
    bad = [
        post({"records": [RECORD, RECORD | {"Temperature": 151}]}),
        post({"records": [RECORD | {"Pressure [bar]": -1}]}),
        post({"columns": COLUMNS | {"Temperature": [1, 1e39]}}),
        post(b"{"),
    ]
    good = [post({"records": [RECORD]}), post({"columns": COLUMNS})]
    answers = site.calls(good[0], bad[0], bad[1], good[1], bad[2], bad[3], good[0])
    assert [answer.status for answer in answers] == [200, 422, 422, 200, 422, 400, 200]
    assert "row 1: 'Temperature' is 151" in answers[1].json["error"]  # its own row, not the group's
    assert "row 0: 'Pressure [bar]' is -1" in answers[2].json["error"]
    assert answers[3].json["first"] == "bergen/2" and len(rows(site)) == 4


# Idempotency.


@pytest.fixture
def counted(model: Model, tmp_path: Path) -> Iterator[tuple[Site, Counting]]:
    counting = Counting(model)
    site = Site(counting, tmp_path / "outbox.db")  # type: ignore[arg-type]
    yield site, counting
    counting.gate.set()
    site.close()


@pytest.mark.parametrize("body", [{"records": [RECORD]}, {"columns": COLUMNS}, large(3000)])
def test_the_same_request_is_answered_from_the_outbox_and_not_scored_again(
    counted: tuple[Site, Counting], body: Any
):
    site, counting = counted
    first = site.score(body, "key 1").json
    scored = list(counting.rows)
    assert site.score(body, "key 1").json == first | {"repeated": True}
    assert counting.rows == scored and len(rows(site)) == sum(scored)
    assert "repeated" not in site.score(body, "key 2").json


def test_the_same_request_twice_at_once_is_written_once(counted: tuple[Site, Counting]):
    site, _ = counted
    for turn in range(10):
        answers = site.calls(*[post({"records": [RECORD]}, Idempotency_Key=f"key {turn}")] * 3)
        bodies = [answer.json for answer in answers]
        assert sorted(body.pop("repeated", False) for body in bodies) == [False, True, True]
        assert bodies[0] == bodies[1] == bodies[2]
    assert len(rows(site)) == 10


def test_a_key_of_another_release_is_answered_as_it_was(site: Site, model: Model):
    first = site.score({"records": [RECORD]}, "key").json
    later = Site(model, site.path, digest="sha256:bb", version=4)
    assert later.score({"records": [RECORD]}, "key").json == first | {"repeated": True, "threshold": None}
    assert len(rows(site)) == 1
    later.close()


@pytest.mark.parametrize("body", [{"records": [RECORD | {"Temperature": 11}]}, {"columns": COLUMNS}])
def test_a_key_used_for_another_request_is_refused(site: Site, body: Any):
    site.score({"records": [RECORD]}, "key")
    answer = site.score(body, "key")
    assert answer.status == 422 and "'key' was used before, for another request" in answer.json["error"]
    assert len(rows(site)) == 1


def test_a_key_whose_scores_are_no_longer_kept_is_gone(site: Site):
    site.score({"columns": COLUMNS}, "key")
    with Outbox(site.path) as outbox:
        outbox.unfold(10)
        outbox._db.execute("DELETE FROM scores WHERE sequence = 1")
    answer = site.score({"columns": COLUMNS}, "key")
    assert answer.status == 410 and "'key' are no longer kept" in answer.json["error"]


@pytest.mark.parametrize("body", [{"columns": COLUMNS}, {"records": [RECORD]}])
def test_a_key_whose_scores_cannot_be_read_is_gone_too(site: Site, body: Any):
    site.score(body, "key")
    with Outbox(site.path) as outbox:
        outbox._db.execute("UPDATE journal SET block = x'00'")
    answer = site.score(body, "key")
    assert answer.status == 410 and "'key' are no longer kept" in answer.json["error"]


def test_a_key_is_found_whether_its_rows_are_unfolded_or_not(site: Site):
    first = site.score({"columns": COLUMNS}, "key").json
    with Outbox(site.path) as outbox:
        outbox.unfold(10)
    assert site.score({"columns": COLUMNS}, "key").json == first | {"repeated": True}


@pytest.mark.parametrize("key", ["", "x" * 201, "tab\t1", "å"])
def test_a_key_that_cannot_be_kept_is_refused(site: Site, key: str):
    answer = site.score({"records": [RECORD]}, key)
    assert answer.status == 422 and "1 to 200 printable ASCII" in answer.json["error"]


def test_a_request_that_was_refused_does_not_use_its_key(site: Site):
    assert site.score({"records": [RECORD | {"Temperature": 151}]}, "key").status == 422
    assert site.score({"records": [RECORD]}, "key").json.get("repeated") is None


# What is refused.


@pytest.mark.parametrize("key", [None, "key"])
@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b"", "no JSON"),
        (400, b"{", "no JSON"),
        (400, b'{"records": [{"Temperature": NaN}]}', "no JSON"),
        (400, b'{"columns": {"\xff": []}}', "no JSON in UTF-8"),
        (422, b"[" * 100_000, "does not fit"),
        (400, b'{"columns": {"a": ' + b"[" * 100_000, "nested too deeply"),
        (400, b'{"columns":{"a":' + b"[" * 10_000, "nested too deeply"),
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
        (422, {"columns": COLUMNS | {"Temperature": [1]}}, "length: field 'Temperature' has 1 values, field"),
        (422, {"columns": COLUMNS | {"Pressure [bar]": 5}}, "'Pressure [bar]' must be a list with a value"),
        (422, {"columns": COLUMNS | {"Temperature": None}}, "'Temperature' must be a list with a value for"),
        (400, b'{"records":[{"Temperature":-NaN}]}', "no JSON"),
        (
            400,
            {"records": [{"Temperature": float("nan")}]},
            "'Temperature': NaN (byte 29) is no JSON, a miss",
        ),
        (400, {"columns": {"x": [1, float("-inf")]}}, "'x': Infinity (byte 23) is no JSON, a number must be"),
        (400, {"columns": {"x": ["NaN", float("nan")]}}, "UTF-8: NaN (byte 26) is no JSON, a missing number"),
        (
            422,
            b'{"records":[{"a":"1e999","Temperature" : -1.5E+400}]}',
            "'Temperature': a number must be fini",
        ),
        (
            422,
            b'{"columns":{"x":[1,1e400]}}',
            "'x': a number must be finite and within float32, it is '1e400'",
        ),
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
def test_what_is_refused_says_why_and_writes_nothing(
    site: Site, status: int, body: Any, message: str, key: str | None
):
    answer = site.score(body, key)
    assert (answer.status, message in answer.json["error"]) == (status, True), answer.body
    assert rows(site) == []


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/health/live", 200, None),
        ("HEAD", "/health/ready", 200, None),
        ("GET", "/v1/score", 405, "POST"),
        ("PUT", "/v1/feedback", 405, "POST"),
        ("DELETE", "/v1/status", 405, "GET, HEAD"),
        ("OPTIONS", "/v1/score", 405, "POST"),
        ("GET", "/nothing", 404, None),
        ("GET", "/v1/score/", 404, None),
        ("GET", "/static/../app.py", 404, None),
        ("GET", "/v2/models/tiny/versions/9", 404, None),
        ("POST", "/v1/%00%3Cscript%3E", 404, None),
    ],
)
def test_paths_and_methods(site: Site, method: str, path: str, status: int, allow: str | None):
    answer = site.call(method, path)
    assert (answer.status, answer.headers.get("allow")) == (status, allow)
    assert answer.headers["content-type"] == "application/json" and answer.headers["x-request-id"]


def test_every_path_of_the_service_is_there_and_no_other(site: Site):
    paths = set().union(ANY_ROLE, NO_ROLE, *ROLES.values())
    own = {path for path in site.app._routes if not path.startswith(("/static/", "/docs", "/v2"))}
    assert own == {path for path in paths if not path.startswith(("/docs", "/v2"))}
    for path in sorted(ANY_ROLE | NO_ROLE | ROLES["operate"]):
        got, head = site.call("GET", path), site.call("HEAD", path)
        assert got.status == head.status == 200, (path, got)
        assert got.body and not head.body
        assert got.headers["content-type"] == head.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("/v1/score", "text/plain", 415),
        ("/v1/score", "application/x-www-form-urlencoded", 415),
        ("/v1/score", "multipart/form-data; boundary=x", 415),
        ("/v1/score", "application/jsonx", 415),
        ("/v1/feedback", "application/vnd.apache.arrow.stream", 415),
        ("/v1/score", "application/json", 400),
        ("/v1/score", " Application/JSON ;charset=utf-8", 400),
        ("/v1/score", "text/csv", 422),
        ("/v1/score", "application/vnd.apache.arrow.stream", 400),
        ("/v1/feedback", "text/csv", 422),
    ],
)
def test_only_known_kinds_of_bodies_are_read(site: Site, path: str, kind: str, status: int):
    answer = site.call("POST", path, b"x", {"Content-Type": kind})
    assert answer.status == status, answer.body
    if status == 415:
        assert "is not taken, only " in answer.json["error"]


def test_long_content_types_are_not_kept_in_memory(site: Site):
    before = messages._without_parameters.cache_info().currsize
    for number in range(5):
        kind = "application/json; x=" + "y" * 10_000 + str(number)
        assert site.call("POST", "/v1/score", {"records": [RECORD]}, {"Content-Type": kind}).status == 200
    assert messages._without_parameters.cache_info().currsize <= before + 1


@pytest.mark.parametrize(
    ("encoding", "status"), [("gzip", 400), ("br", 415), ("identity", 200), ("GZIP", 400)]
)
@pytest.mark.parametrize("path", ["/v1/score", "/v1/feedback"])
def test_a_body_that_is_not_compressed_as_it_says_is_refused(
    site: Site, encoding: str, status: int, path: str
):
    site.score({"records": [RECORD]})
    body = {"records": [RECORD]} if path == "/v1/score" else {"items": [{"id": "bergen/1", "correct": True}]}
    assert site.call("POST", path, body, {"Content-Encoding": encoding}).status == status


def test_a_small_body_that_becomes_too_large_is_refused(site: Site):
    bomb = gzip.compress(b" " * (module.MAX_BODY + 1))
    assert len(bomb) < 50_000
    for path in ("/v1/score", "/v1/feedback"):
        assert site.call("POST", path, bomb, {"Content-Encoding": "gzip"}).status == 413


# Who may ask.


@pytest.fixture
def guarded(model: Model, tmp_path: Path) -> Iterator[tuple[Site, dict[str, str]]]:
    """A site that asks for tokens, and one of each role."""
    path = tmp_path / "tokens.json"
    made = {role: token_files.add(path, f"the {role} one", [role]) for role in ROLES}
    site = Site(model, tmp_path / "outbox.db", tokens=Tokens(path))
    yield site, made
    site.close()


def ask(site: Site, path: str, token: str | None) -> Reply:
    method = "POST" if path in ROLES["score"] | ROLES["feedback"] else "GET"
    return site.call(method, path, b"", {"Authorization": f"Bearer {token}"} if token else {})


def test_who_has_no_token_gets_in_nowhere(guarded: tuple[Site, dict[str, str]]):
    site, made = guarded
    for path in sorted(ANY_ROLE.union(*ROLES.values())):
        for token in (None, "eai_00000000_" + "x" * 43, made["score"][:-1]):
            answer = ask(site, path, token)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), path
    for path in sorted(NO_ROLE):
        assert ask(site, path, None).status == 200, path


@pytest.mark.parametrize("role", ROLES)
def test_each_role_gets_in_where_it_may(guarded: tuple[Site, dict[str, str]], role: str):
    site, made = guarded
    for other, paths in ROLES.items():
        for path in sorted(paths):
            answer = ask(site, path, made[role])
            if other == role:
                assert answer.status not in (401, 403, 404), path
            else:
                assert answer.status == 403 and f"has not the role {other}" in answer.json["error"], path
    for path in sorted(ANY_ROLE | NO_ROLE):
        assert ask(site, path, made[role]).status == 200, path


@pytest.mark.parametrize("said", ["cross-site", "same-site"])
def test_a_page_of_another_site_may_ask_for_nothing(site: Site, said: str):
    for path in sorted(ANY_ROLE.union(*ROLES.values())):
        method = "POST" if path in ROLES["score"] | ROLES["feedback"] else "GET"
        assert site.call(method, path, b"", {"Sec-Fetch-Site": said}).status == 403, path
    for path in sorted(NO_ROLE):  # somebody follows a link to the page
        assert site.call("GET", path, b"", {"Sec-Fetch-Site": said}).status == 200, path


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8080", 421),
        ("10.0.0.7", 421),
        ("", 421),
        ("[", 421),
    ],
)
def test_only_this_machines_names_lead_to_a_service_of_this_machine(site: Site, host: str, status: int):
    site.server.local = True
    asked = f"GET /v1/status HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    assert [answer.status for answer in site.calls(asked)] == [status]
    live = f"GET /health/live HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    assert [answer.status for answer in site.calls(live)] == [200]  # a probe may use any name
    site.server.local = False
    assert [answer.status for answer in site.calls(asked)] == [200]


def told(answer: Reply) -> set[str]:
    """What of the contract and the release is in an answer."""
    own = {"tiny", "Predicts 'fault'", "sha256:aa", *NAMES}
    said = unescape(answer.body.decode())
    return {name for name in own if name in said}


def test_who_may_not_read_the_contract_is_not_told_it_by_the_documentation(
    guarded: tuple[Site, dict[str, str]],
):
    site, made = guarded
    page = ask(site, "/docs", None)
    assert page.status == 200 and told(page) == set()
    assert "/v1/score" in page.body.decode() and "INPUT" in page.body.decode()
    for path in ("/docs", "/openapi.json"):
        assert told(ask(site, path, made["feedback"])) >= {"tiny", "Predicts 'fault'", "Pump type"}


def test_by_another_name_than_this_machines_the_documentation_tells_nothing(site: Site):
    """It is how another site's page would get at it, by a name of its own that leads here."""
    site.server.local = True
    other = {"Host": "evil.example"}
    assert site.call("GET", "/openapi.json", b"", other).status == 421
    assert told(site.call("GET", "/docs", b"", other)) == set()
    assert told(site.call("GET", "/docs")) >= {"tiny", "Predicts 'fault'", "Pump type"}


def test_a_token_is_asked_for_before_the_body_is_read(guarded: tuple[Site, dict[str, str]]):
    site, _ = guarded
    head = post(b"x" * 100)[:-100]
    (answer,) = site.calls(head)
    assert (answer.status, answer.headers["connection"]) == (401, "close")


def test_feedback_with_a_token_has_its_name_as_role(guarded: tuple[Site, dict[str, str]]):
    site, made = guarded
    bearer = {"Authorization": f"Bearer {made['score']}"}
    assert site.call("POST", "/v1/score", {"records": [RECORD]}, bearer).status == 200
    bearer = {"Authorization": f"Bearer {made['feedback']}"}
    items = [{"id": "bergen/1", "correct": True, "role": "the director"}]
    assert site.call("POST", "/v1/feedback", {"items": items}, bearer).status == 200
    with Outbox(site.path) as outbox:
        assert [item.role for item in outbox.waiting_feedback(10)] == ["the feedback one"]


# Feedback.


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


def test_feedback_may_come_as_csv(site: Site):
    site.score({"columns": COLUMNS})
    body = b'id,correct,note,role\nbergen/1,yes,"a, b",shift 1\nbergen/2,0,,\n'
    answer = site.call("POST", "/v1/feedback", body, {"Content-Type": "text/csv"})
    assert answer.json == {"accepted": 2}
    with Outbox(site.path) as outbox:
        kept = [(item.sequence, item.correct, item.note, item.role) for item in outbox.waiting_feedback(10)]
    assert kept == [(1, 1, "a, b", "shift 1"), (2, 0, None, "")]


def test_feedback_holds_for_scores_that_were_unfolded_too(site: Site):
    site.score({"columns": COLUMNS})
    with Outbox(site.path) as outbox:
        outbox.unfold(10)
    items = [{"id": "bergen/2", "correct": True}]
    assert site.call("POST", "/v1/feedback", {"items": items}).status == 200


@pytest.mark.parametrize(
    ("status", "items", "message"),
    [
        (404, [{"id": "bergen/1", "correct": True}, {"id": "bergen/3", "correct": True}], "no score 3"),
        (404, [{"id": "oslo/1", "correct": True}], "no score 'oslo/1' on this site; an id is bergen/NUMBER"),
        (404, [{"id": "bergen/-1", "correct": True}], "no score 'bergen/-1'"),
        (404, [{"id": "bergen/0", "correct": True}], "no score 'bergen/0'"),
        (404, [{"id": "bergen/0001", "correct": True}], "no score 'bergen/0001'"),
        (404, [{"id": "bergen/²", "correct": True}], "no score 'bergen/²'"),
        (404, [{"id": "bergen/" + "9" * 18, "correct": True}], "no score"),
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


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (422, b"", ""),
        (422, b"id,correct\n", ""),
        (422, b"id\nbergen/1\n", "field 'correct' is missing"),
        (422, b"id,correct\nbergen/1,perhaps\n", "row 0: 'correct' must be true or false"),
        (422, b"id,correct,note\nbergen/1,1," + b"x" * 501 + b"\n", "length <= 500"),
        (422, b"id,correct\n" + b"x" * 101 + b",1\n", "length <= 100"),
        (404, b"id,correct\noslo/1,1\n", "no score 'oslo/1'"),
        (400, b"id,correct\n\xff,1\n", "UTF-8"),
        (413, b"id,correct\n" + b"bergen/1,1\n" * 10_001, "10001 rows are too many"),
    ],
)
def test_csv_feedback_that_is_refused_writes_nothing(site: Site, status: int, body: bytes, message: str):
    site.score({"columns": COLUMNS})
    answer = site.call("POST", "/v1/feedback", body, {"Content-Type": "text/csv"})
    assert (answer.status, message in answer.json["error"]) == (status, True), answer.body
    with Outbox(site.path) as outbox:
        assert outbox.waiting_feedback(10) == []


# How it stands.


def test_contract_and_status_say_what_serves(site: Site):
    site.score({"columns": COLUMNS})
    described = site.call("GET", "/v1/contract").json
    assert described["threshold"] == 0.5 and described["release"] == "sha256:aa"
    assert described["inputs"][0]["unit"] == "bar" and described["inputs"][0]["high"] == 25.0
    status = site.call("GET", "/v1/status").json
    assert (status["site"], status["release"], status["version"]) == ("bergen", "sha256:aa", 3)
    assert status["outbox"]["scored"] == status["outbox"]["pending"] == 2
    assert status["link"] == {"state": "up", "since": None} and status["pid"] == os.getpid()
    Link(site.path.parent).cut()
    link = site.call("GET", "/v1/status").json["link"]
    assert link["state"] == "down" and link["since"]


def test_recent_scores_come_newest_first(site: Site):
    assert site.call("GET", "/v1/recent").json == {"scores": []}
    first = site.score({"columns": COLUMNS, "context": {"_run": ["a", "b"]}}).json
    with Outbox(site.path) as outbox:
        outbox.unfold(10)
    site.score({"records": [RECORD | {"_row": 5}]})
    scores = site.call("GET", "/v1/recent").json["scores"]
    assert [score["id"] for score in scores] == ["bergen/3", "bergen/2", "bergen/1"]
    assert scores[2] == {
        "id": "bergen/1",
        "scored_at": first["scored_at"],
        "release": "sha256:aa",
        "score": first["scores"][0],
        "predicted": first["predicted"][0],
        "outside": False,
        "inputs": RECORD | DERIVED,
        "context": {"_time": None, "_run": "a", "_row": None, "_asset": None},
    }
    assert scores[0]["context"]["_row"] == 5 and scores[1]["outside"] is True
    for query, number in (("?limit=2", 2), ("?limit=1000", 3), ("?limit=0001", 1), ("?limit=1&limit=2", 2)):
        assert len(site.call("GET", f"/v1/recent{query}").json["scores"]) == number


@pytest.mark.parametrize(
    "limit", ["0", "1001", "-1", "x", "", "1e2", "9" * 30, "0000000011000000", "%C2%B2", "1_0"]
)
def test_a_limit_that_is_none_is_refused(site: Site, limit: str):
    answer = site.call("GET", f"/v1/recent?limit={limit}")
    assert answer.status == 422 and "from 1 to 1000" in answer.json["error"]


def test_a_record_that_cannot_be_read_is_shown_without_it(site: Site):
    site.score({"columns": COLUMNS})
    with sqlite3.connect(site.path) as db:
        db.execute("UPDATE journal SET block = x'00'")
    db.close()
    scores = site.call("GET", "/v1/recent").json["scores"]
    assert [(score["id"], score["score"], score["inputs"]) for score in scores] == [
        ("bergen/2", None, {}),
        ("bergen/1", None, {}),
    ]


def test_the_connections_of_all_sockets_are_counted(site: Site):
    site.app.connected("one server", 2)
    site.app.connected("another", 3)
    assert b"\nedge_ai_connections 5.0\n" in site.call("GET", "/metrics").body
    site.app.connected("another", 0)
    assert b"\nedge_ai_connections 2.0\n" in site.call("GET", "/metrics").body


def test_metrics_say_what_was_asked(site: Site):
    site.score({"columns": COLUMNS})
    site.score({"records": [RECORD | {"Temperature": 151}]})
    site.call("GET", "/v1/status")
    site.call("GET", "/nowhere")
    site.calls(b"no HTTP at all\r\n\r\n")
    answer = site.call("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.body.decode().splitlines()
    for line in (
        'edge_ai_requests_total{code="200",route="score"} 1.0',
        'edge_ai_requests_total{code="422",route="score"} 1.0',
        'edge_ai_requests_total{code="200",route="status"} 1.0',
        'edge_ai_requests_total{code="404",route="other"} 1.0',
        'edge_ai_requests_total{code="400",route="other"} 1.0',
        "edge_ai_rows_total 2.0",
        "edge_ai_outbox_scored_total 2.0",
        'edge_ai_outbox_rows{state="pending"} 2.0',
        'edge_ai_missing_values_total{input="Temperature"} 1.0',
        'edge_ai_release_info{digest="sha256:aa",site="bergen",version="3"} 1.0',
    ):
        assert line in lines, "\n".join(lines)


def test_the_page_is_not_sent_again_if_it_has_not_changed(site: Site):
    page = site.call("GET", "/")
    tag = page.headers["etag"]
    again = site.call("GET", "/", b"", {"If-None-Match": tag})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert again.headers["content-length"] == page.headers["content-length"]
    assert site.call("GET", "/", b"", {"If-None-Match": '"other"'}).status == 200


def test_two_releases_are_served_by_their_numbers(model: Model, tmp_path: Path):
    other = Model(tiny_release(tmp_path / "other", bias=3.0))
    site = Site(model, tmp_path / "outbox.db", more=[Release(other, "sha256:bb", 2)])
    tensors = [
        {"name": "Pressure [bar]", "shape": [1], "datatype": "FP32", "data": [2.0]},
        {"name": "Temperature", "shape": [1], "datatype": "FP32", "data": [10.0]},
        {"name": "Pump type", "shape": [1], "datatype": "BYTES", "data": ["screw"]},
    ]
    found = {}
    for path in ("/v2/models/tiny", "/v2/models/tiny/versions/3", "/v2/models/tiny/versions/2"):
        outputs = site.call("POST", f"{path}/infer", {"inputs": tensors}).json["outputs"]
        found[path] = next(each["data"][0] for each in outputs if each["name"] == "score")
    first, same, old = found.values()
    assert first == same != old
    assert [row.release for row in rows(site)] == ["sha256:aa", "sha256:aa", "sha256:bb"]
    # A request that is sent again is answered again, by the release that scored it.
    key = {"Idempotency-Key": "a"}
    once = site.call("POST", "/v2/models/tiny/versions/2/infer", {"inputs": tensors}, key).json
    assert site.call("POST", "/v2/models/tiny/infer", {"inputs": tensors}, key).json == once
    assert (once["model_version"], len(rows(site))) == ("2", 4)
    site.close()


# What the way to the disk may meet.


def test_too_much_that_waits_is_429_and_what_waits_is_answered(counted, monkeypatch):
    site, counting = counted
    size = len(json.dumps(large(1000)))
    monkeypatch.setattr(scorers, "WAITING_BYTES", int(1.5 * size))
    counting.gate.clear()
    threading.Timer(0.3, counting.gate.set).start()
    answers = site.calls(*[post(large(1000))] * 3)
    refused = [answer for answer in answers if answer.status == 429]
    assert [answer.status for answer in answers].count(200) == 1 and len(refused) == 2
    assert refused[0].headers["retry-after"] == "1"
    waiting = rf"{size} bytes are waiting to be scored, at most {int(1.5 * size)} may"
    assert waiting in refused[0].json["error"]
    assert site.score(large(50_000)).status == 200  # larger than the bound, but nothing waits
    assert len(rows(site)) == 51_000


@pytest.mark.parametrize("keyed", [False, True])
def test_few_large_requests_at_once_are_more_than_their_body_and_all_are_answered(site, monkeypatch, keyed):
    """A kilobyte may become a hundred thousand rows: what is not yet its turn is still a kilobyte."""
    read, answer, lock = module.App._read_rows, module.App._answer, threading.Lock()
    now, most = 0, 0

    def reading(app: module.App, *given: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        return read(app, *given)

    def answering(app: module.App, *given: Any) -> Any:
        nonlocal now
        with lock:
            now -= 1
        return answer(app, *given)

    monkeypatch.setattr(module.App, "_read_rows", reading)
    monkeypatch.setattr(module.App, "_answer", answering)
    body = gzip.compress(json.dumps(large(5000)).encode())
    headers = [
        {"Content_Encoding": "gzip"} | ({"Idempotency_Key": f"k{n}"} if keyed else {}) for n in range(12)
    ]
    assert {reply.status for reply in site.calls(*(post(body, **each) for each in headers))} == {200}
    assert now == 0 < most <= module.LARGE_AT_ONCE and len(rows(site)) == 12 * 5000


@pytest.mark.parametrize("key", [None, "key"])
def test_a_body_waits_from_when_it_came_and_not_only_when_it_was_read(site, monkeypatch, key):
    body, waited, read = large(1000), [], module.App._read_rows

    def watched(app: module.App, *given: Any) -> Any:
        waited.append(app._waiting())
        return read(app, *given)

    monkeypatch.setattr(module.App, "_read_rows", watched)
    assert site.score(body, key).status == site.score({"columns": COLUMNS}, key and "other").status == 200
    assert waited[0] == len(json.dumps(body))


@pytest.mark.parametrize("body", [{"records": [RECORD]}, large(3000)])
@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Busy("another process"), 503, "1"),
        (Failed("broken disk"), 503, "1"),
        (DiskFull("no space"), 507, None),
    ],
)
def test_what_the_writer_cannot_do_is_told(
    site: Site, monkeypatch, caplog, error: Exception, status: int, retry: str | None, body: Any
):
    def write(batch: Any) -> None:
        raise error

    monkeypatch.setattr(site.writer, "write", write)
    answer = site.score(body)
    assert (answer.status, answer.headers.get("retry-after")) == (status, retry)
    assert answer.json == {"error": str(error)}
    (record,) = caplog.records
    assert record.fields == {
        "request": answer.headers["x-request-id"],
        "path": "/v1/score",
        "method": "POST",
        "answer": answer.body.decode(),
    }
    assert str(status) in record.getMessage()


def test_an_outbox_that_another_process_holds_is_503_and_no_reason_to_be_replaced(site: Site):
    site.writer._outbox._patience = 0.01
    other = sqlite3.connect(site.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answers = site.calls(*[post({"records": [RECORD]})] * 3, post(large(3000)))
    assert {(answer.status, answer.headers["retry-after"]) for answer in answers} == {(503, "1")}
    assert site.call("POST", "/v1/feedback", {"items": [{"id": "bergen/1", "correct": True}]}).status == 503
    assert site.call("GET", "/health/ready").status == 200
    other.execute("ROLLBACK")
    other.close()
    assert site.score({"records": [RECORD]}).json["results"][0]["id"] == "bergen/1"


@pytest.mark.parametrize("body", [{"records": [RECORD]}, large(3000)])
def test_an_outbox_at_its_quota_is_503_for_a_minute(model: Model, tmp_path: Path, body: Any):
    site = Site(model, tmp_path / "outbox.db", quota=1)
    answer = site.score(body)
    assert (answer.status, answer.headers["retry-after"]) == (503, "60")
    assert "its quota is 1" in answer.json["error"] and rows(site) == []
    assert site.call("GET", "/health/ready").status == 200
    site.close()


def test_a_writer_that_failed_makes_the_service_not_ready_until_it_can_write(site: Site, monkeypatch):
    def fail(outbox: Any, batches: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "append", fail)
        assert site.score({"records": [RECORD]}).status == 503
    for path in ("/health/ready", "/v2/health/ready", "/v2/models/tiny/ready"):
        answer = site.call("GET", path)
        assert answer.status == 503 and "disk I/O error" in answer.json["error"]
    assert site.call("GET", "/health/live").status == 200
    assert site.score({"records": [RECORD]}).status == 200
    assert site.call("GET", "/health/ready").status == 200


def test_a_full_disk_is_507_and_the_service_goes_on(site: Site):
    db = site.writer._outbox._db
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0] + 1}")
    answers = site.calls(post(large(1000)), post(large(2000)))
    assert [answer.status for answer in answers] == [507, 507]
    assert rows(site) == []
    assert site.score({"records": [RECORD]}).json["results"][0]["id"] == "bergen/1"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        missing = f"a small disk cannot be mounted: {made.stderr.strip()}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_that_fills_up_loses_nothing_that_was_answered(model: Model, tiny_disk: Path):
    site = Site(model, tiny_disk / "outbox.db")
    answered, statuses = 0, []
    for _ in range(40):
        answer = site.score(large(1000))
        statuses.append(answer.status)
        if answer.status == 200:
            assert answer.json["first"] == f"bergen/{answered + 1}"
            answered += 1000
    assert statuses[0] == 200 and set(statuses) == {200, 507}
    assert len(rows(site)) == answered
    site.close()
    with Outbox(tiny_disk / "outbox.db") as outbox:
        assert outbox.counts().scored == answered and outbox.counts().conserved


def test_an_unexpected_error_tells_the_client_nothing_but_its_number(site: Site, monkeypatch, caplog):
    def fail(outbox: Any) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(Outbox, "counts", fail)
    answer = site.call("GET", "/v1/status")
    assert answer.status == 500 and answer.json["error"] == "internal error"
    assert answer.json["request"] == answer.headers["x-request-id"]
    assert b"secret" not in answer.body and b"Traceback" not in answer.body
    (record,) = caplog.records
    assert record.fields["request"] == answer.json["request"] and "secret detail" in caplog.text


def test_an_unexpected_error_in_a_group_is_each_one_s(site: Site, monkeypatch, caplog):
    def fail(model: Any, matrix: Any) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(Model, "score", fail)
    answers = site.calls(*[post({"records": [RECORD]})] * 3)
    assert [answer.status for answer in answers] == [500] * 3 and rows(site) == []


# What may not be kept.

SECRET = 77.765_432_1
HIDDEN = tuple(
    msgspec.structs.replace(item, kept=item.name not in ("Temperature", "Pump type")) for item in INPUTS
)


def test_what_is_not_kept_never_reaches_the_disk(tmp_path: Path):
    model = Model(tiny_release(tmp_path / "release", inputs=HIDDEN, weights=WEIGHTS))
    site = Site(model, tmp_path / "site.db")
    record = RECORD | {"Pressure [bar]": 3.25, "Temperature": SECRET, "Pump type": "a secret kind"}
    shown = [site.score({"records": [record]}), site.score({"records": [record]}, "key")]
    shown += site.calls(*[post({"records": [record]})] * 3)
    columns = {name: [value] * 3000 for name, value in record.items()}
    shown += [site.score({"columns": columns})]
    with Outbox(site.path) as outbox:
        outbox.unfold(2)
    recent = site.call("GET", "/v1/recent")
    assert recent.json["scores"][0]["inputs"] == {"Pressure [bar]": 3.25} | DERIVED
    assert {answer.status for answer in shown} == {200}
    written = b"".join(path.read_bytes() for path in tmp_path.glob("site.db*"))
    assert struct.pack("<d", 3.25) in written  # what is kept is found in this way
    for secret in (SECRET, float(np.float32(SECRET))):
        for spelled in (struct.pack("<d", secret), struct.pack("<f", secret), str(secret)[:9].encode()):
            assert spelled not in written and spelled not in recent.body
    assert b"a secret kind" not in written and b"Temperature\x00" not in written
    for text in ("Temperature", "Pump type"):
        assert text.encode() + b"\xa0" not in written
    site.close()
    assert model.contract.codes["Pump type"] == {"centrifugal": 0.0, "screw": 1.0}


# Anything.

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
paths = st.sampled_from(["/v1/score", "/v1/feedback", "/v2/models/tiny/infer"])
kinds = st.sampled_from(["application/json", "text/csv", "application/vnd.apache.arrow.stream", ""])


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(paths, bodies)
def test_no_json_gives_a_server_error(shared: Site, path: str, body: Any):
    answer = shared.call("POST", path, body)
    assert answer.status in (200, 400, 404, 413, 422), answer.body
    assert "error" in answer.json or answer.status == 200


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(paths, kinds, st.sampled_from(["", "gzip", "deflate"]), st.binary(max_size=60))
@example("/v1/score", "", "", b'{"columns": {"Temperature": [1' + b"0" * 5000 + b"]}}")
@example("/v1/score", "", "", b'{"columns": {"Temperature": [1e999]}}')
@example("/v1/score", "", "", b'{"columns": {"\\ud800": [1]}}')
@example("/v1/feedback", "", "", b'{"items": [{"id": "\\ud800", "correct": true}]}')
def test_no_bytes_give_a_server_error(shared: Site, path: str, kind: str, encoding: str, body: bytes):
    headers = {
        name: value for name, value in (("Content-Type", kind), ("Content-Encoding", encoding)) if value
    }
    assert shared.call("POST", path, body, headers).status in (400, 404, 415, 422)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
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
    ),
    st.booleans(),
)
def test_whatever_is_answered_is_in_the_outbox_as_answered(shared: Site, records: Any, columnar: bool):
    if columnar:
        columns = {name: [record[name] for record in records] for name in COLUMNS}
        answer = shared.score({"columns": columns}).json
        first = int(answer["first"].partition("/")[2])
        ids = [f"bergen/{first + row}" for row in range(len(records))]
        said = list(zip(ids, answer["scores"], answer["predicted"], answer["outside"], strict=True))
    else:
        results = shared.score({"records": records}).json["results"]
        first = int(results[0]["id"].partition("/")[2])
        said = [(each["id"], each["score"], each["predicted"], each["outside"]) for each in results]
    with Outbox(shared.path) as outbox:
        kept = outbox.rows(first, first + len(records) - 1)
    assert [(f"bergen/{row.sequence}", row.score, row.predicted, row.outside) for row in kept] == said
    assert [json.loads(row.record)["inputs"] for row in kept] == [each | DERIVED for each in records]


@on_loop
async def test_over_real_sockets_many_clients_get_each_their_own(model: Model, tmp_path: Path):
    import asyncio

    from edge_ai_assets.scoring.app import App
    from edge_ai_assets.scoring.metrics import Metrics
    from edge_ai_assets.scoring.writer import Writer

    writer = Writer(tmp_path / "outbox.db")
    releases = [Release(model, "sha256:aa", 3)]
    app = App(releases, writer, site="bergen", metrics=Metrics(None, model.contract))
    numbers: list[int] = []
    async with Running(app) as running:

        async def use(client_number: int) -> None:
            async with running.client() as client:
                for turn in range(20):
                    many = 2000 if (client_number + turn) % 15 == 0 else 1
                    reply = await client.ask(post(large(many)))
                    assert reply.status == 200 and len(reply.json["scores"]) == many
                    first = int(reply.json["first"].partition("/")[2])
                    numbers.extend(range(first, first + many))

        await asyncio.gather(*(use(number) for number in range(16)))
    app.close()
    writer.close()
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    with Outbox(tmp_path / "outbox.db") as outbox:
        assert outbox.counts().scored == len(numbers)
