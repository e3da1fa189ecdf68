"""The HTTP server: what clients may do to it, in any order and at any speed, and what they are told."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import ssl
import struct
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.scoring import http as module
from edge_ai_assets.scoring import messages
from edge_ai_assets.scoring import server as server_module
from edge_ai_assets.scoring.http import Connection
from edge_ai_assets.scoring.messages import Request, Response, error
from edge_ai_assets.scoring.server import Patience, Server
from edge_ai_assets.scoring.tls import context
from edge_ai_assets_tests.scoring.serving import (
    FakeClient,
    Reply,
    Running,
    chunked,
    fake_server,
    on_loop,
    replies,
    request,
    settle,
)
from edge_ai_assets_tests.scoring.test_tls import Pair, write

GET = request("GET", "/echo")


class Stub:
    """An application that says what it was asked."""

    def __init__(self) -> None:
        self.late: list[Request] = []
        self.handled: list[Request] = []
        self.told: list[int] = []

    def admit(self, request: Request) -> Response | None:
        if request.path == "/admit-raises":
            raise ZeroDivisionError("secret detail")
        return error(404, "nothing here") if request.path == "/nothing" else None

    def handle(self, request: Request) -> None:
        self.handled.append(request)
        if request.path == "/late":
            self.late.append(request)
        elif request.path == "/raise":
            raise ZeroDivisionError("secret detail")
        elif request.path == "/answer-and-raise":
            request.respond(Response(200, b"first"))
            raise ZeroDivisionError("secret detail")
        elif request.path == "/big":
            request.respond(Response(200, bytes(int(request.query)), b"application/octet-stream"))
        elif request.path == "/unchanged":
            request.respond(Response(304, b"as before", headers=((b"etag", b'"1"'),)))
        else:
            request.respond(echo(request))

    def connected(self, server: object, connections: int) -> None:
        self.connections = connections

    def answered(self, request: Request | None, response: Response) -> None:
        self.told.append(response.status)
        if request is not None and request.path == "/answered-raises":
            raise ZeroDivisionError("secret detail")

    def answer_late(self, which: int = 0) -> None:
        late = self.late.pop(which)
        late.respond(echo(late))


def echo(request: Request) -> Response:
    said = {"method": request.method, "path": request.path, "query": request.query}
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
    body = request.body.decode("latin-1")
    assert type(request.body) is bytes
    return Response(200, json.dumps(said | {"headers": headers, "body": body}).encode())


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


def whole(client: FakeClient, *methods: str) -> list[tuple[int, Any]]:
    """Status and path of each answer."""
    return [(reply.status, reply.json.get("path")) for reply in client.replies(*methods)]


# What is asked, and the order of answers.


@on_loop
async def test_a_request_arrives_as_it_was_sent(stub: Stub):
    async with Running(stub) as running, running.client() as client:
        sent = request("POST", "/a%20b/%C3%A5?x=%20&y", b"\x00body", {"X-One": "1", "x-one": "2"})
        reply = await client.ask(sent)
        assert reply.status == 200
        assert reply.json == {
            "method": "POST",
            "path": "/a b/å",
            "query": "x=%20&y",
            "headers": {"host": "localhost", "x-one": "1, 2", "content-length": "5"},
            "body": "\x00body",
        }


@on_loop
async def test_every_answer_has_the_headers_that_every_answer_has(stub: Stub):
    async with Running(stub) as running, running.client() as client:
        for sent in (GET, request("GET", "/nothing"), request("GET", "/raise")):
            headers = (await client.ask(sent)).headers
            assert headers["content-type"] == "application/json"
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["date"].endswith(" GMT") and headers["x-request-id"]
            assert not {"connection", "server"} & headers.keys()


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://site/echo?a=1", "/echo", "a=1"),
        ("https://site:8443/echo", "/echo", ""),
        ("http://site", "/", ""),
        ("/echo?next=http://other/", "/echo", "next=http://other/"),
        ("/%65cho", "/echo", ""),
        ("/%zz%", "/%zz%", ""),
        ("/%ff", "/�", ""),
        ("//echo", "//echo", ""),
        ("/../echo", "/../echo", ""),
        ("/" + "a" * 5000, "/" + "a" * 5000, ""),
    ],
)
@on_loop
async def test_the_target_is_taken_apart(stub: Stub, target: str, path: str, query: str):
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", target))
    (reply,) = client.replies()
    assert (reply.json["path"], reply.json["query"]) == (path, query)


@on_loop
async def test_long_targets_are_not_kept_in_memory(stub: Stub):
    client = FakeClient(fake_server(stub))
    before = module._target.cache_info().currsize
    await client.send(request("GET", "/" + "b" * 30_000))
    assert module._target.cache_info().currsize == before


@on_loop
async def test_head_is_answered_as_get_without_the_body(stub: Stub):
    async with Running(stub) as running, running.client() as client:
        got = await client.ask(request("GET", "/big?1000"))
        reply = await client.ask(request("HEAD", "/big?1000"), "HEAD")
        assert reply.headers["content-length"] == got.headers["content-length"] == "1000"
        assert (await client.ask(GET)).status == 200  # nothing of a body stands in the way


@on_loop
async def test_not_modified_has_no_body_and_the_length_that_there_would_be(stub: Stub):
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", "/unchanged") + GET)
    first, second = client.replies()
    assert (first.status, first.body, first.headers["content-length"]) == (304, b"", "9")
    assert second.status == 200


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", None, True),
        ("1.1", "keep-alive", True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "x, close", False),
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
        ("1.0", "close", False),
    ],
)
@on_loop
async def test_the_connection_stays_as_asked(stub: Stub, version: str, connection: str | None, kept: bool):
    async with Running(stub) as running, running.client() as client:
        sent = request(
            "GET", "/echo", headers={"Connection": connection} if connection else {}, version=version
        )
        said = (await client.ask(sent)).headers.get("connection")
        if kept:
            assert said == ("keep-alive" if version == "1.0" else None)
            assert (await client.ask(sent)).status == 200
        else:
            assert said == "close"
            assert await client.rest() == b""


@on_loop
async def test_http_1_0_needs_no_host_and_1_1_does(stub: Stub):
    async with Running(stub) as running:
        async with running.client() as client:
            assert (await client.ask(b"GET /echo HTTP/1.0\r\n\r\n")).status == 200
        async with running.client() as client:
            reply = await client.ask(b"GET /echo HTTP/1.1\r\n\r\n")
            assert reply.status == 400 and "Host" in reply.json["error"]


@on_loop
async def test_pipelined_requests_are_answered_in_order_though_the_first_comes_late(stub: Stub):
    async with Running(stub) as running, running.client() as client:
        await client.send(request("GET", "/late") + b"".join(request("GET", f"/{n}") for n in range(50)))
        await client.send(request("GET", "/late") + request("GET", "/end"))
        while not stub.late:
            await asyncio.sleep(0.001)
        assert [each.path for each in stub.handled] == ["/late"]  # the others wait
        stub.answer_late()
        assert [(await client.reply()).json["path"] for _ in range(51)] == [
            "/late",
            *(f"/{n}" for n in range(50)),
        ]
        while not stub.late:
            await asyncio.sleep(0.001)
        stub.answer_late()
        assert [(await client.reply()).json["path"] for _ in range(2)] == ["/late", "/end"]


@on_loop
async def test_no_more_is_read_while_requests_wait(stub: Stub):
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", "/late") + GET)
    assert client.transport.reading_paused
    stub.answer_late()
    await settle()
    assert whole(client) == [(200, "/late"), (200, "/echo")]
    assert not client.transport.reading_paused


@on_loop
async def test_more_pipelined_requests_than_are_kept_are_refused_behind_those_that_are(
    stub: Stub, monkeypatch
):
    monkeypatch.setattr(module, "MAX_PIPELINED", 3)
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", "/late") + request("POST", "/echo", b"x") * 10)
    stub.answer_late()
    await settle()
    assert [status for status, _ in whole(client)] == [200, 200, 200, 200, 503]
    assert client.ended and client.server.buffered == 0


@on_loop
async def test_answers_that_come_at_once_do_not_nest(stub: Stub, monkeypatch):
    monkeypatch.setattr(module, "MAX_PIPELINED", 10_000)
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", "/late") + GET * 1500)
    stub.answer_late()
    await settle()
    assert len(client.replies()) == 1501


@on_loop
async def test_only_the_first_answer_to_a_request_counts(stub: Stub, caplog):
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", "/answer-and-raise") + GET)
    first, second = client.replies()
    assert first.body == b"first" and second.status == 200
    stub.handled[0].respond(Response(200, b"again"))
    assert len(client.replies()) == 2


# Bodies.

STREAM = [
    request("POST", "/a", b"x" * 300),
    request("GET", "/b?c"),
    chunked("POST", "/d", [b"one", b"", b"twenty" * 30, b"3"][::2], b";a=b;c", b"X-Trailer: 1\r\n"),
    request("POST", "/late", b"y"),
    request("HEAD", "/f"),
    request("POST", "/nothing"),
    chunked("POST", "/g", [b"ab"] * 20),
]


async def answers_to(parts: list[bytes]) -> list[tuple[int, Any]]:
    stub = Stub()
    server = fake_server(stub)
    client = FakeClient(server)
    for part in parts:
        await client.send(part)
        while stub.late:
            stub.answer_late()
            await settle()
    assert server.buffered == 0
    client.lost()
    return [
        (reply.status, reply.body)
        for reply in client.replies("POST", "GET", "POST", "POST", "HEAD", "POST", "POST")
    ]


@settings(max_examples=300)
@given(st.lists(st.integers(0, sum(map(len, STREAM)) - 1), max_size=12))
def test_where_the_stream_is_cut_does_not_matter(runner, cuts: list[int]):
    stream = b"".join(STREAM[:5] + STREAM[6:])
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    parts = [stream[a:b] for a, b in pairwise(places)]
    assert runner.run(answers_to(parts)) == runner.run(answers_to([stream]))


def test_every_byte_may_come_alone(runner):
    stream = b"".join(STREAM[:5] + STREAM[6:])
    alone = runner.run(answers_to([bytes([byte]) for byte in stream]))
    assert alone == runner.run(answers_to([stream])) and [status for status, _ in alone] == [200] * 6


@on_loop
async def test_what_comes_behind_a_body_is_no_header(stub: Stub):
    client = FakeClient(fake_server(stub))
    trailer = b"Authorization: Bearer x\r\nContent-Encoding: gzip\r\nX-Request-ID: other\r\n"
    await client.send(chunked("POST", "/echo", [b"{}"], trailer=trailer) + GET)
    first, second = client.replies()
    assert first.json["headers"] == {"host": "localhost", "transfer-encoding": "chunked"}
    assert second.json["headers"] == {"host": "localhost"}
    assert first.headers["x-request-id"] != "other"


@pytest.mark.parametrize("endless", [b"a: b\r\n", b"x" * 16, b"a" * 4000 + b": b\r\n"])
@on_loop
async def test_an_endless_trailer_is_refused(stub: Stub, endless: bytes):
    client = FakeClient(fake_server(stub))
    await client.send(chunked("POST", "/echo", [b"{}"])[:-2])
    for _ in range(2 * module.MAX_HEAD // len(endless)):
        await client.send(endless)
    assert [reply.status for reply in client.replies()] == [431]
    assert client.ended


@on_loop
async def test_an_endless_extension_of_a_chunk_is_refused(stub: Stub):
    client = FakeClient(fake_server(stub))
    await client.send(chunked("POST", "/echo", [b"ab"])[:-5] + b"2;")
    for _ in range(40):
        await client.send(b"x" * 1024)
    assert [reply.status for reply in client.replies()] == [431]


@on_loop
async def test_a_body_in_tiny_chunks_takes_little_more_memory_than_it_has_bytes(stub: Stub):
    import tracemalloc

    client = FakeClient(fake_server(stub))
    size = 400_000
    head, end = chunked("POST", "/late", []).split(b"0\r\n")
    await client.send(head)
    part = b"2\r\nab\r\n" * 1000
    tracemalloc.start()
    for _ in range(size // 2000):
        await client.send(part)
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now < 2 * size
    await client.send(b"0\r\n" + end)
    assert stub.late[0].body == b"ab" * (size // 2)


@on_loop
async def test_a_client_that_expects_100_continue_is_told_to_go_on(stub: Stub):
    async with Running(stub) as running, running.client() as client:
        head, _, _ = request("POST", "/echo", b"body", {"Expect": "100-continue"}).partition(b"body")
        assert (await client.ask(head)).status == 100
        assert (await client.ask(b"body")).json["body"] == "body"


@on_loop
async def test_a_client_that_expects_100_continue_may_be_refused_instead(stub: Stub):
    async with Running(stub) as running, running.client() as client:
        sent = request("POST", "/nothing", b"body", {"Expect": "100-continue"})
        reply = await client.ask(sent[:-4])
        assert (reply.status, reply.headers["connection"]) == (404, "close")
        assert await client.rest() == b""


@on_loop
async def test_no_100_continue_stands_before_the_answer_to_an_earlier_request(stub: Stub):
    client = FakeClient(fake_server(stub))
    await client.send(
        request("GET", "/late") + request("POST", "/echo", b"x", {"Expect": "100-continue"})[:-1]
    )
    assert client.transport.written == b""
    stub.answer_late()
    await client.send(b"x")
    assert whole(client) == [(200, "/late"), (200, "/echo")]


@pytest.mark.parametrize(
    ("version", "expectation", "status"),
    [("1.1", "100-Continue", 200), ("1.1", "200-ok", 417), ("1.1", "", 417), ("1.0", "100-continue", 200)],
)
@on_loop
async def test_only_100_continue_can_be_expected(stub: Stub, version: str, expectation: str, status: int):
    client = FakeClient(fake_server(stub))
    await client.send(request("POST", "/echo", b"body", {"Expect": expectation}, version))
    found = [reply.status for reply in client.replies()]
    assert found == ([100, 200] if (version, status) == ("1.1", 200) else [status])


# Limits.


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 40_000,
        b"GET /echo HTTP/1.1\r\nHost: site\r\nX: " + b"a" * 40_000,
        b"GET /echo HTTP/1.1\r\n" + b"a" * 40_000,
        b"GET /echo HTTP/1.1\r\n" + b"".join(b"x%d: a\r\n" % n for n in range(5000)),
        b"GET /echo HTTP/1.1\r\nHost: site\r\n" + b"".join(b"x%d: a\r\n" % n for n in range(100)) + b"\r\n",
        b"GET /echo HTTP/1.1\r\nHost: site\r\nX: " + b"a" * 32_760 + b"\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: site\r\n" + b"a:b\r\n" * 7000 + b"\r\n",
        b"GET /echo HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\nHost: site\r\n"
        + b"a:b\r\n" * 7000
        + b"\r\n",
        b"\r\n" * 20_000,
    ],
)
@pytest.mark.parametrize("step", [1000, 100_000])
@on_loop
async def test_a_head_that_is_too_large_is_refused(stub: Stub, head: bytes, step: int):
    client = FakeClient(fake_server(stub))
    await client.send(*(head[at : at + step] for at in range(0, len(head), step)))
    (reply,) = client.replies()
    assert (reply.status, reply.headers["connection"]) == (431, "close") and client.ended
    assert stub.handled == []


@on_loop
async def test_as_many_headers_as_there_may_be_are_taken(stub: Stub):
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", "/echo", headers={f"x{n}": "a" for n in range(module.MAX_HEADERS - 1)}))
    assert whole(client) == [(200, "/echo")]


@on_loop
async def test_one_header_many_times_is_not_joined_beyond_the_limit(stub: Stub):
    connection = FakeClient(fake_server(stub)).connection
    for _ in range(1000):
        connection.on_header(b"a", b"b" * 1000)
    assert len(connection._headers[b"a"]) < module.MAX_HEAD


@pytest.mark.parametrize("said", [True, False])
@on_loop
async def test_a_body_that_is_too_large_is_refused_and_the_client_can_read_why(
    stub: Stub, monkeypatch, said: bool
):
    monkeypatch.setattr(module, "MAX_BODY", 10_000_000)
    async with Running(stub) as running, running.client() as client:
        body = b"a" * 10_000_001
        sent = request("POST", "/echo", body) if said else chunked("POST", "/echo", [body[:100_000]] * 150)
        reply = await client.ask(sent)  # returns only when all of it was taken
        assert (reply.status, reply.headers["connection"]) == (413, "close")
        assert "at most 10000000 bytes" in reply.json["error"]
        assert running.server.buffered == 0 and stub.handled == []


@on_loop
async def test_a_body_of_the_largest_size_is_taken(stub: Stub, monkeypatch):
    monkeypatch.setattr(module, "MAX_BODY", 12_345_678)
    async with Running(stub) as running, running.client() as client:
        reply = await client.ask(request("POST", "/echo", b"a" * 12_345_678))
        assert reply.status == 200 and len(reply.json["body"]) == 12_345_678


@pytest.mark.parametrize("length", ["33554433", "9" * 19, "0" * 30 + "99999999"])
@on_loop
async def test_a_length_that_is_too_large_is_refused_before_the_body(stub: Stub, length: str):
    client = FakeClient(fake_server(stub))
    await client.send(request("POST", "/echo", headers={"Content-Length": length}))
    if length.startswith("0"):  # as good as any other number; it is counted as it comes
        assert client.replies() == []
    else:
        assert [reply.status for reply in client.replies()] == [413] and client.ended


@on_loop
async def test_all_bodies_together_have_a_limit(stub: Stub, monkeypatch):
    monkeypatch.setattr(module, "MAX_BUFFERED", 1000)
    server = fake_server(stub)
    first, second = FakeClient(server), FakeClient(server)
    await first.send(request("POST", "/echo", b"a" * 700)[:-1])
    await second.send(request("POST", "/echo", b"b" * 400))
    (refused,) = second.replies()
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    await first.send(b"a")
    assert whole(first) == [(200, "/echo")]
    assert server.buffered == 0
    third = FakeClient(server)
    await third.send(request("POST", "/echo", b"b" * 400))
    assert whole(third) == [(200, "/echo")]


@on_loop
async def test_a_refused_body_is_not_kept_while_its_refusal_waits(stub: Stub, monkeypatch):
    monkeypatch.setattr(module, "MAX_BODY", 1000)
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", "/late") + chunked("POST", "/echo", [b"a" * 600] * 2))
    assert client.server.buffered == 0 and not client.connection._body
    stub.answer_late()
    await settle()
    assert [reply.status for reply in client.replies()] == [200, 413]


@on_loop
async def test_too_many_connections_are_told_so(stub: Stub, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    async with Running(stub) as running:
        async with running.client() as first, running.client() as second:
            assert (await first.ask(GET)).status == (await second.ask(GET)).status == 200
            async with running.client() as third:
                (refused,) = replies(await third.rest())
                assert (refused.status, refused.headers["connection"]) == (503, "close")
                assert refused.headers["retry-after"] == "1"
            assert (await first.ask(GET)).status == 200
        while running.server.connections:
            await asyncio.sleep(0.001)
        async with running.client() as later:
            assert (await later.ask(GET)).status == 200


# What is no request, or more than one.

SMUGGLED = {
    "both lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, the other way": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": b"Content-Length: +5\r\n\r\nhello",
    "a negative length": b"Content-Length: -5\r\n\r\nhello",
    "no length": b"Content-Length:\r\n\r\nhello",
    "a length in hexadecimal": b"Content-Length: 0x5\r\n\r\nhello",
    "a length beyond 64 bits": b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "a coding that is none": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip": b"Transfer-Encoding: gzip\r\n\r\n",
    "a folded header": b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a folded coding": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"Content-Length : 5\r\n\r\nhello",
    "a bare LF": b"X: a\nContent-Length: 5\r\n\r\nhello",
    "a bare CR": b"X: a\rContent-Length: 5\r\n\r\nhello",
    "NUL in a value": b"X: a\x00b\r\n\r\n",
    "NUL in a name": b"X\x00: a\r\n\r\n",
    "a chunk size with 0x": b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello",
    "a bare LF behind a chunk size": b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "a bare LF in an extension": b"Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
    "a chunk that is longer than it says": b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
@on_loop
async def test_what_could_be_read_in_two_ways_is_refused_and_ends_the_connection(stub: Stub, name: str):
    client = FakeClient(fake_server(stub))
    await client.send(b"POST /echo HTTP/1.1\r\nHost: site\r\n" + SMUGGLED[name] + request("GET", "/smuggled"))
    (reply,) = client.replies()
    assert (reply.status, reply.headers["connection"]) == (400, "close") and client.ended
    assert "this is no HTTP/1.1 request" in reply.json["error"]
    assert stub.handled == [] and client.server.buffered == 0


@pytest.mark.parametrize("codings", [b"gzip, chunked", b"gzip,chunked", b"identity, chunked"])
@on_loop
async def test_a_coding_that_is_not_known_is_not_taken_for_chunks_alone(stub: Stub, codings: bytes):
    """RFC 9112, section 6.1: 501. Its chunks would be read as the body that they are the coded form of."""
    client = FakeClient(fake_server(stub))
    sent = b"POST /echo HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: %b\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    await client.send(sent % codings + request("GET", "/smuggled"))
    (reply,) = client.replies()
    assert (reply.status, reply.headers["connection"]) == (501, "close") and client.ended
    assert "chunked" in reply.json["error"] and stub.handled == []


@on_loop
async def test_an_answer_of_the_server_itself_is_in_the_log_by_its_request(stub: Stub, monkeypatch, caplog):
    server = fake_server(stub)
    monkeypatch.setattr(server, "most_connections", 0)
    (reply,) = FakeClient(server).replies()
    (record,) = caplog.records
    assert reply.status == 503 and record.fields["request"] == reply.headers["x-request-id"]


@on_loop
async def test_chunks_in_http_1_0_are_refused(stub: Stub):
    client = FakeClient(fake_server(stub))
    sent = chunked("POST", "/echo", [b"hello"]).replace(
        b"HTTP/1.1\r\n", b"HTTP/1.0\r\nConnection: keep-alive\r\n"
    )
    await client.send(sent + GET)
    assert [reply.status for reply in client.replies()] == [400] and client.ended


@pytest.mark.parametrize("connection", ["close", None])
@on_loop
async def test_what_comes_behind_the_last_request_is_not_looked_at(stub: Stub, connection: str | None):
    client = FakeClient(fake_server(stub))
    last = request("GET", "/echo", headers={"Connection": "close"} if connection else {})
    client.server.draining = connection is None
    await client.send(last + request("GET", "/behind") + b"garbage\r\n")
    assert whole(client) == [(200, "/echo")] and client.ended
    assert [each.path for each in stub.handled] == ["/echo"]


H2C = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABk"}
"""What Java's client sends with its first request, whatever that is."""
OFFERS = [
    request("GET", "/echo", headers=H2C),
    request("POST", "/echo", b"body", H2C),
    request("POST", "/echo", b"body", {"Upgrade": "websocket", "connection": "upgrade"}),
    chunked("POST", "/echo", [b"bo", b"dy"]).replace(b"Host", b"Upgrade: h2c\r\nConnection: Upgrade\r\nHost"),
]


