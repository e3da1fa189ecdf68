"""From the bytes of a request to what is written, and from what was written to the bytes of the answer.

Pure: no server, no disk, no clock. Which path leads here, and what surrounds a body, is `app`'s work.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import msgspec

from edge_ai_assets.returns.outbox import Batch, Feedback
from edge_ai_assets.scoring.contract import Contract, ContractError
from edge_ai_assets.scoring.model import Model, ModelError
from edge_ai_assets.scoring.records import CONTEXT, encode

if TYPE_CHECKING:
    from edge_ai_assets.returns.outbox import Receipt, ScoreRow

T = TypeVar("T")
MAX_ROWS = 100_000
MAX_FEEDBACK = 10_000
EPOCH = datetime(1970, 1, 1)

_encoder = msgspec.json.Encoder()


class Refused(ValueError):
    """A request that is answered with `status` and this message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Context(msgspec.Struct, forbid_unknown_fields=True, rename="_{}".format):
    """What a row belongs to, one value a row; no input of the model."""

    time: list[Any] | None = None
    run: list[Any] | None = None
    row: list[Any] | None = None


class ScoreBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/score: either records or columns."""

    records: list[dict[str, Any]] | None = None
    columns: dict[str, list[Any]] | None = None
    context: Context | None = None


class FeedbackItem(msgspec.Struct, forbid_unknown_fields=True):
    id: Annotated[str, msgspec.Meta(max_length=100)]
    correct: bool
    note: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    role: Annotated[str, msgspec.Meta(max_length=40)] = ""


class FeedbackBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/feedback."""

    items: list[FeedbackItem]


class Scored(NamedTuple):
    """A request that is scored but not yet written."""

    batch: Batch
    columnar: bool
    """Whether it came by columns, and is answered so."""


