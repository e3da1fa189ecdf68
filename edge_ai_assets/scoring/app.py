"""The service's paths: which request is let in, what it leads to, and which status an error becomes.

Sockets are `http`'s, what a body means is `requests`' and its siblings', the way to a durable score is
`scorer`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from edge_ai_assets.returns.outbox.outbox import OutboxError
from edge_ai_assets.scoring import answers, docs_page, gate, openapi, requests, static
from edge_ai_assets.scoring.answers import Answer, Head
from edge_ai_assets.scoring.bodies import csv_body, json_body, oip
from edge_ai_assets.scoring.bodies.encoding import decoded, encoded
from edge_ai_assets.scoring.bodies.json_body import JsonReader
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.scoring.gate import Handler, Route, failure
from edge_ai_assets.scoring.http import MAX_BODY
from edge_ai_assets.scoring.lease import MOUNTED, Lease
from edge_ai_assets.scoring.messages import Request, Response, error
from edge_ai_assets.scoring.metrics import OTHER, Metrics
from edge_ai_assets.scoring.model import Model
from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.requests import FeedbackItem, Rows
from edge_ai_assets.scoring.scorer import Repeated, Scorer, Work
from edge_ai_assets.scoring.standing import Release, Standing
from edge_ai_assets.scoring.writer import Writer

if TYPE_CHECKING:
    from edge_ai_assets.returns.outbox.schema import Receipt

T = TypeVar("T")

MAX_KEY = 200
SMALL_BODY = 16 * 1024
"""Bodies below this size are scored on the event loop, with others; above it in a thread."""
PLAIN_BODY = 256 * 1024
"""Plain bodies up to this size become some ten times as much in memory, and are large to nobody."""
LARGE_AT_ONCE = 4
"""Large requests that are more than their body at once: one is read, two are scored, one is answered. The
others wait as they came: a body of a kilobyte can be a hundred thousand rows."""
SMALL_ANSWER = 2_000
"""Rows, as columns, of which an answer is written on the event loop: it takes less than changing threads."""
JSON = b"application/json"
CSV = b"text/csv"
ARROW = b"application/vnd.apache.arrow.stream"
SCORES = frozenset({"score"})
"""What a caller needs to have something scored."""
EVERY_ROLE = frozenset({"score", "feedback", "operate"})


class App:
    """The application of one site.

    Args:
        releases: the first is what /v1 serves; the Open Inference Protocol serves each by its number.
        writer: writes before an answer goes out.
        site: its name stands in the ids of scores.
        guarded: whether some of those who come in are asked for a token; for the documentation.
        metrics: counts.
    """

    def __init__(
        self,
        releases: Sequence[Release],
        writer: Writer,
        *,
        site: str,
        metrics: Metrics,
        guarded: bool = False,
    ) -> None:
        self._releases, self._writer, self._site = releases, writer, site
        self._metrics, self._guarded = metrics, guarded
        self._parses = ThreadPoolExecutor(1, thread_name_prefix="large-bodies")
        self._turns = asyncio.Semaphore(LARGE_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: dict[object, int] = {}
        self._versions = {each.digest: str(each.version) for each in releases}
        self._scorers = [Scorer(each.model, each.digest, writer, metrics) for each in releases]
        self._lease = Lease(writer.path.parent, MOUNTED)
        self._standing = Standing(site, releases[0], writer.path, metrics, self._lease, self._waiting)
        self._contract = releases[0].model.contract
        self._json = JsonReader(self._contract)
        name = msgspec.json.encode(site)[1:-1]
        self._by_records, self._by_records_alone = answers.by_records(name), answers.by_records(name)
        self._routes = self._paths()
        self._numbers = metrics.routes(sorted({r.name for of in self._routes.values() for r in of.values()}))

    def _paths(self) -> dict[str, dict[str, Route]]:
        current = self._releases[0]
        reads, scores = EVERY_ROLE, SCORES
        described = {"release": current.digest, "version": current.version, **_described(current.model)}
        document = openapi.document(
            self._contract, release=current.digest, version=current.version, tokens=self._guarded
        )
        routes = {
            "/v1/score": {"POST": Route(self._score, "score", scores, frozenset({b"", JSON, CSV, ARROW}))},
            "/v1/feedback": {
                "POST": Route(
                    self._feedback, "feedback", frozenset({"feedback"}), frozenset({b"", JSON, CSV})
                )
            },
            "/v1/contract": _get(_fixed(_json(described)), "contract", reads),
            "/v1/status": _get(self._standing.status, "status", reads),
            "/v1/recent": _get(self._standing.recent, "recent", reads),
            "/metrics": _get(self._standing.metrics, "metrics", frozenset({"operate"})),
            "/health/live": _get(_fixed(Response(200, b'{"status":"live"}')), "health"),
            "/health/ready": _get(partial(self._if_ready, Response(200, b'{"status":"ready"}')), "health"),
            "/openapi.json": _get(_fixed(_json(document)), "page", reads),
        }
        for path, asset in (static.assets() | {docs_page.STYLE: docs_page.style()}).items():
            routes[path] = _get(partial(_asset, asset), "page")
        pages = docs_page.page(document), docs_page.page(openapi.outline())
        routes["/docs"] = _get(partial(_docs, *pages), "page")
        return routes | self._inference_paths(reads, scores)

    def _inference_paths(self, reads: frozenset[str], scores: frozenset[str]) -> dict[str, dict[str, Route]]:
        """The Open Inference Protocol's: each release by its number, the first also without one."""
        alive = _json(oip.server_health(ready=True))
        routes = {
            "/v2": _get(_fixed(_json(oip.server_metadata())), "inference", reads),
            "/v2/": _get(_fixed(_json(oip.server_metadata())), "inference", reads),
            "/v2/health/live": _get(_fixed(alive), "health"),
            "/v2/health/ready": _get(partial(self._if_ready, alive), "health"),
        }
        for scorer, release in zip(self._scorers, self._releases, strict=True):
            name = release.model.contract.usecase
            same = [str(each.version) for each in self._releases if each.model.contract.usecase == name]
            metadata = _json(oip.model_metadata(release.model.contract, versions=same))
            ready = _json(oip.model_ready(release.model.contract, ready=True))
            infer = Route(partial(self._infer, scorer, str(release.version)), "inference", scores)
            for path in (f"/v2/models/{name}/versions/{release.version}", f"/v2/models/{name}"):
                routes.setdefault(path, _get(_fixed(metadata), "inference", reads))
                routes.setdefault(f"{path}/ready", _get(partial(self._if_ready, ready), "health"))
                routes.setdefault(f"{path}/infer", {"POST": infer})
        return routes

    # What the server calls.

    def admit(self, request: Request) -> Response | None:
        refusal = gate.admit(self._routes, request)
        if refusal is None and request.route.roles == SCORES and (why := self._lease.ended()):
            return error(503, why, (b"retry-after", b"60"))
        return refusal

    def handle(self, request: Request) -> None:
        result = request.route.handle(request)
        if isinstance(result, Response):
            request.respond(result)
        elif result is not None:
            task = asyncio.get_running_loop().create_task(self._finish(request, result))
            self._tasks.add(task)  # the loop itself keeps no reference
            task.add_done_callback(self._tasks.discard)

    def answered(self, request: Request | None, response: Response) -> None:
        if request is None:  # nobody could tell what was asked
            self._metrics.answered(self._numbers[OTHER], response.status, 0.0)
            return
        number = self._numbers[OTHER if request.route is None else request.route.name]
        self._metrics.answered(number, response.status, time.perf_counter() - request.began)

    def connected(self, server: object, connections: int) -> None:
        self._connections[server] = connections
        self._metrics.connected(sum(self._connections.values()))

    async def _finish(self, request: Request, answering: Coroutine[Any, Any, Response]) -> None:
        try:
            response = await answering
        except Exception as problem:
            response = failure(request, problem)
        request.respond(response)

    def _waiting(self) -> int:
        """Bytes of large bodies that are not scored yet."""
        return sum(scorer.waiting for scorer in self._scorers)

    def close(self) -> None:
        for scorer in self._scorers:
            scorer.close()
        self._standing.close()
        self._parses.shutdown()

    # Scores.

    def _score(self, request: Request) -> Response | Coroutine[Any, Any, Response] | None:
        headers = request.headers
        if (
            len(request.body) > SMALL_BODY
            or b"idempotency-key" in headers
            or b"content-encoding" in headers
            or request.kind not in (b"", JSON)
        ):
            return self._score_alone(request)
        try:
            rows = self._json.read(request.body)
        except Refused as refusal:
            return error(refusal.status, str(refusal))
        self._scorers[0].submit(Work(rows, partial(self._scored, request, rows.columnar)))
        return None

    def _scored(self, request: Request, columnar: bool, outcome: Answer | Exception) -> None:
        if isinstance(outcome, Exception):
            request.respond(failure(request, outcome))
        elif columnar:
            request.respond(Response(200, answers.by_columns(self._site, outcome)))
        else:
            request.respond(Response(200, self._by_records(outcome)))

    async def _score_alone(self, request: Request) -> Response:
        """A request that is large, may have come before, or is no plain JSON."""
        kind, key = request.kind, _key(request)
        read = partial(self._read_rows, request, kind)
        with self._scorers[0].holding(len(request.body)):
            async with self._turn(request):
                rows, answer = await self._once(self._scorers[0], read, key)
                table = kind == CSV and CSV in request.headers.get(b"accept", b"")
                write = partial(self._answer, answer, table, rows.columnar)
                if rows.columnar and not table and rows.number <= SMALL_ANSWER:
                    return write()
                return await self._in(self._parses, write)

    def _turn(self, request: Request) -> AbstractAsyncContextManager[Any]:
        """What a request waits for that may take much memory.

        Not a plain body without a key: it is nothing more before it is in one of a few threads. Unless it is
        large, or a table whose size its bytes do not tell.
        """
        headers, size = request.headers, len(request.body)
        plain = b"content-encoding" not in headers and request.kind != ARROW
        most = SMALL_BODY if b"idempotency-key" in headers else PLAIN_BODY
        return nullcontext() if plain and size <= most else self._turns

    def _answer(self, answer: Answer, table: bool, columnar: bool) -> Response:
        if table:
            body = csv_body.answer(self._site, answer.first, *_arrays(answer))
            return Response(200, body, b"text/csv; charset=utf-8", _head(answer))
        if columnar:
            return Response(200, answers.by_columns(self._site, answer))
        return Response(200, self._by_records_alone(answer))

    def _read_rows(self, request: Request, kind: bytes) -> Rows:
        began = time.perf_counter()
        body = _body(request)
        if kind == CSV:
            columns, context = csv_body.columns(body, self._contract)
            rows = requests.of_columns(columns, context, self._contract)._replace(columnar=True)
        elif kind == ARROW:
            from edge_ai_assets.scoring.bodies import arrow_body

            columns, context = arrow_body.columns(body, self._contract)
            rows = requests.of_columns(columns, context, self._contract)._replace(columnar=True)
        else:
            rows = self._json.read(body)
        self._metrics.parsed(time.perf_counter() - began)
        return rows

    async def _once(self, scorer: Scorer, read: Callable[[], Rows], key: str | None) -> tuple[Rows, Answer]:
        """Score rows; those of a key that is known are answered from what was written then."""
        if key is None:
            return await scorer.score(read)
        rows, fingerprint = await self._in(self._parses, partial(_known_by, read, scorer.model.contract))
        seen = await self._standing.read(lambda outbox: outbox.find(key, fingerprint))
        if seen is None:
            try:
                return await scorer.score(lambda: rows, key=key, fingerprint=fingerprint)
            except Repeated as repeated:  # by a request that was on its way beside this one
                seen = repeated.receipt
        return rows, await self._repeat(key, seen)

    async def _repeat(self, key: str, receipt: Receipt) -> Answer:
        if not receipt.same:
            raise Refused(
                422, f"Idempotency-Key {key!r} was used before, for another request; use a new key for this"
            )
        last = receipt.first + receipt.rows - 1
        rows = await self._standing.read(lambda outbox: outbox.rows(receipt.first, last))
        scores = [row.score for row in rows if row.score is not None]  # None: its block cannot be read
        if len(scores) != receipt.rows:
            raise Refused(410, f"the scores of Idempotency-Key {key!r} are no longer kept")
        thresholds = {each.digest: each.model.contract.threshold for each in self._releases}
        head = Head(rows[0].release, rows[0].scored_at, thresholds.get(rows[0].release), repeated=True)
        return Answer(
            receipt.first,
            scores,
            [bool(row.predicted) for row in rows],
            [bool(row.outside) for row in rows],
            head,
        )

    async def _infer(self, scorer: Scorer, version: str, request: Request) -> Response:
        contract = scorer.model.contract
        asked: list[oip.Infer] = []

        def read() -> Rows:
            began = time.perf_counter()
            asked.append(oip.infer(request.headers, _body(request), contract))
            rows = requests.of_columns(asked[0].columns, asked[0].context, contract)
            self._metrics.parsed(time.perf_counter() - began)
            return rows

        with scorer.holding(len(request.body)):
            async with self._turn(request):
                _, answer = await self._once(scorer, read, _key(request))
                if answer.head.release != scorer.release:  # it was answered before the release changed
                    version = self._versions.get(answer.head.release, version)
                write = partial(self._tensors, asked[0], contract, version, answer, request)
                return await self._in(self._parses, write)

    def _tensors(
        self, infer: oip.Infer, contract: Contract, version: str, answer: Answer, request: Request
    ) -> Response:
        scores, predicted, outside = _arrays(answer)
        response = oip.answer(
            infer,
            model=contract.usecase,
            version=version,
            site=self._site,
            first=answer.first,
            scores=scores,
            predicted=predicted,
            outside=outside,
        )
        body, encoding = encoded(response.body, request.headers.get(b"accept-encoding", b""))
        if encoding is None:
            return response
        headers = (*response.headers, (b"content-encoding", encoding), (b"vary", b"accept-encoding"))
        return response._replace(body=body, headers=headers)

    # Feedback.

    async def _feedback(self, request: Request) -> Response:
        with self._scorers[0].holding(len(request.body)):
            items = await self._in(self._parses, partial(_read_feedback, request))
        role = request.caller.name if request.caller else None
        said = requests.feedback(self._site, items, time.time_ns() // 1000, role)
        try:
            self._writer.run(lambda outbox: outbox.add_feedback(said))
        except OutboxError as problem:  # the only thing it refuses is a score that is not there
            raise Refused(404, f"site {self._site}: {problem}") from problem
        return _json({"accepted": len(said)})

    def _if_ready(self, said: Response, request: Request) -> Response:
        failure = self._writer.failure
        return said if failure is None else error(503, failure, (b"retry-after", b"1"))

    # Threads.

    async def _in(self, threads: ThreadPoolExecutor, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, job)


def _get(handler: Handler, name: str, roles: frozenset[str] = frozenset()) -> dict[str, Route]:
    route = Route(handler, name, roles)
    return {"GET": route, "HEAD": route}


def _fixed(response: Response) -> Handler:
    return lambda request: response


def _asset(asset: Response, request: Request) -> Response:
    """A file of the page, or only that it has not changed."""
    tag = next((value for name, value in asset.headers if name == b"etag"), None)
    if tag is not None and request.headers.get(b"if-none-match") == tag:
        return asset._replace(status=304)  # `http` leaves the body out and says its length
    return asset


def _docs(whole: Response, to_strangers: Response, request: Request) -> Response:
    """The page about the service: it tells of the contract only whom `/v1/contract` does."""
    return _asset(whole if gate.stranger(request, EVERY_ROLE) is None else to_strangers, request)


def _body(request: Request) -> bytes:
    """The body, its encoding undone; in a thread, since that may take a while."""
    encoding = request.headers.get(b"content-encoding")
    return request.body if encoding is None else decoded(request.body, encoding, MAX_BODY)


def _known_by(read: Callable[[], Rows], contract: Contract) -> tuple[Rows, bytes]:
    """Rows, and what a request that comes again is known by."""
    rows = read()
    return rows, requests.fingerprint(rows, contract)


def _read_feedback(request: Request) -> list[FeedbackItem]:
    body = _body(request)
    return csv_body.feedback(body) if request.kind == CSV else json_body.feedback(body)


def _arrays(answer: Answer) -> tuple[Any, Any, Any]:
    """Scores in float32, labels and marks, shape (n,) each."""
    return np.array(answer.scores, np.float32), np.array(answer.predicted), np.array(answer.outside)


def _head(answer: Answer) -> tuple[tuple[bytes, bytes], ...]:
    """What a table has no place for."""
    release = (b"x-release", answer.head.release.encode())
    if answer.head.threshold is None:
        return (release,)
    return release, (b"x-threshold", repr(answer.head.threshold).encode())


def _key(request: Request) -> str | None:
    value = request.headers.get(b"idempotency-key")
    if value is None:
        return None
    if not 0 < len(value) <= MAX_KEY or not all(32 <= byte < 127 for byte in value):
        raise Refused(422, f"Idempotency-Key must have 1 to {MAX_KEY} printable ASCII characters")
    return str(value, "ascii")


def _described(model: Model) -> dict[str, Any]:
    contract = model.contract
    return {
        "usecase": contract.usecase,
        "label": contract.label,
        "threshold": contract.threshold,
        "inputs": contract.inputs,
    }


def _json(value: Any) -> Response:
    return Response(200, msgspec.json.encode(value))