@pytest.mark.parametrize("sent", OFFERS)
@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("before", [b"", GET, request("GET", "/late")])
@on_loop
async def test_who_offers_another_protocol_is_served_in_this_one(
    stub: Stub, sent: bytes, step: int, before: bytes
):
    client = FakeClient(fake_server(stub))
    stream = before + sent * 2 + GET
    for at in range(0, len(stream), step):
        await client.send(stream[at : at + step])
        if stub.late:
            stub.answer_late()
            await settle()
    first, second, third = client.replies()[bool(before) :]
    body = "body" if sent.startswith(b"POST") else ""
    assert first.json["body"] == second.json["body"] == body and third.json["path"] == "/echo"
    assert "upgrade" not in first.json["headers"] and "connection" not in first.headers
    assert client.server.buffered == 0 and not client.ended


@on_loop
async def test_many_offers_at_once_do_no_harm(stub: Stub):
    client = FakeClient(fake_server(stub))
    await client.send(OFFERS[0] * 2000)
    assert len(client.replies()) == 2000


@on_loop
async def test_a_tunnel_is_refused(stub: Stub):
    client = FakeClient(fake_server(stub))
    await client.send(request("CONNECT", "other:443") + b"\x16\x03\x01" + GET)
    (reply,) = client.replies()
    assert (reply.status, reply.headers["connection"]) == (405, "close") and client.ended
    assert stub.handled == []