def decode(body: bytes, kind: type[T]) -> T:
    """A JSON body as the type it must have.

    Raises:
        Refused: 400 if it is no JSON, 422 if it is another type; the message says where.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Refused(422, f"the body does not fit: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, f"the body is no JSON in UTF-8: {error}") from error
    except RecursionError as error:
        raise Refused(400, "the body is nested too deeply") from error


def score(model: Model, release: str, body: bytes, key: str | None, now: int) -> Scored:
    """Check and score the body of a request.

    Args:
        model: what scores.
        release: its release's digest, kept with each row.
        body: JSON as in ScoreBody.
        key: idempotency key.
        now: µs since 1970, UTC.

    Raises:
        Refused: 400 no JSON; 413 too many rows; 422 the contract refuses it: row, field and bound are named.
    """
    request = decode(body, ScoreBody)
    if (request.records is None) == (request.columns is None):
        raise Refused(422, "the body must have exactly one of records and columns")
    if request.records is not None:
        if request.context is not None:
            raise Refused(422, "context goes with columns; a record has its _time, _run and _row in itself")
        rows = len(request.records)
        _limit(rows, "records")
        columns, given = _columns(request.records, model.contract)
    else:
        assert request.columns is not None
        columns = request.columns
        context = request.context or Context()
        given = {name: values for name in CONTEXT if (values := getattr(context, name[1:])) is not None}
        rows = max(map(len, columns.values()), default=0)
        _limit(rows, "columns")
    if wrong := [name for name, values in given.items() if len(values) != rows]:
        raise Refused(422, f"context {wrong[0]!r} has {len(given[wrong[0]])} values for {rows} rows")
    try:
        matrix = model.contract.encode(columns)
        scores = model.score(matrix)
        records = encode(columns, given)
    except (ContractError, ModelError) as error:
        raise Refused(422, str(error)) from error
    batch = Batch(
        key=key,
        release=release,
        scored_at=now,
        scores=scores.tolist(),
        predicted=model.predicted(scores).tolist(),
        outside=model.contract.outside(matrix).tolist(),
        records=records,
    )
    return Scored(batch, columnar=request.columns is not None)


def answer(site: str, threshold: float, scored: Scored, receipt: Receipt) -> bytes:
    """The answer to a request that was just written."""
    batch = scored.batch
    head = {"release": batch.release, "scored_at": time_text(batch.scored_at), "threshold": threshold}
    return _answer(site, head, scored.columnar, receipt.first, batch.scores, batch.predicted, batch.outside)


def repeat(
    site: str, release: str, threshold: float, scored: Scored, receipt: Receipt, rows: Sequence[ScoreRow]
) -> bytes:
    """The answer to a request whose key was seen before, from what was written then.

    The threshold is null if another release scored it then: only the release's own contract knows it.

    Raises:
        Refused: 422 if the key came with other records then, 410 if they are no longer kept.
    """
    key = scored.batch.key
    if len(rows) != receipt.rows:
        raise Refused(410, f"the scores of Idempotency-Key {key!r} are no longer kept")
    if [row.record for row in rows] != list(scored.batch.records):
        raise Refused(
            422, f"Idempotency-Key {key!r} was used before, for other records; use a new key for these"
        )
    same = rows[0].release == release
    head = {
        "release": rows[0].release,
        "scored_at": time_text(rows[0].scored_at),
        "threshold": threshold if same else None,
        "repeated": True,
    }
    scores = [row.score for row in rows]
    predicted, outside = [bool(row.predicted) for row in rows], [bool(row.outside) for row in rows]
    return _answer(site, head, scored.columnar, receipt.first, scores, predicted, outside)


def feedback(site: str, body: bytes, now: int) -> list[Feedback]:
    """Check the body of a request with feedback.

    Raises:
        Refused: 400 no JSON; 404 an id that is none of this site; 413 too many items; 422 anything else.
    """
    items = decode(body, FeedbackBody).items
    if not items:
        raise Refused(422, "items is empty")
    if len(items) > MAX_FEEDBACK:
        raise Refused(
            413, f"{len(items)} items are too many for one request, at most {MAX_FEEDBACK} are taken"
        )
    result = []
    for item in items:
        owner, _, number = item.id.rpartition("/")
        if owner != site or not number.isascii() or not number.isdecimal() or len(number) > 18:
            raise Refused(404, f"there is no score {item.id!r} on this site; an id is {site}/NUMBER")
        result.append(Feedback(int(number), item.correct, item.note, item.role, now))
    return result


def time_text(microseconds: int) -> str:
    """µs since 1970, UTC, in ISO 8601."""
    return (EPOCH + timedelta(microseconds=microseconds)).isoformat() + "Z"


def _limit(rows: int, what: str) -> None:
    if not rows:
        raise Refused(422, f"{what} holds no row")
    if rows > MAX_ROWS:
        raise Refused(413, f"{rows} rows are too many for one request, at most {MAX_ROWS} are taken")


def _columns(
    records: list[dict[str, Any]], contract: Contract
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Records as columns of inputs and of context. A derived input may be absent from some records."""
    names = dict.fromkeys(chain.from_iterable(records))
    known = {item.name for item in contract.inputs}
    # Before any column is made: as many made-up names as records would need the square of memory.
    if unknown := next((name for name in names if name not in known and name not in CONTEXT), None):
        raise Refused(422, f"field {unknown[:200]!r} is not an input of this model")
    inputs = {name: [record.get(name) for record in records] for name in names if name not in CONTEXT}
    given = {name: [record.get(name) for record in records] for name in CONTEXT if name in names}
    if any(len(record) != len(names) for record in records):
        for name in (item.name for item in contract.inputs if item.base == item.name and item.name in names):
            for row, record in enumerate(records):
                if name not in record:
                    raise Refused(
                        422, f"row {row}: field {name!r} is missing (null means it was not measured)"
                    )
    return inputs, given


def _answer(
    site: str,
    head: dict[str, Any],
    columnar: bool,
    first: int,
    scores: Sequence[float | None],
    predicted: Sequence[bool],
    outside: Sequence[bool],
) -> bytes:
    if columnar:
        body = {"first": f"{site}/{first}", "scores": scores, "predicted": predicted, "outside": outside}
        return _encoder.encode(head | body)
    results = [
        {"id": f"{site}/{first + row}", "score": score, "predicted": label, "outside": beyond}
        for row, (score, label, beyond) in enumerate(zip(scores, predicted, outside, strict=True))
    ]
    return _encoder.encode(head | {"results": results})