def random_inputs(number: int) -> list[bytes]:
    """Bytes, tokens of HTTP in any order, and good requests with something changed."""
    chance = random.Random(20_260_101)
    tokens = [
        *(
            b"GET ",
            b"POST ",
            b"/echo",
            b" HTTP/1.1",
            b" HTTP/1.0",
            b"\r\n",
            b"\n",
            b"\r\n\r\n",
            b": ",
            b"Host: a",
        ),
        *(
            b"Content-Length: 5",
            b"Content-Length: 99999999",
            b"Transfer-Encoding: chunked",
            b"Connection: close",
        ),
        *(
            b"Upgrade: h2c",
            b"Connection: upgrade",
            b"Expect: 100-continue",
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"\x00",
        ),
        *(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
            b"CONNECT a:1",
            b"/raise",
            b"/nothing",
        ),
    ]
    good = [*STREAM[:3], GET, request("GET", "/raise"), request("POST", "/nothing", b"abc")]
    inputs = []
    for _ in range(number):
        kind = chance.randrange(3)
        if kind == 0:
            inputs.append(chance.randbytes(chance.randrange(1, 80)))
        elif kind == 1:
            inputs.append(b"".join(chance.choices(tokens, k=chance.randrange(1, 12))))
        else:
            data = bytearray(b"".join(chance.choices(good, k=chance.randrange(1, 4))))
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(len(data))
                data[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
            inputs.append(bytes(data))
    return inputs


@on_loop
async def test_no_bytes_raise_or_hang_and_all_are_answered_or_wait_for_more(stub: Stub, caplog):
    caplog.set_level("CRITICAL")
    server = fake_server(stub)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: pytest.fail(str(context)))
    refused = 0
    for number, data in enumerate(random_inputs(20_000)):
        client = FakeClient(server)
        middle = len(data) // 2 if number % 2 else len(data)
        client.connection.data_received(data[:middle])
        if data[middle:] and not client.transport.closed:
            client.connection.data_received(data[middle:])
        if number % 50 == 0:
            await asyncio.sleep(0)
        # Whatever it has sent: the answers are whole, and time ends what is not.
        for method in (["GET"], ["HEAD"]):
            try:
                found = client.replies(*method)
                break
            except AssertionError:
                assert method == ["GET"]
        for reply in found:
            assert reply.status in (100, 200, 400, 404, 405, 413, 417, 431, 500, 501)
        refused += any(reply.status == 400 for reply in found)
        if not client.ended:
            client.connection.expire()
            if not client.ended:
                client.connection.expire()
        assert client.ended
        client.lost()
        assert server.buffered == 0 and not server.connections
    assert refused > 5000


# Time. It passes when a test says so.


async def pass_time(server: Server, seconds: float, monkeypatch) -> None:
    """As if the server's own sweep came so much later."""
    later = server.now + seconds
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    server._sweep()
    server._sweeper.cancel()
    await settle()


@on_loop
async def test_an_idle_connection_is_closed_without_a_word(stub: Stub, monkeypatch):
    server = fake_server(stub)
    fresh, used = FakeClient(server), FakeClient(server)
    await used.send(GET)
    await pass_time(server, module.HEAD_SECONDS - 1, monkeypatch)
    assert not fresh.ended and not used.ended
    await pass_time(server, 2, monkeypatch)
    assert fresh.ended and fresh.transport.written == b"" and not used.ended
    await pass_time(server, module.IDLE_SECONDS - module.HEAD_SECONDS, monkeypatch)
    assert used.ended and len(used.replies()) == 1


@pytest.mark.parametrize("before", [b"", GET])
@on_loop
async def test_a_head_that_drips_is_refused_though_each_byte_comes_soon(
    stub: Stub, monkeypatch, before: bytes
):
    server = fake_server(stub)
    client = FakeClient(server)
    if before:
        await client.send(before)
    for byte in GET[: int(module.HEAD_SECONDS) + 2]:
        if client.ended:
            break
        await client.send(bytes([byte]))
        await pass_time(server, 1, monkeypatch)
    *_, last = client.replies()
    assert (last.status, last.headers["connection"]) == (408, "close") and client.ended


@on_loop
async def test_a_body_has_as_long_as_its_size_needs(stub: Stub, monkeypatch):
    server = fake_server(stub)
    slow, fast = FakeClient(server), FakeClient(server)
    sent = request("POST", "/echo", b"x" * 400_000)
    at = len(sent) - 400_000
    await slow.send(sent[:at])
    await fast.send(sent[:at])
    for second in range(30):
        await pass_time(server, 1, monkeypatch)
        if not slow.ended:
            await slow.send(b"x")
        await fast.send(sent[at + second * 10_000 : at + second * 10_000 + 10_000])
    assert [reply.status for reply in slow.replies()] == [408] and slow.ended
    assert fast.replies() == [] and not fast.ended
    await fast.send(sent[at + 300_000 :])
    assert whole(fast) == [(200, "/echo")]
    assert server.buffered == 0


@on_loop
async def test_an_answer_may_take_as_long_as_it_takes(stub: Stub, monkeypatch):
    server = fake_server(stub)
    alone, followed, dripping = (FakeClient(server) for _ in range(3))
    await alone.send(request("GET", "/late"))
    await followed.send(request("GET", "/late") + request("POST", "/echo", b"x"))
    await dripping.send(request("GET", "/late") + request("POST", "/echo", b"x")[:-1])
    for _ in range(5):
        await pass_time(server, 100, monkeypatch)
    assert not alone.ended and not followed.ended and not dripping.ended
    while stub.late:
        stub.answer_late()
    await settle()
    assert whole(alone) == [(200, "/late")]
    assert whole(followed) == [(200, "/late"), (200, "/echo")]
    assert [status for status, _ in whole(dripping)] == [200, 408]


@on_loop
async def test_a_client_that_reads_nothing_is_cut_off_and_gives_back_what_it_held(stub: Stub, monkeypatch):
    server = fake_server(stub)
    client = FakeClient(server)
    client.connection.pause_writing()
    await client.send(request("POST", "/echo", b"x" * 1000) * 3)
    assert client.transport.reading_paused and client.transport.written == b""
    assert server.buffered == 3000 and stub.handled == []
    await pass_time(server, module.WRITE_SECONDS + 1, monkeypatch)
    assert client.transport.aborted
    client.lost()
    assert server.buffered == 0 and not server.connections


@on_loop
async def test_a_client_that_reads_slowly_is_waited_for(stub: Stub, monkeypatch):
    server = fake_server(stub)
    client = FakeClient(server)
    client.transport.unread = 3000
    client.connection.pause_writing()
    for left in (2000, 1000):
        client.transport.unread = left
        await pass_time(server, module.WRITE_SECONDS + 1, monkeypatch)
        assert not client.ended and server.buffered == left
    await pass_time(server, module.WRITE_SECONDS + 1, monkeypatch)
    assert client.transport.aborted


@on_loop
async def test_what_clients_do_not_read_counts_like_bodies_do(stub: Stub, monkeypatch):
    server = fake_server(stub)
    monkeypatch.setattr(module, "MAX_BUFFERED", 1000)
    lazy, client = FakeClient(server), FakeClient(server)
    lazy.transport.unread = 1000
    lazy.connection.pause_writing()
    await client.send(request("POST", "/echo", b"x"))
    assert [answer.status for answer in client.replies()] == [503]
    lazy.transport.unread = 0
    lazy.connection.resume_writing()
    assert server.buffered == 0


@on_loop
async def test_a_client_that_reads_again_gets_the_rest(stub: Stub):
    client = FakeClient(fake_server(stub))
    client.connection.pause_writing()
    await client.send(GET * 3)
    client.connection.resume_writing()
    await settle()
    assert len(client.replies()) == 3 and not client.transport.reading_paused


@on_loop
async def test_a_client_that_has_read_again_is_idle_from_then_on(stub: Stub, monkeypatch):
    server = fake_server(stub)
    client = FakeClient(server)
    await client.send(GET)
    client.connection.pause_writing()
    await pass_time(server, module.WRITE_SECONDS - 5, monkeypatch)
    client.connection.resume_writing()
    await pass_time(server, module.IDLE_SECONDS - 5, monkeypatch)
    assert not client.ended
    await pass_time(server, 10, monkeypatch)
    assert client.ended and not client.transport.aborted


@on_loop
async def test_a_real_client_that_reads_nothing_holds_little_and_is_cut_off(stub: Stub, monkeypatch):
    async with Running(stub) as running, running.client() as client:
        ask = request("GET", "/big?1000000")
        await client.send(ask * 200)  # 200 MB of answers
        await asyncio.sleep(0.05)
        (connection,) = running.server.connections
        assert len(stub.handled) < 20  # what the kernel holds for it, and one more
        monkeypatch.setattr(module.time, "monotonic", lambda: running.server.now + module.WRITE_SECONDS + 1)
        running.server._sweeper.cancel()
        running.server._sweep()
        while running.server.connections:
            await asyncio.sleep(0.001)
        assert connection._queue is None


@on_loop
async def test_what_was_refused_lingers_only_for_a_moment(stub: Stub, monkeypatch):
    server = fake_server(stub)
    client = FakeClient(server)
    await client.send(b"garbage\r\n\r\n")
    assert client.transport.eof and not client.transport.closed
    await client.send(b"more" * 1000)
    await pass_time(server, module.LINGER_SECONDS + 1, monkeypatch)
    assert client.transport.aborted and len(client.replies()) == 1


@on_loop
async def test_the_sweep_goes_on_though_one_connection_fails(stub: Stub, monkeypatch):
    server = fake_server(stub)
    FakeClient(server)
    monkeypatch.setattr(Connection, "expire", lambda _: 1 / 0)
    before = server._sweeper
    with pytest.raises(ZeroDivisionError):
        await pass_time(server, 100, monkeypatch)
    assert server._sweeper is not before


# Clients that go.


@pytest.mark.parametrize("number", [1, 3])
@on_loop
async def test_a_client_that_has_closed_its_half_gets_its_answers(stub: Stub, number: int):
    async with Running(stub) as running, running.client() as client:
        await client.send(request("POST", "/late", b"x") * number)
        client.send_end()
        for _ in range(number):
            while not stub.late:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.005)
            stub.answer_late()
        found = replies(await client.rest())
        assert [reply.status for reply in found] == [200] * number
        assert "connection" not in found[0].headers or number == 1


@on_loop
async def test_half_closed_in_the_middle_of_a_request_those_before_it_are_answered(stub: Stub):
    async with Running(stub) as running, running.client() as client:
        await client.send(request("GET", "/late") + request("POST", "/echo", b"cut off")[:-2])
        client.send_end()
        while not stub.late:
            await asyncio.sleep(0.001)
        while running.server.buffered:  # until it is known that the rest does not come
            await asyncio.sleep(0.001)
        stub.answer_late()
        (reply,) = replies(await client.rest())
        assert (reply.json["path"], reply.headers["connection"]) == ("/late", "close")
        assert [each.path for each in stub.handled] == ["/late"]


@on_loop
async def test_half_closed_before_a_whole_request_there_is_nothing_to_answer(stub: Stub):
    async with Running(stub) as running:
        for part in (b"", GET[:10], request("POST", "/echo", b"body")[:-1]):
            async with running.client() as client:
                await client.send(part)
                client.send_end()
                assert await client.rest() == b""


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("sent", [request("POST", "/late", b"x"), request("POST", "/late", b"xyz")[:-1]])
@on_loop
async def test_a_client_that_goes_leaves_nothing_behind(stub: Stub, sent: bytes, reset: bool):
    async with Running(stub) as running:
        async with running.client() as client:
            await client.send(sent)
            while not running.server.buffered:
                await asyncio.sleep(0.001)
            if reset:
                client._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        while running.server.connections and not (stub.late and not reset):
            await asyncio.sleep(0.001)
        for late in stub.late:
            late.respond(echo(late))  # to nobody, at any time
        while running.server.connections:
            await asyncio.sleep(0.001)
        assert running.server.buffered == 0


STEPS = st.lists(
    st.sampled_from(
        [
            "whole",
            "part",
            "rest",
            "chunks",
            "late",
            "answer",
            "garbage",
            "end",
            "lost",
            "expire",
            "stuck",
            "free",
        ]
    ),
    max_size=14,
)


async def account(steps: list[str], limit: int) -> None:
    stub = Stub()
    server = fake_server(stub)
    clients = [FakeClient(server), FakeClient(server)]
    gone: set[int] = set()
    for number, step in enumerate(steps):
        at = number % 2
        client = clients[at]
        if at in gone:
            continue
        data = {
            "whole": request("POST", "/echo", b"x" * 50),
            "part": request("POST", "/echo", b"x" * 50)[:-20],
            "rest": b"x" * 20,
            "chunks": chunked("POST", "/late", [b"x" * 60] * 3),
            "late": request("POST", "/late", b"x" * 70),
            "garbage": b"\x00\x01\r\n\r\n",
        }.get(step)
        if data is not None and not client.transport.closed and not client.transport.reading_paused:
            client.connection.data_received(data)
        elif step == "answer" and stub.late:
            stub.answer_late()
        elif step == "end" and not client.transport.closed:
            client.end()
        elif step == "lost":
            client.lost()
            gone.add(at)
        elif step == "expire":
            client.connection.expire()
        elif step == "stuck" and not client.connection._stuck:
            client.connection.pause_writing()
        elif step == "free" and client.connection._stuck:
            client.connection.resume_writing()
        await asyncio.sleep(0)
        held = [
            request._size
            for each in clients
            for request in (
                each.connection._incoming,
                each.connection._active,
                *(each.connection._queue or ()),
            )
            if request is not None
        ]
        assert server.buffered == sum(held) <= limit
    for at, client in enumerate(clients):
        replies_of_any(client)
        if at not in gone:
            client.lost()
    assert server.buffered == 0 and not server.connections


def replies_of_any(client: FakeClient) -> list[Reply]:
    found = client.replies()
    assert all(reply.headers.get("connection") != "close" for reply in found[:-1]), "an answer after the last"
    return found


@settings(max_examples=400)
@given(STEPS)
def test_the_account_of_what_is_buffered_is_right_whatever_happens(runner, steps: list[str]):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_BODY", 150)
        patch.setattr(module, "MAX_BUFFERED", 300)
        runner.run(account(steps, 300))


# Errors, and the number of a request.


@pytest.mark.parametrize("path", ["/raise", "/admit-raises"])
@on_loop
async def test_an_error_of_the_application_is_logged_and_told_by_its_number_only(
    stub: Stub, caplog, path: str
):
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", path, headers={"X-Request-ID": "mine-1"}))
    (reply,) = client.replies()
    assert reply.status == 500
    assert reply.json == {"error": "internal error", "request": "mine-1"}
    assert b"secret" not in client.transport.written and b"Traceback" not in client.transport.written
    (record,) = caplog.records
    assert record.fields == {"request": "mine-1", "path": path, "method": "GET"}
    assert "secret detail" in caplog.text


@on_loop
async def test_after_an_error_of_a_handler_the_connection_serves_on(stub: Stub, caplog):
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", "/raise") + GET)
    assert [reply.status for reply in client.replies()] == [500, 200]


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("close", [True, False])
@on_loop
async def test_an_error_while_counting_an_answer_harms_nobody(stub: Stub, caplog, late: bool, close: bool):
    client = FakeClient(fake_server(stub))
    headers = {"Connection": "close"} if close else {}
    await client.send(
        (request("GET", "/late") if late else b"") + request("GET", "/answered-raises", b"", headers)
    )
    if late:
        stub.answer_late()
        await settle()
    assert [reply.status for reply in client.replies()] == [200] * (1 + late)
    assert "secret detail" in caplog.text
    assert client.ended == close and client.connection.deadline < float("inf")


@on_loop
async def test_the_application_is_told_of_every_answer(stub: Stub):
    server = fake_server(stub)
    await FakeClient(server).send(
        GET + request("GET", "/nothing") + request("GET", "/raise") + b"garbage\r\n"
    )
    assert stub.told == [200, 404, 500, 400]


@pytest.mark.parametrize("given_id", ["a", "A-1_b", "0" * 128, "4bf92f3577b34da6a3ce929d0e0e4736"])
@on_loop
async def test_the_client_s_number_of_a_request_is_kept(stub: Stub, given_id: str):
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", "/echo", headers={"X-Request-ID": given_id}))
    assert client.replies()[0].headers["x-request-id"] == given_id


@pytest.mark.parametrize("given_id", ["", "-", "a b", "a;b", "é", "0" * 129, "a, b", "<script>", '"', "a\tb"])
@on_loop
async def test_a_number_that_could_be_anything_is_not(stub: Stub, given_id: str):
    client = FakeClient(fake_server(stub))
    await client.send(request("GET", "/echo", headers={"X-Request-ID": given_id}))
    found = client.replies()[0].headers["x-request-id"]
    assert found != given_id and found.replace("-", "").isalnum()


@given(st.binary(max_size=40))
def test_no_number_of_a_request_puts_a_header_into_the_answer(runner, given_id: bytes):
    async def ask() -> None:
        client = FakeClient(fake_server(Stub()))
        await client.send(b"GET /echo HTTP/1.1\r\nHost: a\r\nX-Request-ID: " + given_id + b"\r\n\r\n")
        for reply in client.replies():
            assert reply.headers.keys() <= {
                *("content-type", "content-length", "date", "x-content-type-options", "x-request-id"),
                *("cache-control", "connection"),
            }

    runner.run(ask())


def test_each_process_gives_numbers_of_its_own():
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, messages._process)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 100) != messages._process
    os.close(read)
    os.close(write)


@on_loop
async def test_each_request_has_a_number_of_its_own(stub: Stub):
    client = FakeClient(fake_server(stub))
    await client.send(GET * 100)
    assert len({reply.headers["x-request-id"] for reply in client.replies()}) == 100


# TLS.


@on_loop
async def test_over_tls_it_is_the_same(stub: Stub, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BODY", 1_000_000)
    pair = write(Pair(tmp_path / "tls.crt", tmp_path / "tls.key"))
    trusting = ssl.create_default_context(cafile=pair.certificate)
    async with Running(stub, context(*pair)) as running:

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection(*running.address, ssl=trusting, server_hostname="localhost")

        reader, writer = await connect()
        writer.write(request("GET", "/late") + request("POST", "/echo", b"x" * 500_000) + GET)
        while not stub.late:
            await asyncio.sleep(0.001)
        stub.answer_late()
        writer.write(request("GET", "/echo", headers={"Connection": "close"}))
        found = replies(await reader.read())
        assert [reply.json["path"] for reply in found] == ["/late", "/echo", "/echo", "/echo"]
        writer.close()

        reader, writer = await connect()
        writer.write(request("POST", "/echo", b"x" * 3_000_000))
        (refused,) = replies(await reader.read())
        assert refused.status == 413
        writer.close()

        _, writer = await connect()  # and one that goes in the middle
        writer.write(request("POST", "/late", b"x"))
        while not stub.late:
            await asyncio.sleep(0.001)
        writer.transport.abort()
        stub.answer_late()
        while running.server.connections:
            await asyncio.sleep(0.001)
        assert running.server.buffered == 0


# The end.


def ending(running: Running, seconds: float, quiet: float) -> asyncio.Task[None]:
    running.server.patience = Patience(seconds, quiet)
    return asyncio.create_task(running.server.stop())


@on_loop
async def test_draining_answers_each_connection_once_more(stub: Stub):
    async with Running(stub) as running, running.client() as idle, running.client() as busy:
        assert (await idle.ask(GET)).status == 200
        await busy.send(request("GET", "/late"))
        while not stub.late:
            await asyncio.sleep(0.001)
        stopping = ending(running, 60, 60)
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            async with running.client():
                pass
        last = await idle.ask(GET)
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert await idle.rest() == b""
        assert not stopping.done()
        stub.answer_late()
        last = await busy.reply()
        assert (last.status, last.headers["connection"]) == (200, "close")
        await stopping
        assert not running.server.connections


@on_loop
async def test_what_waits_to_be_accepted_when_it_ends_is_answered_too(stub: Stub):
    """Closing a listener resets the connections that wait in its queue."""
    async with Running(stub) as running:
        waiting = [socket.create_connection(running.address) for _ in range(20)]
        for client in waiting:
            client.sendall(GET)
        await ending(running, 10, 0.1)
        for client in waiting:
            with client:
                (reply,) = replies(b"".join(iter(lambda: client.recv(1 << 16), b"")))  # noqa: B023
            assert (reply.status, reply.headers["connection"]) == (200, "close")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(running.address)


@on_loop
async def test_a_quiet_moment_ends_draining_though_idle_connections_stay(stub: Stub):
    async with Running(stub) as running, running.client() as idle:
        assert (await idle.ask(GET)).status == 200
        await ending(running, 5, 0.05)
        assert await idle.rest() == b""


@on_loop
async def test_the_quiet_begins_with_the_last_request(stub: Stub):
    async with Running(stub) as running, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(running.client()) for _ in range(4)]
        for client in clients:
            assert (await client.ask(GET)).status == 200
        stopping = ending(running, 10, 0.3)
        for client in clients:
            await asyncio.sleep(0.2)
            assert (await client.ask(GET)).headers["connection"] == "close"
        await stopping


@on_loop
async def test_after_a_handover_idle_connections_have_until_the_end(stub: Stub):
    async with Running(stub) as running, running.client() as idle:
        assert (await idle.ask(GET)).status == 200
        stopping = ending(running, 60, float("inf"))
        await asyncio.sleep(0.2)
        last = await idle.ask(GET)
        assert (last.status, last.headers["connection"]) == (200, "close")
        await stopping


@on_loop
async def test_patience_may_end_while_it_is_used(stub: Stub):
    async with Running(stub) as running, running.client() as idle:
        assert (await idle.ask(GET)).status == 200
        stopping = ending(running, 60, float("inf"))
        await asyncio.sleep(0.05)
        running.server.patience = Patience(5, 0.01)
        await stopping
        assert await idle.rest() == b""


@on_loop
async def test_what_takes_longer_than_there_is_time_is_cut_off(stub: Stub):
    async with Running(stub) as running, running.client() as busy:
        await busy.send(request("GET", "/late"))
        while not stub.late:
            await asyncio.sleep(0.001)
        await ending(running, 0.05, 0)
        stub.answer_late()  # to nobody
        assert await busy.rest() == b""


@on_loop
async def test_a_hundred_clients_at_once_get_each_their_own(stub: Stub):
    async with Running(stub) as running:

        async def use(number: int) -> None:
            async with running.client() as client:
                for turn in range(20):
                    body = b"%d/%d" % (number, turn)
                    sent = (
                        request("POST", "/echo", body) if turn % 2 else chunked("POST", "/echo", [body, b"!"])
                    )
                    assert (await client.ask(sent)).json["body"].rstrip("!") == body.decode()

        await asyncio.gather(*(use(number) for number in range(100)))
        while running.server.connections:
            await asyncio.sleep(0.001)
        assert running.server.buffered == 0
